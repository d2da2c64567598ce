import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize

from kernorm.reporting import figures
from kernorm.reporting.figures import LOOKS, PALETTE, STYLE, WIDTH, Panel, legend, spread, to_png, to_svg
from kernorm.reporting.scales import logarithmic, stretch, stretch_axis


def panel(name="odd", size=(4.0, 3.0), colour="blue"):
    """A panel of one square in a colour of the palette."""

    def draw(figure):
        figure.subplots().fill([0, 1, 1, 0], [0, 0, 1, 1], color=PALETTE[colour])

    return Panel(name, "A title", "A description.", size, draw)


def axes_of(low, high):
    axes = Figure().subplots()
    axes.plot([0, 1], [low, high], label="a line")
    return axes


def test_a_panel_becomes_themed_svg():
    text = to_svg(panel())
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == "A title. A description."
    assert root.get("viewBox") == "0 0 288 216"  # 4 x 3 inches in points
    assert "--w:288px" in root.get("style")
    assert "fill:var(--blue)" in text
    assert not re.findall("#[0-9a-f]{6}", text)


def test_svgs_of_one_page_share_no_id():
    first, second = (set(re.findall(r'id="([^"]+)"', to_svg(panel(name)))) for name in ("one", "two"))
    assert first
    assert not first & second


def test_label_of_a_drawing_is_escaped():
    panel = Panel("odd", 'a "<b>" & c', "d", (1, 1), lambda figure: figure.text(0, 0, "<i>"))
    assert ElementTree.fromstring(to_svg(panel)).get("aria-label") == 'a "<b>" & c. d'


