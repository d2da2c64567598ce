"""Own images: what lies in folders and .npz files, read as they are served, and what is refused."""

import base64
import io
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kernorm import data
from kernorm.config import TrainConfig
from kernorm.datasets import cache, own, prepare
from kernorm.datasets.dataset import load
from kernorm.datasets.decode import decode_image, upright
from kernorm.datasets.folder import Reading, read_folder
from kernorm.datasets.npz import read_npz
from kernorm.errors import UsageError
from tests.builders import Page
from tests.photos import fill, picture


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos")


def test_a_folder_a_class_is_split_by_content(photos):
    arrays = read_folder(photos, "photos", Reading(test_size=0.3))
    assert arrays.labels == ("ant", "bee")
    assert (arrays.train_images.shape[1:], arrays.train_images.dtype) == ((12, 16, 3), np.uint8)
    assert len(arrays.train_labels) + len(arrays.test_labels) == 24
    # PNG keeps pixels: each is there, under its class.
    stored = {
        bytes(image.tobytes()): label for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)
    }
    stored |= {
        bytes(image.tobytes()): label for image, label in zip(arrays.test_images, arrays.test_labels, strict=True)
    }
    for place, name in enumerate(arrays.labels):
        for path in (photos / name).iterdir():
            assert stored[np.asarray(Image.open(path)).tobytes()] == place


def test_files_that_are_added_or_renamed_move_no_other_one(photos):
    first = read_folder(photos, "p", Reading(test_size=0.3))
    for path in sorted((photos / "ant").iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))
    for number in range(6):
        picture(9000 + number).save(photos / "bee" / f"new-{number}.png")
        picture(9000 + number).save(photos / "bee" / f"twin-{number}.png")
    second = read_folder(photos, "p", Reading(test_size=0.3))

    def held(images):
        return {image.tobytes() for image in images}

    assert held(first.train_images) <= held(second.train_images)
    assert held(first.test_images) <= held(second.test_images)
    assert not held(second.train_images) & held(second.test_images)  # equal images stay on one side


def test_given_splits_are_kept(tmp_path):
    root = tmp_path / "set"
    for place, part in enumerate(("train", "test", "valid")):
        fill(root / part, count=5, start=100 * place)
    arrays = read_folder(root, "set", Reading())
    assert (len(arrays.train_labels), len(arrays.test_labels), arrays.given_validation) == (20, 10, 10)
    valid = {np.asarray(Image.open(path)).tobytes() for path in (root / "valid").rglob("*.png")}
    assert {image.tobytes() for image in arrays.train_images[-10:]} == valid


def test_what_is_served_is_decoded_as_what_was_prepared(tmp_path):
    """The same function in a graph: the same pixels, and those of Keras' image utilities where these resize alike."""
    import tensorflow as tf

    root = fill(tmp_path / "set", count=8, kind="jpg", height=30, width=50)
    for resize in ("stretch", "crop", "pad"):
        arrays = read_folder(root, "set", Reading(image_size=(16, 16), resize=resize, test_size=0.4))
        graph = tf.function(lambda file, how=resize: decode_image(file, (16, 16, 3), how))
        served = {graph(path.read_bytes()).numpy().tobytes() for path in root.rglob("*.jpg")}
        prepared = {image.tobytes() for images in (arrays.train_images, arrays.test_images) for image in images}
        assert served == prepared
    file = next(root.rglob("*.jpg")).read_bytes()
    whole = tf.io.decode_jpeg(file).numpy().astype(np.float32)
    middle = whole[:, 10:40]
    for resize, source in (("stretch", whole), ("crop", middle)):
        wanted = np.round(tf.image.resize(source, (16, 16), antialias=True).numpy()).clip(0, 255)
        np.testing.assert_array_equal(decode_image(file, (16, 16, 3), resize), wanted)
    padded = decode_image(file, (16, 16, 3), "pad").numpy()
    assert not padded[:3].any()
    assert not padded[-3:].any()
    assert padded[4:12].any(axis=(1, 2)).all()


def test_grey_images_have_one_channel_unless_colour_is_asked_for(tmp_path):
    root = fill(tmp_path / "grey", mode="L")
    assert read_folder(root, "grey", Reading()).train_images.shape[-1] == 1
    assert read_folder(root, "grey", Reading(color="rgb")).train_images.shape[-1] == 3


