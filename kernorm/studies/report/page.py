"""The report of a study: report.html, which opens offline, its charts as PNG files, summary.json and tables.csv.

Every number shown is the summary's or the records'; the page's words are in
study_report.html.j2 and study_words.py, its looks in report.css and study_report.css.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import TypeAdapter

from kernorm.config import TrainConfig
from kernorm.records.record import PERCENTILES, THRESHOLDS
from kernorm.reporting.figures import Panel, to_png
from kernorm.reporting.format import concise
from kernorm.reporting.hover import Column, Measure
from kernorm.reporting.live import Live
from kernorm.reporting.page import drawn, page_data, page_renderer
from kernorm.stats.scores import BY_CLASS
from kernorm.stats.verdict import percentage_points
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger
from kernorm.studies.metrics import MARGIN, METRICS
from kernorm.studies.report.answers import answers, narrower, sentence
from kernorm.studies.report.arms import Arm, arms_of, compared_groups
from kernorm.studies.report.axes import axis_of
from kernorm.studies.report.cautions import broken_claims, cautions, twin
from kernorm.studies.report.charts import charts
from kernorm.studies.report.curves import apart, watched_split
from kernorm.studies.report.mistakes import GRIDS, Grid, grids_of
from kernorm.studies.report.tables import tables_csv
from kernorm.studies.rounds import arms_that_go_on
from kernorm.studies.statements import format_lengths
from kernorm.studies.summary import StudySummary
from kernorm.studies.wording import (
    compared,
    decided_interval,
    failure_rate,
    half,
    headline_interval,
    p_value,
    plus_minus,
    score,
    signed,
    unit,
)
from kernorm.system.files import write_atomically

# Charts of a page while runs are under way.
LIVE = ("differences", "seeds", "curves")
# Arms up to which everything is unfolded.
FEW = 6

_SUMMARY = TypeAdapter(StudySummary)
# Of what is measured over epochs, what is shown with the interval of its mean.
_WITH_INTERVALS = ("val_accuracy", "accuracy", "val_cross_entropy", "cross_entropy")


def write_study_report(
    study: Study, summary: StudySummary, ledger: Ledger, folder: Path, command: str, *, live: Live | None = None
) -> Path:
    """Writes the report of a study as it stands into `folder`, each file atomically; returns the page's path.

    While runs are under way (`live`), the page has fewer charts, and neither PNG files nor pictures of the test split.

    `command` is what runs the study. The pictures of misclassified images are one more look at the test split, which
    the page counts.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    arms = arms_of(study, summary, ledger.results)
    write_atomically(folder / "summary.json", _SUMMARY.dump_json(summary, indent=1, warnings=False) + b"\n")
    write_atomically(folder / "tables.csv", tables_csv(summary, arms))
    groups = charts(arms, summary.metric)
    if live:
        shown = LIVE if "curves" in groups else (*LIVE, "accuracy")
        groups = {name: panels for name, panels in groups.items() if name in shown}
    grids = [] if live else grids_of(arms)
    pictured = [grid for grid in grids if grid.pictures]
    pictures = {
        "misclassified": tuple(grid.panel() for grid in pictured if not grid.arm),
        "misclassified_by_arm": tuple(grid.panel() for grid in pictured if grid.arm),
    }
    for name, panels in (groups | pictures).items():
        if panels and not live:
            columns = 2 if panels[0].size[0] > 4 else min(4, len(panels))
            write_atomically(folder / f"{name}.png", to_png(panels, _caption(name, summary, arms), columns))
    path = folder / "report.html"
    write_atomically(path, _page(study, summary, arms, ledger, groups, grids, command, live).encode())
    return path


def _page(
    study: Study,
    summary: StudySummary,
    arms: Sequence[Arm],
    ledger: Ledger,
    groups: dict[str, tuple[Panel, ...]],
    grids: Sequence[Grid],
    command: str,
    live: Live | None,
) -> str:
    shown = drawn(panel for group in groups.values() for panel in group)
    looks = len({grid.dataset for grid in grids if grid.pictures})
    baselines = {arm.baseline for arm in summary.arms if arm.baseline}
    finished = [arm for arm in arms if arm.records]
    by_baseline = compared_groups(finished)
    places = {arm.name: arm.place for arm in arms}
    settings = {arm.name: _settings(arm.config) for arm in summary.arms}
    first = next(iter(settings.values()))
    # Those of the study's set: the default one is no default for a study of another.
    defaults = _settings(TrainConfig(dataset=first["dataset"]))
    varied = [name for name in defaults if len({values[name] for values in settings.values()}) > 1]
    renderer = page_renderer()
    renderer.filters |= {"score": score, "signed": signed, "half": half, "p": p_value}
    return renderer.get_template("study_report.html.j2").render(
        study=study,
        summary=summary,
        arms=arms,
        command=command,
        live=live,
        panels=shown.panels,
        svgs=shown.svgs,
        data=page_data(
            arms=[(arm.name, arm.look.colour) for arm in arms],
            measures=_measures(arms, watched_split(arms)),
            charts=shown,
        ),
        of_arm=lambda name: Markup(f' data-arm="{places[name]}"'),
        drawn={name: [panel.name for panel in group] for name, group in groups.items()},
        grids=grids,
        looks=looks,
        hidden=any(grid.hidden for grid in grids),
        answers=answers(summary),
        cautions=cautions(study, summary, ledger, looks),
        sentence=lambda arm: sentence(arm, summary.metric),
        compared=compared,
        decided_interval=decided_interval,
        failure_rate=failure_rate,
        going=len(arms_that_go_on(summary)),
        headline_interval=headline_interval,
        plus_minus=plus_minus(summary),
        unit=unit,
        broken=broken_claims,
        twin=lambda arm: twin(study, arm),
        metrics=METRICS,
        new_images=summary.metric if METRICS[summary.metric].mean_over else "accuracy",
        accuracy_margin=percentage_points(_accuracy_margin(summary)),
        by_class=BY_CLASS,
        baselines=baselines,
        groups_of=_groups,
        looked=sum(arm.config.select == "test" for arm in summary.arms),
        partly_paired=_partly_paired(summary),
        watched=watched_split(arms),
        layers=sorted(
            {
                row.watched.layer
                for arm in arms
                for record in arm.records.values()
                for row in record.history[:1]
                if row.watched
            }
        ),
        apart=apart(by_baseline),
        few=FEW,
        lengths=format_lengths(study),
        narrower=narrower(summary),
        groups=by_baseline if apart(by_baseline) else finished,
        most_grids=GRIDS,
        varied=varied,
        settings=settings,
        common=[
            (name, first[name], default)
            for name, default in defaults.items()
            if name not in varied and first[name] != default
        ],
        runs=study.runs(),
        results=ledger.results,
    )


