"""What a process does with its output streams and its log, and what a child process needs."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO


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


def import_path() -> str:
    """Returns a PYTHONPATH with which a child process imports what this process can."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)