def test_photos_are_turned_upright():
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6  # the camera was held on its side
    picture(1, 20, 30).save(file, "JPEG", exif=turned)
    stood = np.asarray(Image.open(io.BytesIO(upright(file.getvalue()))))
    np.testing.assert_array_equal(stood, np.rot90(np.asarray(Image.open(file)), -1))
    plain = io.BytesIO()
    picture(1).save(plain, "JPEG")
    assert upright(plain.getvalue()) is plain.getvalue() or upright(plain.getvalue()) == plain.getvalue()


@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_bmp_of_any_kind_is_read_as_the_same_png(tmp_path, mode, color):
    """TensorFlow takes places in a palette for pixels, and decodes no BMP to grey."""
    kinds = ("bmp", "png")
    for number, place in enumerate(("train/ant", "train/bee", "test/ant", "test/bee")):
        image = picture(number).convert(mode)
        if mode == "P":
            image.putpalette([value for value in range(255, -1, -1) for _ in range(3)])
        for kind in kinds:
            (tmp_path / kind / place).mkdir(parents=True)
            image.save(tmp_path / kind / place / f"{number}.{kind}")
    first, second = (read_folder(tmp_path / kind, kind, Reading(color=color)) for kind in kinds)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    np.testing.assert_array_equal(first.test_images, second.test_images)


