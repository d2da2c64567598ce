"""What every report draws with: one palette, one style, and panels that become SVG in a page and PNG next to it.

Before plots. A panel is drawn once, in the colours of PALETTE; for the page each of them becomes the CSS property of
its name, so that one drawing serves light, dark and print. It is drawn as wide as a phone shows it, so that one drawing
serves all screens: a point of the drawing is a pixel there, and more on larger screens.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from kernorm.reporting import hover
from kernorm.reporting.svg import SmallSvg

# Blue, orange, green, purple and gold keep apart under the common colour blindnesses (after Okabe and Ito 2008); pink
# and teal have markers of their own besides. Each has a contrast of at least 4.5 to the paper; heat fills cells behind
# ink. Every hex value occurs once: it is also the mark that CSS replaces.
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
    "pink": "#b3246b",
    "teal": "#006e7a",
    "heat": "#ee8434",
}

# Colours and markers of up to eight lines, the first for what others are compared with.
LOOKS = (
    ("ink", "o"),
    ("blue", "s"),
    ("orange", "^"),
    ("green", "D"),
    ("purple", "v"),
    ("gold", "P"),
    ("pink", "X"),
    ("teal", "*"),
)

# Widths of panels in inches: of a chart, and of one of many small ones, as a phone of 390 pixels shows them.
WIDTH, SMALL = 4.44, 3.7
# Of all letters in a chart, in points.
LETTERS = 11

_FONT = "DejaVu Sans"
# Fonts with the letters that it lacks, as systems have them; those that are installed are used, letter by letter.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "NanumGothic", "Unifont"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans Devanagari"),
)

STYLE: Any = {
    "font.family": _FONT,
    "font.size": LETTERS,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["line"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": PALETTE["muted"],
    "axes.labelsize": LETTERS,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "xtick.labelsize": LETTERS,
    "ytick.labelsize": LETTERS,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": LETTERS,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Panel:
    """One chart: a name unique in the page, a title, what it shows in words, its size in inches, and how to draw it.

    `arm` is the place of the arm that the whole chart is of, where there is one.
    """

    name: str
    title: str
    description: str
    size: tuple[float, float]
    draw: Callable[[FigureBase], None]
    arm: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A panel as an `<svg>` element, and what its points say, for the script of pages."""

    svg: str
    points: list[dict[str, Any]]


