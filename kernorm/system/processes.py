"""What a process does with its output streams and its log; what a child process needs, and how it has ended."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# Processes share a GPU: each takes of its memory what it needs, not all of it at the start as is their default.
SHARING = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_COUNTS = Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")


class _StderrHandler(logging.StreamHandler):
    """Writes to what is standard error at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message."""
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lets a reader that has gone away end the command, as it does where something is printed."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Shows kernorm's own messages on standard error, as commands and their workers do; a library's user decides."""
    logger = logging.getLogger("kernorm")
    logger.setLevel(level)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())


@contextlib.contextmanager
def redirected(descriptor: int, stream: TextIO, target: int) -> Iterator[None]:
    """Sends an output stream to the descriptor `target`, including what native code and child processes write."""
    stream.flush()
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Discards what is written to standard error, including by native code."""
    with open(os.devnull, "w") as nowhere, redirected(2, sys.stderr, nowhere.fileno()):
        yield


def is_other_process(number: int) -> bool:
    """Tells whether a process other than this one lives under that number on this machine."""
    if number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def import_path() -> str:
    """Returns a PYTHONPATH with which a child process imports what this process can."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def cause_of_death(code: int | None, *, begun: bool, out_of_memory: bool) -> str:
    """Says why a worker has ended.

    Args:
        code: its exit code, or less 0 the signal that ended it; None if it is not known.
        begun: whether it was ready for its first job.
        out_of_memory: whether the system has killed a process for lack of memory meanwhile.
    """
    if code is None:
        return "was lost"
    if code >= 0:
        return (
            f"ended with exit code {code}{'' if begun else ' before its first job'}; its message is above or in its log"
        )
    name = signal.Signals(-code).name
    if -code in _CRASHES:
        return f"crashed with {name} in native code"
    if -code != signal.SIGKILL:
        return f"was ended by {name}"
    by_whom = "for lack of memory" if out_of_memory else "by another process or for lack of memory"
    return f"was killed by {name}, {by_whom}"


def out_of_memory_kills() -> int:
    """Counts the processes that Linux has killed for lack of memory, on this machine and in this container."""
    count = 0
    for path in _COUNTS:
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8").splitlines()
            fields = dict(line.split(maxsplit=1) for line in lines if " " in line)
            count += int(fields.get("oom_kill", 0))
    return count
