"""Deleting: what is shown, what is asked, and what is never reached."""

import io

import pytest

from kernorm.errors import UsageError
from kernorm.system.removal import holding, remove, require_within, size_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def folder(tmp_path):
    """A folder of 7 bytes, and one outside of it that a link inside leads to."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    inside = tmp_path / "reports" / "run"
    (inside / "deep").mkdir(parents=True)
    (inside / "a").write_text("1234")
    (inside / "deep" / "b").write_text("567")
    return inside


def answer(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", Terminal(text))


@pytest.mark.parametrize("words", ["y\n", "yes\n", "Y\n"])
def test_shows_the_bytes_asks_and_deletes(folder, monkeypatch, capsys, words):
    answer(monkeypatch, words)
    assert remove([folder, folder.parent.parent / "outside" / "kept"], yes=False, remarks=["stays: x"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split(maxsplit=2) == ["7", "bytes", str(folder)]
    assert out[1].split()[0] == "4"
    assert out[2:] == ["stays: x", "Delete 11 bytes for good? [y/N] "]
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("words", ["n\n", "\n", "", "yeah\n"])
def test_another_answer_deletes_nothing(folder, monkeypatch, capsys, words):
    answer(monkeypatch, words)
    assert not remove([folder], yes=False)
    assert capsys.readouterr().out.endswith("[y/N] Nothing was deleted.\n")
    assert size_of(folder) == 7


def test_without_a_terminal_it_is_refused_and_a_flag_is_an_answer(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match=r"Deleting asks first\. Received: no terminal to ask on\. Add --yes"):
        remove([folder], yes=False)
    assert folder.exists()
    assert remove([folder], yes=True)
    assert not folder.exists()


def test_a_link_within_is_deleted_and_what_it_leads_to_is_not(folder, tmp_path):
    (folder / "link").symlink_to(tmp_path / "outside")
    assert size_of(folder) == 7
    assert remove([folder], yes=True)
    assert (tmp_path / "outside" / "kept").read_text() == "kept"


def test_what_lies_outside_or_behind_a_link_is_refused(folder, tmp_path):
    reports = folder.parent
    require_within(folder, reports)
    (tmp_path / "other").symlink_to(reports)
    require_within(tmp_path / "other" / "run", tmp_path / "other")  # the folder itself may be reached by one
    (reports / "link").symlink_to(tmp_path / "outside")
    (folder / "in").symlink_to(folder / "deep")
    told = r"Only what lies in .*reports itself is deleted, never through a link\. Received: .* at .*\. Delete it there"
    for path in (tmp_path / "outside", reports, reports / "link", reports / "link" / "kept", folder / "in", tmp_path):
        with pytest.raises(UsageError, match=told):
            require_within(path, reports)
    with pytest.raises(UsageError, match=told):
        require_within(reports / ".." / "outside", reports)


def test_what_another_process_uses_is_refused(folder):
    with holding([folder], "A run"):
        told = r"A run that another process uses is not deleted\. Received: .*run, whose lock is held\. Wait for it, or"
        with pytest.raises(UsageError, match=told), holding([folder], "A run"):
            pass
    assert not (folder / "lock").exists()
