import datetime
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kernorm
from kernorm import data
from kernorm.config import TrainConfig
from kernorm.data import DataConfig
from kernorm.datasets import cache, prepare, tfds
from kernorm.datasets.arrays import Arrays, content_sha256
from kernorm.datasets.dataset import HeldOutSplit, load, load_arrays, pixel_moments, prepared_sha256
from kernorm.errors import UsageError

ROOT = Path(kernorm.__file__).parents[1]
MNIST = ROOT / "kernorm" / "datasets" / "mnist"


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(folder))
    return folder


def cached_set(rng, name="tiny", count=600, shape=(4, 4, 2), classes=3):
    """Caches a small set of random images without tensorflow-datasets and returns it."""
    labels = tuple(f"class {label}" for label in range(classes))
    values = {
        "train_images": rng.integers(0, 256, (count, *shape), np.uint8),
        "train_labels": rng.integers(0, classes, count, np.int32),
        "test_images": rng.integers(0, 256, (50, *shape), np.uint8),
        "test_labels": rng.integers(0, classes, 50, np.int32),
    }
    arrays = Arrays.of(name, "1.0.0", labels, values)
    cache.write(arrays)
    return arrays


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """tensorflow-datasets' folder with a small set, `tiny_set`, that is prepared there already."""
    return store_tiny_set(tmp_path_factory.mktemp("tfds"))


def store_tiny_set(folder, first=0):
    """Lets tensorflow-datasets store `tiny_set`, whose images begin with the pixel `first`."""
    import tensorflow_datasets as tfds

    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) + first
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_set",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(4, 5, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
        ),
        split_datasets={
            part: [(i, {"image": image + i, "label": i % 2}) for i in range(count)]
            for part, count in (("train", 9), ("test", 5))
        },
        data_dir=folder,
    )
    return folder


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def read_idx(name, header):
    return np.frombuffer(gzip.decompress((MNIST / name).read_bytes()), np.uint8, offset=header)


@pytest.mark.slow
def test_mnist_is_the_official_files(whole_mnist_cache):
    arrays = load_arrays()
    assert (arrays.name, arrays.version, arrays.labels) == ("mnist", "3.0.1", tuple("0123456789"))
    for part, prefix, count in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        images = read_idx(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(count, 784)
        labels = read_idx(f"{prefix}-labels-idx1-ubyte.gz", 8)
        found = zip(arrays.values[f"{part}_images"], arrays.values[f"{part}_labels"], strict=True)
        official = zip(images, labels, strict=True)
        # tensorflow-datasets keeps another order, so they are compared as multisets.
        assert Counter((hash(i.tobytes()), int(t)) for i, t in found) == Counter(
            (hash(i.tobytes()), int(t)) for i, t in official
        )


@pytest.mark.slow
def test_mnist_has_the_same_hash_everywhere(whole_mnist_cache):
    assert load_arrays().sha256 == "14d113a04e7de7c2fcfb764e5603ac80c8bb8bd6270bd3c741c7c8970104d047"


@pytest.mark.slow
def test_mnist_under_another_name_is_refused(whole_mnist_cache, cache_folder, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(whole_mnist_cache))
    arrays = load_arrays()
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(cache_folder))
    with pytest.raises(UsageError, match=r"fashion_mnist, whose images .* are those of mnist\. Delete .*mnist/3"):
        cache.write(replace(arrays, name="fashion_mnist"))


@pytest.mark.slow
def test_the_default_run_trains_on_50000_and_validates_on_10000(whole_mnist_cache):
    dataset = load(TrainConfig())
    assert (dataset.info.train, dataset.info.validation, dataset.info.test) == (50_000, 10_000, 10_000)
    assert (len(dataset.train.labels), len(dataset.validation.images), len(dataset.test)) == (50_000, 10_000, 10_000)
    assert (dataset.info.name, dataset.info.image_shape) == ("mnist", (28, 28, 1))
    pixels = dataset.train.images.astype(np.float32)
    assert dataset.info.mean == pytest.approx((pixels.mean(dtype=np.float64),), rel=1e-5)
    assert dataset.info.std == pytest.approx((pixels.std(dtype=np.float64),), rel=1e-5)


