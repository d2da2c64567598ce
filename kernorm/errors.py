"""The one error that a user's mistake raises, and the helpers that word it."""

import difflib
import textwrap
from collections.abc import Iterable

# How the message of work begins whose process ended: it was killed, or crashed.
LOST = "its worker"


class UsageError(ValueError):
    """A user's mistake: the rule, what was received instead, and the fix. Commands print it and exit with 2.

    Its text is `<rule> Received: <received>. <fix>`, in one line.

    Args:
        rule: what must hold, as a sentence.
        received: what was given instead; empty if the rule says it all.
        fix: what to do, as a sentence.
    """

    def __init__(self, rule: str, received: object = "", fix: str = "") -> None:
        # Names of files may hold bytes that are no UTF-8. They are escaped, since a terminal cannot print them.
        self.rule, self.received, self.fix = (
            str(part).encode(errors="backslashreplace").decode() for part in (rule, received, fix)
        )
        end = "" if self.received.endswith(("!", "?")) else "."
        found = f"Received: {self.received.rstrip('.')}{end}" if self.received else ""
        super().__init__(" ".join(part for part in (rule, found, fix) if part))

    def __reduce__(self) -> tuple:
        """Keeps the parts when the error crosses to another process."""
        return type(self), (self.rule, self.received, self.fix)


class Busy(UsageError):  # noqa: N818
    """Another process does the same work, so that it is not done here."""


class Refused(Exception):  # noqa: N818
    """A model that may not be published; the message is the reason. Commands print it and exit with 1."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the sentence that helps after an unknown name: the nearest known one, then all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(names)}."


def with_type(value: object) -> str:
    """Returns a value as a message shows it: in one line, short, with its type."""
    return f"{textwrap.shorten(repr(value), width=100, placeholder=' …')} ({type(value).__name__})"


def one_line(error: BaseException | None) -> str:
    """Returns an exception's type and message in one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", width=500, placeholder=" …")


def is_of_surroundings(line: str) -> bool:
    """Tells whether an error, as `one_line` writes it, says nothing of the work: one of files, or another process."""
    found, kinds = {Busy.__name__}, [OSError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.__name__)
        kinds += kind.__subclasses__()
    return line.partition(":")[0] in found


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