def test_the_first_picture_of_a_cameras_file_is_taken(tmp_path):
    root = fill(tmp_path / "set", count=6, kind="jpg")
    frames = [picture(number) for number in (500, 501)]
    frames[0].save(root / "ant" / "two.jpg", "MPO", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.jpg", quality=75)
    with Image.open(root / "ant" / "two.jpg") as two:
        assert two.n_frames == 2
    arrays = read_folder(root, "set", Reading(test_size=0.4))
    wanted = np.asarray(decode_image((tmp_path / "one.jpg").read_bytes(), (12, 16, 3), "stretch"))
    images = np.concatenate([arrays.train_images, arrays.test_images]).astype(int)
    assert np.abs(images - wanted).max(axis=(1, 2, 3)).min() == 0


def png_of(width, height, bits, *parts, kind=b"IDAT"):
    """Returns a PNG file of an RGB image whose compressed rows are in so many chunks; of the last ones, the `kind`."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)), (b"IDAT", parts[0])]
    chunks += [*((kind, part) for part in parts[1:]), (b"IEND", b"")]
    whole = (struct.pack(">I", len(of)) + name + of + struct.pack(">I", zlib.crc32(name + of)) for name, of in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def test_a_damaged_file_is_no_image_whatever_pillow_raises():
    rows = zlib.compress(b"".join(b"\0" + picture(1).tobytes()[48 * row : 48 * row + 48] for row in range(12)))
    whole = png_of(16, 12, 8, rows[:300], rows[300:])
    assert upright(whole) == whole
    with pytest.raises(OSError, match="broken PNG"):
        upright(png_of(16, 12, 8, rows[:300], rows[300:], kind=b"\0\1\2\3"))
    with pytest.raises(OSError, match="decompression bomb"):
        upright(png_of(20_000, 20_000, 8, rows))


def npz(path, **changes):
    generator = np.random.default_rng(0)
    held = {
        "x_train": generator.integers(0, 256, (20, 8, 8), dtype=np.uint8),
        "y_train": np.arange(20) % 3,
        "x_test": generator.integers(0, 256, (9, 8, 8), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    }
    held = {key: value for key, value in (held | changes).items() if value is not None}
    np.savez(path, **held)
    return held


def test_npz_files_of_keras_and_of_medmnist(tmp_path):
    held = npz(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz", "a")
    np.testing.assert_array_equal(arrays.train_images[..., 0], held["x_train"])
    np.testing.assert_array_equal(arrays.test_labels, held["y_test"])
    assert arrays.labels == ("0", "1", "2")
    medical = {
        f"{part}_images": np.full((size, 4, 4, 3), size, np.uint8)
        for part, size in (("train", 9), ("val", 6), ("test", 3))
    } | {f"{part}_labels": (np.arange(size) % 3)[:, None] for part, size in (("train", 9), ("val", 6), ("test", 3))}
    np.savez(tmp_path / "m.npz", **medical)
    arrays = read_npz(tmp_path / "m.npz", "m")
    assert (len(arrays.train_labels), arrays.given_validation) == (15, 6)
    assert set(arrays.train_images[-6:].ravel()) == {6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, r"has x_train, y_train, x_test and y_test, or .* with x_train, y_test, y_train\."),
        (
            {"x_train": np.zeros((20, 8, 8)) + 0.5},
            r"^Images are whole numbers from 0 to 255\. Received: x_train .* float64",
        ),
        ({"x_train": np.full((20, 8, 8), np.nan)}, r"^Images are whole numbers from 0 to 255\."),
        ({"x_train": np.full((20, 8, 8), 300.0)}, r"float64 from 300 to 300\. Save them as uint8\."),
        ({"y_test": np.arange(9) % 3 - 1}, r"^Labels are whole numbers from 0, one an image\. Received: y_test"),
        ({"y_train": np.arange(20) % 3 + 0.5}, r"^Labels are whole numbers from 0, one an image\."),
        ({"y_train": np.arange(19) % 3}, r"^Images and labels are as many\. Received: 20 and 19 of x_train"),
        # As many as labels in all, but not of each split.
        (
            {"y_train": np.arange(19) % 3, "x_val": np.zeros((4, 8, 8), np.uint8), "y_val": np.arange(5) % 3},
            r"^Images and labels are as many\. Received: 20 and 19 of x_train",
        ),
        (
            {"x_val": np.zeros((5, 6, 8), np.uint8), "y_val": np.arange(5) % 3},
            r"^Images of a set have one size\. Received: .*, whose x_val are of the shape \(5, 6, 8, 1\)\.",
        ),
        (
            {"y_train": np.arange(20) % 2},
            r"^Every class has images in train and test\. Received: label 2 of 3 without one",
        ),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(9, int)}, r"^Own images are of two or more classes"),
        ({"x_test": np.zeros((9, 6, 6), np.uint8)}, r"^Images of a set have one size\."),
        (
            {"x_train": np.zeros((20, 8, 8, 2), np.uint8)},
            r"^Images are \(N, H, W\), \(N, H, W, 1\) or \(N, H, W, 3\)\.",
        ),
    ],
)
def test_refuses_arrays_that_are_no_images(tmp_path, changes, message):
    npz(tmp_path / "a.npz", **changes)
    with pytest.raises(UsageError, match=message):
        read_npz(tmp_path / "a.npz", "a")


def test_refuses_a_damaged_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UsageError, match=r"^An \.npz file holds arrays\. Received: .*a\.npz: "):
        read_npz(tmp_path / "a.npz", "a")


def spoil_sixteen(root):
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(root / "ant" / "deep.png")


def spoil_sixteen_of_three(root):
    """A PNG of 16 bits for each of three colours, which Pillow reads as one of 8."""
    rows = zlib.compress((b"\0" + bytes(16 * 6)) * 12)
    (root / "ant" / "deep.png").write_bytes(png_of(16, 12, 16, rows))


def spoil_alpha(root):
    picture(5).convert("RGBA").resize((16, 12)).point(lambda value: value // 2).save(root / "ant" / "clear.png")


def spoil_cmyk(root):
    picture(5).convert("CMYK").save(root / "ant" / "ink.jpg")


def spoil_animation(root):
    frames = [picture(number) for number in range(3)]
    frames[0].save(root / "ant" / "moves.png", save_all=True, append_images=frames[1:])


def spoil_bytes(root):
    whole = (root / "ant" / "000.png").read_bytes()
    (root / "ant" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (root / "bee" / "nothing.png").touch()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_sixteen, "ant/deep.png: 16 bits a channel"),
        (spoil_sixteen_of_three, "ant/deep.png: 16 bits a channel"),
        (spoil_alpha, "ant/clear.png: transparency"),
        (spoil_cmyk, "ant/ink.jpg: CMYK colours"),
        (spoil_animation, "ant/moves.png: animated"),
        (spoil_bytes, "bee/nothing.png: empty"),
    ],
)
def test_refuses_files_that_would_be_read_otherwise(photos, spoil, told):
    spoil(photos)
    with pytest.raises(UsageError, match=r"^Own images are JPEG, PNG or BMP files of 8 bits, grey or RGB\.") as caught:
        read_folder(photos, "p", Reading())
    assert told in str(caught.value)


def test_names_a_screenful_of_bad_files(photos):
    for number in range(300):
        (photos / "ant" / f"bad-{number:03}.png").write_bytes(b"no image")
    with pytest.raises(UsageError) as caught:
        read_folder(photos, "p", Reading())
    text = str(caught.value)
    assert "300 of 324 that are not" in text
    assert "and 292 more" in text
    assert len(text) < 900


def links_away(root):
    (root.parent / "secret.png").write_bytes((root / "ant" / "000.png").read_bytes())
    (root / "ant" / "link.png").symlink_to(root.parent / "secret.png")


def one_class(root):
    shutil.rmtree(root / "bee")


def empty_class(root):
    (root / "cat").mkdir()


def other_kind(root):
    (root / "ant" / "photo.webp").write_bytes(b"RIFF")


def other_size(root):
    picture(1, 20, 20).save(root / "ant" / "large.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (links_away, r"^Links of own images stay in their folder\. Received: .*link\.png, which leaves it\."),
        (one_class, r"^Own images are of two or more classes, a folder each\. Received: .* with the class ant alone"),
        (empty_class, r"^Every class has images in train and test\. Received: cat without one in train"),
        (other_kind, r"^Own images are JPEG, PNG or BMP files\. Received: 1 others: ant/photo\.webp"),
        (
            other_size,
            r"^Images of different sizes are brought to one\. Received: 2 sizes in .*, as 12x16 \(24\), 20x20",
        ),
    ],
)
def test_refuses_a_folder_that_is_not_laid_out_so(photos, spoil, message):
    spoil(photos)
    with pytest.raises(UsageError, match=message):
        read_folder(photos, "p", Reading())


def test_refuses_a_class_without_a_test_image(tmp_path):
    root = fill(tmp_path / "few", count=1)
    with pytest.raises(UsageError, match=r"without one in test of .*Add images, or give another --test-size\."):
        read_folder(root, "few", Reading(test_size=0.01))


def test_refuses_a_folder_that_changes_while_it_is_read(photos):
    def change(done, total):
        if done == total:
            picture(77).save(photos / "ant" / "late.png")

    with pytest.raises(UsageError, match=r"^A folder must not change while it is read\."):
        read_folder(photos, "p", Reading(), change)


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Prepares in this process, where TensorFlow is loaded already, into a cache of its own; counts how often."""
    calls = []

    def prepared(path, stem, reading):
        calls.append(path)
        return prepare.write_own(path, stem, reading)

    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "prepare_own_in_child", prepared)
    return calls