def test_splits_are_the_rows_of_the_set(rng, cache_folder):
    arrays = cached_set(rng)
    dataset = load(TrainConfig(dataset="tiny", validation_size=100, train_size=400, batch_size=400))
    rows = {
        image.tobytes(): (label, "train") for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)
    }
    seen = set()
    for split in (dataset.train, dataset.validation):
        for image, label in zip(split.images, split.labels, strict=True):
            assert rows[image.tobytes()][0] == label
            seen.add(image.tobytes())
    assert len(seen) == 500
    assert dataset.info.mean == pixel_moments(dataset.train.images)[0]
    images, labels = dataset.test.open("evaluation", 8)
    assert np.array_equal(images, arrays.test_images)
    assert np.array_equal(labels, arrays.test_labels)


def test_splits_do_not_depend_on_the_seed(rng, cache_folder):
    cached_set(rng)
    config = {"dataset": "tiny", "validation_size": 100, "train_size": 300, "batch_size": 16}
    one, other = (load(TrainConfig(seed=seed, **config)) for seed in (0, 1))
    assert np.array_equal(one.train.images, other.train.images)
    assert np.array_equal(one.validation.images, other.validation.images)


def test_without_validation_all_images_train(rng, cache_folder):
    cached_set(rng)
    dataset = load(TrainConfig(dataset="tiny", validation_size=0, batch_size=16))
    assert dataset.validation is None
    assert (dataset.info.train, dataset.info.validation) == (600, 0)


def test_a_batch_larger_than_the_training_split_is_refused(rng, cache_folder):
    cached_set(rng)
    load(TrainConfig(dataset="tiny", validation_size=100, batch_size=500))
    with pytest.raises(UsageError, match=r"Received: batch_size=501 for 500 images\. Give at most 500\."):
        load(TrainConfig(dataset="tiny", validation_size=100, batch_size=501))


def test_a_validation_size_is_refused_where_it_does_not_fit_and_the_default_fits(rng, cache_folder):
    cached_set(rng)
    with pytest.raises(UsageError, match=r"validation_size=10000 of 600 images in 3 classes\. Give at most 597\."):
        load(TrainConfig(dataset="tiny", validation_size=10_000))
    assert load(TrainConfig(dataset="tiny")).info.validation == 120  # 20 %
    assert load(TrainConfig(dataset="tiny", validation_size=0.1, train_size=0.5)).info.train == 270


def test_the_test_split_enters_each_opening():
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.arange(3, dtype=np.int32)
    test = HeldOutSplit(images, labels)
    assert len(test) == 3
    assert test.openings == []
    assert not [name for name in vars(test) if not name.startswith("_") and name != "openings"]
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert test.open("selection", 1).labels is labels
    assert test.open("evaluation", 2).images is images
    assert [(opening.purpose, opening.epoch) for opening in test.openings] == [("selection", 1), ("evaluation", 2)]
    moment = datetime.datetime.fromisoformat(test.openings[0].time)
    assert moment.utcoffset() == datetime.timedelta(0)
    assert before <= moment <= datetime.datetime.now(datetime.UTC)


def test_moments_of_each_channel(rng):
    images = rng.integers(0, 256, (2345, 5, 7, 3), np.uint8)
    images[..., 1] //= 3
    images[..., 2] = 9
    mean, std = pixel_moments(images)
    assert mean == pytest.approx(images.mean(axis=(0, 1, 2)), rel=1e-5)
    assert std[:2] == pytest.approx(images.std(axis=(0, 1, 2))[:2], rel=1e-5)
    assert (mean[2], std[2]) == (9.0, 1.0)
    assert mean == tuple(float(f"{value:.6g}") for value in mean)


def test_moments_do_not_overflow():
    assert pixel_moments(np.full((3000, 64, 64, 1), 255, np.uint8)) == ((255.0,), (1.0,))


def test_a_cached_set_needs_neither_tensorflow_nor_tensorflow_datasets(mnist_cache):
    code = """
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "tensorflow_datasets", "keras", "jax", "torch")))  # None: no import
from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
print(load(TrainConfig(validation_size=200)).info.train)
"""
    assert command("-c", code).stdout == "1000\n"


def own(caplog):
    """Returns what kernorm says of loading, without tensorflow-datasets' messages and the warning of duplicates."""
    return [entry.getMessage() for entry in caplog.records if (entry.name, entry.levelname) == ("kernorm", "INFO")]


def damage(path, image):
    """Changes a pixel of the first of these images in a prepared set's file."""
    content = path.read_bytes()
    pixel = content.index(image.tobytes())
    path.write_bytes(content[:pixel] + b"\xff" + content[pixel + 1 :])


