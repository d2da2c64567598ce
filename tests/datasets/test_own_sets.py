"""Own images as sets: prepared once, named by all that they are, mended, described and loaded by name."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kernorm import data
from kernorm.config import TrainConfig
from kernorm.datasets import cache, own, prepare
from kernorm.datasets.dataset import load
from kernorm.datasets.folder import Reading
from kernorm.errors import UsageError
from tests.builders import Page
from tests.photos import fill, npz, picture


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos")


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