def draw_svg(panel: Panel) -> Drawing:
    """Draws a panel for a page that defines PALETTE's names and `font` as CSS properties."""
    text = io.StringIO()
    width, height = panel.size
    # The salt makes matplotlib's ids depend on nothing but the drawing, so the same record gives the same page.
    with _styled({"svg.hashsalt": panel.name}), hover.listening() as said:
        figure = Figure(figsize=panel.size, dpi=72, layout="constrained")
        panel.draw(figure)
        _lay_out(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        points = hover.as_json(said.values(), 72 * height)
    colours = {colour: f"var(--{name})" for name, colour in PALETTE.items()}
    small = SmallSvg(panel.name, colours, LETTERS)
    return Drawing(small.write(text.getvalue(), f"{panel.title}. {panel.description}"), points)


def to_svg(panel: Panel) -> str:
    """Returns the panel as an `<svg>` element for a page that defines PALETTE's names and `font` as CSS properties."""
    return draw_svg(panel).svg


def to_png(panels: Sequence[Panel], caption: str, columns: int = 2) -> bytes:
    """Returns panels side by side as one PNG file, light, 150 dots an inch, with a caption such as the run's id."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = panels[0].size
    data = io.BytesIO()
    with _styled({}, escaping=True):
        figure = Figure(figsize=(columns * width, rows * (height + 0.3) + 0.25), dpi=150, layout="constrained")
        figure.supxlabel(plain(caption, 200), fontsize=7.5, color=PALETTE["muted"], x=0.99, ha="right")
        places = np.ravel(figure.subfigures(rows, columns, squeeze=False))
        for panel, place in zip(panels, places, strict=False):
            place.suptitle(plain(panel.title, 60), x=0.02, ha="left", fontsize=11, fontweight="bold")
            panel.draw(place)
        _lay_out(figure)
        figure.savefig(data, format="png", metadata={"Software": None}, bbox_inches=figure.bbox_inches.padded(0.15))
    return data.getvalue()


def _lay_out(figure: Figure) -> None:
    """Gives all axes their places; savefig would draw everything once more for that, as it does for any engine."""
    if figure.axes:
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine(None)


# Whether letters without a font are written as escapes: in a PNG, not in a page, whose browser has fonts of its own.
_escaping: ContextVar[bool] = ContextVar("escaping", default=False)


@contextlib.contextmanager
def _styled(changes: dict[str, Any], *, escaping: bool = False) -> Iterator[None]:
    """Draws in STYLE, whatever style a notebook or a matplotlibrc has set, in silence where no font has a letter."""
    token = _escaping.set(escaping)
    try:
        with mpl.rc_context(), warnings.catch_warnings():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE | {"font.family": list(_families())} | changes)
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


def legend(axes: Axes, room: int = 40) -> None:
    """Sets what is labelled above the axes, each label once; nothing where nothing is.

    A line of the legend holds `room` characters. What belongs to an arm does so in the legend too.
    """
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        by_label = dict(zip(labels, handles, strict=True))
        shown = axes.legend(
            by_label.values(),
            by_label.keys(),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=legend_columns(list(by_label), room),
            borderaxespad=0.1,
            handlelength=1.2,
            handletextpad=0.5,
            columnspacing=0.8,
        )
        for source, handle, text in zip(by_label.values(), shown.legend_handles, shown.get_texts(), strict=True):
            for part in (handle, text):
                if part is not None:
                    part.set_gid(source.get_gid())


def legend_columns(labels: Sequence[str], room: int = 40) -> int:
    """Returns the most columns whose longest labels, each with its line, fit into `room` characters."""
    for columns in range(len(labels), 1, -1):
        # Matplotlib's own split: the first columns have one label more where they cannot be equal.
        parts = np.array_split([len(label) for label in labels], columns)
        if sum(max(part) + 4 for part in parts) <= room:
            return columns
    return 1


def interval(axes: Axes, ends: tuple[float, float], at: float, *, across: bool = True, **look: Any) -> None:
    """Draws an interval within the limits of its axis, which are set; an arrow marks an end that lies beyond.

    Args:
        axes: of the chart.
        ends: of the interval.
        at: its place on the other axis.
        across: whether it lies along x, else along y.
        look: of the line.
    """
    low, high = sorted(axes.get_xlim() if across else axes.get_ylim())
    inside = [min(max(end, low), high) for end in ends]
    axes.plot(*(inside, [at, at]) if across else ([at, at], inside), solid_capstyle="butt", **look)
    for end, kept, marker in zip(ends, inside, "<>" if across else "v^", strict=True):
        if end != kept and inside[0] < inside[1]:
            place = (kept, at) if across else (at, kept)
            axes.plot(*place, marker, color=look["color"], markersize=5, clip_on=False, gid=look.get("gid"))


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Moves values apart until neighbours keep a gap, by least squares: places of labels that would overlap.

    Values less their rank times the gap must not fall, which isotonic regression sees to (Barlow et al. 1972).
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    pools: list[tuple[float, int]] = []
    for rank, place in enumerate(order):
        total, count = values[place] - rank * gap, 1
        while pools and total / count < pools[-1][0] / pools[-1][1]:
            before, many = pools.pop()
            total, count = total + before, count + many
        pools.append((total, count))
    level = [total / count for total, count in pools for _ in range(count)]
    moved = {place: level[rank] + rank * gap for rank, place in enumerate(order)}
    return [moved[place] for place in range(len(values))]


def plain(text: str, most: int = 34) -> str:
    """Returns a user's text as matplotlib draws it letter by letter, its middle left out where it is longer.

    In a PNG a letter that no installed font has becomes an escape, as in Python's ASCII.
    """
    if _escaping.get():
        text = "".join(letter if _has_font(letter) else letter.encode("unicode_escape").decode() for letter in text)
    shown = text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"
    # A dollar sign begins mathematics, and a label that begins with an underscore is hidden.
    return ("\N{NO-BREAK SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")
