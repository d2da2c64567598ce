"""The types, choices and limits of settings, read from their types: `Literal` names the choices, `Limit` the range.

Every settings dataclass calls `check_settings` in its `__post_init__`.
"""

import contextlib
import dataclasses
import functools
import math
import numbers
import operator
import os
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from kernorm.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True)
class Limit:
    """The range of a setting, both ends included, and the same in words: `--epochs must be <rule>`."""

    low: float
    high: float
    rule: str


@dataclasses.dataclass(frozen=True)
class Range:
    """A range on a log scale."""

    low: float
    high: float

    def grid(self, per_decade: int = 1) -> list[float]:
        """Returns about so many values a decade, evenly spaced on that scale, both ends included."""
        count = max(2, 1 + round(per_decade * math.log10(self.high / self.low)))
        step = math.log(self.high / self.low) / (count - 1)
        return [float(f"{self.low * math.exp(step * place):.6g}") for place in range(count)]


class _Kind(NamedTuple):
    """What a setting's type says: its flag, its alternatives, its choices if it has, and its range if it has."""

    flag: str
    types: tuple[Any, ...]
    choices: tuple[str, ...]
    limit: Limit | None

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        words = self.limit.rule if self.limit else ""
        if int in self.types and float not in self.types:
            return f"a whole number, {words}" if words else "a whole number"
        return words or next((_WORDS[one] for one in self.types if one in _WORDS), "of its type")

    def holds(self, value: Any) -> bool:
        """Tells at once whether a value has the form of its type and is within its limits; False: it may still be."""
        kind = type(value)
        if kind is str:
            return value in self.choices or str in self.types
        if kind not in self.types or kind not in (bool, int, float, types.NoneType):
            return False
        if kind is bool or value is None:
            return True
        finite = kind is int or math.isfinite(value)  # a whole number may be too large for a float
        return finite and (self.limit is None or self.limit.low <= value <= self.limit.high)


_WORDS = {bool: "True or False", float: "a number", str: "text", Path: "a path"}
_NOT_OF_TYPE = object()
_FIX = "Give a value in that range."
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*)://")
# A Path has one slash where its text had two.
_ADDRESS_AS_PATH = re.compile(r"([A-Za-z][\w+.-]*):/")
# Characters of a wrong value that a message shows.
_SHOWN = 100


@functools.cache
def _kinds(settings: type) -> dict[str, _Kind]:
    found = {}
    for name, hint in typing.get_type_hints(settings, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        # A command may name the flag otherwise, by an argument of tyro.
        named = next((mark.name for mark in marks if isinstance(getattr(mark, "name", None), str)), name)
        found[name] = _kind(flag_of(named or name), hint)
    return found


def is_switch(settings: type, name: str) -> bool:
    """Tells whether a setting is on or off."""
    return bool in _kinds(settings)[name].types


def is_word(settings: type, name: str) -> bool:
    """Tells whether a setting is a name, and no number."""
    return not {int, float, bool} & set(_kinds(settings)[name].types)


def names_of(settings: type, name: str) -> tuple[str, ...]:
    """Returns the names that a setting may have; nothing for one that may be anything else, too."""
    kind = _kinds(settings)[name]
    others = {int, float, bool, str, Path} & set(kind.types)
    return () if others else (*kind.choices, *(("none",) if kind.choices and types.NoneType in kind.types else ()))


@functools.cache
def _kind(flag: str, hint: Any) -> _Kind:
    marks = getattr(hint, "__metadata__", ())
    base = getattr(hint, "__origin__", hint) if marks else hint
    kinds = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
    choices = tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))
    return _Kind(flag, kinds, choices, next((mark for mark in marks if isinstance(mark, Limit)), None))


def flag_of(name: str) -> str:
    """Returns the flag of a setting."""
    return "--" + name.replace("_", "-")