def _accuracy_margin(summary: StudySummary) -> float:
    """Returns what counts as no difference of accuracies."""
    found = (arm.comparisons["accuracy"].margin for arm in summary.arms if arm.comparisons)
    return next(found, None) or MARGIN


def _measures(arms: Sequence[Arm], watched: str) -> dict[str, Any]:
    """Returns what the arms have over epochs, for the script of the page."""
    percent: dict[str, Any] = {"unit": " %", "factor": 100, "digits": 2, "most": 1}
    known = {
        "val_accuracy": Measure(f"{watched} accuracy", **percent),
        "accuracy": Measure("training accuracy", **percent),
        "val_cross_entropy": Measure(f"{watched} cross-entropy", " nats", digits=4),
        "cross_entropy": Measure("training cross-entropy", " nats", digits=4),
        "l1_penalty": Measure("λ1·Σ|w|", " nats"),
        "l2_penalty": Measure("λ2·Σw²", " nats"),
        "kernel_norm": Measure("‖w‖₂", digits=2),
        **{f"near_zero_{mark:g}": Measure(f"|w| < {concise(mark)}", " %", digits=2, most=100) for mark in THRESHOLDS},
        **{f"activation_p{mark}": Measure(f"percentile {mark}") for mark in PERCENTILES},
    }
    return {name: measure.table(_column(arm, name) for arm in arms) for name, measure in known.items()}


def _column(arm: Arm, measure: str) -> Column | None:
    curve, factor = arm.curve(measure), axis_of(measure).factor
    if curve is None:
        return None
    halves = (factor * curve.halves).tolist() if measure in _WITH_INTERVALS else []
    return Column(curve.epochs.tolist(), (factor * curve.mean).tolist(), halves)


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Returns what decides a run's weights, by its name in TrainConfig."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.identity.items()}


def _partly_paired(summary: StudySummary) -> bool:
    """Tells whether a difference leaves seeds out that one of its two arms alone has."""
    seeds = {arm.name: len(arm.seeds) for arm in summary.arms}
    return any(
        found.paired and found.pairs < max(seeds[arm.name], seeds.get(arm.baseline or "", 0))
        for arm in summary.arms
        if (found := arm.comparisons.get(summary.metric))
    )


def _groups(arm: Arm) -> str:
    """Returns the groups of a gn arm, as its layers have them; empty for other norms."""
    if arm.summary.config.norm != "gn":
        return ""
    found = {layer.groups for record in arm.records.values() for layer in record.layers if layer.groups}
    return ", ".join(map(str, sorted(found))) or str(arm.summary.config.groups)


def _caption(name: str, summary: StudySummary, arms: Sequence[Arm]) -> str:
    """Says beneath a PNG file what its marks mean, and which study it is of."""
    watched = watched_split(arms) or "training"
    lines = f"solid: {watched}, mean ± 1 sd; dashed: training; grey: the baseline"
    if apart(compared_groups(arms)):
        lines = f"{watched}, mean ± 1 sd over seeds"
    meanings = {
        "differences": "thick: 95 % interval over seeds; thin: on new images; shaded: what counts as equivalent",
        "seeds": "points: runs; black: mean; grey: its 95 % interval (Student's t)",
        "batch_size": "mean and 95 % interval over seeds (Student's t)",
        "curves": "mean ± 1 sd over seeds; axes of the arms that are not far worse than the others",
        "accuracy": f"accuracy, % (stretched scale); {lines}",
        "cross_entropy": f"cross-entropy, nats; {lines}",
        "penalties": "nats, at each epoch's end, mean over seeds",
        "kernels": "mean ± 1 sd over seeds",
        "activations": "percentiles 1, 20, 80 and 99 of a layer's output, mean over seeds",
    }
    study = f"study {summary.name}, {summary.finished} runs"
    return f"{meanings[name]} · {study}" if name in meanings else study
