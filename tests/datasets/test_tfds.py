import atexit
import gzip
import hashlib
import os
import resource
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import kernorm
from kernorm.datasets import tfds as source
from kernorm.datasets.idx import read_idx
from kernorm.errors import UsageError

MNIST = Path(kernorm.__file__).parent / "datasets" / "mnist"


def make_set(set_name, data_dir, features, splits, supervised_keys=None, version="1.0.0"):
    """Lets tensorflow-datasets prepare a set of the given examples; it is found by name in `data_dir` afterwards."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version(version)
        pkg_dir_path = Path(__file__).parent

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=supervised_keys
            )

        def _split_generators(self, dl_manager):
            return {split: enumerate(made) for split, made in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Builder(data_dir=data_dir).download_and_prepare()


def examples(count, shape=(4, 5, 3), classes=3, dtype=np.uint8):
    generator = np.random.default_rng(count)
    return [
        {"image": generator.integers(0, 256, shape).astype(dtype), "label": index % classes} for index in range(count)
    ]


IMAGE, LABEL = tfds.features.Image(shape=(4, 5, 3)), tfds.features.ClassLabel(names=["cat", "dog", "fish"])


def test_arrays_are_the_images_the_set_was_made_of(tmp_path):
    train, test = examples(2300), examples(7)
    make_set("tiny_set", tmp_path, {"image": IMAGE, "label": LABEL}, {"train": train, "test": test}, version="2.1.0")
    arrays = source.prepare("tiny_set", data_dir=tmp_path)
    assert (arrays.name, arrays.version, arrays.labels) == ("tiny_set", "2.1.0", ("cat", "dog", "fish"))
    for part, made in (("train", train), ("test", test)):
        images, labels = arrays.values[f"{part}_images"], arrays.values[f"{part}_labels"]
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        found = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
        assert found == sorted((example["image"].tobytes(), example["label"]) for example in made)
    assert source.prepare("tiny_set:2.1.0", data_dir=tmp_path).sha256 == arrays.sha256


def test_supervised_keys_choose_among_several_labels(tmp_path):
    other = tfds.features.ClassLabel(num_classes=2)
    made = [example | {"coarse": 1} for example in examples(6)]
    features = {"image": IMAGE, "coarse": other, "label": LABEL}
    make_set("two_labels", tmp_path, features, {"train": made, "test": made}, supervised_keys=("image", "label"))
    assert sorted(source.prepare("two_labels", data_dir=tmp_path).train_labels) == [0, 0, 1, 1, 2, 2]
    make_set("unclear", tmp_path, features, {"train": made, "test": made})
    with pytest.raises(UsageError, match=r"'unclear', which has 2 class labels an example\. Give"):
        source.prepare("unclear", data_dir=tmp_path)


UNFIT = {
    "text": ({"text": tfds.features.Text(), "label": LABEL}, [{"text": "x", "label": 1}] * 2, "which has no image"),
    "unlabelled": ({"image": IMAGE}, [{"image": e["image"]} for e in examples(2)], "which has no class label"),
    "number": (
        {"image": IMAGE, "label": tfds.features.Scalar(np.int64)},
        examples(2),
        "which has no class label",
    ),
    "varying": (
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": LABEL},
        examples(2) + examples(2, (5, 4, 3)),
        "whose images vary in size",
    ),
    "deep": (
        {"image": tfds.features.Image(shape=(4, 5, 1), dtype=np.uint16), "label": LABEL},
        examples(2, (4, 5, 1), dtype=np.uint16),
        "whose images are uint16",
    ),
    "one_class": (
        {"image": IMAGE, "label": tfds.features.ClassLabel(num_classes=1)},
        examples(2, classes=1),
        "which has 1 class",
    ),
    "unknown_label": (
        {"image": IMAGE, "label": LABEL},
        [example | {"label": -1} for example in examples(2)],
        "whose train labels go from -1 to -1 in 3 classes",
    ),
    "video": (
        {"image": tfds.features.Video(shape=(2, 4, 5, 3)), "label": LABEL},
        examples(2, (2, 4, 5, 3)),
        "which has no image",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_set_that_is_not_image_classification_is_refused(kind, tmp_path):
    features, made, told = UNFIT[kind]
    make_set(kind, tmp_path, features, {"train": made, "test": made})
    with pytest.raises(UsageError, match=rf"must be image classification.*Received: dataset='{kind}', {told}.*Give"):
        source.prepare(kind, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("splits", "told"),
    [(("train",), "has the splits train"), (("test", "extra"), "has the splits extra, test")],
)
def test_a_set_without_both_splits_is_refused(splits, told, tmp_path):
    make_set("half", tmp_path, {"image": IMAGE, "label": LABEL}, {split: examples(3) for split in splits})
    with pytest.raises(UsageError, match=rf"'half', which {told}\. Give"):
        source.prepare("half", data_dir=tmp_path)


def test_a_set_that_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    make_set("large", tmp_path, {"image": IMAGE, "label": LABEL}, {"train": examples(3), "test": examples(3)})
    monkeypatch.setattr(source, "_MAX_BYTES", 6 * 60 - 1)
    with pytest.raises(UsageError, match=r"at most 4 GiB\. Received: dataset='large', which takes 0\.0 GiB"):
        source.prepare("large", data_dir=tmp_path)


def test_a_damaged_prepared_set_is_told_with_its_folder(tmp_path):
    make_set("cut", tmp_path, {"image": IMAGE, "label": LABEL}, {"train": examples(9), "test": examples(3)})
    (file,) = tmp_path.glob("cut/1.0.0/*train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UsageError, match=r"must be whole\. Received: .*cut/1\.0\.0, split 'train': .* Delete that"):
        source.prepare("cut", data_dir=tmp_path)


@pytest.mark.parametrize(("name", "close"), [("minst", "Nearest: mnist,"), ("fashionmnist", "Nearest: fashion_mnist")])
def test_an_unknown_set_is_refused_with_the_nearest(name, close, tmp_path):
    with pytest.raises(UsageError, match=rf"that tensorflow-datasets knows\. Received: dataset='{name}'\. {close}"):
        source.prepare(name, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "known"),
    [("emnist/balance", "byclass, bymerge, balanced, .*, version 3"), ("mnist:9.9.9", "no configuration, version 3")],
)
def test_an_unknown_configuration_or_version_is_refused_with_the_known(name, known, tmp_path):
    with pytest.raises(UsageError, match=rf"Received: dataset='{name}'\. Known: {known}"):
        source.prepare(name, data_dir=tmp_path)


def test_a_text_set_of_the_catalogue_is_refused_before_any_download(tmp_path):
    with pytest.raises(UsageError, match="dataset='imdb_reviews', which has no images"):
        source.prepare("imdb_reviews", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "official"
    shutil.copytree(MNIST, folder)
    return folder


def test_one_wrong_bit_in_an_official_file_is_refused(official, tmp_path):
    file = official / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"official ones, byte for byte\. Received: .*official/t10k-labels-idx1-ubyte"):
        source.prepare("mnist", official, tmp_path)


def test_a_cut_official_file_is_refused(official, tmp_path):
    file = official / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UsageError, match=r"Received: .*train-images-idx3-ubyte\.gz, whose size or sha256 is wrong"):
        source.prepare("mnist", official, tmp_path)


def test_what_is_still_extracted_while_a_refusal_is_told_does_not_hide_it(tmp_path, monkeypatch):
    # tensorflow-datasets extracts in threads, which write on while the folder is removed.
    remove, registered = os.rmdir, []

    def rmdir(path, **place):
        if str(path).rpartition("/")[2].startswith(source._EXTRACTED):
            Path(folder, "late").write_bytes(b"by a thread")
        remove(path, **place)

    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(atexit, "register", lambda *call, **options: registered.append((call, options)))
    with pytest.raises(UsageError, match="refused"), source._extraction_folder(tmp_path / "mnist") as folder:
        raise UsageError("refused", "an archive", "Fetch it again.")
    monkeypatch.undo()
    assert Path(folder, "late").exists()
    ((at_exit, *arguments), options), *others = registered
    at_exit(*arguments, **options)
    assert not folder.exists()
    assert not others


def test_without_files_and_network_the_missing_files_are_named(official, tmp_path, monkeypatch):
    # A proxy that refuses every connection is the same as no network, on any machine.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("t10k-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (official / name).unlink()
    told = r"Connect, or put t10k-images-idx3-ubyte\.gz, train-labels-idx1-ubyte\.gz into a folder and give it as --man"
    with pytest.raises(UsageError, match=told):
        source.prepare("mnist", official, tmp_path)


def test_a_set_that_wants_files_by_hand_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_features", lambda name, info: ("image", "label"))  # its images vary in size
    with pytest.raises(UsageError, match=r"able to prepare the set\. Received: dataset='imagenet2012': AssertionError"):
        source.prepare("imagenet2012", data_dir=tmp_path)


def test_a_data_dir_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"folder must be writable and have room\. Received: .*file/x/mnist/3\.0\.1.*--data-dir"
    ):
        source.prepare("mnist", data_dir=tmp_path / "file" / "x")


def test_a_full_disk_is_told(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            UsageError, match=r"and have room\. Received: .*mnist/3\.0\.1: File too large\. Give another"
        ):
            source.prepare("mnist", data_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


FAMILY = {"train-images-idx3-ubyte.gz": 12, "train-labels-idx1-ubyte.gz": 12, "t10k-images-idx3-ubyte.gz": 4} | {
    "t10k-labels-idx1-ubyte.gz": 4
}


def family_member(set_name, folder, seed):
    """Makes a set whose archives, in `folder`, have MNIST's file names; tensorflow-datasets knows it by `set_name`."""
    folder.mkdir()
    generator, lines = np.random.default_rng(seed), []
    for file, count in FAMILY.items():
        shape = (count, 6, 6) if "images" in file else (count,)
        values = generator.integers(0, 256 if "images" in file else 2, shape, np.uint8)
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        content = gzip.compress(header + values.tobytes(), mtime=0)
        (folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"http://{set_name}.invalid/{file}\t{len(content)}\t{digest}\t{file}\n")
    (folder / "checksums.tsv").write_text("".join(lines))

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder
        code_path = folder / "builder.py"  # next to which the checksums are

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=(6, 6, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
                )
            )

        def _split_generators(self, dl_manager):
            paths = dl_manager.download_and_extract({file: f"http://{set_name}.invalid/{file}" for file in FAMILY})
            return {
                split: self._generate_examples(*(paths[f"{part}-{kind}-ubyte.gz"] for kind in KINDS))
                for split, part in (("train", "train"), ("test", "t10k"))
            }

        def _generate_examples(self, images, labels):
            pixels = np.frombuffer(images.read_bytes(), np.uint8, offset=16).reshape(-1, 6, 6, 1)
            yield from (
                (index, {"image": pixels[index], "label": label}) for index, label in enumerate(labels.read_bytes()[8:])
            )

    return folder


