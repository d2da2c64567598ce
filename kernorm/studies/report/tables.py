"""tables.csv of a study: every number that its report shows, one a row, for pandas or a spreadsheet.

    rows = pandas.read_csv("tables.csv")
    rows[rows.metric == "accuracy"].pivot_table("value", "arm", "statistic")       # the result table
    rows[rows.metric == "val_accuracy"].pivot_table("value", "epoch", "arm")       # a curve an arm

Between the study's arms and its report. `value` is always a number, in the unit of the records (accuracies from 0 to 1,
differences too, times in seconds); a word, such as a verdict, stands in `text`. `seed` and `epoch` are empty where a
number is of all of them; `arm` is empty for what concerns the whole study. No value means that there is none: one seed
has no interval.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernorm.studies.metrics import METRICS
from kernorm.studies.primary import primary_metric
from kernorm.studies.report.arms import MEASURES, Arm
from kernorm.studies.summary import StudySummary


class Row(NamedTuple):
    """One number, or one word."""

    arm: str
    seed: int | None
    epoch: int | None
    metric: str
    statistic: str
    value: float | None
    text: str = ""


def tables_csv(summary: StudySummary, arms: Sequence[Arm]) -> bytes:
    """Returns tables.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in (*_of_study(summary), *(row for arm in arms for row in _of_arm(summary, arm))):
        writer.writerow(row._replace(value=None if row.value is None else repr(float(row.value))))  # type: ignore[arg-type]
    return text.getvalue().encode()


def _of_study(summary: StudySummary) -> Iterator[Row]:
    for name in ("finished", "missing", "openings", "seconds", "cpu_seconds"):
        yield Row("", None, None, "study", name, getattr(summary, name))
    yield Row("", None, None, "study", "primary", None, summary.metric)
    yield Row("", None, None, "study", "margin", primary_metric(summary.design).margin)
    yield Row("", None, None, "study", "looks", len(summary.design.looks))
    for factor in summary.factors:
        for level in factor.levels:
            for name, number in (("mean", level.mean), ("effect", level.effect)):
                yield Row("", None, None, f"{summary.metric}, {factor.name} {level.value}", name, number)
            for name, end in zip(("effect_low", "effect_high"), level.interval or (), strict=False):
                yield Row("", None, None, f"{summary.metric}, {factor.name} {level.value}", name, end)
    for data, found in summary.duplicates.items():
        for name, count in dataclasses.asdict(found).items():
            yield Row("", None, None, f"duplicates {data}", name, count)


def _of_arm(summary: StudySummary, arm: Arm) -> Iterator[Row]:
    found = arm.summary

    def rows(metric: str, values: Iterable[tuple[str, Any]], seed: int | None = None) -> Iterator[Row]:
        for statistic, value in values:
            number = value is None or isinstance(value, int | float)
            yield Row(arm.name, seed, None, metric, statistic, value if number else None, "" if number else str(value))

    yield from rows("setting", ((name, _plain(value)) for name, value in found.config.identity.items()))
    yield from rows("runs", found.states.items())
    yield from rows("runs", ((name, getattr(found, name)) for name in ("openings", "seconds", "cpu_seconds")))
    if found.published:
        yield from rows("published", _flat(found.published))
    for metric in METRICS:
        if score := found.scores.get(metric):
            yield from rows(metric, _flat(score))
        if comparison := found.comparisons.get(metric):
            yield from rows(metric, [("baseline", found.baseline)])
            yield from rows(metric, _flat(comparison, "difference_"))
    if found.verdict:
        yield from rows(summary.metric, [("p_holm", found.p_adjusted)])
        yield from rows(summary.metric, _flat(found.verdict, "verdict_"))
    if last := found.last:
        yield from rows("last epoch", [("gain", last.gain), ("p_holm", last.p_adjusted)])
        for name, value in (("", last.score), ("difference_", last.compared), ("verdict_", last.verdict)):
            yield from rows("last epoch", _flat(value, name) if value else ())
    yield from rows("failures", _flat(found.failures))
    if found.unpredicted:
        yield from rows("failures", [("never_predicted", found.unpredicted)])
    new = {
        "generalization_interval": found.generalization_interval,
        "generalization_difference": found.generalization_difference,
    }
    yield from rows(summary.metric if METRICS[summary.metric].mean_over else "accuracy", _flat(new))
    if found.mcnemar:
        yield from rows("mcnemar", _flat(found.mcnemar))
    for name, time in found.times.items():
        yield from rows(name, _flat(time))
    for claim in found.claims:
        yield from rows(f"lambda{claim.part}", [*_flat(claim), ("kept", float(claim.kept))])
    for row in found.sparsity:
        yield from rows(f"pruned below {row.threshold:g}", _flat(row))
    for image in found.hard:
        yield from rows("misclassified", [(f"image {image.index}", image.wrong)])
    for place, record in sorted(arm.records.items()):
        seed = record.config.seed if summary.chosen else place
        yield from rows("run", [("selected_epoch", record.selected_epoch), ("cpu_seconds", record.cpu_seconds)], seed)
        for metric, of in METRICS.items():
            yield from rows(metric, [("score", of.value(record))], seed)
    for measure in MEASURES:
        if curve := arm.curve(measure):
            for epoch, mean, sd in zip(curve.epochs.tolist(), curve.mean.tolist(), curve.sd.tolist(), strict=True):
                yield Row(arm.name, None, epoch, measure, "mean", _short(mean))
                if curve.runs > 1:
                    yield Row(arm.name, None, epoch, measure, "sd", _short(sd))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the fields of a dataclass or a dict with names of their own, an interval as its two ends."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name, entry in value.items():
        if isinstance(entry, tuple):
            yield from zip((f"{prefix}{name}_low", f"{prefix}{name}_high"), entry, strict=True)
        elif entry is not None:
            yield name if prefix.startswith(name) else prefix + name, entry


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
