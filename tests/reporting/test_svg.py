from xml.etree import ElementTree

import pytest

from kernorm.reporting import svg
from kernorm.reporting.figures import PALETTE, Panel, to_svg
from kernorm.reporting.hover import of_arm

SVG = "{http://www.w3.org/2000/svg}"


def drawn(draw):
    return ElementTree.fromstring(to_svg(Panel("odd", "A title", "d", (4.0, 3.0), draw)))


def test_what_belongs_to_an_arm_is_marked():
    def draw(figure):
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o-", color=PALETTE["blue"], gid=of_arm(3))
        axes.fill_between([0, 1], [0, 1], [1, 2], color=PALETTE["blue"], gid=of_arm(3))
        axes.plot([0, 1], [1, 0], color=PALETTE["green"])
        axes.plot([0, 1], [1, 1], color=PALETTE["blue"], gid=of_arm(3))

    # What is drawn in turn of one arm lies in one group: the area, the line and its two markers, and a line on top.
    groups = drawn(draw).findall(".//*[@data-arm='3']")
    kinds = ["path", "use"]
    assert [[len(group.findall(f".//{SVG}{kind}")) for kind in kinds] for group in groups] == [[3, 3], [1, 0]]
    (other,) = [one for one in drawn(draw).iter(f"{SVG}path") if "var(--green)" in one.get("style", "")]
    assert all(other not in group.iter() for group in groups)


def test_references_arrive_and_nothing_else_has_an_id():
    root = drawn(lambda figure: figure.subplots().plot([0, 1], [0, 1], "o-"))
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    asked = {element.get("href")[1:] for element in root.iter() if element.get("href")}
    asked |= {value.removeprefix("url(#").rstrip(")") for element in root.iter() if (value := element.get("clip-path"))}
    assert ids == asked
    assert all(name.startswith("odd-") for name in ids)


def test_a_line_keeps_its_place_to_a_tenth_of_a_point():
    kept = []

    def draw(figure):
        axes = figure.subplots()
        kept.extend(axes.plot([0, 1, 2], [0.123456, 0.9, 0.5], color=PALETTE["green"]))

    (path,) = [one for one in drawn(draw).iter(f"{SVG}path") if "var(--green)" in one.get("style", "")]
    (line,) = kept
    places = line.axes.transData.transform(line.get_xydata()) * 72 / line.figure.dpi
    found = [tuple(map(float, part.split())) for part in path.get("d")[1:].split("L")]
    for (x, y), (wide, high) in zip(found, places, strict=True):
        assert (x, 216 - y) == pytest.approx((wide, high), abs=0.051)


@pytest.mark.parametrize(
    ("value", "text"), [(44.653365, "44.7"), (0.05, "0.05"), (-0.004, "0"), (3.0, "3"), (-12.34, "-12.3")]
)
def test_numbers_are_short(value, text):
    assert svg._number(value) == text
