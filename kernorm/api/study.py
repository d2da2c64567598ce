"""Studies for Python users: arms compared over seeds."""

import dataclasses
from collections.abc import Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from kernorm.api.display import Chart, page
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest, with_type
from kernorm.limits import expanded
from kernorm.parallel.settings import EngineConfig
from kernorm.studies.definition import SEEDS, Study, study_of, until_resolved_or_none, with_overrides
from kernorm.studies.ledger import RECORDS, Ledger
from kernorm.studies.loading import load_study
from kernorm.studies.published import Published
from kernorm.studies.report.arms import arms_of
from kernorm.studies.report.charts import charts
from kernorm.studies.runner import run_study as run_in_folder
from kernorm.studies.summary import ArmSummary, StudySummary
from kernorm.studies.tuning import with_rates
from kernorm.studies.wording import compared, headline_interval
from kernorm.system.files import unless_refused


class StudyResult:
    """A study with the runs that it has.

    Attributes:
        study: its arms, seeds and baselines.
        summary: every number of its report.
        folder: reports/studies/<name>.
    """

    def __init__(self, study: Study, summary: StudySummary, folder: Path) -> None:
        self.study, self.summary, self.folder = study, summary, folder

    @property
    def table(self) -> pd.DataFrame:
        """A row an arm: runs, mean of the primary metric, its interval for new images, difference, verdict."""
        rows = {arm.name: _row(arm, self.summary.metric) for arm in self.summary.arms}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")

    @property
    def report_path(self) -> Path:
        """The study's page, report.html."""
        return self.folder / "report.html"

    def verdict(self, arm: str, metric: str | None = None) -> str:
        """Says what may be said of an arm against its baseline, by the study's primary metric.

        Of an arm whose epoch was selected on test it speaks of the last epoch.

        Raises:
            UsageError: there is no such arm, the metric is not the primary one, or the arm is a baseline.
        """
        found = {one.name: one for one in self.summary.arms}
        if arm not in found:
            raise UsageError("A verdict is of an arm.", f"{arm!r}", nearest(arm, found))
        if metric not in (None, self.summary.metric):
            raise UsageError(
                "A verdict is by the study's primary metric.",
                f"{metric!r}",
                f"It is {self.summary.metric}; the others are described in `summary`.",
            )
        verdict = found[arm].decided
        if found[arm].baseline is None:
            raise UsageError("A verdict compares an arm with its baseline.", f"{arm!r}, which is one", "Name another.")
        if self.summary.provisional:
            return f"no verdict yet: {self.summary.missing:,} runs are missing"
        return verdict.sentence if verdict else "no verdict: its runs kept no evaluation of the last epoch"

    def plot(self, name: str = "differences") -> Chart:
        """Returns a chart of the study's report by name, such as differences, seeds or curves.

        Raises:
            UsageError: the study has no such chart, for example before two seeds have finished.
        """
        drawn = {key: panels for key, panels in charts(self._arms(), self.summary.metric).items() if panels}
        if name not in drawn:
            raise UsageError("A chart is one that the study has.", f"{name!r}", nearest(name, drawn))
        return Chart(drawn[name], self.study.name)

    def _arms(self) -> list[Any]:
        return arms_of(self.study, self.summary, Ledger(self.folder).results)

    def __repr__(self) -> str:
        return f"StudyResult({self._headline()})"

    def _repr_html_(self) -> str:
        shown = [self.plot("differences")] if any(arm.comparisons for arm in self.summary.arms) else []
        return page(self._headline(), self.table, *shown)

    def _headline(self) -> str:
        summary = self.summary
        missing = f", {summary.missing} missing" if summary.missing else ""
        return f"{summary.name}: {summary.finished} runs of {len(summary.arms)} arms finished{missing}"


