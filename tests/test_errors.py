import copy
import pickle

import pytest

from kernorm.errors import UsageError, nearest, one_line


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


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_parts_survive_a_process_boundary(copied):
    error = copied(UsageError("A rule.", "a reason.", "Give 4."))
    assert (error.rule, error.received, error.fix) == ("A rule.", "a reason.", "Give 4.")
    assert str(error) == "A rule. Received: a reason. Give 4."


def test_the_nearest_name_comes_before_all_of_them():
    assert nearest("gm", ["bn", "gn"]) == "Did you mean 'gn'? Known: bn, gn."
    assert nearest("zzzzzz", ["bn", "gn"]) == "Known: bn, gn."


def test_an_error_in_one_line():
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(RuntimeError("x" * 999)) == "RuntimeError: …"