@pytest.mark.slow
def test_a_set_is_prepared_once(prepared, cache_folder, caplog, capsys):
    caplog.set_level("INFO", "kernorm")
    first = load_arrays("tiny_set", data_dir=prepared)
    assert caplog.messages == ["Preparing tiny_set with tensorflow-datasets (once) ..."]
    assert (len(first.train_labels), first.labels) == (9, ("0", "1"))
    assert load_arrays("tiny_set").sha256 == first.sha256
    assert len(caplog.messages) == 1
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def prepared_here(monkeypatch):
    """Prepares sets in this process, where a process of their own, with TensorFlow anew, proves no more."""

    def run(command, **_):
        name, *folders = command[3:]
        cache.write(tfds.prepare(name, *(Path(folder) if folder else None for folder in folders)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(prepare, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))


@pytest.mark.slow
def test_a_damaged_set_is_prepared_again_by_one_of_two(prepared, cache_folder, start):
    first = load_arrays("tiny_set", data_dir=prepared)
    path = cache_folder / "tiny_set-1.0.0.npz"
    damage(path, first.train_images[0])
    words = [sys.executable, "-m", "kernorm.data", "tiny_set", "--data-dir", prepared]
    both = [start(words) for _ in range(2)]
    told = "".join(process.communicate()[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert told.count(f"The prepared set {path} cannot be used: BadZipFile: Bad CRC-32") == 1
    assert told.count("Preparing tiny_set") == 1
    assert sorted(os.listdir(cache_folder)) == ["tiny_set-1.0.0.npz", "tiny_set.lock"]
    assert cache.read(path).sha256 == first.sha256


def test_a_set_of_an_older_kernorm_is_prepared_again(prepared_here, prepared, cache_folder, caplog):
    arrays = load_arrays("tiny_set", data_dir=prepared)
    path = cache_folder / "tiny_set-1.0.0.npz"
    # As kernorm 0.1 wrote it: another set's images, under this one's name, unchecked.
    wrong = arrays.train_images + np.uint8(9)
    values = {**arrays.values, "train_images": wrong}
    metadata = {"schema": 1, "name": "tiny_set", "version": "1.0.0", "labels": list(arrays.labels)}
    metadata["sha256"] = content_sha256(arrays.labels, values)
    np.savez(path, metadata=np.frombuffer(json.dumps(metadata).encode(), np.uint8), **values)
    assert cache.prepared_sha256("tiny_set") is None
    assert load_arrays("tiny_set", data_dir=prepared).sha256 == arrays.sha256
    assert f"The prepared set {path} cannot be used: it is of schema 1, which is 2 now. It is rem" in caplog.text


def test_a_set_whose_source_has_changed_is_prepared_again(prepared_here, tmp_path, cache_folder, caplog):
    caplog.set_level("INFO", "kernorm")
    source = store_tiny_set(tmp_path / "tfds")
    first = load_arrays("tiny_set", data_dir=source)
    assert prepared_sha256("tiny_set") == first.sha256
    for path in source.rglob("*tfrecord*"):
        os.utime(path)  # other times, the same content
    assert load_arrays("tiny_set", data_dir=source).sha256 == first.sha256
    assert len(own(caplog)) == 1
    shutil.rmtree(source)
    assert prepared_sha256("tiny_set") == first.sha256  # a source that is gone has not changed
    store_tiny_set(source, first=100)
    # Asked for by no folder: it is prepared from where it came from.
    assert prepared_sha256("tiny_set") != first.sha256
    now = load_arrays("tiny_set")
    assert np.array_equal(np.sort(now.train_images, axis=0), np.sort(first.train_images, axis=0) + 100)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert f"{source}/tiny_set/1.0.0 has changed since tiny_set was prepared on {day}; it is" in caplog.text


def test_a_folder_that_is_not_looked_at_is_said(prepared_here, prepared, tmp_path, cache_folder, caplog):
    caplog.set_level("INFO", "kernorm")
    first = load_arrays("tiny_set", data_dir=prepared)
    assert load_arrays("tiny_set", data_dir=prepared).sha256 == first.sha256
    assert len(own(caplog)) == 1
    other = store_tiny_set(tmp_path / "other", first=50)
    assert load_arrays("tiny_set", data_dir=other).sha256 == first.sha256
    _, line = own(caplog)
    assert line.startswith("tiny_set was prepared on ")
    assert f"from {prepared}/tiny_set/1.0.0; {other} is not looked at. python -m kernorm.data tiny_set --again" in line
    data.main(DataConfig(names=("tiny_set",), data_dir=other, again=True))
    assert load_arrays("tiny_set").sha256 != first.sha256


def test_again_wants_a_name():
    with pytest.raises(UsageError, match=r"--again prepares named sets\. Received: no name\. Give for example mnist"):
        DataConfig(again=True)


@pytest.mark.parametrize("missing", ["tensorflow_datasets", "tensorflow"])
def test_what_is_not_cached_needs_tensorflow(missing, tmp_path, cache_folder, monkeypatch):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / f"{missing}.py").write_text("raise ImportError('No module named this')")
    monkeypatch.syspath_prepend(stub)
    cache_folder.mkdir()
    (cache_folder / "mnist-3.0.1.npz").write_bytes(b"half")
    with pytest.raises(
        UsageError, match=r"needs tensorflow and tensorflow-datasets\. Received: dataset='mnist', No mod"
    ):
        load_arrays(data_dir=tmp_path / "tfds")
    assert cache.cached_paths() == []


def test_a_cache_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"must be writable and have room\. Received: .*file/cache.*KERNORM_CACHE_DIR"):
        load_arrays()


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        ({"manual_dir": "none"}, r"--manual-dir takes a folder\. Received: .*none, which is not there"),
        ({"manual_dir": "file"}, r"--manual-dir takes a folder\. Received: .*file, which is a file"),
        ({"data_dir": "file"}, r"--data-dir takes a folder\. Received: .*file, which is a file"),
    ],
)
def test_a_folder_that_is_none_is_refused(folders, told, tmp_path, cache_folder):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=told):
        load(TrainConfig(**{name: tmp_path / folder for name, folder in folders.items()}))


