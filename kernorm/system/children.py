"""A child process that has something to clean up: how it is ended, and how it lets itself be ended."""

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

# A child that has not cleaned up after this time is killed.
_PATIENCE_SECONDS = 30.0


def run_child(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command, and returns its exit code and output.

    What interrupts the wait, such as Ctrl-C, ends the child by SIGTERM, and goes on once the child has cleaned up.
    `subprocess.run` would kill it, so that what it has started and written would stay.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            said, told = child.communicate()
        except BaseException:
            child.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.communicate(timeout=_PATIENCE_SECONDS)
            finally:
                child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, said, told)


def exit_when_ended() -> None:
    """Lets Ctrl-C and SIGTERM end this process as `sys.exit` does, so that it cleans up; a second one changes nothing.

    A terminal sends Ctrl-C to this process too, and then SIGTERM comes from the process that started it. A signal that
    is ignored from the start stays so.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)
