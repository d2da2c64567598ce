"""Scales of axes: logarithmic where values span much, and stretched towards 100 % for accuracies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from kernorm.reporting.format import concise


def logarithmic(axes: Axes, values: Sequence[float], over: float) -> None:
    """Makes the y axis logarithmic, with a few ticks, where its values span more than the factor `over`."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low <= 0 or high < over * low:
        return
    axes.set(yscale="log", ylim=(low / 1.2, high * 1.2))
    subs: tuple[float, ...] = (1, 2, 5) if high < 20 * low else (1, 3) if high < 400 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: concise(value)))
    axes.yaxis.set_minor_locator(LogLocator(subs=(1,), numticks=20))


def stretch(accuracy: Any) -> Any:
    """Maps accuracies so that errors show by their ratio: −log10(1 − a + 0.001), at 100 % still finite.

    The last 1.5 points take nearly as much room as the 48.5 before them, so that a tenth of a point can be read.
    """
    return -np.log10(np.maximum(1.001 - np.asarray(accuracy, float), 1e-9))


def stretch_axis(axes: Axes, values: Sequence[float]) -> None:
    """Puts the y axis on the stretched scale, with limits and ticks chosen from the values shown."""
    low, high = stretch(min(values, default=0.0)), stretch(max(values, default=1.0))
    margin = max(0.05 * (high - low) + 0.02, 0.12 - (high - low) / 2)
    low, high = low - margin, high + margin
    axes.set_yscale("function", functions=(stretch, lambda stretched: 1.001 - 10.0 ** -np.asarray(stretched)))
    axes.set_ylim(1.001 - 10**-low, 1.001 - 10**-high)
    ticks: list[float] = []
    for preferred in (_ACCURACY_TICKS, _FINE_TICKS):
        for tick in preferred if len(ticks) < 3 else ():
            place = stretch(tick / 100)
            if low <= place <= high and all(abs(place - stretch(other / 100)) > 0.11 * (high - low) for other in ticks):
                ticks.append(tick)
    axes.set_yticks([tick / 100 for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


# In percent and in order of preference: a tick is set where it lies far enough from those before it.
_ACCURACY_TICKS: tuple[float, ...] = (
    *(100, 99, 90, 50, 0, 98, 95, 99.5, 80, 97, 98.5, 99.8, 70, 99.2, 99.4, 99.3, 99.1, 99.6, 85, 96, 98.8),
    *(93, 60, 40, 30, 20, 10, 87, 88, 92, 94, 99.7, 5),
)
# For axes so short that hardly one of those lies on them.
_FINE_TICKS: tuple[float, ...] = (*range(100), *(97 + tenth / 10 for tenth in range(20)), 99.95)