def run_study(
    study: str | Path | Mapping[str, TrainConfig],
    *,
    seeds: int | None = None,
    baseline: str | None = None,
    published: Mapping[str, Published] | None = None,
    question: str = "",
    name: str | None = None,
    epochs: int | None = None,
    only: str | Collection[str] = (),
    metric: str | None = None,
    margin: str | float | None = None,
    targets: str | None = None,
    until_resolved: bool = False,
    time_budget: str | None = None,
    max_seeds: int | None = None,
    tune_rate: str | tuple[float, float] | None = None,
    engine: EngineConfig | None = None,
    reports_dir: str | Path = "reports",
) -> StudyResult:
    """Trains what is missing of every arm times every seed, compares the arms, and writes a report.

    The same call again trains nothing; more seeds extend the study.

    Args:
        study: arms by name; or a study that comes with kernorm, by its name; or a study file's path.
        seeds: how many; by default the study's own, or 5.
        baseline: the arm that others are compared with; by default the first, or the study's own.
        published: what a paper says of arms.
        question: what the study asks, for its report.
        name: of the folder under reports/studies; by default the study's, or `arms`.
        epochs: another number of epochs for every arm.
        only: some arms, by name or pattern.
        metric: the primary one, which alone has verdicts; by default the study's own, or auto: balanced accuracy where
            the largest test class has 1.5 times the images of the smallest, else accuracy.
        margin: what counts as no difference of it, such as 0.5pp; by default the study's own, or auto: 0.05 points,
            and at least five test images, but at most one point.
        targets: accuracies whose time is shown, in percent, such as 90,95; or auto: from what the runs reach.
        until_resolved: add seeds round by round until every arm is better, worse or equivalent.
        time_budget: with `until_resolved`, begin no round that would end after this time, such as 30m or 2h.
        max_seeds: with `until_resolved`, the most seeds of an arm; by default 50.
        tune_rate: first find each arm's learning rate on validation, within LOW:HIGH such as 0.01:0.1, or two numbers.
        engine: where runs are computed; by default on this machine, one a core.
        reports_dir: where studies/<name>/ and runs/<run id>/ are written.

    Raises:
        UsageError: an arm, a name, a number, the data or the engine is wrong.
    """
    if not isinstance(engine, EngineConfig | None):
        raise UsageError("An engine is an EngineConfig.", with_type(engine), 'Give kernorm.EngineConfig(name="local").')
    reports_dir, engine = expanded(reports_dir), engine or EngineConfig()
    asked = range_as_text(tune_rate)
    until = until_resolved_or_none(until_resolved, seeds, time_budget, max_seeds)
    if isinstance(study, Mapping):
        planned = study_of(
            name or "arms",
            dict(study),
            text=question or "Which arm is better?",
            baseline=baseline,
            seeds=SEEDS if seeds is None else seeds,
            published=published or {},
        )
    else:
        planned = load_study(str(study))
        if baseline is not None:
            planned = dataclasses.replace(planned, baselines=dict.fromkeys(planned.arms, baseline))
    planned = with_overrides(
        planned,
        seeds=seeds,
        epochs=epochs,
        only=(only,) if isinstance(only, str) else only,
        metric=metric,
        margin=margin,
        targets=targets,
        threads=engine.threads,
        reports_dir=reports_dir,
        export=False,
        report=False,
    )
    folder = reports_dir / "studies" / (name or planned.name + (f"-e{epochs}" if epochs else ""))
    with unless_refused(folder, RECORDS):
        planned = with_rates(planned, folder, asked, engine)
        summary = run_in_folder(planned, folder, engine, command="kernorm.run_study(…)", until=until)
    return StudyResult(planned, summary, folder)


def range_as_text(rates: Any) -> str | None:
    """Returns LOW:HIGH, also of two numbers; None as it is.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(rates, str | None):
        return rates
    if not (isinstance(rates, list | tuple) and len(rates) == 2 and all(isinstance(rate, Real) for rate in rates)):
        raise UsageError(
            "A range of rates is LOW:HIGH, or two numbers.", with_type(rates), "Give for example 0.01:0.1."
        )
    return ":".join(f"{float(rate):.12g}" for rate in rates)


def _row(arm: ArmSummary, metric: str) -> dict[str, Any]:
    score, comparison = arm.scores.get(metric), compared(arm, metric)
    low, high = headline_interval(arm, metric) or (None, None)
    return {
        "runs": len(arm.seeds),
        metric: score.mean if score else None,
        "low": low,
        "high": high,
        "difference": comparison.difference if comparison else None,
        "verdict": arm.decided.sentence if arm.decided else "" if arm.baseline else "baseline",
    }
