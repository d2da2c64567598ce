"""The choices and limits of settings, read from their types: `Literal` names the choices, `Limit` the range."""

import dataclasses
import functools
import math
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


class _Kind(NamedTuple):
    """What a setting's type says: its flag, its alternatives, its choices if it has, and its range if it has."""

    flag: str
    types: tuple[Any, ...]
    choices: tuple[str, ...]
    limit: Limit | None


@functools.cache
def _kinds(settings: type) -> dict[str, _Kind]:
    found = {}
    for name, hint in typing.get_type_hints(settings, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        base = getattr(hint, "__origin__", hint) if marks else hint
        kinds = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
        choices = tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))
        # A command may name the flag otherwise, by an argument of tyro.
        named = next((mark.name for mark in marks if isinstance(getattr(mark, "name", None), str)), name)
        flag = "--" + named.replace("_", "-")
        found[name] = _Kind(flag, kinds, choices, next((mark for mark in marks if isinstance(mark, Limit)), None))
    return found


def check_settings(settings: Any) -> None:
    """Brings a settings dataclass into form and refuses values outside its choices and limits.

    A whole number for a float becomes a float, so that 1 and 1.0 are the same setting; text for a path a Path.

    Raises:
        UsageError: with the flag's rule, what was received, and the fix.
    """
    settings_class: type = type(settings)
    for field in dataclasses.fields(settings):
        name, kind = field.name, _kinds(settings_class)[field.name]
        value, flag = getattr(settings, name), kind.flag
        if type(value) is int and float in kind.types:
            object.__setattr__(settings, name, float(value))
        elif isinstance(value, str) and Path in kind.types:
            object.__setattr__(settings, name, Path(value))
        if value is None or value in kind.choices:
            continue
        if kind.choices and not kind.limit and len(kind.types) == 1:
            raise UsageError(f"{flag} takes a known name.", f"{value!r}", nearest(str(value), kind.choices))
        if limit := kind.limit:
            whole = float in kind.types or not isinstance(value, float)
            if not (is_number(value) and whole and limit.low <= value <= limit.high):
                number = limit.rule if whole or float in kind.types else f"a whole number, {limit.rule}"
                raise UsageError(f"{flag} must be {number}.", f"{name}={value!r}", "Give a value in that range.")


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
