"""Which words of a command line are whose: the flags of a command, and those that it hands on to kernorm.train."""

import dataclasses
import typing
from collections.abc import Mapping

import tyro

from kernorm.errors import UsageError, nearest
from kernorm.limits import flag_of


def flags_of(config_class: type) -> list[str]:
    """Returns the flags of a command's settings, including those of settings nested in it."""
    flags = []
    hints = typing.get_type_hints(config_class, include_extras=True)
    for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(config_class)):
        kind, marks = getattr(hint, "__origin__", hint), getattr(hint, "__metadata__", ())
        if tyro.conf.Suppress in marks:
            continue
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            flags += flags_of(kind)
        else:
            names = [mark.name for mark in marks if getattr(mark, "name", None)]
            flags.append(flag_of((names or [name])[0]))
    return flags


def split_words(
    words: list[str], *, own: set[str], theirs: set[str], held: Mapping[str, str], holder: str, prog: str
) -> tuple[list[str], list[str]]:
    """Splits a command line into a command's own words and those of kernorm.train.

    Args:
        words: of the command line.
        own: names of the command's settings.
        theirs: names of settings of kernorm.train.
        held: those of them that the command sets itself, each with where.
        holder: the command, as the message calls it.
        prog: the command, as the user types it.

    Raises:
        UsageError: a flag that neither has, or one of `held`.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    into = parts[0]
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            name = name.removeprefix("no_") if name not in own | theirs else name
            if name in held:
                raise UsageError(f"{holder} sets --{name.replace('_', '-')} itself.", word, f"See {held[name]}.")
            if name not in own | theirs | {"help"}:
                flags = sorted("--" + known.replace("_", "-") for known in own | theirs - set(held))
                close = nearest(f"--{name.replace('_', '-')}", flags).partition("Known:")[0].replace("'", "")
                raise UsageError(
                    "An option must be a known one.",
                    word,
                    f"{close}See {prog} --help and python -m kernorm.train --help.",
                )
            into = parts[1] if name in theirs else parts[0]
        into.append(word)
    return parts


def settings_of(config_class: type) -> set[str]:
    """Returns the names of a command's settings, as its flags have them."""
    return {flag.removeprefix("--").replace("-", "_") for flag in flags_of(config_class)}
