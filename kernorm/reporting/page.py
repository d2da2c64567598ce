"""What renders the pages of all reports: templates, escaping, filters, pictures inside the page."""

import base64
import io
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from kernorm.reporting.format import duration, moment, percent, points, share


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
        "setting": _setting,
        "code": _code,
        "thousands": lambda count: f"{count:,}",
        "short": lambda value: "–" if value is None else f"{value:.4g}",
    }
    return renderer


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


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image (H, W, C) as (H, W, 3) where it has colours, else its first channel (H, W)."""
    return image if image.shape[-1] == 3 else image[..., 0]
