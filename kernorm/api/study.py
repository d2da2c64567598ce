"""Studies for Python users: arms compared over seeds, and anybody's numbers compared."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernorm.api.display import Chart, page
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded
from kernorm.parallel.settings import EngineConfig
from kernorm.stats.comparison import Comparison
from kernorm.stats.comparison import compare as compare_values
from kernorm.stats.intervals import Interval
from kernorm.stats.new_images import chance_variance, two_level_difference
from kernorm.stats.verdict import percentage_points, verdict
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
    only: Collection[str] = (),
    metric: str | None = None,
    margin: str | float | None = None,
    targets: str | None = None,
    until_resolved: bool = False,
    time_budget: str | None = None,
    max_seeds: int | None = None,
    tune_rate: str | None = None,
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
        tune_rate: first find each arm's learning rate on validation, within LOW:HIGH such as 0.01:0.1.
        engine: where runs are computed; by default on this machine, one a core.
        reports_dir: where studies/<name>/ and runs/<run id>/ are written.

    Raises:
        UsageError: an arm, a name, a number, the data or the engine is wrong.
    """
    reports_dir, engine = expanded(reports_dir), engine or EngineConfig()
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
        only=only,
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
        planned = with_rates(planned, folder, tune_rate, engine)
        summary = run_in_folder(planned, folder, engine, command="kernorm.run_study(…)", until=until)
    return StudyResult(planned, summary, folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Two sets of runs, compared; by accuracy, unless told otherwise.

    Attributes:
        verdict: in words; a difference is one `on these images` unless the mistakes by image were given.
        comparison: difference, intervals and tests over the seeds in common.
        new_images: interval of the difference on images that were never seen; None without mistakes by image.
    """

    verdict: str
    comparison: Comparison
    new_images: Interval | None = None

    def __str__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        rows = {
            name: {"value": getattr(self.comparison, name)}
            for name in ("pairs", "difference", "interval", "p", "probability_better")
        }
        return page(self.verdict, pd.DataFrame.from_dict(rows, orient="index"))


def compare(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    higher_is_better: bool = True,
    margin: float | None = None,
    wrong: tuple[Mapping[int, Collection[int]], Mapping[int, Collection[int]]] | None = None,
    count: int | None = None,
) -> Compared:
    """Compares two sets of runs that anybody made, each a value by seed, paired by the seeds in common.

    Args:
        arm: value by seed, accuracies as shares unless `higher_is_better` is False.
        baseline: value by seed.
        higher_is_better: which direction is better.
        margin: what counts as no difference, for a verdict of equivalence.
        wrong: of arm and baseline, the test images that each seed got wrong, by their index from 0; with it the verdict
            speaks of new images as well. The values are then accuracies, or error rates if lower is better.
        count: how many images the test split has; needed with `wrong`.

    Raises:
        ValueError: a value is not finite, or the margin is not positive.
        UsageError: `wrong` without `count`, without the seeds that are compared, or not of these values.
    """
    new_images, floor = None, 0.0
    if wrong is not None:
        common = sorted(arm.keys() & baseline.keys())
        if count is None or any(seed not in one for one in wrong for seed in common):
            raise UsageError(
                "Mistakes by image need every seed in common and the number of images.",
                f"count={count}, seeds {[sorted(one) for one in wrong]} for {common}",
                "Give wrong=({seed: images, …}, {seed: images, …}) and count=10000.",
            )
        mine, base = ([one[seed] for seed in common] for one in wrong)
        for values, mistakes in zip((arm, baseline), (mine, base), strict=True):
            rates = [len(set(one)) / count for one in mistakes]
            expected = [1 - rate for rate in rates] if higher_is_better else rates
            if not np.allclose([values[seed] for seed in common], expected, rtol=0, atol=0.5 / count):
                raise UsageError(
                    "With mistakes by image, the values are the accuracies that follow from them, or the error rates "
                    "if lower is better.",
                    f"{[values[seed] for seed in common]} where {[round(one, 6) for one in expected]} follow",
                    "Leave out wrong for another metric.",
                )
        new_images = two_level_difference(mine, base, count, paired=True)
        if new_images and not higher_is_better:  # of errors, where that is of accuracies
            new_images = -new_images[1], -new_images[0]
        floor = chance_variance(mine, count, base)
    comparison = compare_values(arm, baseline, higher_is_better=higher_is_better, margin=margin, floor=floor)
    # Another metric has its own unit.
    show = percentage_points if higher_is_better or wrong is not None else "{:.3g}".format
    found = verdict(comparison, comparison.p, comparison.tost_p, new_images=new_images, show=show)
    return Compared(verdict=found.sentence, comparison=comparison, new_images=new_images)


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
