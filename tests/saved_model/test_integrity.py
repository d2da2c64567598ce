"""The hash of a model and its copy, while another process evaluates or validates it or was killed at it."""

import shutil

import pytest

from kernorm.saved_model.card import FOLDER
from kernorm.saved_model.integrity import copy_model, tree_sha256

LEFT = ".evaluation.json.99999999.tmp"


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model" / FOLDER).mkdir(parents=True)
    for name in ("saved_model.pb", FOLDER / "evaluation.json", FOLDER / "BLESSED"):
        (tmp_path / "model" / name).write_text("1")
    return tmp_path / "model"


def test_an_evaluation_in_the_making_is_no_change(model):
    before = tree_sha256(model)
    for name in (LEFT, ".BLESSED.1.tmp"):
        (model / FOLDER / name).write_text("half")
    assert tree_sha256(model) == before


@pytest.mark.parametrize(
    "name",
    [
        LEFT,
        "variables/.evaluation.json.1.tmp",
        FOLDER / ".model_card.json.1.tmp",
        FOLDER / ".evaluation.json.tmp",
        FOLDER / ".evaluation.json.x.tmp",
        FOLDER / "evaluation.json.1.tmp",
    ],
)
def test_every_other_file_is_a_change(model, name):
    before = tree_sha256(model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("")
    assert tree_sha256(model) != before


def test_a_copy_has_no_files_in_the_making(model, tmp_path):
    (model / FOLDER / LEFT).write_text("half")
    (tmp_path / "copy").mkdir()
    copy_model(model, tmp_path / "copy")
    names = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert names == {"assets.extra", "saved_model.pb", f"{FOLDER}/evaluation.json"}


@pytest.mark.parametrize(("name", "whole"), [(FOLDER / "BLESSED", True), ("saved_model.pb", False)])
def test_a_copy_stands_the_loss_of_what_an_evaluation_replaces(model, tmp_path, monkeypatch, name, whole):
    """It is removed after it was listed."""
    copyfile = shutil.copyfile

    def losing(source, target):
        (model / name).unlink(missing_ok=True)
        copyfile(source, target)

    monkeypatch.setattr("shutil.copyfile", losing)
    (tmp_path / "copy").mkdir()
    if whole:
        copy_model(model, tmp_path / "copy")
        assert (tmp_path / "copy" / "saved_model.pb").exists()
    else:
        with pytest.raises(FileNotFoundError):
            copy_model(model, tmp_path / "copy")
