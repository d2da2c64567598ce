"""What points say, and where they are: against the axes' own transforms, and formulas of the script."""

import base64
import json
import math
import zlib

import numpy as np
import pytest

from kernorm.reporting import hover
from kernorm.reporting.figures import Panel, draw_svg
from kernorm.reporting.hover import Column, Measure, follow, of_arm, say
from kernorm.reporting.page import drawn, page_data
from kernorm.reporting.scales import stretch, stretch_axis

# As page.js has them.
SCALES = (lambda v: v, math.log10, lambda v: float(stretch(v)))


def panel(draw, name="odd"):
    return Panel(name, "A title", "A description.", (4.0, 3.0), draw)


@pytest.mark.parametrize("scale", ["linear", "log", "stretched"])
def test_places_are_those_of_the_drawing(scale):
    values = np.array([0.2, 0.9, 0.99])
    kept = []

    def draw(figure):
        axes = figure.subplots()
        axes.plot([1, 2, 3], values)
        if scale == "stretched":
            stretch_axis(axes, list(values))
        else:
            axes.set_yscale(scale)
        follow(axes, "accuracy", 4)
        say(axes, zip((1, 2, 3), values, strict=True), ["a", "b", "c"], arm=2)
        kept.append(axes)

    (found,) = draw_svg(panel(draw)).points
    assert found["l"] == [[4, "accuracy"]]
    (axes,) = kept
    for (x, y, text, arm), epoch, value in zip(found["m"], (1, 2, 3), values, strict=True):
        place = axes.transData.transform((epoch, value)) * 72 / axes.figure.dpi
        assert (x, 216 - y) == pytest.approx(tuple(place), abs=0.51)
        assert found["x"][0] + found["x"][1] * epoch == pytest.approx(place[0], abs=0.05)
        kind, first, slope = found["y"]
        assert first + slope * SCALES[kind](value) == pytest.approx(216 - place[1], abs=0.05)
        assert (text, arm) == ("abc"[epoch - 1], 2)


def test_what_lies_outside_of_the_axes_is_found_at_their_edge():
    def draw(figure):
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0.5], [7.0], "o", gid=of_arm(1))
        say(axes, [(0.5, 7.0), (-3.0, 0.5)], ["above", "left"])

    (found,) = draw_svg(panel(draw)).points
    (x, y, _), (left, _, _) = found["m"]
    assert (y, left) == (found["b"][1], found["b"][0])
    assert found["b"][0] < x < found["b"][2]


def test_nothing_is_kept_where_no_page_is_drawn():
    class Axes:
        pass

    say(Axes(), [(0, 0)], ["nobody listens"])
    assert draw_svg(panel(lambda figure: figure.subplots().plot([0, 1]))).points == []
    assert hover._said.get() is None


def test_a_table_holds_values_as_they_are_shown():
    percent = Measure("accuracy", " %", factor=100, digits=2, most=1)
    table = percent.table([Column([1, 2, 4], [0.98765, float("nan"), 1.0], [0.01, 0.02, 0.5]), None])
    assert (table["n"], table["u"], table["r"], table["q"]) == ("accuracy", " %", 1, 10_000)
    # Each less the one before it.
    assert table["y"] == [[1, [9876, None, None, 124], [100, 100, None, 4800]], None]
    assert Measure("norm").table([Column([0, 1, 2], [0.00123456, 42.5, 17])])["y"] == [[0, [0.00123, 42.5, 17]]]


def test_only_what_charts_name_is_in_the_page_and_nothing_ends_the_script_early():
    def draw(figure):
        axes = figure.subplots()
        axes.plot([0, 1])
        follow(axes, "used", 0)
        say(axes, [(0, 0)], ["</script><b>"])

    tables = {name: Measure(name).table([Column([0], [1.0])]) for name in ("used", "unused")}
    text = page_data(arms=[("<i>", "blue")], measures=tables, charts=drawn([panel(draw)]))
    assert "<" not in text
    known = json.loads(zlib.decompress(base64.b64decode(text)))
    assert list(known["values"]) == ["used"]
    assert known["arms"] == [{"name": "<i>", "colour": "blue"}]
    assert known["charts"]["odd"][0]["m"][0][2] == "</script><b>"
