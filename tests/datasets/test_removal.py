"""Prepared sets are deleted from the cache, and from nowhere else."""

import pytest
from filelock import FileLock

from kernorm import data
from kernorm.errors import UsageError
from kernorm.system import cli


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(folder))
    for name in ("mnist-3.0.1", "a_set-1.0.0", "a_set-1.1.0", "emnist+letters-3.1.0", "photos@0123456789ab-1.0.0"):
        (folder / f"{name}.npz").write_bytes(b"1234")
    return folder


def removed(*words):
    return cli.run(data.DataConfig, data.main, prog=data.PROG, argv=[*words, "--remove", "--yes"])


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["a_set"], ["a_set-1.0.0.npz", "a_set-1.1.0.npz"]),
        (["a_set:1.0.0", "a_set:1.0.0"], ["a_set-1.0.0.npz"]),
        (["emnist/letters", "mnist"], ["emnist+letters-3.1.0.npz", "mnist-3.0.1.npz"]),
        (["photos@0123456789ab"], ["photos@0123456789ab-1.0.0.npz"]),
    ],
)
def test_the_named_sets_are_deleted_and_shown(cache_folder, capsys, names, gone):
    before = {path.name for path in cache_folder.glob("*.npz")}
    assert removed(*names) == 0
    assert before - {path.name for path in cache_folder.glob("*.npz")} == set(gone)
    shown = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert sorted(shown) == [["4", "bytes", str(cache_folder / name)] for name in gone]


def test_without_a_yes_it_is_kept(cache_folder, capsys):
    assert cli.run(data.DataConfig, data.main, prog=data.PROG, argv=["mnist", "--remove"]) == 2
    assert "Deleting asks first." in capsys.readouterr().err
    assert (cache_folder / "mnist-3.0.1.npz").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mnits"], "--remove takes sets that are prepared. Received: 'mnits'. Did you mean 'mnist'?"),
        (["a_set:9.9.9"], "--remove takes sets that are prepared. Received: 'a_set:9.9.9'."),
        (["../mnist"], "Received: dataset='../mnist'."),
        ([], "--remove deletes named sets. Received: no name. Give for example mnist --remove."),
        (["mnist", "--again"], "--remove deletes named sets. Received: --again."),
    ],
)
def test_a_mistake_deletes_nothing(cache_folder, capsys, words, told):
    assert removed(*words) == 2
    assert told in capsys.readouterr().err
    assert len(list(cache_folder.glob("*.npz"))) == 5


def test_yes_is_an_answer_to_remove_alone():
    with pytest.raises(UsageError, match=r"--yes goes with --remove\. Received: --yes alone\. Remove it\."):
        data.DataConfig(names=("mnist",), yes=True)


def test_what_a_link_leads_to_and_what_is_being_prepared_stays(cache_folder, tmp_path, capsys):
    (tmp_path / "elsewhere.npz").write_bytes(b"12")
    (cache_folder / "linked-1.0.0.npz").symlink_to(tmp_path / "elsewhere.npz")
    assert removed("linked") == 2
    assert "never through a link" in capsys.readouterr().err
    with FileLock(cache_folder / "mnist.lock"):
        assert removed("mnist") == 2
    told = "A set that another process prepares is not deleted. Received: 'mnist'. Wait for it, or end it."
    assert told in capsys.readouterr().err
    assert (tmp_path / "elsewhere.npz").exists()
    assert (cache_folder / "mnist-3.0.1.npz").exists()
