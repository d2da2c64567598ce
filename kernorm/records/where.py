"""Which runs are meant: conditions such as `norm=gn accuracy>99.4`, over the lines of the index."""

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kernorm.config import INTERNAL, TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import names_of
from kernorm.records.index import Line
from kernorm.records.tags import Tags

_FORM = re.compile(r"(\w+)(!=|<=|>=|==?|<|>)(.+)")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Digits of a number in a list of runs.
SHOWN_DIGITS = 6
# What a line has besides settings.
COLUMNS: dict[str, Callable[[Line], Any]] = {
    "run": lambda line: line.run,
    "status": lambda line: line.status,
    "accuracy": lambda line: None if line.accuracy is None else 100 * line.accuracy,
    "cross_entropy": lambda line: line.cross_entropy,
    "validation": lambda line: line.validation,
    "started": lambda line: line.started,
    "cpu_seconds": lambda line: line.cpu_seconds,
    "revision": lambda line: line.revision,
    "study": lambda line: [study.rpartition("/")[2] for study in line.studies],
}


def value_of(line: Line, name: str, tags: Mapping[str, Tags]) -> Any:
    """Returns what a line has under a name: a column, a setting, a tag or the note."""
    if name in ("tag", "note"):
        found = tags.get(line.run)
        return (found.note if found else "") if name == "note" else list(found.tags) if found else []
    return COLUMNS[name](line) if name in COLUMNS else line.settings.get(name)


def selected(lines: Sequence[Line], where: Iterable[str], tags: Mapping[str, Tags]) -> list[Line]:
    """Returns the lines that meet every condition.

    A condition is NAME=VALUE, with != < <= > >= too; several stand in one text, apart by spaces. VALUE may be a pattern
    such as ln-*. Accuracies are in percent, started is a day or a time such as 2026-11-20.

    Raises:
        UsageError: one is not of that form, or nothing has such a name.
    """
    tests = [_condition(text, lines, tags) for words in where for text in words.split()]
    return [line for line in lines if all(test(line) for test in tests)]


def named(given: Iterable[str], lines: Sequence[Line], reports_dir: Path, flag: str) -> list[Line]:
    """Returns runs by their names or the paths of their folders, in that order.

    Raises:
        UsageError: there is no such run.
    """
    known = {name: line for line in lines for name in (line.run, line.path, str(reports_dir / line.path))}
    found = []
    for name in given:
        line = known.get(name.rstrip("/"))
        if line is None:
            close = difflib.get_close_matches(name, known, 1)
            fix = f"Did you mean {close[0]!r}?" if close else "python -m kernorm.runs lists them."
            raise UsageError(f"{flag} takes runs by their names.", f"{name!r}", fix)
        found.append(line)
    return found


def ordered(lines: Sequence[Line], name: str | None, tags: Mapping[str, Tags]) -> list[Line]:
    """Returns the lines sorted by a name, its greatest first; -NAME turns that round; None: as they are.

    Raises:
        UsageError: nothing has such a name.
    """
    if name is None:
        return list(lines)
    key = require_name(name.removeprefix("-"), lines, "--sort")
    rows = [(value_of(line, key, tags), line) for line in lines]
    there = [row for row in rows if row[0] not in (None, "", [])]
    there.sort(key=lambda row: _rank(row[0]), reverse=not name.startswith("-"))
    return [line for _, line in there] + [line for value, line in rows if value in (None, "", [])]


def require_name(name: str, lines: Sequence[Line], flag: str) -> str:
    """Returns a name that lines have something under.

    Raises:
        UsageError: they have not.
    """
    known = [*COLUMNS, "tag", "note", *dict.fromkeys(name for line in lines for name in line.settings)]
    if lines and name not in known:
        shown = [one for one in known if one not in INTERNAL]
        raise UsageError(f"{flag} takes a setting or a column.", f"{name!r}", nearest(name, shown))
    return name


def _require_value(name: str, wanted: str, lines: Sequence[Line]) -> None:
    """Refuses a value that a setting of known names cannot have, and that no line has."""
    known = names_of(TrainConfig, name) if name in TrainConfig.__annotations__ else ()
    values = [*known, *(line.settings.get(name) for line in lines)]
    if known and not any(_is(value, wanted) for value in values):
        raise UsageError(f"--where {name} takes a known name.", f"{wanted!r}", nearest(wanted, known))


def _condition(text: str, lines: Sequence[Line], tags: Mapping[str, Tags]) -> Callable[[Line], bool]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError("--where takes NAME=VALUE.", f"{text!r}", "Give for example 'norm=gn accuracy>99.4'.")
    name, sign, wanted = require_name(match[1], lines, "--where"), match[2].replace("==", "="), match[3]
    if sign not in _ORDERS:
        _require_value(name, wanted, lines)
    if name == "started" and sign in _ORDERS:
        # Times have one form and zone, so they are compared as text, up to the length of what was asked for.
        return lambda line: _ORDERS[sign](line.started[: len(wanted)], wanted)
    if name == "started":
        return lambda line: (_is(line.started[: len(wanted)], wanted) or _is(line.started, wanted)) == (sign == "=")
    if sign in _ORDERS:
        number = _number(wanted)
        if math.isnan(number):
            raise UsageError(f"{sign} of --where takes a number.", f"{text!r}", "Give for example accuracy>99.4.")
        return lambda line: _in_order(_number(value_of(line, name, tags)), sign, number)
    return lambda line: _is(value_of(line, name, tags), wanted) == (sign == "=")


def _in_order(value: float, sign: str, wanted: float) -> bool:
    """Tells whether an order holds; equal numbers are those of `_is`, such as 99.43 and 100 · 0.9943."""
    return sign in ("<=", ">=") if math.isclose(value, wanted, rel_tol=1e-9) else _ORDERS[sign](value, wanted)


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_is(one, wanted) for one in value)
    if isinstance(value, bool) or value is None:
        return wanted.lower() == ("none" if value is None else str(value).lower())
    number = _number(wanted)
    if isinstance(value, int | float) and not math.isnan(number):
        # Lists show six digits: one that is copied from there means the value itself.
        shown = len(re.sub(r"e.*|\D", "", wanted.lower()).lstrip("0")) >= SHOWN_DIGITS and f"{value:g}" == f"{number:g}"
        return shown or math.isclose(value, number, rel_tol=1e-9)
    return fnmatchcase(str(value), wanted)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _rank(value: Any) -> tuple[bool, Any]:
    """Orders numbers before words, which are compared as text."""
    if isinstance(value, int | float):
        return True, float(value)
    return False, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
