"""What a chart of a page says when one points at it, and which of its parts belong to which arm.

Drawing code names its points here while a panel becomes SVG; a PNG file has no use for them. Behind figures, before the
script of pages, which finds the nearest point. Places are computed from the axes and never read from the drawing:
matplotlib leaves out what lies outside of them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

Place = tuple[float, float]


class Column(NamedTuple):
    """What an arm has over epochs: values, and halves of their 95 % intervals where there are any."""

    epochs: Sequence[int]
    values: Sequence[float]
    halves: Sequence[float] = ()


@dataclass(frozen=True)
class Measure:
    """How the script writes what is measured over epochs.

    Attributes:
        label: what it is called.
        unit: behind a value.
        factor: of the value in that unit.
        digits: decimals; None: three digits that count.
        most: the greatest value possible; the least is 0 where there is one.
    """

    label: str
    unit: str = ""
    factor: float = 1
    digits: int | None = None
    most: float | None = None

    def table(self, columns: Iterable[Column | None]) -> dict[str, Any]:
        """Returns the values of each arm, as short as they are shown."""
        rows = [self._row(*column) if column else None for column in columns]
        known = {"n": self.label, "u": self.unit, "f": self.factor, "q": self._parts, "y": rows}
        limits = {"d": self.digits, "r": self.most}
        return known | {key: value for key, value in limits.items() if value is not None}

    @property
    def _parts(self) -> float:
        return 1 if self.digits is None else self.factor * 10**self.digits

    def _row(self, epochs: Sequence[int], values: Sequence[float], halves: Sequence[float]) -> list[Any]:
        place = {epoch: at for at, epoch in enumerate(epochs)}
        listed = [place.get(epoch) for epoch in range(epochs[0], epochs[-1] + 1)]
        columns = [values, halves] if len(halves) else [values]
        wholes = ([None if at is None else self._whole(some[at]) for at in listed] for some in columns)
        return [epochs[0], *(wholes if self.digits is None else map(_steps, wholes))]

    def _whole(self, value: float) -> float | int | None:
        if not np.isfinite(value):
            return None
        if self.digits is not None:
            return round(value * self._parts)
        short = float(f"{value:.3g}")
        return int(short) if short.is_integer() else short


def _steps(values: Iterable[float | None]) -> list[float | None]:
    """Returns each value less the known one before it, which is shorter."""
    steps, last = [], 0.0
    for value in values:
        steps.append(None if value is None else value - last)
        last = last if value is None else value
    return steps


@dataclass
class _Said:
    """What the points of some axes say: lines by arm and measure of the page's tables, single points by their words."""

    axes: Axes
    lines: list[tuple[int | None, str]] = field(default_factory=list)
    points: list[tuple[Place, str, int | None]] = field(default_factory=list)


_said: ContextVar[dict[int, _Said] | None] = ContextVar("said", default=None)


@contextlib.contextmanager
def listening() -> Iterator[dict[int, _Said]]:
    """Collects what is said inside."""
    found: dict[int, _Said] = {}
    token = _said.set(found)
    try:
        yield found
    finally:
        _said.reset(token)


def of_arm(place: int) -> str:
    """Returns the group id (`set_gid`) of an artist that belongs to the arm at this place of the page's list."""
    return f"arm{place}"


def follow(axes: Axes, measure: str, arm: int | None = None) -> None:
    """Says at each point of a line over epochs what the page's table of this measure holds for an arm."""
    if (found := _of(axes)) is not None:
        found.lines.append((arm, measure))


def say(axes: Axes, places: Iterable[Place], texts: Iterable[str], arm: int | None = None) -> None:
    """Says a text at each of some places, in the data's coordinates; each once."""
    if (found := _of(axes)) is not None:
        found.points += [(place, text, arm) for place, text in zip(places, texts, strict=True)]


def _of(axes: Axes) -> _Said | None:
    known = _said.get()
    return None if known is None else known.setdefault(id(axes), _Said(axes))


def as_json(found: Iterable[_Said], height: float) -> list[dict[str, Any]]:
    """Returns what was said in the coordinates of an SVG of this height, in points, for the script of pages."""
    return [_axes_json(one, height) for one in found if one.lines or one.points]


# Scales of axes, as the script knows them.
_SCALES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda value: value,
    "log": np.log10,
    "function": lambda accuracy: -np.log10(np.maximum(1.001 - accuracy, 1e-9)),  # figures.stretch
}


def _axes_json(found: _Said, height: float) -> dict[str, Any]:
    axes = found.axes
    dots = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]

    def place(at: Sequence[float]) -> Place:
        x, y = axes.transData.transform(at) / dots
        return float(x), float(height - y)

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    # What lies outside of the axes is found at their edge.
    box = [*place((left, high)), *place((right, low))]
    points = [
        [round(min(max(at, first), last)) for at, first, last in zip(place(data), box[:2], box[2:], strict=True)]
        + [text, *([] if arm is None else [arm])]
        for data, text, arm in found.points
    ]
    known: dict[str, Any] = {"b": [round(end) for end in box]}
    if found.lines:
        known["l"] = [[arm, measure] for arm, measure in found.lines]
        known["x"] = _affine(left, right, box[0], box[2])
        scale = axes.get_yscale()
        change = _SCALES[scale]
        known["y"] = [list(_SCALES).index(scale), *_affine(change(low), change(high), box[3], box[1])]
    if points:
        known["m"] = points
    return known


def _affine(low: float, high: float, first: float, last: float) -> list[float]:
    """Returns a and b of the place a + b·v of a value v."""
    slope = (last - first) / (high - low)
    return [round(float(first - slope * low), 2), float(f"{slope:.5g}")]
