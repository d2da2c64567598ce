"""Tags and notes are kept by run; a damaged file is refused."""

import json

import pytest

from kernorm.errors import UsageError
from kernorm.records.tags import TAGS, Tags, read_tags, set_tags
from kernorm.system.files import locked


def test_tags_are_added_and_removed(tmp_path):
    assert read_tags(tmp_path) == {}
    set_tags(tmp_path, ["a", "b"], add=["good", "paper"], note="the best")
    set_tags(tmp_path, ["a"], add=["good", "new"], remove=["paper"])
    assert read_tags(tmp_path) == {
        "a": Tags(tags=("good", "new"), note="the best"),
        "b": Tags(tags=("good", "paper"), note="the best"),
    }
    assert set_tags(tmp_path, ["b"], remove=["good", "paper", "never"], note="") == read_tags(tmp_path)
    assert set(read_tags(tmp_path)) == {"a"}  # nothing is said of b any more


def test_a_damaged_file_is_refused_and_stays(tmp_path):
    path = tmp_path / TAGS
    path.parent.mkdir()
    path.write_text(json.dumps({"runs": {"a": {"tags": "good"}}}))
    told = r"A tags\.json must be whole\. Received: .*runs\.a\.tags: .*Fix it, or remove it; then tags and notes"
    with pytest.raises(UsageError, match=told):
        read_tags(tmp_path)
    with pytest.raises(UsageError, match=told):
        set_tags(tmp_path, ["a"], add=["x"])
    assert "good" in path.read_text()


def test_two_processes_do_not_change_tags_at_once(tmp_path):
    (tmp_path / "runs").mkdir()
    told = r"Only one process at a time may change tags\. Received: .*tags\.lock held by another one"
    with locked(tmp_path / "runs" / "tags.lock", "wait"), pytest.raises(UsageError, match=told):
        set_tags(tmp_path, ["a"], add=["x"])


@pytest.mark.parametrize("tag", ["for table", "a,b", "x=1", ""])
def test_a_tag_that_no_condition_can_name_is_refused(tmp_path, tag):
    with pytest.raises(UsageError, match=r"A tag is one word\. Received: '.*'\. Give for example paper-2"):
        set_tags(tmp_path, ["a"], add=[tag])
    assert read_tags(tmp_path) == {}
