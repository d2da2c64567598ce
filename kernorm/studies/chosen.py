"""Compares runs that exist, without training: a study whose runs were chosen after their results could be seen.

Its arms are what is alike but for the seed. It gives means and intervals, no verdict and no p, and is no look: whoever
chooses among results finds differences that are not there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.records.index import Line, list_lines
from kernorm.records.record import RECORD, Record, read_record
from kernorm.records.tags import read_tags
from kernorm.records.where import named, selected
from kernorm.reporting.run_list import RunList, own_settings
from kernorm.stats.comparison import Comparison
from kernorm.studies.analysis import analyse
from kernorm.studies.choices import AUTO, margin_of, primary, targets_of_text
from kernorm.studies.definition import Planned, Study
from kernorm.studies.ledger import RECORDS, Ledger, Result, results_of
from kernorm.studies.report.page import write_study_report
from kernorm.studies.summary import ArmSummary, StudySummary, counted
from kernorm.studies.vary import MOST_ARMS, Factor
from kernorm.studies.wording import listed
from kernorm.system.files import locked, make_folder

# What stands in the records of such a study in place of its file.
FILE = "chosen afterwards"
# Settings that a folder's name holds.
_IN_NAME = 4


def choose_runs(runs: Sequence[str], where: Sequence[str], reports_dir: Path) -> list[Line]:
    """Returns runs by their names, in that order, or by conditions, those with the fewest settings of their own first.

    Raises:
        UsageError: there is no such run or name, or nothing is selected.
    """
    lines = list_lines(reports_dir)
    if runs:
        return list({line.run: line for line in named(runs, lines, reports_dir, "--runs")}.values())
    found = selected(lines, where, read_tags(reports_dir))
    if not found:
        raise UsageError(
            "--where must select runs.", f"{' '.join(where)!r}, which selects none", "See python -m kernorm.runs."
        )
    names = RunList(found, {}).names
    return sorted(found, key=lambda line: len(own_settings(line, names)))


def default_name(lines: Sequence[Line]) -> str:
    """Returns a name for the folder of a comparison, from the settings that differ."""
    names = RunList(lines, {}).telling
    return "-".join(["chosen", *names[:_IN_NAME], *(["more"] if len(names) > _IN_NAME else [])])


def compare_runs(
    lines: Sequence[Line],
    folder: Path,
    *,
    reports_dir: Path,
    command: str = "",
    metric: str | None = None,
    margin: str | float | None = None,
    targets: str | None = None,
    pictures: bool = True,
) -> StudySummary:
    """Compares runs, and writes the page and its tables into a folder of their own.

    Args:
        lines: the runs; the first of those that `--runs` names is of the baseline.
        folder: takes a copy of their records, and the page.
        reports_dir: where they lie.
        command: how to make the page again, as it shows it.
        metric: the primary one, as `kernorm.study` takes it; None: auto.
        margin: what counts as no difference; None: auto.
        targets: accuracies whose time is shown; None: those that fit the set.
        pictures: whether the page may show images of the set.

    Raises:
        UsageError: the runs cannot be compared, or the folder is a study's.
    """
    study, results = chosen_study(lines, reports_dir, folder.name, command, pictures=pictures)
    study = replace(
        study,
        metric=AUTO if metric is None else primary(metric, "--metric"),
        margin=AUTO if margin is None else margin_of(margin, "--margin"),
        targets=() if targets is None else targets_of_text(targets, "--targets"),
    )
    make_folder(folder, "--reports-dir")
    with locked(folder / "lock", "compare runs here"):
        _require_own(folder)
        ledger = Ledger(folder)
        ledger.rewrite(results)
        summary = described(analyse(study, ledger.results))
        write_study_report(study, summary, ledger, folder, command)
    return summary


def chosen_study(
    lines: Sequence[Line], reports_dir: Path, name: str, command: str = "", *, pictures: bool = True
) -> tuple[Study, list[Result]]:
    """Returns the study of runs that exist, and their results; the arguments are those of `compare_runs`.

    Raises:
        UsageError: the runs cannot be compared.
    """
    _require_alike(lines)
    records = {line.run: _record(line, reports_dir, pictures=pictures) for line in lines}
    study = _study(lines, records, name, command)
    by_id = {record.config.run_id: record for record in records.values()}
    return study, [_result(run, by_id[run.config.run_id]) for run in study.runs()]


def described(summary: StudySummary) -> StudySummary:
    """Returns what may be said of runs that were chosen afterwards: means and intervals."""
    return replace(summary, chosen=True, visible="", answers=(), arms=tuple(map(_described, summary.arms)))


def _described(arm: ArmSummary) -> ArmSummary:
    last = arm.last and replace(
        arm.last, compared=arm.last.compared and _without_p(arm.last.compared), p_adjusted=None, verdict=None
    )
    return replace(
        arm,
        comparisons={name: _without_p(one) for name, one in arm.comparisons.items()},
        p_adjusted=None,
        verdict=None,
        last=last,
        exhausted=False,
        mcnemar=None,
    )


def _without_p(found: Comparison) -> Comparison:
    return replace(found, p=None, tost_p=None, p_paired=None, p_welch=None)


def _require_alike(lines: Sequence[Line]) -> None:
    """Refuses runs that no table should hold next to each other."""
    if untested := [f"{line.run} ({line.status})" for line in lines if line.accuracy is None]:
        raise UsageError(
            "Runs that are compared have a test result.", listed(untested), "Leave them out, or add status=finished."
        )
    for rule, value_of in (
        ("were trained on the same data", lambda line: f"{line.settings['dataset']} of sha256 {line.data[:12]}"),
        ("selected their epoch by one rule", lambda line: f"--select {line.settings['select']}"),
        ("were trained by one revision of the training code", lambda line: f"revision {line.revision}"),
    ):
        found: dict[str, list[str]] = {}
        for line in lines:
            found.setdefault(value_of(line), []).append(line.run)
        if len(found) > 1:
            told = "; ".join(f"{value}: {listed(runs)}" for value, runs in found.items())
            raise UsageError(f"Runs that are compared {rule}.", told, "Leave the others out.")
    if len(lines) < 2:
        raise UsageError(
            "A comparison has two runs or more.", f"{listed(line.run for line in lines)} alone", "Add one."
        )


def _record(line: Line, reports_dir: Path, *, pictures: bool) -> Record:
    """Reads the record of a run from its folder, or from a study that holds it.

    Raises:
        UsageError: it is damaged.
    """
    folder = reports_dir / line.path
    if (folder / RECORD).exists():
        found = [read_record(folder / RECORD)]
    else:
        found = [one.record for one in results_of(folder / RECORDS, {line.run}) if one.record]
    for record in found:
        if (record.revision, record.data.sha256) == (line.revision, line.data):
            return record if pictures else replace(record, config=replace(record.config, pictures=False))
    raise UsageError("A run's record must be whole.", f"{line.run} in {folder / RECORDS}", "Leave the run out.")


def _result(run: Planned, record: Record) -> Result:
    return Result(arm=run.arm, seed=run.seed, run_id=run.config.run_id, status="finished", file=FILE, record=record)


def _study(lines: Sequence[Line], records: Mapping[str, Record], name: str, command: str) -> Study:
    """Returns the study of runs: an arm is what is alike but for the seed, the first run's is the baseline."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        identity = records[line.run].config.identity | {"seed": 0}
        groups.setdefault(json.dumps(identity, sort_keys=True), []).append(line)
    if not 2 <= len(groups) <= MOST_ARMS:
        raise UsageError(
            f"A comparison has 2 to {MOST_ARMS} arms, which differ in more than the seed.",
            f"{counted(len(lines), 'run')} of {counted(len(groups), 'arm')}",
            "Choose others.",
        )
    arms = dict(zip(_names([group[0] for group in groups.values()]), groups.values(), strict=True))
    seeds = {arm: sorted(records[line.run].config.seed for line in group) for arm, group in arms.items()}
    for arm, group in arms.items():
        if len(set(seeds[arm])) < len(group):
            twice = [line.run for line in group if seeds[arm].count(records[line.run].config.seed) > 1]
            raise UsageError("A config counts once with each seed.", listed(twice), "Leave all but one out.")
    places = _places(seeds)
    return Study(
        name=name,
        text=(
            f"Chosen afterwards: {counted(len(lines), 'run')} that differ in {listed(RunList(lines, {}).telling)}\n\n"
            f"These runs were there, and were chosen when their results could be seen.\n\n    {command}\n"
        ),
        arms={arm: replace(records[group[0].run].config, seed=0) for arm, group in arms.items()},
        seeds=tuple(sorted({place for found in places.values() for place in found})),
        chosen=places,
        baselines=dict.fromkeys(arms, next(iter(arms))),
        file=FILE,
    )


def _places(seeds: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
    """Returns the seeds of each arm by what they are compared by: themselves, where all arms share two or more.

    Else it is their place in the arm: runs without common seeds are samples, which any pairs compare rightly.
    """
    common = set.intersection(*map(set, seeds.values()))
    return {
        arm: {seed if len(common) > 1 else place: seed for place, seed in enumerate(found)}
        for arm, found in seeds.items()
    }


def _names(lines: Sequence[Line]) -> list[str]:
    """Names arms by the settings in which they differ."""
    names = RunList(lines, {}).telling
    found: list[str] = []
    for line in lines:
        settings = own_settings(line, names)
        parts = [Factor(name, ()).label(value.replace(" ", ",")) for name, value in settings.items()]
        text = "-".join(parts) or line.settings["recipe"]
        found.append(text if text not in found else f"{text}-{len(found) + 1}")
    return found


def _require_own(folder: Path) -> None:
    """Refuses a folder that holds a study whose runs were planned."""
    ledger = Ledger(folder, mend=False)
    if ledger.results and ledger.file != FILE:
        raise UsageError(
            "A study's folder belongs to one study.",
            f"{folder}, which holds the runs of another one",
            "Give --name another name.",
        )
