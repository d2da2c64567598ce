"""Lists every run, and writes the page that has them all: `python -m kernorm.runs --where norm=gn --sort accuracy`.

Ten thousand runs take two seconds, since reports/runs/index.jsonl holds a line of each.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import check_settings
from kernorm.system import cli

if TYPE_CHECKING:
    from kernorm.records.index import Line

PROG = "python -m kernorm.runs"


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """Lists every run under the reports folder, and writes reports/index.html, which has them all.

    The page searches, sorts and links to the pages of runs and studies. It opens offline, and any host for static files
    can show it with the folder.

    The ten best of a kind, and a tag for them:
        python -m kernorm.runs --where 'norm=gn accuracy>99.4' --sort accuracy
        python -m kernorm.runs --where 'norm=gn accuracy>99.4' --tag paper --note 'for table 2'
        python -m kernorm.runs --where tag=paper --latex
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "which runs": ("where", "sort"),
        "what is shown": ("csv", "latex"),
        "what you say of them": ("tag", "untag", "note"),
        "deleting": ("delete", "yes"),
        "this command": ("reports_dir", "saved_models_dir", "quiet", "verbose", "help"),
    }

    where: Annotated[tuple[str, ...], tyro.conf.arg(metavar="'NAME=VALUE …'")] = ()
    """Conditions that must all hold, such as 'norm=gn l2>0 accuracy>99.4'; = != < <= > >=. A name is a setting of
    kernorm.train, or run, status, accuracy (in percent), cross_entropy, validation, started (2026-11-20), cpu_seconds,
    study, tag or note. A value may be a pattern: run='eva6-ln-*'."""

    sort: str | None = None
    """By such a name, the greatest first; --sort=-NAME turns that round. None: the newest first."""

    csv: bool = False
    """Print CSV, with every setting."""

    latex: bool = False
    """Print a LaTeX table for the package booktabs, with the settings that differ."""

    tag: tuple[str, ...] = ()
    """Words to add to the runs that --where selects."""

    untag: tuple[str, ...] = ()
    """Words to take from them."""

    note: str | None = None
    """A sentence about each of them, in place of the one before; - removes it."""

    delete: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN …")] = ()
    """Delete the folders of these runs, after showing them and their bytes and asking. Exported and published models
    stay, and so do records in studies."""

    yes: bool = False
    """With --delete: do not ask."""

    reports_dir: Path = TrainConfig.reports_dir
    """Where runs, studies and searches lie, and index.html is written."""

    saved_models_dir: Path = TrainConfig.saved_models_dir
    """Where --delete looks for the models of a run, which stay."""

    def __post_init__(self) -> None:
        """Refuses values of another type, and flags that contradict each other."""
        check_settings(self)
        if self.csv and self.latex:
            raise UsageError("A list has one form.", "--csv and --latex", "Give one of them.")
        if self.delete and (self.where or self.sort or self.csv or self.latex or self._says):
            raise UsageError("--delete goes without other flags of a list.", "another one", "Give it alone.")
        if self.yes and not self.delete:
            raise UsageError("--yes goes with --delete.", "--yes alone", "Remove it.")
        if self._says and not self.where:
            raise UsageError(
                "--tag, --untag and --note say something of the runs that --where selects.",
                "no --where",
                "Give for example --where run=eva6-ln-*.",
            )

    @property
    def _says(self) -> bool:
        """Tells whether something is to be said of runs."""
        return bool(self.tag or self.untag or self.note is not None)


def main(config: RunsConfig) -> int:
    """Lists the runs that are asked for, after saying of them what the flags do, and writes the page of all.

    With --delete it deletes them, and returns 1 if the answer was no.

    Raises:
        UsageError: a name or a condition is wrong, or tags.json is damaged.
    """
    from kernorm.records.index import list_lines
    from kernorm.records.tags import read_tags
    from kernorm.records.where import ordered, selected
    from kernorm.reporting.run_list import RunList

    every, tags = list_lines(config.reports_dir), read_tags(config.reports_dir)
    if not every:
        print(f"No run lies under {config.reports_dir}. python -m kernorm.train trains one.", file=sys.stderr)
        return 0
    if config.delete:
        return _delete(config, every)
    every = ordered(every, config.sort, tags)
    lines = selected(every, config.where, tags)
    if config._says:
        tags = _say(config, lines)
    everything = RunList(every, tags)
    runs = RunList(lines, tags) if config.where else everything
    if config.csv or config.latex:
        print(runs.csv() if config.csv else runs.latex(), end="")
    elif lines:
        runs.show()
    page = everything.write_page(config.reports_dir)
    if not (config.csv or config.latex):
        print(f"runs     {len(lines):,} of {len(every):,}\npage     {page}")
    return 0


def _delete(config: RunsConfig, lines: "list[Line]") -> int:
    """Deletes the folders of runs, if the answer is yes, and writes the page again; returns 1 if it is no."""
    from kernorm.records.deletion import run_folders, run_id_of, what_stays
    from kernorm.records.index import list_lines
    from kernorm.records.tags import forget_runs, read_tags
    from kernorm.reporting.run_list import RunList
    from kernorm.saved_model.card import models_of
    from kernorm.system.removal import holding, remove

    folders = run_folders(config.delete, lines, config.reports_dir)
    models = models_of(map(run_id_of, folders.values()), config.saved_models_dir)
    with holding(list(folders), "A run"):
        if not remove(list(folders), yes=config.yes, remarks=what_stays(folders.values(), models)):
            return 1
    left = list_lines(config.reports_dir)
    forget_runs(config.reports_dir, {line.run for line in folders.values()} - {line.run for line in left})
    print(f"page     {RunList(left, read_tags(config.reports_dir)).write_page(config.reports_dir)}")
    return 0


def _say(config: RunsConfig, lines: "list[Line]") -> dict:
    """Adds and removes what the flags say of runs; returns the tags and notes of all."""
    from kernorm.records.tags import set_tags

    if not lines:
        raise UsageError("--where must select a run.", f"{' '.join(config.where)!r}, which selects none", "Change it.")
    note = "" if config.note == "-" else config.note
    names = [line.run for line in lines]
    return set_tags(config.reports_dir, names, add=config.tag, remove=config.untag, note=note)


if __name__ == "__main__":
    sys.exit(cli.run(RunsConfig, main, prog=PROG))
