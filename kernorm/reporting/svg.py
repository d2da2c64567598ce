"""Makes a drawing of matplotlib a small `<svg>` element of a page.

Used by figures. Matplotlib writes twice as much as a browser needs: groups without attributes, ids that nothing refers
to, coordinates to a millionth of a point, the same style on every tick.
"""

import math
import re
from collections.abc import Iterator, Mapping
from html import escape
from xml.etree import ElementTree

# The group id of what is shown and hidden together with an arm of the page; see `hover.of_arm`.
ARM = re.compile(r"arm(\d+)")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_URL = re.compile(r"url\(#([^)]+)\)")
_LINK = "{http://www.w3.org/1999/xlink}href"
# What an element has or inherits anyway.
_USUAL = {"text-anchor:start", "stroke-dashoffset:0", "stroke-linejoin:round"}


class SmallSvg:
    """Writes one drawing anew.

    Args:
        name: of the chart, unique in the page; its ids begin with it.
        colours: what each colour becomes.
        font_size: of most of its texts, in points.
    """

    def __init__(self, name: str, colours: Mapping[str, str], font_size: float) -> None:
        self.name, self.colours, self.font_size = name, colours, f"font-size:{font_size:g}px"
        self.ids: dict[str, str] = {}

    def write(self, drawing: str, label: str) -> str:
        """Returns the `<svg>` element of a drawing; `label` says in words what it shows."""
        drawing = drawing[drawing.index("<svg") :]
        for found in re.findall(r"(?:href=\"|url\()#([^\")]+)", drawing):
            self.ids.setdefault(found, f"{self.name}-{len(self.ids)}")
        root = ElementTree.fromstring(drawing)
        box = root.get("viewBox", "")
        style = f"--w:{math.ceil(float(box.split()[2]))}px;font-family:var(--font);{self.font_size}"
        attributes = {"viewBox": box, "role": "img", "style": style, "data-chart": self.name, "aria-label": label}
        head = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
        return f'<svg xmlns="http://www.w3.org/2000/svg"{head}>{self._inside(root)}</svg>'

    def _inside(self, element: ElementTree.Element) -> str:
        parts: list[str] = []
        before = None
        for child in element:
            written, arm = self._element(child), ARM.fullmatch(child.get("id", ""))
            head = f'<g data-arm="{arm[1]}">' if arm else None
            if head and head == before and written.startswith(head):
                # What follows of the same arm, into one group.
                parts[-1] = parts[-1].removesuffix("</g>") + written.removeprefix(head)
            elif written:
                parts.append(written)
                before = head if head and written.startswith(head) else None
        return "".join(parts)

    def _element(self, element: ElementTree.Element) -> str:
        tag = element.tag.rpartition("}")[2]
        if tag in ("metadata", "style") or (tag == "path" and not element.get("d")):
            return ""
        if style := _style_of_children(element):
            for child in element:
                del child.attrib["style"]
            element.set("style", style)
        attributes = "".join(f' {name}="{escape(value)}"' for name, value in self._attributes(element) if value)
        text = escape(element.text or "", quote=False) if tag == "text" else ""
        inside = text + self._inside(element)
        if tag == "g" and not (attributes and inside):
            return inside
        return f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"

    def _attributes(self, element: ElementTree.Element) -> Iterator[tuple[str, str]]:
        for name, value in element.attrib.items():
            if name == "id" and (found := ARM.fullmatch(value)):
                yield "data-arm", found[1]
            elif name == "id":
                yield "id", self.ids.get(value, "")
            elif name in (_LINK, "href"):
                yield "href", f"#{self.ids[value[1:]]}" if value.startswith("#") else value
            elif name == "style":
                yield "style", self._style(value)
            elif name == "d":
                yield "d", re.sub(r"\s*([A-Za-z])\s*", r"\1", _short(value)).strip()
            elif not value.startswith("rotate(-0 "):
                yield name, _URL.sub(lambda found: f"url(#{self.ids[found[1]]})", _short(value))

    def _style(self, style: str) -> str:
        parts = [_short(part.replace(": ", ":")) for part in style.split("; ")]
        short = ";".join(
            part
            for part in parts
            if part not in _USUAL and part != self.font_size and not part.startswith("font-family")
        )
        for colour, found in self.colours.items():
            short = short.replace(colour, found)
        return short


def _style_of_children(element: ElementTree.Element) -> str:
    """Returns the style that several children of a group have in common, which the group can have for them."""
    styles = {child.get("style") for child in element}
    if element.tag.endswith("}g") and len(element) > 1 and len(styles) == 1 and element.get("style") is None:
        return styles.pop() or ""
    return ""


def _short(text: str) -> str:
    """Writes the numbers of a text with one decimal, those below 1 with two."""
    return _NUMBER.sub(lambda found: _number(float(found[0])), text)


def _number(value: float) -> str:
    text = f"{value:.{1 if abs(value) >= 1 else 2}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
