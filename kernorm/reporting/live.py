"""What a page says while its runs are under way, and how often it is written then.

Used by studies and searches; their pages load themselves again until all runs have ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EVERY = 60.0
# Seconds between two pages are at least so many times those that the last one took to write.
SHARE = 20.0


@dataclass(frozen=True)
class Live:
    """How many runs have ended, of how many; `ends` is about when the last one will, where that is known."""

    done: int
    total: int
    what: str = "runs"
    ends: datetime | None = None

    @property
    def text(self) -> str:
        """Says how far it is."""
        return f"{self.done:,} of {self.total:,} {self.what}"


class LivePage:
    """Writes a page after ended runs, once a minute at most; `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next = clock, -float("inf")

    def ended(self, write: Callable[[Live], object], done: int, total: int, left: float, what: str = "runs") -> None:
        """Writes the page by `write` if it is time; `left` are the seconds until all have ended.

        After the last run it writes none: the complete page follows.
        """
        began = self._clock()
        if done >= total or began < self._next:
            return
        write(Live(done, total, what, datetime.now(UTC) + timedelta(seconds=left)))
        self._next = began + max(EVERY, SHARE * (self._clock() - began))
