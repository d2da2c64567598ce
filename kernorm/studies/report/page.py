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
from kernorm.reporting.figures import Panel, concise, to_png, to_svg
from kernorm.reporting.page import page_renderer
from kernorm.stats.scores import BY_CLASS
from kernorm.stats.verdict import percentage_points
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger
from kernorm.studies.metrics import MARGIN, METRICS
from kernorm.studies.report.arms import Arm, arms_of, compared_groups
from kernorm.studies.report.cautions import cautions
from kernorm.studies.report.charts import charts
from kernorm.studies.report.curves import apart, watched_split
from kernorm.studies.report.mistakes import GRIDS, Grid, grids_of
from kernorm.studies.report.tables import tables_csv
from kernorm.studies.report.words import answers, broken_claims, sentence, twin
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

_SUMMARY = TypeAdapter(StudySummary)


def write_study_report(study: Study, summary: StudySummary, ledger: Ledger, folder: Path, command: str) -> Path:
    """Writes the report of a study as it stands into `folder`, each file atomically; returns the page's path.

    `command` is what runs the study. The pictures of misclassified images are one more look at the test split, which
    the page counts.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    arms = arms_of(study, summary, ledger.results)
    write_atomically(folder / "summary.json", _SUMMARY.dump_json(summary, indent=1, warnings=False) + b"\n")
    write_atomically(folder / "tables.csv", tables_csv(summary, arms))
    drawn, grids = charts(arms, summary.metric), grids_of(arms)
    pictured = [grid for grid in grids if grid.pictures]
    pictures = {
        "misclassified": tuple(grid.panel() for grid in pictured if not grid.arm),
        "misclassified_by_arm": tuple(grid.panel() for grid in pictured if grid.arm),
    }
    for name, panels in (drawn | pictures).items():
        if panels:
            columns = 2 if panels[0].size[0] > 4 else min(4, len(panels))
            write_atomically(folder / f"{name}.png", to_png(panels, _caption(name, summary, arms), columns))
    path = folder / "report.html"
    write_atomically(path, _page(study, summary, arms, ledger, drawn, grids, command).encode())
    return path


def _page(
    study: Study,
    summary: StudySummary,
    arms: Sequence[Arm],
    ledger: Ledger,
    drawn: dict[str, tuple[Panel, ...]],
    grids: Sequence[Grid],
    command: str,
) -> str:
    panels = {panel.name: panel for group in drawn.values() for panel in group}
    looks = len({grid.dataset for grid in grids if grid.pictures})
    baselines = {arm.baseline for arm in summary.arms if arm.baseline}
    finished = [arm for arm in arms if arm.records]
    groups = compared_groups(finished)
    settings = {arm.name: _settings(arm.config) for arm in summary.arms}
    first = next(iter(settings.values()))
    # Those of the study's set: the default one is no default for a study of another.
    defaults = _settings(TrainConfig(dataset=first["dataset"]))
    varied = [name for name in defaults if len({values[name] for values in settings.values()}) > 1]
    renderer = page_renderer()
    renderer.filters |= {"score": score, "signed": signed, "half": half, "p": p_value, "concise": concise}
    return renderer.get_template("study_report.html.j2").render(
        study=study,
        summary=summary,
        arms=arms,
        command=command,
        panels=panels,
        svgs={name: Markup(to_svg(panel)) for name, panel in panels.items()},
        drawn={name: [panel.name for panel in group] for name, group in drawn.items()},
        grids=grids,
        looks=looks,
        hidden=any(grid.hidden for grid in grids),
        answers=answers(summary),
        cautions=cautions(study, summary, ledger, looks),
        sentence=lambda arm: sentence(arm, summary.metric),
        compared=compared,
        decided_interval=decided_interval,
        failure_rate=failure_rate,
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
        apart=apart(groups),
        groups=groups if apart(groups) else finished,
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


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Returns what decides a run's weights, by its name in TrainConfig."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.identity.items()}


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
