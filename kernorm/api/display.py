"""How results show themselves in a notebook: charts, and tables with a headline."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from kernorm.limits import expanded
from kernorm.reporting.figures import PALETTE, Panel, to_png, to_svg
from kernorm.system.files import write_atomically


@dataclass(frozen=True)
class Chart:
    """A chart of a result, of one panel or more; a notebook shows it as it is.

    Attributes:
        panels: what is drawn.
        caption: what it is of, such as a run id.
    """

    panels: tuple[Panel, ...]
    caption: str

    def save(self, path: str | Path) -> Path:
        """Writes the chart as a PNG file, 150 dots an inch, and returns its path.

        Raises:
            OSError: the file cannot be written.
        """
        path = expanded(path)
        write_atomically(path, to_png(self.panels, self.caption))
        return path

    def __repr__(self) -> str:
        return f"Chart({', '.join(panel.name for panel in self.panels)} of {self.caption})"

    def _repr_html_(self) -> str:
        colours = "".join(f"--{name}:{value};" for name, value in PALETTE.items())
        figures = "".join(
            f'<figure style="margin:0 1em 1em 0;max-width:{panel.size[0]}in;flex:1 1 {0.7 * panel.size[0]}in">'
            f"<figcaption><b>{escape(panel.title)}</b></figcaption>{to_svg(panel)}</figure>"
            for panel in self.panels
        )
        style = f"{colours}--font:sans-serif;background:{PALETTE['paper']};color:{PALETTE['ink']};padding:.5em"
        return f'<div style="{style};display:flex;flex-wrap:wrap">{figures}</div>'


def page(headline: str, table: pd.DataFrame, *charts: Chart) -> str:
    """Returns the HTML of a result: a headline, its table, and charts."""
    shown = "".join(chart._repr_html_() for chart in charts)
    return f"<p><b>{escape(headline)}</b></p>{table.to_html(border=0)}{shown}"