def seconds_of(text: str, flag: str) -> float:
    """Returns a time such as 90s, 30m or 1.5h in seconds; a number alone is of seconds.

    Raises:
        UsageError: it is none, or 0; `flag` gave it.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([smh]?)", text)
    if not found or not float(found[1]):
        raise UsageError(f"{flag} takes a time.", f"{text!r}", "Give for example 30m.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def check_settings(settings: Any) -> None:
    """Brings the values of a settings dataclass into form by their types and refuses those outside their limits.

    A number of NumPy becomes Python's, a whole number for a float becomes a float, so that 1 and 1.0 are the same
    setting; text for a path becomes a Path, its ~ expanded; a list becomes a tuple.

    Raises:
        UsageError: with the flag's rule, what was received, with its type where that is wrong, and the fix.
    """
    settings_class: type = type(settings)
    kinds = _kinds(settings_class)
    for field in dataclasses.fields(settings):
        name, value = field.name, getattr(settings, field.name)
        if kinds[name].holds(value):  # studies make thousands of configs
            continue
        formed = _formed(value, kinds[name], name)
        if formed is not value:
            object.__setattr__(settings, name, formed)


def _formed(value: Any, kind: _Kind, name: str) -> Any:
    """Returns a value in the form of its type, within its limits."""
    items = next((get_args(one)[0] for one in kind.types if get_origin(one) is tuple), None)
    if items is not None and isinstance(value, list | tuple):
        return tuple(_formed(item, _kind(kind.flag, items), name) for item in value)
    if items is not None:
        raise UsageError(f"{kind.flag} takes a list.", _typed(name, value), "Give a list or a tuple.")
    found = _of_type(value, kind)
    if found is _NOT_OF_TYPE:
        if kind.choices and not kind.limit:
            raise UsageError(f"{kind.flag} takes a known name.", f"{value!r}", nearest(str(value), kind.choices))
        raise UsageError(f"{kind.flag} must be {kind.rule}.", _typed(name, value), _FIX if kind.limit else "Give one.")
    limit = kind.limit
    if limit and isinstance(found, int | float) and not (is_number(found) and limit.low <= found <= limit.high):
        raise UsageError(f"{kind.flag} must be {limit.rule}.", f"{name}={found!r}", _FIX)
    return found


def _of_type(value: Any, kind: _Kind) -> Any:
    """Returns a value as one of the types of its setting, or _NOT_OF_TYPE."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()  # a number or truth value of NumPy, JAX or PyTorch
    if value is None or isinstance(value, bool):
        return value if type(value) in kind.types else _NOT_OF_TYPE
    if isinstance(value, str):
        if value in kind.choices or str in kind.types:
            return str(value)
        return expanded(value) if Path in kind.types else _NOT_OF_TYPE
    if isinstance(value, os.PathLike) and Path in kind.types:
        return expanded(value)
    whole = int in kind.types and isinstance(value, numbers.Integral)
    if isinstance(value, numbers.Real) and float in kind.types and not whole:
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if int in kind.types:
        with contextlib.suppress(TypeError):
            return operator.index(value)
    return value if dataclasses.is_dataclass(value) and type(value) in kind.types else _NOT_OF_TYPE


def _typed(name: str, value: Any) -> str:
    shown = repr(value)
    return f"{name}={shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'} ({type(value).__name__})"


def whole_number(value: Any) -> int | None:
    """Returns a whole number as Python's, whoever's type it has; None for anything else, truth values included."""
    found = _of_type(value, _Kind("", (int,), (), None))
    return None if found is _NOT_OF_TYPE else found


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a user's path, ~ at its beginning replaced by the home folder, as a shell does only before a word.

    Raises:
        UsageError: there is no such home, or it is an address, such as s3://bucket/models.
    """
    found = (_ADDRESS if isinstance(path, str) else _ADDRESS_AS_PATH).match(os.fspath(path))
    if found and (isinstance(path, str) or not Path(f"{found[1]}:").is_dir()):
        shown = f"{found[1]}://{os.fspath(path)[found.end() :]}"
        raise UsageError("A path is one of this machine.", shown, "Give a local folder and copy it there.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            "A path that begins with ~ needs a home folder.", f"{os.fspath(path)!r}", "Give the whole path."
        ) from None


def is_path(dataset: str) -> bool:
    """Tells whether --dataset names a place of own images, and no set of tensorflow-datasets."""
    return dataset.startswith(("/", "./", "../", "~")) or dataset.endswith(".npz") or dataset in (".", "..")


def file_and_function(net: str) -> tuple[str, str] | None:
    """Splits an own net, FILE.py:FUNCTION; None for a name."""
    file, colon, function = net.rpartition(":")
    return (file, function) if colon and file.endswith(".py") and function.isidentifier() else None


def size_of(text: str) -> tuple[int, int]:
    """Reads an --image-size, 64 or HEIGHTxWIDTH, as (height, width).

    Raises:
        UsageError: it is none, or outside 4 to 4096.
    """
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isdecimal()]
    if len(parts) > 2 or len(sizes) != len(parts) or not all(4 <= size <= 4096 for size in sizes):
        raise UsageError("--image-size is 64 or HEIGHTxWIDTH, from 4 to 4096.", f"{text!r}", "Give for example 48x64.")
    return sizes[0], sizes[-1]


def range_of(text: str) -> Range | None:
    """Reads LOW:HIGH with 0 < LOW < HIGH; None if it is none."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        return None
    return Range(*numbers) if len(numbers) == 2 and 0 < numbers[0] < numbers[1] < math.inf else None


def number_or_share(value: Any, flag: str) -> Any:
    """Returns a number of images as a whole number, a share below 1 as it is; anything else too.

    Raises:
        UsageError: a number of 1 or more is not whole.
    """
    if not isinstance(value, float) or 0 < value < 1:
        return value
    if not value.is_integer():
        raise UsageError(f"{flag} is a number of images, or a share below 1.", f"{value}", "Give a whole number.")
    return int(value)


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number, and not a truth value."""
    return type(value) is not bool and (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)))


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
