import contextlib
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kernorm import data
from kernorm.datasets import cache, prepare
from kernorm.datasets.arrays import Arrays, DamagedError, content_sha256
from kernorm.datasets.origin import Origin
from kernorm.errors import UsageError
from kernorm.records.data import Duplicates
from kernorm.system import cli


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(folder))
    return folder


def tiny(name="tiny", version="1.0.0", labels=("a", "b"), first=0):
    values = {
        "train_images": np.arange(first, first + 24, dtype=np.uint8).reshape(4, 2, 3, 1),
        "train_labels": np.array([0, 1, 1, 0], np.int32),
        "test_images": np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1),
        "test_labels": np.array([1, 0], np.int32),
    }
    return Arrays(name=name, version=version, sha256=content_sha256(labels, values), labels=tuple(labels), **values)


def same(one, other):
    return (one.name, one.version, one.sha256, one.labels) == (
        other.name,
        other.version,
        other.sha256,
        other.labels,
    ) and all(np.array_equal(one.values[key], other.values[key]) for key in one.values)


def test_a_set_comes_back_as_it_was_written(cache_folder):
    arrays = tiny("emnist/balanced", "3.1.0")
    assert cache.write(arrays) == cache_folder / "emnist+balanced-3.1.0.npz"
    assert same(cache.read(cache.cached_path("emnist/balanced")), arrays)
    assert os.listdir(cache_folder) == ["emnist+balanced-3.1.0.npz"]


def test_the_hash_is_the_same_on_every_machine_and_in_every_byte_order():
    arrays = tiny()
    layout = (
        b'[["a", "b"], [["train_images", "|u1", [4, 2, 3, 1]], ["train_labels", "<i4", [4]], '
        b'["test_images", "|u1", [2, 2, 3, 1]], ["test_labels", "<i4", [2]]]]\n'
    )
    train_labels, test_labels = (b"".join(bytes([label, 0, 0, 0]) for label in part) for part in ((0, 1, 1, 0), (1, 0)))
    content = layout + bytes(range(24)) + train_labels + bytes(range(12)) + test_labels
    assert arrays.sha256 == hashlib.sha256(content).hexdigest()
    swapped = {key: value.astype(value.dtype.newbyteorder(">")) for key, value in arrays.values.items()}
    assert content_sha256(arrays.labels, swapped) == arrays.sha256
    assert content_sha256(("a", "c"), arrays.values) != arrays.sha256
    swapped["test_labels"][0] = 0
    assert content_sha256(arrays.labels, swapped) != arrays.sha256


def test_the_newest_version_is_taken_unless_the_name_gives_one():
    for version in ("3.9.0", "3.10.0"):
        cache.write(tiny(version=version))
    cache.write(tiny("tiny/other", "9.0.0", first=1))
    assert cache.cached_path("tiny").name == "tiny-3.10.0.npz"
    assert cache.cached_path("tiny:3.9.0").name == "tiny-3.9.0.npz"
    assert cache.cached_path("tiny:1.1.1") is None
    assert cache.cached_path("other") is None
    assert [path.name for path in cache.cached_paths()] == ["tiny+other-9.0.0.npz", "tiny-3.10.0.npz", "tiny-3.9.0.npz"]


def test_foreign_files_in_the_folder_are_left_alone(cache_folder):
    cache_folder.mkdir()
    for name in ("a-b.npz", "-1.0.0.npz", "tiny-1.0.npz", ".tiny-1.0.0.npz.7.tmp", "x y-1.0.0.npz", "notes.txt"):
        (cache_folder / name).touch()
    assert cache.cached_paths() == []