def test_a_set_is_named_by_its_content_and_prepared_once(photos, in_process, tmp_path):
    config = TrainConfig(dataset=str(photos), test_size=0.3)
    first = own.with_prepared(config)
    assert own.with_prepared(config) == first
    assert len(in_process) == 1
    arrays = cache.read(cache.cached_path(first.dataset))
    assert first.dataset == f"photos@{arrays.sha256[:12]}"
    assert (first.test_size, first.image_size) == (0.2, None)  # stand in the name
    # A copy elsewhere is the same set, and the same run.
    shutil.copytree(photos, tmp_path / "there" / "photos")
    assert (
        own.with_prepared(TrainConfig(dataset=str(tmp_path / "there" / "photos"), test_size=0.3)).run_id == first.run_id
    )
    # Another share, size or file is another set.
    assert own.with_prepared(TrainConfig(dataset=str(photos), test_size=0.4)).dataset != first.dataset
    picture(4321).save(photos / "ant" / "more.png")
    assert own.with_prepared(config).dataset != first.dataset


def test_a_set_is_named_by_its_validation_split_and_by_how_it_is_resized(tmp_path, in_process):
    """Both decide what is trained and served, also where the pixels of all images are the same."""
    held = npz(tmp_path / "set.npz", x_val=np.full((6, 8, 8), 7, np.uint8), y_val=np.arange(6) % 3)
    first = own.with_prepared(TrainConfig(dataset=str(tmp_path / "set.npz"), batch_size=4))
    values = {key: held[key] for key in ("x_test", "y_test")}
    values |= {f"{axis}_train": np.concatenate([held[f"{axis}_train"], held[f"{axis}_val"]]) for axis in "xy"}
    np.savez(tmp_path / "set.npz", **values)
    second = own.with_prepared(TrainConfig(dataset=str(tmp_path / "set.npz"), batch_size=4))
    assert cache.prepared_sha256(first.dataset) == cache.prepared_sha256(second.dataset)
    assert second.dataset.partition("@")[2] == cache.prepared_sha256(second.dataset)[:12]
    assert first.run_id != second.run_id
    assert (load(first).info.validation, load(second).info.validation) == (6, 5)
    photos = fill(tmp_path / "photos", height=16)
    ways = ("stretch", "pad", "crop")
    names = [own.prepared_name(str(photos), Reading(image_size=(16, 16), resize=way)) for way in ways]
    assert len(set(map(cache.prepared_sha256, names))) == 1
    assert tuple(cache.read(cache.cached_path(name)).resize for name in names) == ways


