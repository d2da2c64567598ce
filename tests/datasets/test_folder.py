"""Own images in folders: what is read, as it is served, and what is refused."""

import io
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kernorm.datasets.decode import decode_image, upright
from kernorm.datasets.folder import Reading, read_folder
from kernorm.errors import UsageError
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


def test_a_broken_file_is_told_of_without_its_path(tmp_path):
    root = fill(tmp_path / "my photos")
    (root / "ant" / "not a photo.png").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"ant/not a photo\.png: broken \(cannot identify image file\)"):
        read_folder(root, "photos", Reading())


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