@pytest.mark.parametrize(("count", "columns", "inches"), [(1, 2, (4, 3.55)), (3, 2, (8, 6.85)), (2, 1, (4, 6.85))])
def test_pngs_put_panels_side_by_side(count, columns, inches):
    data = to_png([panel()] * count, "a caption", columns)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_allclose(image.size, np.multiply(np.add(inches, 0.3), 150), atol=1)  # 0.15 inches of margin
        pixels = np.asarray(image.convert("RGB"))
    blue = (pixels == np.round(np.multiply(to_rgb(PALETTE["blue"]), 255))).all(-1)
    runs = (
        np.count_nonzero(np.diff(blue.any(0).astype(int)) == 1),
        np.count_nonzero(np.diff(blue.any(1).astype(int)) == 1),
    )
    assert runs == (min(count, columns), -(-count // columns))


def test_colours_are_different_marks():
    assert len(set(PALETTE.values())) == len(PALETTE)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in PALETTE.values())
    assert {value for value in map(str, STYLE.values()) if value.startswith("#")} <= set(PALETTE.values())


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    to_svg(panel())
    assert dict(mpl.rcParams) == before
    modules = "kernorm.reporting.charts, kernorm.reporting.figures"
    program = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("style", ["dark_background", "ggplot", {"savefig.dpi": 300}, {"savefig.bbox": "tight"}])
def test_a_users_own_style_does_not_reach_a_drawing(style):
    plain = to_svg(panel()), to_png([panel()], "a caption")
    with mpl.style.context(style):
        before = dict(mpl.rcParams)
        assert (to_svg(panel()), to_png([panel()], "a caption")) == plain
        assert dict(mpl.rcParams) == before


def test_a_legend_only_where_something_is_labelled():
    axes = axes_of(1, 2)
    legend(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a line"]
    empty = Figure().subplots()
    legend(empty)
    assert empty.get_legend() is None


@pytest.mark.parametrize(
    "labels",
    [
        ("default (baseline)", "best", "best-60000", "quick"),
        ("none (baseline)", "l1", "l2", "l1_l2"),
        ("a", "b" * 12, "c" * 12, "d" * 12, "e" * 6),
        tuple("abcdefgh"),
    ],
)
def test_a_legend_has_the_most_columns_that_its_room_holds(labels):
    """Forty characters a line, of which a label's own line takes four; columns are those that Matplotlib draws."""
    with mpl.rc_context(STYLE):
        axes = Figure(figsize=(WIDTH, 3.3)).subplots()
        for label in labels:
            axes.plot([0, 1], [0, 1], label=label)
        legend(axes)
        axes.figure.draw_without_rendering()
        by_column = {}
        for text in axes.get_legend().get_texts():
            by_column.setdefault(round(text.get_window_extent().x0), []).append(len(text.get_text()))
    assert sum(max(column) + 4 for column in by_column.values()) <= 40
    more = np.array_split([len(label) for label in labels], len(by_column) + 1)
    assert len(by_column) == len(labels) or sum(max(column) + 4 for column in more) > 40


def test_axes_are_logarithmic_only_over_a_wide_span_above_0():
    for low, high, scale in ((0.1, 0.4, "linear"), (0.1, 0.6, "log"), (0.0, 9.0, "linear"), (-1.0, 9.0, "linear")):
        axes = axes_of(low, high)
        logarithmic(axes, [low, high], over=5)
        assert axes.get_yscale() == scale
    axes = axes_of(0.1, 0.6)
    logarithmic(axes, [0.1, 0.6], over=5)
    axes.figure.canvas.draw()
    shown = [label.get_text() for label in axes.get_yticklabels() if 0.1 <= label.get_position()[1] <= 0.6]
    assert shown == ["0.1", "0.2", "0.5"]


def test_stretched_scale_is_finite_at_100_percent_and_rises():
    values = stretch(np.array([0.0, 0.5, 0.985, 0.99, 1.0]))
    assert values[-1] == pytest.approx(3.0)
    assert values[0] == pytest.approx(-np.log10(1.001))
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize(
    "values", [[], [1.0], [0.0, 1.0], [0.9911, 0.9935], [0.1, 0.11], [0.993, 0.993], [0.9812, 0.983]]
)
def test_stretched_axis_holds_its_values_and_names_a_few_of_them(values):
    axes = Figure().subplots()
    stretch_axis(axes, values)
    low, high = axes.get_ylim()
    assert all(low < value < high for value in values)
    shown = [float(label.get_text()) for label in axes.get_yticklabels()]
    np.testing.assert_allclose(axes.get_yticks(), np.array(shown) / 100)
    assert (1 if values == [1.0] else 2) <= len(shown) <= 12
    assert low <= min(axes.get_yticks())
    assert max(axes.get_yticks()) <= high


@pytest.mark.parametrize("more", [(), figures._MORE_FONTS], ids=["one font", "those installed"])
def test_letters_without_a_font_are_drawn_in_silence(monkeypatch, more):
    """Warnings are errors here. A page keeps the letters, for its browser has fonts; a PNG gets escapes."""
    monkeypatch.setattr(figures, "_MORE_FONTS", more)
    for cached in (figures._families, figures._has_font):
        cached.cache_clear()
    drawn = []

    def draw(figure):
        drawn.append(figures.plain("猫 ä $"))
        figure.subplots().set_xticks([0, 1], ["", drawn[-1]])

    panel = Panel("cats", "猫", "d", (2, 2), draw)
    assert "猫 ä" in to_svg(panel)
    assert len(to_png([panel], "猫")) > 1000
    if not more:
        assert drawn == [r"猫 ä \$", r"\u732b ä \$"]
    for cached in (figures._families, figures._has_font):
        cached.cache_clear()


def test_labels_move_apart_as_little_as_they_can():
    assert spread([0.0, 5.0, 10.0], 1.0) == [0.0, 5.0, 10.0]
    assert spread([3.0, 3.0, 3.0], 1.0) == pytest.approx([2.0, 3.0, 4.0])
    assert spread([10.0, 0.0, 10.5], 2.0) == pytest.approx([9.25, 0.0, 11.25])
    assert spread([], 1.0) == []
    values = [0.3, 0.1, 0.35, 0.32, 0.9]
    moved = spread(values, 0.1)
    gaps = np.diff(np.sort(moved))
    assert (gaps >= 0.1 - 1e-12).all()
    assert np.argsort(moved).tolist() == np.argsort(values).tolist()
    # Of all orders that keep the gap, by least squares: SciPy finds nothing nearer.
    best = minimize(
        lambda x: ((x - np.sort(values)) ** 2).sum(),
        np.sort(values) + np.arange(5),
        constraints={"type": "ineq", "fun": lambda x: np.diff(x) - 0.1},
    )
    assert ((np.sort(moved) - np.sort(values)) ** 2).sum() <= best.fun + 1e-6


def test_looks_are_eight_colours_and_markers():
    assert len({colour for colour, _ in LOOKS}) == len({marker for _, marker in LOOKS}) == len(LOOKS) == 8
    assert {colour for colour, _ in LOOKS} <= set(PALETTE)


@pytest.mark.parametrize("write", [to_svg, lambda panel: to_png([panel], "a caption")], ids=["svg", "png"])
def test_a_panel_is_drawn_once(write, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "draw", lambda axes, renderer: drawn.append(axes))
    write(panel())
    assert len(drawn) == 1