def test_a_damaged_set_is_prepared_again_from_its_folder(photos, in_process, tmp_path, caplog, capsys):
    config = TrainConfig(dataset=str(photos), batch_size=4)
    name = own.with_prepared(config).dataset
    path = cache.cached_path(name)
    whole = path.read_bytes()

    def damage():
        path.write_bytes(whole[:1500] + b"XXXX" + whole[1504:])

    damage()
    with pytest.raises(UsageError, match=rf"Received: dataset='{name}', which was damaged in .*Give once more the"):
        load(own.with_prepared(config))
    assert f"The prepared set {path} cannot be used: " in caplog.text
    assert not path.exists()
    assert load(own.with_prepared(config)).info.name == name
    for again in (False, True):
        damage()
        data.main(data.DataConfig(names=(str(photos),), again=again, reports_dir=tmp_path / "reports"))
        assert "checked, sha256" in capsys.readouterr().out
        assert cache.read(path).name == name
    assert len(in_process) == 4


def test_results_do_not_lie_among_the_images(photos, in_process, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    told = r"^--reports-dir does not lie among own images, where its pictures would be a class\. Received: reports, in "
    with pytest.raises(UsageError, match=rf"{told}{photos}\. Give another folder, such as \.\./reports\."):
        own.with_prepared(TrainConfig(dataset="."))
    with pytest.raises(UsageError, match=told):
        data.main(data.DataConfig(names=(str(photos),)))
    with pytest.raises(UsageError, match=told):
        own.with_prepared(TrainConfig(dataset="./", reports_dir=tmp_path), Path("reports"))
    with pytest.raises(UsageError, match=r"^--saved-models-dir does not lie .* Received: ant/models, in "):
        own.with_prepared(TrainConfig(dataset=".", reports_dir=tmp_path, saved_models_dir=Path("ant") / "models"))
    assert not in_process
    assert own.with_prepared(TrainConfig(dataset=".", reports_dir=Path("..") / "reports", export=False)).dataset
    # Beside given splits a folder is no class.
    root = tmp_path / "set"
    for place, part in enumerate(("train", "test")):
        fill(root / part, count=3, start=100 * place)
    monkeypatch.chdir(root)
    assert own.with_prepared(TrainConfig(dataset="."))
    with pytest.raises(UsageError, match=r"Received: train/reports, in "):
        own.with_prepared(TrainConfig(dataset=".", reports_dir=Path("train") / "reports"))


def test_the_command_counts_what_a_set_holds(tmp_path, in_process, capsys):
    root = fill(tmp_path / "set" / "train", count=6)
    fill(tmp_path / "set" / "test", classes=("bee",), count=6)
    fill(tmp_path / "set" / "test", classes=("ant",), count=3, start=50)
    data.main(data.DataConfig(names=(str(root.parent),), reports_dir=tmp_path / "reports"))
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert re.match(r"set@[0-9a-f]{12} 1\.0\.0: 12 training and 9 test images of 12x16x3, 2 classes; checked", head)
    assert lines[:3] == [
        "  ant: 6 training (50.0%), 3 test (33.3%)",
        "  bee: 6 training (50.0%), 6 test (66.7%)",
        "  uneven classes: accuracy is mostly that of the largest; studies judge by balanced accuracy",
    ]
    pixels = np.stack([np.asarray(Image.open(path)) for path in root.rglob("*.png")]).astype(float)
    mean, sd = (", ".join(f"{value:.4g}" for value in moment((0, 1, 2))) for moment in (pixels.mean, pixels.std))
    assert lines[3] == f"  training pixels, a channel: mean {mean}, sd {sd}"
    assert lines[4] == f"  sheet    {tmp_path / 'reports' / 'data' / head.split()[0]}.html"


@pytest.mark.parametrize("pictures", [True, False])
def test_the_contact_sheet_shows_training_images_alone(tmp_path, in_process, pictures):
    root = tmp_path / "set"
    for place, part in enumerate(("train", "test")):
        fill(root / part, classes=("ant", "bee"), count=8 - 5 * place, start=100 * place)
    picture(5, height=90, width=120).save(root / "train" / "bee" / "large.png")
    words = {"image_size": "16x16", "reports_dir": tmp_path / "reports", "pictures": pictures}
    data.main(data.DataConfig(names=(str(root),), **words))
    (path,) = (tmp_path / "reports" / "data").iterdir()
    page = Page(path.read_text())
    assert page.row("ant") == ["ant", "8", "47.1 %", "3", "50.0 %"]
    assert page.row("bee") == ["bee", "9", "52.9 %", "3", "50.0 %"]
    assert "Exact duplicates 0 test images also in training" in page.text
    assert "Sizes of 23 files, height×width 12×16 (22), 90×120 (1)" in page.text
    assert "Classes of the test split even" in page.text
    arrays = cache.read(cache.cached_path(path.name.removesuffix(".html")))
    train = {image.tobytes(): label for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)}
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(shown) == (12 if pictures else 0)
    for attributes in shown:
        file = io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))
        assert arrays.labels[train[np.asarray(Image.open(file)).tobytes()]] == attributes["alt"]
    assert ("Without pictures" in page.text) != pictures