@pytest.mark.parametrize("name", ["", "../mnist", "mnist/..", "mnist/a/b", "a b", "huggingface:mnist", "mnist:3", "é"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(UsageError, match=r"--dataset takes a tensorflow-datasets name.*Received: dataset=.*Give"):
        cache.parse_name(name)


def test_no_flipped_byte_and_no_cut_passes_as_the_set(cache_folder):
    arrays = tiny()
    path = cache.write(arrays)
    content = path.read_bytes()
    damaged = 0
    for position in range(0, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with contextlib.suppress(DamagedError):
            # A few bytes of a zip file, its dates say, mean nothing: then the set must be right.
            assert same(cache.read(path), arrays)
            continue
        damaged += 1
    assert damaged > len(content) / 5 * 0.3
    for end in range(0, len(content), 50):
        path.write_bytes(content[:end])
        with pytest.raises(DamagedError):
            cache.read(path)


def rewritten(path, **changes):
    """Writes a cache file with a right sha256 over wrong content."""
    with np.load(path) as archive:
        content = dict(archive)
    metadata = json.loads(content.pop("metadata").tobytes())
    for key, value in changes.items():
        (content if key in content else metadata)[key] = value
    metadata["sha256"] = changes.get("sha256") or content_sha256(tuple(metadata["labels"]), content)
    np.savez(path, metadata=np.frombuffer(json.dumps(metadata).encode(), np.uint8), **content)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": 1}, "it is of schema 1, which is 2 now"),
        ({"name": "other"}, "it holds other 1.0.0"),
        ({"version": "1.0.1"}, "it holds tiny 1.0.1"),
        ({"sha256": "0" * 64}, "its sha256 is wrong"),
        ({"labels": ["a"]}, "train labels go from 0 to 1 in 1 classes"),
        ({"test_labels": np.array([-1, 0], np.int32)}, "test labels go from -1 to 0"),
        ({"train_labels": np.zeros(3, np.int32)}, r"labels int32 \(3,\)"),
        ({"test_labels": np.zeros(2, np.int64)}, "labels int64"),
        ({"train_images": np.zeros((4, 2, 3, 1), np.float32)}, "train images are float32"),
        ({"test_images": np.zeros((2, 3, 3, 1), np.uint8)}, r"test images have the shape \(2, 3, 3, 1\)"),
        ({"train_images": np.zeros((4, 2, 3), np.uint8)}, r"train images have the shape \(4, 2, 3\)"),
        ({"test_images": np.zeros((0, 2, 3, 1), np.uint8)}, r"test images have the shape \(0, 2, 3, 1\)"),
    ],
)
def test_wrong_content_under_a_right_zip_is_damage(changes, told):
    path = cache.write(tiny())
    rewritten(path, **changes)
    with pytest.raises(DamagedError, match=told):
        cache.read(path)


def test_a_folder_that_cannot_be_is_told_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    rule = r"must be writable and have room\. Received: .*file/cache: .*KERNORM_CACHE_DIR"
    with pytest.raises(UsageError, match=rule):
        cache.write(tiny())
    with pytest.raises(UsageError, match=rule), cache.exclusive("tiny"):
        pass


def test_no_room_leaves_the_old_file_and_nothing_half_written(cache_folder):
    path = cache.write(tiny())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"must be writable and have room\. Received: .*File too large"):
            cache.write(tiny(labels=("c", "d")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(cache_folder) == [path.name]
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_opened_is_told(cache_folder):
    (cache_folder / "tiny-1.0.0.npz").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"must be readable\. Received: .*tiny-1\.0\.0\.npz: Is a directory"):
        cache.read(cache.cached_path("tiny"))


def test_what_a_killed_process_left_is_removed_by_the_next(cache_folder):
    cache_folder.mkdir()
    left, others = cache_folder / ".tiny-1.0.0.npz.77.tmp", cache_folder / ".other-1.0.0.npz.77.tmp"
    left.touch()
    others.touch()
    with cache.exclusive("tiny"):
        assert not left.exists()
        assert others.exists()


def test_a_second_process_waits_for_the_first(cache_folder):
    code = (
        "from kernorm.datasets import cache\n"
        "from kernorm.system.processes import log_to_stderr\n"
        "log_to_stderr()\n"
        "with cache.exclusive('tiny'): print('in', flush=True)"
    )
    with cache.exclusive("tiny"):
        second = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr.readline() == "Waiting for the process that prepares tiny ...\n"
        assert second.poll() is None
    assert second.communicate()[0] == "in\n"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"KERNORM_CACHE_DIR": "~/k", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/h/k"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/kernorm"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/kernorm"),
    ],
)
def test_where_the_cache_lies(variables, folder, monkeypatch):
    monkeypatch.delenv("KERNORM_CACHE_DIR")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache.cache_dir()) == folder