KINDS = ("images-idx3", "labels-idx1")


def examples_of(folder):
    """Returns the examples of a family member's archives, sorted."""
    return sorted(
        (image.tobytes(), int(label))
        for part in ("train", "t10k")
        for image, label in zip(*(read_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in KINDS), strict=True)
    )


def examples_in(arrays):
    return sorted(
        (image.tobytes(), int(label))
        for part in ("train", "test")
        for image, label in zip(arrays.values[f"{part}_images"], arrays.values[f"{part}_labels"], strict=True)
    )


def test_sets_whose_archives_have_the_same_names_are_not_confused(tmp_path):
    one, other = (family_member(f"kin_{seed}", tmp_path / f"kin_{seed}", seed) for seed in (1, 2))
    for folder in (one, other):
        arrays = source.prepare(folder.name, folder, tmp_path / "data")
        assert examples_in(arrays) == examples_of(folder)
        assert arrays.origin.verified
        assert (arrays.origin.manual_dir, arrays.origin.folder) == (
            str(folder),
            str(tmp_path / "data" / folder.name / "1.0.0"),
        )
    assert not list((tmp_path / "data").rglob("*extracted-*"))


def test_a_set_that_was_prepared_from_another_ones_files_is_prepared_again(tmp_path, caplog):
    one, other = (family_member(f"sib_{seed}", tmp_path / f"sib_{seed}", seed) for seed in (3, 4))
    for folder in (one, other):  # as tensorflow-datasets does it: both extracted into downloads/extracted
        config = tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False)
        tfds.builder(folder.name, data_dir=tmp_path / "data").download_and_prepare(download_config=config)
    arrays = source.prepare(other.name, other, tmp_path / "data")
    assert "sib_4/1.0.0 holds 16 examples that are not in its archives; it is prepared again" in caplog.text
    assert examples_in(arrays) == examples_of(other)
    caplog.clear()
    assert examples_in(source.prepare(other.name, other, tmp_path / "data")) == examples_of(other)
    assert not [entry for entry in caplog.records if entry.name == "kernorm"]


