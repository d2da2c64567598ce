"""What renders the pages of all reports: templates, escaping, filters, pictures and the script inside the page."""

import base64
import io
import json
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from kernorm.reporting.format import concise, duration, moment, percent, points, share

if TYPE_CHECKING:
    from kernorm.reporting.figures import Panel


@lru_cache(maxsize=1)
def page_renderer() -> Environment:
    """Returns what renders the page of a report: the package's templates, escaping, filters for numbers and units.

    One a process, so that a template is compiled once.
    """
    renderer = Environment(
        loader=PackageLoader("kernorm.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    renderer.filters |= {
        "percent": percent,
        "points": points,
        "duration": duration,
        "moment": moment,
        "share": share,
        "prose": prose,
        "setting": _setting,
        "short_setting": _short_setting,
        "code": _code,
        "thousands": lambda count: f"{count:,}",
        "short": lambda value: "–" if value is None else concise(value, 4),
        "concise": concise,
    }
    renderer.globals["script"] = _script()
    return renderer


@dataclass(frozen=True)
class Charts:
    """The charts of a page by name, and what their points say."""

    panels: dict[str, "Panel"]
    svgs: dict[str, Markup]
    points: dict[str, list[dict[str, Any]]]


def drawn(panels: Iterable["Panel"]) -> Charts:
    """Draws the charts of a page."""
    from kernorm.reporting.figures import draw_svg  # Matplotlib, which a page without charts does without

    by_name = {panel.name: panel for panel in panels}
    drawings = {name: draw_svg(panel) for name, panel in by_name.items()}
    return Charts(
        by_name,
        {name: Markup(drawing.svg) for name, drawing in drawings.items()},
        {name: drawing.points for name, drawing in drawings.items() if drawing.points},
    )


def page_data(
    *,
    arms: Iterable[tuple[str, str]] = (),
    measures: Mapping[str, Any] | None = None,
    charts: Charts | None = None,
) -> Markup:
    """Returns what the script of a page knows: JSON, compressed to a third, as text for a `<script>` element.

    Args:
        arms: names of what can be hidden, with a colour of PALETTE each; their place is what `hover.of_arm` takes.
        measures: tables of what lines over epochs hold, by name; see `hover.Measure`. Only those that charts name stay.
        charts: whose points speak.
    """
    points = charts.points if charts else {}
    used = {name for found in points.values() for axes in found for _, name in axes.get("l", ())}
    data = {
        "arms": [{"name": name, "colour": colour} for name, colour in arms],
        "values": {name: table for name, table in (measures or {}).items() if name in used},
        "charts": points,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(base64.b64encode(zlib.compress(text.encode(), 9)).decode())


# Texts and patterns of the script, which stay, and signs with the spaces around them.
_SIGNS = re.compile(
    r'"(?:\\.|[^"\\])*"|`[^`]*`|(?<=\()/(?:\\.|\[(?:\\.|[^]\\])*]|[^/\\])+/|\s*([-=+*/%<>&|?:;,(){}[\]!])\s*'
)


def _script() -> Markup:
    """Returns the script of pages without comments and spaces that it can do without."""
    text = (resources.files("kernorm.reporting") / "templates" / "page.js").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    text = "\n".join(line for line in lines if not line.startswith("//"))
    return Markup(_SIGNS.sub(lambda found: found[1] or found[0], text))


def mistakes_as_uris(images: Iterable[NDArray[np.uint8]]) -> list[str]:
    """Returns each image (H, W, C) as a PNG file in a data: address."""
    uris = []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(picture(image)).save(data, "PNG", optimize=True)
        uris.append(f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}")
    return uris


def _code(text: str) -> Markup:
    """Returns a text as HTML in which what stands between backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def prose(text: str) -> Markup:
    """Returns a docstring as HTML: paragraphs whose lines flow, indented ones as code, `code` and *emphasis*."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("    "):
            found.append(f"<pre>{escape(textwrap.dedent(paragraph).rstrip())}</pre>")
        else:
            flowing = re.sub(r"\*([^*<>]+)\*", r"<em>\1</em>", str(_code(" ".join(paragraph.split()))))
            found.append(f"<p>{flowing}</p>")
    return Markup("".join(found))


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_setting, value)) or "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e-0", "e-")
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def _short_setting(value: object) -> str:
    """Writes a setting for a narrow column: of a computed number, as 0.03·√(8/128), four digits."""
    exact = _setting(value)
    return f"≈ {concise(value, 4)}" if isinstance(value, float) and len(exact) > 8 else exact


def picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image (H, W, C) as (H, W, 3) where it has colours, else its first channel (H, W)."""
    return image if image.shape[-1] == 3 else image[..., 0]
