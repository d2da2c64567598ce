"""Numbers, times and shares as reports write them.

Imports no NumPy until it is asked for classes, so that `--help` answers at once.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

NO_BREAK = "\N{NO-BREAK SPACE}"
# Names that a sentence lists before it only counts.
LISTED = 20


def percent(value: float, count: int) -> str:
    """Returns a share of `count` things in percent, two decimals at most and no more than the count supports."""
    digits = min(max(round(math.log10(max(count, 1))) - 2, 0), 2)
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) == 100:
        text = f">{100 - 10**-digits:.{digits}f}"
    return f"{text}{NO_BREAK}%"


def points(value: float, count: int) -> str:
    """Returns a difference of two shares of `count` things in percentage points, with its sign."""
    digits = min(max(round(math.log10(max(count, 1))) - 2, 0), 2)
    sign = "+" if round(100 * value, digits) else ""
    return f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}{NO_BREAK}pp".replace("-", "−")


def duration(seconds: float) -> str:
    """Returns a time as people say it."""
    if round(seconds) < 60:
        return f"{seconds:.1f}{NO_BREAK}s" if seconds < 9.95 else f"{seconds:.0f}{NO_BREAK}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NO_BREAK}min {rest}{NO_BREAK}s"
    return f"{minutes // 60}{NO_BREAK}h {minutes % 60}{NO_BREAK}min"


def moment(text: str) -> str:
    """Returns an ISO 8601 time in UTC to the second; anything else as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def name_of(label: int, labels: Sequence[str]) -> str:
    """Returns the name of a class, or its number where the data set has no name for it."""
    return labels[label] if label < len(labels) else str(label)


def unpredicted(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> tuple[str, str] | None:
    """Says how many classes no image was taken for, and names them; None if there is no such class."""
    from kernorm.stats.scores import never_predicted

    never = [name_of(label, labels) for label in never_predicted(confusion)]
    if not never:
        return None
    counted = f"{len(never)} of {sum(map(any, confusion))} classes {'was' if len(never) == 1 else 'were'}"
    more = f" and {len(never) - LISTED} more" if len(never) > LISTED else ""
    return f"{counted} never predicted", ", ".join(never[:LISTED]) + more


def worst_class(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Returns the name of the class with the least recall, the first of several."""
    from kernorm.stats.scores import class_accuracies

    recalls = [1.0 if recall is None else recall for recall in class_accuracies(confusion)]
    return name_of(recalls.index(min(recalls)), labels)


def share(confidence: float) -> str:
    """Returns a probability in percent with one decimal, never rounded up to certainty."""
    return ">99.9 %" if 0.9995 <= confidence < 1 else f"{100 * confidence:.1f} %"


def concise(value: float, digits: int = 3) -> str:
    """Returns a number in a few digits, as people write it: 0.00123, 4.5e-5."""
    text = f"{abs(value):.{digits}g}".replace("e-0", "e-").replace("e+0", "e+")
    return f"−{text}" if value < 0 else text
