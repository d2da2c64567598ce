"""What every command shares: parsing a config dataclass by tyro, and one line and exit code 2 for a user's mistake."""

import contextlib
import difflib
import errno
import io
import logging
import os
import re
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO, TypeVar

import tyro

from kernorm.errors import Refused, UsageError, nearest
from kernorm.system.help import grouped_help
from kernorm.system.machine import require_posix
from kernorm.system.processes import log_to_stderr
from kernorm.system.words import flags_of

Config = TypeVar("Config")

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG}
_DISK |= {errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
# What a command that trains says after Ctrl-C.
EPOCHS_KEPT = "Finished epochs are kept; run the same command to resume."
_SHOWN = 100
# Lines of help that are longer are hard to read.
_WIDTH = 120
# Narrower ones hold less than an indented word, whatever COLUMNS says.
_NARROWEST = 20


def parse(config_class: type[Config], *, prog: str, argv: list[str], default: Config | None = None) -> Config:
    """Parses a command line into a config; `--help` prints to stdout and exits with 0.

    Raises:
        UsageError: in one line, whatever tyro or the config's own limits refuse.
    """
    _refuse_empty(argv, prog)
    told, refused = io.StringIO(), io.StringIO()
    try:
        # A wide terminal keeps tyro's messages on one line.
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(refused), _wide():
            if default is None:
                return tyro.cli(config_class, prog=prog, args=argv)
            return tyro.cli(config_class, prog=prog, args=argv, default=default)
    except SystemExit as stop:
        if not stop.code:
            width = max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDTH))
            print(grouped_help(told.getvalue(), getattr(config_class, "GROUPS", {}), width), end="")
            raise
        raise UsageError(_one_line(refused.getvalue(), config_class, prog)) from None


def _refuse_empty(argv: list[str], prog: str) -> None:
    """Refuses what an unset variable of a script leaves; an empty path would otherwise be the current folder."""
    for before, word in zip([prog, *argv], argv, strict=False):
        flag, equals, value = word.partition("=")
        if not word or (equals and not value and flag.startswith("--")):
            raise UsageError(
                "A value must not be empty.", f"'' after {flag or before}", f"Give one; see {prog} --help."
            )


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
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
    flags = flags_of(config_class)
    if found := re.match(r"Unrecognized options: ?(.*)", message):
        # tyro frames its message with the dashes that a lone "-" is made of.
        unknown = found[1].split(", ")[0] or "-"
        close = difflib.get_close_matches(unknown.strip("-").lower(), [flag.strip("-") for flag in flags], n=1)
        return (
            f"An option must be a known one. Received: {_short(unknown)}. "
            + (f"Did you mean --{close[0]}? " if close else "")
            + help_hint
        )
    choice = r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*)\)"
    if found := re.search(choice, "\n".join(lines), re.DOTALL):  # a value may hold a line's end
        known = re.findall(r"'([^']*)'", found[3])
        return f"{found[2]} takes a known name. Received: {_short(found[1])!r}. {nearest(found[1], known)}"
    if message.startswith("Missing from"):
        return f"{lines[lines.index(message) + 1]} must be given. Received: nothing. {help_hint}"
    if found := re.match(r"(Missing value for argument '.*?')", message):
        return f"{found[1]}. Received: no value. Give one; {help_hint[0].lower()}{help_hint[1:]}"
    if found := re.match(r"Error parsing [A-Z]\w*Config: (.*)", message):
        return found[1]
    if found := re.match(r"Error parsing (\S+?): (.*)", message):
        value = re.findall(r"'([^']*)'", message)
        return f"{found[1]} could not be read. Received: {_short(value[-1] if value else found[2])!r}. {help_hint}"
    return f"The command line could not be read. Received: {_short(message.rstrip('.'))}. {help_hint}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def run(
    config_class: type[Config],
    main: Callable[[Config], int | None],
    *,
    prog: str,
    argv: list[str] | None = None,
    default: Callable[[list[str]], tuple[Config | None, list[str]]] | None = None,
    interrupted: str = "Run the same command again.",
) -> int:
    """Runs a command and returns its exit code: 0, what `main` returns, or 2 on a user's mistake.

    As shells count, it is 130 after Ctrl-C, 143 after SIGTERM and 141 if what reads its output goes away. Where SIGINT
    is ignored from the start, as in a shell's background job, it stays ignored: SIGTERM ends the command. While Keras
    trains or predicts, both wait for the end of a step (interrupts.py), and a second one does not.

    Args:
        config_class: the command's frozen dataclass.
        main: does the work.
        prog: as the user types it, for help and hints.
        argv: the words after it; the process's own by default.
        default: gives, from the words, the values that flags override (a recipe, say), if any, and the words left to
            parse.
        interrupted: what to say after Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else argv
    words, level = _verbosity(words)
    _mend_streams()
    log_to_stderr(level)
    try:
        try:
            return _run(config_class, main, prog, words, default, interrupted)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BrokenPipeError:
        if not any([_unread(sys.stdout), _unread(sys.stderr)]):  # both, so that neither is written to at the end
            raise
        return 128 + signal.SIGPIPE


def _run(
    config_class: type[Config],
    main: Callable[[Config], int | None],
    prog: str,
    words: list[str],
    default: Callable[[list[str]], tuple[Config | None, list[str]]] | None,
    interrupted: str,
) -> int:
    """Runs a command and says in one line what was wrong; a stream without reader raises BrokenPipeError."""
    try:
        try:
            require_posix()
            with _terminable():
                first, words = default(words) if default else (None, words)
                return main(parse(config_class, prog=prog, argv=words, default=first)) or 0
        finally:
            sys.stdout.flush()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _unread(sys.stdout)
        print(
            f"error: Writing needs room and permission. Received: {os.strerror(error.errno)} at "
            f"{error.filename2 or error.filename or 'a file'}. "
            "Free some space or choose another folder; what was finished is kept.",
            file=sys.stderr,
        )
    except KeyboardInterrupt as stop:
        print(f"\nInterrupted. {interrupted}", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return 2


def _verbosity(words: list[str]) -> tuple[list[str], int]:
    """Splits -q (warnings alone) and -v (every detail) off a command line."""
    levels = {"-q": logging.WARNING, "--quiet": logging.WARNING, "-v": logging.DEBUG, "--verbose": logging.DEBUG}
    asked = [levels[word] for word in words if word in levels]
    return [word for word in words if word not in levels], asked[-1] if asked else logging.INFO


def _mend_streams() -> None:
    """Lets output go nowhere where a stream is closed, and writes what its encoding lacks (λ, Σ) as an escape."""
    # Also the descriptors: the next file opened would take a free one, and receive what libraries write to stderr.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread(stream: TextIO) -> bool:
    """Says whether nothing can be written to a stream; the rest then goes nowhere, without another error."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        return False
    watch = select.poll()
    watch.register(descriptor, select.POLLOUT)
    try:
        stream.flush()
        gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    except OSError:
        gone = True
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return gone


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end a command as Ctrl-C does, so that files, child processes and the terminal are left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)