def test_another_sets_folder_does_not_replace_what_is_prepared(tmp_path):
    one, other = (family_member(f"cousin_{seed}", tmp_path / f"cousin_{seed}", seed) for seed in (5, 6))
    before = source.prepare(one.name, one, tmp_path / "data")
    with pytest.raises(UsageError, match=r"official ones, byte for byte\. Received: .*cousin_6/t.*, whose size or"):
        source.prepare(one.name, other, tmp_path / "data")
    assert source.prepare(one.name, one, tmp_path / "data").sha256 == before.sha256


@pytest.mark.parametrize(
    "content",
    [b"", b"text", struct.pack(">HBBI", 0, 8, 1, 9) + b"short", struct.pack(">HBBI", 0, 13, 1, 1) + b"float"],
)
def test_what_is_no_idx_file_is_not_read(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_idx(path) is None
    path.write_bytes(gzip.compress(content)[:-4])
    assert read_idx(path) is None


FASHION = Path(os.environ.get("FASHION_MNIST_DIR", "/usr/share/datasets/fashion-mnist"))


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist, or FASHION_MNIST_DIR")
def test_fashion_mnist_from_files(tmp_path):
    # Debian strips time and name from the official files' gzip header; with both they are the official ones again.
    for part, kind, time in (
        ("train", "images-idx3", 1504176606),
        ("train", "labels-idx1", 1504176606),
        ("t10k", "images-idx3", 1504176627),
        ("t10k", "labels-idx1", 1504176627),
    ):
        name = f"{part}-{kind}-ubyte"
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + name.encode() + b"\0"
        (tmp_path / f"{name}.gz").write_bytes(header + (FASHION / f"{name}.gz").read_bytes()[10:])
    source.prepare("mnist", data_dir=tmp_path)  # whose archives have the same names
    arrays = source.prepare("fashion_mnist", tmp_path, tmp_path)
    assert arrays.labels[0] == "T-shirt/top"
    pixels = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    assert np.frombuffer(pixels, np.uint8).sum() == arrays.train_images.sum()
