"""What every command shares: parsing a config dataclass by tyro, and one line and exit code 2 for a user's mistake."""

import contextlib
import dataclasses
import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from kernorm.config import UsageError, nearest

Config = TypeVar("Config")

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG}


def parse(config_class: type[Config], *, prog: str, argv: list[str], default: Config | None = None) -> Config:
    """Parses a command line into a config; `--help` prints to stdout and exits with 0.

    Raises:
        UsageError: in one line, whatever tyro or the config's own limits refuse.
    """
    refused = io.StringIO()
    try:
        # A wide terminal keeps tyro's message on one line; its help, on stdout, follows the real one.
        with contextlib.redirect_stderr(refused), _columns(argv):
            if default is None:
                return tyro.cli(config_class, prog=prog, args=argv)
            return tyro.cli(config_class, prog=prog, args=argv, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(refused.getvalue(), config_class, prog)) from None


@contextlib.contextmanager
def _columns(argv: list[str]) -> Any:
    before = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(argv):
        os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(box: str, config_class: type, prog: str) -> str:
    """Turns tyro's framed message into `<rule>. Received: …. <fix>`."""
    lines = [line.strip("│╭╮╰╯─|+- \t") for line in box.splitlines()]
    message = next((line for line in lines[1:] if line), "The command line could not be read.")
    help_hint = f"See {prog} --help."
    flags = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(config_class)]
    if found := re.match(r"Unrecognized options: (.*)", message):
        unknown = found[1].split(", ")[0]
        close = difflib.get_close_matches(unknown, flags, n=1, cutoff=0.5)
        return (
            f"An option must be a known one. Received: {unknown}. "
            + (f"Did you mean {close[0]}? " if close else "")
            + help_hint
        )
    if found := re.match(r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*)\)", message):
        known = re.findall(r"'([^']*)'", found[3])
        return f"{found[2]} takes a known name. Received: {found[1]!r}. {nearest(found[1], known)}"
    if found := re.match(rf"Error parsing {config_class.__name__}: (.*)", message):
        return found[1]
    if found := re.match(r"Error parsing (\S+?): (.*)", message):
        value = re.findall(r"'([^']*)'", message)
        return f"{found[1]} could not be read. Received: {value[-1] if value else found[2]!r}. {help_hint}"
    return f"{message.rstrip('.')}. {help_hint}"


def run(
    config_class: type[Config],
    main: Callable[[Config], int | None],
    *,
    prog: str,
    argv: list[str] | None = None,
    default: Callable[[list[str]], Config] | None = None,
) -> int:
    """Runs a command and returns its exit code: 0, what `main` returns, 2 on a user's mistake, 130 on Ctrl-C.

    Args:
        config_class: the command's frozen dataclass.
        main: does the work.
        prog: as the user types it, for help and hints.
        argv: the words after it; the process's own by default.
        default: gives the values that flags override, from the words themselves (a recipe, say).
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        return main(parse(config_class, prog=prog, argv=words, default=default(words) if default else None)) or 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(
            f"error: Writing needs room and permission. Received: {error.strerror} at {error.filename or 'a file'}. "
            "Free some space or choose another folder; what was finished is kept.",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\nInterrupted. Finished epochs are kept; the same command goes on from there.", file=sys.stderr)
        return 130
    return 2
