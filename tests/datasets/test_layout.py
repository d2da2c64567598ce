"""Where own images lie: splits and classes by their names, links, and what is hidden. No file here is an image."""

import os
import re

import pytest

from kernorm.datasets.layout import class_folders, scan
from kernorm.errors import UsageError


def make(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def listed(root):
    found = scan(root)
    return {
        part: [(str(file.path.relative_to(root)), found.labels[file.label]) for file in files]
        for part, files in (("train", found.train), ("test", found.test), ("validation", found.validation))
        if files is not None
    }


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [("train", "test", None), ("Training", "Testing", None), ("TRAIN", "test", "Val"), ("training", "test", "valid")],
)
def test_splits_are_known_by_their_names(tmp_path, train, test, validation):
    parts = {"train": train, "test": test, "validation": validation}
    make(tmp_path, *(f"{folder}/{name}/1.png" for folder in parts.values() if folder for name in ("ant", "bee")))
    (tmp_path / "notes").mkdir()
    assert listed(tmp_path) == {
        part: [(f"{folder}/{name}/1.png", name) for name in ("ant", "bee")] if folder else []
        for part, folder in parts.items()
    }
    assert class_folders(tmp_path) == tuple(tmp_path / folder for folder in parts.values() if folder)


@pytest.mark.parametrize("folders", [("ant", "bee"), ("bus", "train"), ("bus", "test", "tram")])
def test_a_folder_a_class_is_no_split(tmp_path, folders):
    make(tmp_path, *(f"{name}/deep/1.png" for name in folders))
    assert listed(tmp_path) == {"train": [(f"{name}/deep/1.png", name) for name in folders], "validation": []}


@pytest.mark.parametrize(
    "folders",
    [("train", "val"), ("Training",), ("test", "val"), ("train", "val", "raw"), ("train", "Training", "test")],
)
def test_refuses_a_split_without_its_partner(tmp_path, folders):
    make(tmp_path, *(f"{folder}/{name}/1.png" for folder in folders for name in ("ant", "bee")))
    with pytest.raises(UsageError, match=r"^Splits of own images are a folder train, one test, and perhaps one val\."):
        scan(tmp_path)


def test_refuses_splits_of_different_classes(tmp_path):
    make(tmp_path, "train/ant/1.png", "train/bee/1.png", "test/ant/1.png", "test/wasp/1.png")
    told = r"^The splits of own images have the same classes\. Received: bee, wasp only in train or test of "
    with pytest.raises(UsageError, match=told):
        scan(tmp_path)


def test_what_is_hidden_is_left_out_and_others_are_counted(tmp_path):
    make(tmp_path, "ant/1.png", "ant/.thumbnails/1.png", "ant/.2.png", "bee/1.jpg", "bee/notes.txt", "bee/README")
    make(tmp_path, ".ipynb_checkpoints/1.png")
    assert listed(tmp_path)["train"] == [("ant/1.png", "ant"), ("bee/1.jpg", "bee")]
    assert scan(tmp_path).others == {".txt": 1, "README": 1}


def test_links_inside_are_followed_and_what_they_lead_to_counts(tmp_path):
    make(tmp_path, "ant/1.png", "bee/1.png", "bee/more/2.png")
    (tmp_path / "wasp").symlink_to("bee/more")
    (tmp_path / "ant" / "2.png").symlink_to("../bee/1.png")
    (tmp_path / "ant" / "more").symlink_to(tmp_path / "bee" / "more")
    assert [path for path, _ in listed(tmp_path)["train"]] == [
        "ant/1.png",
        "ant/2.png",
        "ant/more/2.png",
        "bee/1.png",
        "bee/more/2.png",
        "wasp/2.png",
    ]
    state = scan(tmp_path).state(tmp_path)
    assert scan(tmp_path).state(tmp_path) == state
    make(tmp_path, "bee/more/3.png")
    assert len(scan(tmp_path).state(tmp_path)) == len(state) + 3
    # The folder itself may be a link.
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    assert len(scan(tmp_path.parent / f"{tmp_path.name}-link").train) == 9


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("ant/2.png", "../../away/1.png", "leaves it"),
        ("ant/more", "../../away", "leaves it"),
        ("wasp", "../away", "leaves it"),
        ("ant/2.png", "nowhere.png", "leads nowhere"),
        ("ant/2.png", "2.png", "leads nowhere"),
        ("ant/loop", ".", "leads to a folder around itself"),
        ("ant/loop", "..", "leads to a folder around itself"),
    ],
)
def test_refuses_other_links(tmp_path, link, target, reason):
    make(tmp_path / "away", "1.png")
    root = make(tmp_path / "set", "ant/1.png", "bee/1.png")
    (root / link).symlink_to(target)
    told = (
        rf"^Links of own images stay in their folder\. Received: {re.escape(str(root / link))}, which {reason}\. Copy"
    )
    with pytest.raises(UsageError, match=told):
        scan(root)


def test_refuses_a_class_that_an_evaluation_could_not_tell_from_the_whole_split(tmp_path):
    make(tmp_path, "ant/1.png", "overall/1.png")
    with pytest.raises(
        UsageError, match=r"^A class is not named overall, as evaluations name the whole split\. Received"
    ):
        scan(tmp_path)


def test_refuses_links_that_lead_to_each_other(tmp_path):
    make(tmp_path, "ant/1.png", "bee/1.png")
    (tmp_path / "ant" / "bees").symlink_to("../bee")
    (tmp_path / "bee" / "ants").symlink_to("../ant")
    told = r"Received: .*/ant/bees/ants, which leads to a folder around itself\."
    with pytest.raises(UsageError, match=r"^Links of own images stay in their folder\. " + told):
        scan(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_refuses_names_of_classes_that_are_no_text(tmp_path, name):
    make(tmp_path, "ant/1.png", f"{os.fsdecode(name)}/1.png")
    with pytest.raises(UsageError, match=r"^Class names are text in UTF-8, in one line\. Received: ") as caught:
        scan(tmp_path)
    str(caught.value).encode()
