import copy
import os
import pickle

import pytest

from kernorm.errors import Busy, UsageError, is_of_surroundings, nearest, one_line


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("A rule.",), "A rule."),
        (("A rule.", "3"), "A rule. Received: 3."),
        (("A rule.", 3, "Give 4."), "A rule. Received: 3. Give 4."),
        (("A rule.", "a reason.", "Give 4."), "A rule. Received: a reason. Give 4."),
        (("A rule.", "what?", "Give 4."), "A rule. Received: what? Give 4."),
        (("A rule.", "", "Give 4."), "A rule. Give 4."),
    ],
)
def test_the_text_is_built_of_rule_received_and_fix(parts, text):
    assert str(UsageError(*parts)) == text


def test_what_is_no_text_is_told_by_its_bytes():
    assert str(UsageError("A rule.", os.fsdecode(b"caf\xe9.png"))) == "A rule. Received: caf\\udce9.png."


@pytest.mark.parametrize(
    ("error", "of_surroundings"),
    [
        (OSError(28, "No space left on device"), True),
        (BlockingIOError("x"), True),
        (BrokenPipeError("x"), True),
        (Busy("Another does it."), True),
        (UsageError("OSError: quoted"), False),
        (RuntimeError("OSError: quoted"), False),
        (MemoryError(), False),
    ],
)
def test_errors_of_files_and_of_other_processes_are_of_the_surroundings(error, of_surroundings):
    assert is_of_surroundings(one_line(error)) == of_surroundings


@pytest.mark.parametrize("kind", [UsageError, Busy])
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_parts_survive_a_process_boundary(copied, kind):
    error = copied(kind("A rule.", "a reason.", "Give 4."))
    assert type(error) is kind
    assert (error.rule, error.received, error.fix) == ("A rule.", "a reason.", "Give 4.")
    assert str(error) == "A rule. Received: a reason. Give 4."


def test_the_nearest_name_comes_before_all_of_them():
    assert nearest("gm", ["bn", "gn"]) == "Did you mean 'gn'? Known: bn, gn."
    assert nearest("zzzzzz", ["bn", "gn"]) == "Known: bn, gn."


def test_an_error_in_one_line():
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(RuntimeError("x" * 999)) == "RuntimeError: …"