def test_without_a_home_the_variable_is_named(homeless, monkeypatch, tmp_path, capsys):
    said = r"Prepared sets need a folder\. Received: a user without a home\. Set KERNORM_CACHE_DIR to a folder\."
    for ask in (cache.cache_dir, cache.tfds_dir, cache.cached_paths):
        with pytest.raises(UsageError, match=said):
            ask()
    for words in ([], ["mnist"]):
        assert cli.run(data.DataConfig, data.main, prog=data.PROG, argv=words) == 2
        assert re.fullmatch(f"error: {said}\n", capsys.readouterr().err)
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path))
    assert (cache.cache_dir(), cache.tfds_dir()) == (tmp_path, tmp_path / "tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", "/sets")
    assert str(cache.tfds_dir()) == "/sets"


def test_without_a_home_a_set_is_prepared_next_to_the_cache(homeless, monkeypatch, tmp_path):
    """What the child is given: tensorflow-datasets would make a folder of the name ~."""
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path))
    given = {}

    def run(command, *, env, **words):
        given.update(env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(prepare, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    prepare.prepare_in_child("mnist", None, None)
    assert given["TFDS_DATA_DIR"] == str(tmp_path / "tensorflow_datasets")


def two_sets(names=("one", "two"), versions=("1.0.0", "1.0.0")):
    labels = (("a", "b"), ("cat", "dog"))
    return [tiny(*each) for each in zip(names, versions, labels, strict=True)]


def test_two_names_for_the_same_images_are_refused(cache_folder):
    one, two = two_sets()
    cache.write(one)
    told = r"two, whose images and labels are those of one \(.*one-1\.0\.0\.npz\)\. One .* other\. Delete its so"
    with pytest.raises(UsageError, match=told):
        cache.write(two)
    assert cache.cached_path("two") is None
    cache.write(one)  # again, which is no other set


def test_a_set_that_is_known_to_be_right_replaces_one_of_its_images(cache_folder, caplog):
    one, two = two_sets()
    origin = Origin(time="2026-03-01T00:00:00+00:00", folder="/data/two", files={}, sha256="0")
    wrong = cache.write(replace(one, origin=replace(origin, folder="/data/one")))
    with pytest.raises(UsageError, match=r"Delete /data/two if it is two, /data/one if it is one; then pre"):
        cache.write(replace(two, origin=origin))
    right = cache.write(replace(two, origin=replace(origin, verified=True)))
    assert cache.cached_paths() == [right]
    assert f"{wrong} held the images of two. It is removed; delete /data/one too" in caplog.text
    with pytest.raises(UsageError, match="whose images and labels are those of two"):
        cache.write(replace(one, origin=replace(origin, verified=True)))


def test_two_versions_of_the_same_images_get_a_line(cache_folder, caplog):
    caplog.set_level("INFO", "kernorm")
    for arrays in two_sets(names=("one", "one"), versions=("1.0.0", "1.1.0")):
        cache.write(arrays)
    assert "one 1.0.0 and 1.1.0 hold the same images and labels." in caplog.messages


def test_duplicates_are_counted_by_pixels(cache_folder, caplog, rng):
    train, test = (rng.integers(0, 2, (count, 2, 2, 1), np.uint8) for count in (30, 20))
    values = {
        "train_images": train,
        "train_labels": rng.integers(0, 2, 30, np.int32),
        "test_images": test,
        "test_labels": rng.integers(0, 2, 20, np.int32),
    }
    cache.write(Arrays.of("tiny", "1.0.0", ("a", "b"), values))
    one, other = ([image.tobytes() for image in images] for images in (train, test))
    expected = Duplicates(
        train=30 - len(set(one)), test=20 - len(set(other)), across=sum(image in set(one) for image in other)
    )
    assert min(expected.train, expected.test, expected.across) > 0
    assert cache.read(cache.cached_path("tiny")).duplicates == expected
    assert f"tiny holds images more than once: {expected}." in caplog.text
