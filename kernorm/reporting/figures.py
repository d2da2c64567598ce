"""What every report draws with: one palette, one style, and panels that become SVG in a page and PNG next to it.

Before plots. A panel is drawn once, in the colours of PALETTE; for the page each of them becomes the CSS property of
its name, so that one drawing serves light, dark and print.
"""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator

# Blue, orange, green, purple and gold keep apart under the common colour blindnesses (after Okabe and Ito 2008), and
# each has a contrast of at least 4.5 to the paper; heat fills cells behind ink. Every hex value occurs once: it is also
# the mark that CSS replaces.
PALETTE = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#c3cad2",
    "grid": "#e8ebef",
    "paper": "#ffffff",
    "blue": "#0b6bb0",
    "orange": "#bf4a05",
    "green": "#0a7d5a",
    "purple": "#8e4a9e",
    "gold": "#8a6500",
    "heat": "#ee8434",
}

_FONT = "DejaVu Sans"
# Fonts with the letters that it lacks, as systems have them; those that are installed are used, letter by letter.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "NanumGothic", "Unifont"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans Devanagari"),
)

STYLE: Any = {
    "font.family": _FONT,
    "font.size": 10,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["line"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": PALETTE["muted"],
    "axes.labelsize": 10,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Panel:
    """One chart: a name unique in the page, a title, what it shows in words, its size in inches, and how to draw it."""

    name: str
    title: str
    description: str
    size: tuple[float, float]
    draw: Callable[[FigureBase], None]


def to_svg(panel: Panel) -> str:
    """Returns the panel as an `<svg>` element for a page that defines PALETTE's names and `font` as CSS properties."""
    text = io.StringIO()
    # The salt makes matplotlib's ids depend on nothing but the drawing, so the same record gives the same page.
    with _styled({"svg.hashsalt": panel.name}):
        figure = Figure(figsize=panel.size, layout="constrained")
        panel.draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<defs>\s*<style.*?</style>\s*</defs>\s*", ""),
        (r'\bid="', f'id="{panel.name}-'),
        (r'href="#', f'href="#{panel.name}-'),
        (r"url\(#", f"url(#{panel.name}-"),
        (r"'DejaVu Sans'[^;\"]*", "var(--font)"),
    ):
        drawing = re.sub(pattern, replacement, drawing, flags=re.DOTALL)
    for name, colour in PALETTE.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="[^"]+"', drawing)
    label = escape(f"{panel.title}. {panel.description}", quote=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box and box[0]}'
    return re.sub(r"<svg.*?>", lambda _: f'{head} role="img" aria-label="{label}">', drawing, count=1, flags=re.DOTALL)


def to_png(panels: Sequence[Panel], caption: str, columns: int = 2) -> bytes:
    """Returns panels side by side as one PNG file, light, 150 dots an inch, with a caption such as the run's id."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = panels[0].size
    data = io.BytesIO()
    with _styled({"savefig.dpi": 150}, escaping=True):
        figure = Figure(figsize=(columns * width, rows * (height + 0.3) + 0.25), layout="constrained")
        figure.supxlabel(plain(caption, 200), fontsize=7.5, color=PALETTE["muted"], x=0.99, ha="right")
        places = np.ravel(figure.subfigures(rows, columns, squeeze=False))
        for panel, place in zip(panels, places, strict=False):
            place.suptitle(plain(panel.title, 60), x=0.02, ha="left", fontsize=11, fontweight="bold")
            panel.draw(place)
        figure.savefig(data, format="png", metadata={"Software": None}, bbox_inches=figure.bbox_inches.padded(0.15))
    return data.getvalue()


# Whether letters without a font are written as escapes: in a PNG, not in a page, whose browser has fonts of its own.
_escaping: ContextVar[bool] = ContextVar("escaping", default=False)


@contextlib.contextmanager
def _styled(changes: dict[str, Any], *, escaping: bool = False) -> Iterator[None]:
    """Draws in STYLE, in silence where no font has a letter."""
    token = _escaping.set(escaping)
    try:
        with mpl.rc_context(STYLE | {"font.family": list(_families())} | changes), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s)Glyph .* missing from font", UserWarning)
            yield
    finally:
        _escaping.reset(token)


@functools.cache
def _families() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    return (_FONT, *(name for name in _MORE_FONTS if name in installed))


@functools.cache
def _has_font(letter: str) -> bool:
    fonts = (font_manager.get_font(font_manager.findfont(name)) for name in _families())
    return any(font.get_char_index(ord(letter)) for font in fonts)


def legend(axes: Axes, room: int = 64) -> None:
    """Sets what is labelled above the axes, each label once; nothing where nothing is.

    A line of the legend holds `room` characters.
    """
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        by_label = dict(zip(labels, handles, strict=True))
        axes.legend(
            by_label.values(),
            by_label.keys(),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=legend_columns(list(by_label), room),
            borderaxespad=0.1,
            handlelength=1.2,
            columnspacing=0.8,
        )


def legend_columns(labels: Sequence[str], room: int = 64) -> int:
    """Returns the most columns whose longest labels, each with its line, fit into `room` characters."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        longest = (max(map(len, labels[start : start + rows])) for start in range(0, len(labels), rows))
        if sum(length + 5 for length in longest) <= room:
            return columns
    return 1


def concise(value: float) -> str:
    """Returns a number in three digits, as people write it: 0.00123, 4.5e-5."""
    text = f"{abs(value):.3g}".replace("e-0", "e-").replace("e+0", "e+")
    return f"−{text}" if value < 0 else text


def plain(text: str, most: int = 34) -> str:
    """Returns a user's text as matplotlib draws it letter by letter, its middle left out where it is longer.

    In a PNG a letter that no installed font has becomes an escape, as in Python's ASCII.
    """
    if _escaping.get():
        text = "".join(letter if _has_font(letter) else letter.encode("unicode_escape").decode() for letter in text)
    shown = text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"
    # A dollar sign begins mathematics, and a label that begins with an underscore is hidden.
    return ("\N{NO-BREAK SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def logarithmic(axes: Axes, values: Sequence[float], over: float) -> None:
    """Makes the y axis logarithmic, ticks at 1, 2 and 5, where its values span more than the factor `over`."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low <= 0 or high < over * low:
        return
    axes.set(yscale="log", ylim=(low / 1.2, high * 1.2))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=(1,)))


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
            if low <= place <= high and all(abs(place - stretch(other / 100)) > 0.08 * (high - low) for other in ticks):
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
