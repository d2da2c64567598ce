from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings, is_number


@dataclass(frozen=True, kw_only=True)
class Settings:
    colour: Literal["red", "blue"] = "red"
    rate: Annotated[float | Literal["auto"], Limit(0, 1, "from 0 to 1")] = 0.5
    most_steps: Annotated[int | None, Limit(1, 9, "from 1 to 9")] = None
    folder: Path | None = None

    def __post_init__(self):
        check_settings(self)


def test_settings_are_brought_into_form():
    found = Settings(rate=1, folder="a/b")
    assert (type(found.rate), found.folder) == (float, Path("a/b"))
    assert Settings(rate="auto").rate == "auto"
    assert Settings(most_steps=9).most_steps == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "rde"}, r"--colour takes a known name\. Received: 'rde'\. Did you mean 'red'\? Known: red, blue\."),
        ({"rate": 1.5}, r"--rate must be from 0 to 1\. Received: rate=1\.5\. Give a value in that range\."),
        ({"rate": "fast"}, r"--rate must be from 0 to 1\. Received: rate='fast'\."),
        ({"rate": float("nan")}, r"--rate must be from 0 to 1\. Received: rate=nan\."),
        ({"rate": True}, r"--rate must be from 0 to 1\. Received: rate=True\."),
        ({"most_steps": 10}, r"--most-steps must be from 1 to 9\. Received: most_steps=10\."),
        ({"most_steps": 2.5}, r"--most-steps must be a whole number, from 1 to 9\. Received: most_steps=2\.5\."),
    ],
)
def test_what_is_outside_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        Settings(**values)


def test_numbers():
    assert [is_number(value) for value in (1, 0.5, True, "1", float("inf"), None)] == [True, True, *[False] * 4]