def test_what_the_preparing_process_refuses_is_told_here(tmp_path, cache_folder):
    with pytest.raises(UsageError, match=r"Received: dataset='kminst'\. Nearest: kmnist"):
        load_arrays("kminst", data_dir=tmp_path)
    assert os.listdir(cache_folder) == ["kminst.lock"]


def test_a_killed_preparing_process_is_told(tmp_path, cache_folder, monkeypatch):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "tensorflow_datasets.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.syspath_prepend(stub)
    with pytest.raises(UsageError, match=r"Received: the process that prepares mnist ended with -9\..*lack of memory"):
        load_arrays(data_dir=tmp_path / "tfds")


def test_the_command_lists_what_is_prepared_and_what_is_damaged(rng, cache_folder, capsys):
    data.main(DataConfig())
    assert capsys.readouterr().out.startswith(
        "No set is prepared yet. Sets are prepared by python -m kernorm.data NAME"
    )
    arrays = cached_set(rng)
    cached_set(rng, "other")
    (cache_folder / "other-1.0.0.npz").write_bytes(b"half")
    data.main(DataConfig())
    damaged, whole, more, hint = capsys.readouterr().out.splitlines()
    assert damaged.startswith("other-1.0.0: not usable, ")
    assert more == "  duplicates: 0 test images also in training, 0 repeated in training, 0 in test"
    assert whole.startswith("tiny 1.0.0: 600 training and 50 test images of 4x4x2, 3 classes; checked, sha256 ")
    assert arrays.sha256[:12] in whole
    assert whole.endswith(str(cache_folder / "tiny-1.0.0.npz"))
    assert hint.startswith("Others are prepared by python -m kernorm.data NAME")


def test_the_command_says_where_a_set_came_from(prepared_here, prepared, cache_folder, capsys):
    data.main(DataConfig(names=("tiny_set",), data_dir=prepared))
    # Its test images are the first five of training.
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert capsys.readouterr().out.splitlines()[1] == (
        "  duplicates: 5 test images also in training, 0 repeated in training, 0 in test; "
        f"prepared on {day} from {prepared}/tiny_set/1.0.0"
    )


def test_the_command_shows_the_sets_that_are_named(rng, cache_folder, capsys):
    cached_set(rng)
    cached_set(rng, "other")
    data.main(DataConfig(names=("tiny",)))
    assert capsys.readouterr().out.startswith("tiny 1.0.0: 600 training")


def test_the_command_line(rng, cache_folder):
    cached_set(rng)
    listed = command("-m", "kernorm.data")
    assert (listed.returncode, listed.stdout.splitlines()[0][:10]) == (0, "tiny 1.0.0")
    refused = command("-m", "kernorm.data", "a b")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --dataset takes a tensorflow-datasets name")
    assert len(refused.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy():
    code = """
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "tensorflow_datasets", "keras", "matplotlib", "scipy")))
sys.argv = ["data", "--help"]
import runpy
runpy.run_module("kernorm.data", run_name="__main__")
"""
    shown = command("-c", code)
    assert shown.returncode == 0
    assert "--manual-dir" in shown.stdout