def test_large_images_are_small_on_the_contact_sheet(tmp_path, in_process):
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (4, 100, 300), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "grey.npz", **arrays, y_train=[0, 1, 0, 1], y_test=[0, 1, 1, 1])
    data.main(data.DataConfig(names=(str(tmp_path / "grey.npz"),), reports_dir=tmp_path / "reports"))
    (path,) = (tmp_path / "reports" / "data").iterdir()
    page = Page(path.read_text())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    sizes = {Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size for source in sources}
    assert (len(sources), sizes) == (4, {(64, 21)})
    assert "uneven: accuracy is mostly that of the largest ones" in page.text
    assert "Sizes of" not in page.text


def test_refuses_a_contact_sheet_where_nothing_can_be_written(photos, in_process, tmp_path):
    (tmp_path / "file").write_text("")
    config = data.DataConfig(names=(str(photos),), reports_dir=tmp_path / "file")
    with pytest.raises(UsageError, match=r"--reports-dir"):
        data.main(config)
    assert not in_process


def test_a_run_is_loaded_by_the_name_alone(photos, in_process):
    config = own.with_prepared(TrainConfig(dataset=str(photos), batch_size=4, validation_size=0.25, test_size=0.3))
    shutil.rmtree(photos)
    loaded = load(config)
    assert loaded.info.resize == "stretch"
    assert loaded.info.validation == round(0.25 * (loaded.info.train + loaded.info.validation))
    with pytest.raises(
        UsageError, match=r"^Own images are prepared from their folder\. Received: dataset='gone@0123456789ab'"
    ):
        load(TrainConfig(dataset="gone@0123456789ab"))


def test_a_validation_split_that_comes_with_the_set_is_used(tmp_path, in_process):
    root = tmp_path / "set"
    for place, part in enumerate(("train", "test", "val")):
        fill(root / part, count=5, start=100 * place)
    loaded = load(own.with_prepared(TrainConfig(dataset=str(root), batch_size=4)))
    assert (loaded.info.train, loaded.info.validation, loaded.info.test) == (10, 10, 10)
    given = {np.asarray(Image.open(path)).tobytes() for path in (root / "val").rglob("*.png")}
    assert {image.tobytes() for image in loaded.validation.images} == given
    # A number of one's own is drawn from both.
    loaded = load(own.with_prepared(TrainConfig(dataset=str(root), batch_size=4, validation_size=4)))
    assert (loaded.info.train, loaded.info.validation) == (16, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"dataset": "./nowhere"},
            r"^--dataset takes a folder or an \.npz file\. Received: \./nowhere, which is not there",
        ),
        ({"dataset": __file__}, r"^--dataset takes a folder or an \.npz file\. Received: .*, which is another file"),
        (
            {"dataset": "./x", "image_size": "big"},
            r"^--image-size is 64 or HEIGHTxWIDTH, from 4 to 4096\. Received: 'big'",
        ),
        ({"dataset": "./x", "image_size": "2x64"}, r"^--image-size is 64 or HEIGHTxWIDTH"),
        (
            {"image_size": "64"},
            r"^--image-size belongs to own images\. .* with dataset='mnist'\. Write a path, such as \./mnist",
        ),
        ({"resize": "pad"}, r"^--resize belongs to own images\."),
        ({"test_size": 0.5}, r"^--test-size belongs to own images\."),
        ({"color": "rgb"}, r"^--color belongs to own images\."),
        ({"dataset": "./x", "test_size": 0.95}, r"^--test-size must be a share above 0 and at most 0\.9\."),
        ({"validation_size": 10.5}, r"^--validation-size is a number of images, or a share below 1\."),
        ({"dataset": "Photos"}, r"Give photos, or \./Photos for a folder\."),
    ],
)
def test_refuses_settings_of_own_images(words, message):
    with pytest.raises(UsageError, match=message):
        own.with_prepared(TrainConfig(**words))
