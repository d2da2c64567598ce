"""Many runs next to each other: as a table of the terminal, as CSV and LaTeX, and as the page reports/index.html.

Of settings those are shown that differ among the runs, as far as they differ from the run's recipe; what all runs share
is said once.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.table import Table

from kernorm.config import TrainConfig, to_json, without_auto
from kernorm.recipes import RECIPES, recipe
from kernorm.records.index import Line
from kernorm.records.tags import Tags
from kernorm.records.where import COLUMNS
from kernorm.reporting.format import concise
from kernorm.reporting.page import page_data, page_renderer
from kernorm.system.files import write_atomically
from kernorm.system.terminal import table_console

# Rows of the terminal's table, settings with a column of their own on the page, and characters of a value.
SHOWN, OWN_COLUMNS, WIDEST = 100, 6, 40
INDEX_PAGE, _PAGE = "index.html", "report.html"
# Where pages of studies and searches lie.
_STUDIES = tuple(f"{folder}/{_PAGE}" for folder in ("studies/*", "searches/*", "searches/*/studies/*"))
_NOTHING = Tags()
# Settings in the order of the command; the recipe, from which others are told, comes first.
_ORDER = ("recipe", *(name for name in TrainConfig().identity if name != "recipe"))
# What hardly changes a result.
_APART = frozenset(("seed", "threads"))
# Of the CSV, before the settings.
_COLUMNS = ("run", "path", "status", "started", "accuracy", "low", "high", "cross_entropy", "validation")
_MORE = ("cpu_seconds", "revision", "data")
_MARKS = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$"}


@dataclass(frozen=True)
class Row:
    """A run as it is shown; in place of the accuracy of one that was not tested stands its status."""

    settings: str
    accuracy: str
    interval: str
    cross_entropy: str
    studies: str
    tags: str
    note: str


@dataclass(frozen=True)
class RunList:
    """Runs in their order, and the tags and notes of all runs."""

    lines: Sequence[Line]
    tags: Mapping[str, Tags]

    @cached_property
    def names(self) -> list[str]:
        """The settings that differ, but seed and threads; those that most runs set themselves first."""
        first = self.lines[0].settings if self.lines else {}
        varied = {name for line in self.lines for name, value in line.settings.items() if value != first.get(name)}
        counts = {
            name: sum(line.settings.get(name) != _defaults(line).get(name) for line in self.lines)
            for name in _ORDER
            if name in varied - _APART
        }
        return sorted(counts, key=counts.__getitem__, reverse=True)

    @property
    def telling(self) -> list[str]:
        """Of those the ones that some run set itself, not its recipe, in the command's order."""
        names = [name for name in _ORDER if name in self.names]
        return [name for name in names if any(own_settings(line, [name]) for line in self.lines)]

    @property
    def shared(self) -> str:
        """The settings that all runs have in common."""
        names = _APART.union(self.names)
        return _settings(self.lines[0], [name for name in _ORDER if name not in names]) if self.lines else ""

    def row(self, line: Line, names: Iterable[str]) -> Row:
        """Returns a run as it is shown; `names` are the settings that may be said."""
        said = self.tags.get(line.run, _NOTHING)
        return Row(
            settings=_settings(line, names),
            accuracy=line.status if line.accuracy is None else f"{100 * line.accuracy:.2f}",
            interval="" if line.low is None or line.high is None else f"{100 * line.low:.2f} to {100 * line.high:.2f}",
            cross_entropy="" if line.cross_entropy is None else f"{line.cross_entropy:.4f}",
            studies=", ".join(COLUMNS["study"](line)),
            tags=", ".join(said.tags),
            note=said.note,
        )

    def show(self) -> None:
        """Prints a run a row, SHOWN of them, and the settings that all share."""
        table = Table(box=None, pad_edge=False)
        table.add_column("run", overflow="fold")
        table.add_column("accuracy, %", justify="right")
        for title in ("95 %", "cross-entropy", "settings", "studies", "tags", "note"):
            table.add_column(title, overflow="fold")
        names = [name for name in _ORDER if name in self.names]
        for line in self.lines[:SHOWN]:
            row = self.row(line, names)
            values = (row.accuracy, row.interval, row.cross_entropy, row.settings, row.studies, row.tags, row.note)
            table.add_row(line.run, *values)
        table_console().print(table, markup=False)
        if len(self.lines) > SHOWN:
            print(f"and {len(self.lines) - SHOWN:,} more: see the page, --csv, or --where for fewer")
        if self.shared:
            print(f"in all   {self.shared}")

    def csv(self) -> str:
        """Returns a run a row: all that is known of it, with every setting; accuracies are shares of 1."""
        names = [*dict.fromkeys(name for line in self.lines for name in line.settings)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *_MORE, "studies", "tags", "note", *names])
        for line in self.lines:
            said = self.tags.get(line.run, _NOTHING)
            values = [getattr(line, name) for name in (*_COLUMNS, *_MORE)]
            settings = [_plain(line.settings.get(name)) for name in names]
            writer.writerow([*values, " ".join(line.studies), " ".join(said.tags), said.note, *settings])
        return text.getvalue()

    def latex(self) -> str:
        """Returns a table for a paper, by the package booktabs: the settings that differ, and the scores."""
        names = [name for name in _ORDER if name in self.names]
        rows = [[*names, "seed", "accuracy, %", "95 %", "cross-entropy"]]
        for line in self.lines:
            row = self.row(line, ())
            values = [_shown(line.settings.get(name)) for name in (*names, "seed")]
            rows.append([*values, row.accuracy, row.interval, row.cross_entropy])
        head, *body = (" & ".join(map(_tex, row)) + r" \\" for row in rows)
        begin = rf"\begin{{tabular}}{{{'l' * len(names)}rrlr}}"
        return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def write_page(self, reports_dir: Path) -> Path:
        """Writes index.html into the reports folder, with links to the pages of runs and studies; returns its path.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        own = [name for name in _ORDER if name in self.names[:OWN_COLUMNS]]
        rest = [name for name in _ORDER if name in self.names[OWN_COLUMNS:]]
        found = sorted(path for pattern in _STUDIES for path in reports_dir.glob(pattern))
        reported = {path.parent.relative_to(reports_dir).as_posix(): 0 for path in found}
        counts = dict(reported)
        for study in (study for line in self.lines for study in line.studies):
            counts[study] = counts.get(study, 0) + 1
        said = [self.tags.get(line.run, _NOTHING) for line in self.lines]
        page = page_renderer().get_template("run_list.html.j2")
        text = page.render(
            rows=[_page_row(self.row(line, rest), line, own, reports_dir, reported) for line in self.lines],
            own=own,
            rest=bool(rest),
            tagged=any(one.tags for one in said),
            noted=any(one.note for one in said),
            shared=self.shared,
            studies=[(name, _link(name) if name in reported else "", counts[name]) for name in sorted(counts)],
            finished=sum(line.status == "finished" for line in self.lines),
            cpu_seconds=sum(line.cpu_seconds for line in self.lines),
            data=page_data(),
        )
        path = reports_dir / INDEX_PAGE
        write_atomically(path, text.encode())
        return path


def _page_row(
    row: Row, line: Line, own: Sequence[str], reports_dir: Path, reported: Mapping[str, int]
) -> dict[str, Any]:
    """Returns what a row of the page shows; links lead to pages that are there."""
    linked = line.path in reported or (line.path not in line.studies and (reports_dir / line.path / _PAGE).exists())
    return {
        "name": line.run,
        "link": _link(line.path) if linked else "",
        "shown": row,
        "status": line.status if line.accuracy is None else "",
        "values": [_shown(line.settings.get(name)) for name in own],
        "seed": line.settings.get("seed"),
        "studies": [(study.rpartition("/")[2], _link(study) if study in reported else "") for study in line.studies],
        "started": line.started[:16].replace("T", " "),
    }


def _link(folder: str) -> str:
    return f"{quote(folder)}/{_PAGE}"


@lru_cache
def _recipe(name: str) -> dict[str, Any]:
    """Returns the settings of a recipe as a line holds them; of one that is gone those of the default one."""
    known = to_json(recipe(name if name in RECIPES else TrainConfig.recipe))
    return without_auto(known) | {"recipe": TrainConfig.recipe}


def _defaults(line: Line) -> dict[str, Any]:
    return _recipe(line.settings.get("recipe", TrainConfig.recipe))


def own_settings(line: Line, names: Iterable[str]) -> dict[str, str]:
    """Returns those settings that differ from the run's recipe, and its name if that is not the default one."""
    defaults = _defaults(line)
    values = ((name, line.settings.get(name)) for name in names)
    return {name: _shown(value) for name, value in values if value != defaults.get(name)}


def _settings(line: Line, names: Iterable[str]) -> str:
    return " ".join(f"{name}={value}" for name, value in own_settings(line, names).items())


def _shown(value: Any) -> str:
    """Returns a setting as people write it; of a long text, such as an own net's, the first digits of its sha256."""
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value).lower()
    if isinstance(value, float):
        return concise(value, 6)
    text = str(_plain(value))
    return text if len(text) <= WIDEST else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _tex(text: str) -> str:
    return "".join(_MARKS.get(mark, f"\\{mark}" if mark in "&%$#_{}" else mark) for mark in text)
