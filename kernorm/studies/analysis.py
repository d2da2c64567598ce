"""What the records of a study say: scores with intervals, differences with verdicts, all of it in one typed summary.

Between the ledger and the study's report. Every number that the report shows is here, and so in summary.json.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median_low
from typing import Any

from kernorm.config import TrainConfig
from kernorm.records.record import Environment, Record
from kernorm.stats import comparison, new_images
from kernorm.stats.verdict import Verdict
from kernorm.studies.definition import Study
from kernorm.studies.described import Runs, claims, hard, mean, penalties, sparsity, times, unpredicted_of
from kernorm.studies.design import Design
from kernorm.studies.factors import factors_of
from kernorm.studies.judged import ended_runs, failures_of, judge_all, judged_evaluation, strata_of
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS, Metric, tested
from kernorm.studies.plans import format_visible
from kernorm.studies.primary import asked_design, class_sizes, metrics_of, primary_metric, resolved, targets_of
from kernorm.studies.statements import answer_statements
from kernorm.studies.summary import ArmSummary, LastEpoch, StudySummary
from kernorm.studies.verdicts import Decision, decide


def analyse(
    study: Study,
    results: Mapping[str, Result],
    unusable: Mapping[str, int] | None = None,
    design: Design | None = None,
) -> StudySummary:
    """Compares the arms of a study by the results there are.

    Args:
        study: its arms and baselines.
        results: by run id.
        unusable: as in `ledger.Shared`.
        design: how verdicts are found; by default by one look, on the study's primary metric.
    """
    sizes = class_sizes(study, results, prepare=False)
    design = design or resolved(asked_design(study), sizes)
    found = results_by_arm(study, results)
    runs = {arm: finished(found[arm]) for arm in study.arms}
    records = [record for by_seed in runs.values() for record in by_seed.values()]
    metrics, targets = metrics_of(design, sizes), targets_of(design, records)
    decisions = decide(study, design, found)
    arms = []
    for arm, config in study.arms.items():
        decision = decisions.get(arm)
        baseline = study.baselines[arm] if decision else None
        against = runs[baseline] if baseline else {}
        mine = {name: _compare(metric, runs[arm], against) for name, metric in metrics.items()} if baseline else {}
        arms.append(
            _arm(
                study,
                arm,
                config,
                baseline,
                found[arm],
                runs[arm],
                against,
                new_images_metric(design),
                targets,
                **_decided(config, decision, runs[arm], mine, design),
            )
        )
    packages = sorted({package for record in records for package in record.environment.versions})
    return StudySummary(
        name=study.name,
        question=study.question,
        text=study.text,
        seeds=study.seeds,
        arms=tuple(arms),
        selections=_distinct(config.select for config in study.arms.values()),
        monitored=_distinct(record.monitored for record in records),
        openings=sum(arm.openings for arm in arms),
        finished=len(records),
        missing=sum(arm.states["missing"] for arm in arms),
        seconds=sum(arm.seconds for arm in arms),
        cpu_seconds=sum(arm.cpu_seconds for arm in arms),
        versions={
            package: _distinct(record.environment.versions.get(package, "") for record in records)
            for package in packages
        },
        devices=_distinct(place.device for record in records for place in _environments(record)),
        commits=_distinct(place.commit or "unknown" for record in records for place in _environments(record)),
        side_by_side=sum(any(place.population > 1 for place in _environments(record)) for record in records),
        revisions=tuple(sorted({record.revision for record in records})),
        taken=dict(
            Counter(result.taken_from for by_seed in found.values() for result in by_seed.values() if result.taken_from)
        ),
        unusable=dict(unusable or {}),
        duplicates={record.data.name: record.data.duplicates for record in records if record.data.duplicates},
        test_gains=_test_gains(records),
        metric=design.metric,
        design=design,
        anytime=design.anytime(ended_runs(found)),
        visible="" if design.until_resolved else format_visible(study, design, found),
        factors=factors_of(study, judge_all(study, found, primary_metric(design))),
        answers=answer_statements(
            study, design, found, {arm.name: arm.scores["accuracy"] for arm in arms if arm.scores}
        ),
    )


def new_images_metric(design: Design) -> Metric:
    """Returns the metric of intervals for new images: the primary one, or the accuracy where it is no mean of them."""
    primary = primary_metric(design)
    return primary if primary.mean_over else METRICS["accuracy"]


def _test_gains(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for record in records:
        if record.validation:
            gain = tested(record).accuracy - record.validation.accuracy
            found.setdefault(record.data.name, []).append(gain)
    return {name: mean(gains) for name, gains in found.items()}


def results_by_arm(study: Study, results: Mapping[str, Result]) -> dict[str, dict[int, Result]]:
    """Returns the results that the study's runs have, by arm and seed."""
    found: dict[str, dict[int, Result]] = {arm: {} for arm in study.arms}
    for run in study.runs():
        if result := results.get(run.config.run_id):
            found[run.arm][run.seed] = result
    return found


def finished(results: Mapping[int, Result]) -> Runs:
    """Returns the records of the runs that finished, by seed."""
    return {seed: result.record for seed, result in results.items() if result.record and result.status == "finished"}


def _arm(
    study: Study,
    name: str,
    config: TrainConfig,
    baseline: str | None,
    results: Mapping[int, Result],
    runs: Runs,
    baseline_runs: Runs,
    metric: Metric,
    targets: Sequence[float],
    **decided: Any,
) -> ArmSummary:
    records = list(runs.values())
    states = Counter(result.status for result in results.values())
    wrong, wrong_baseline = _wrong(runs), _wrong(baseline_runs)
    tests = [tested(record) for record in (*records, *baseline_runs.values())]
    strata = strata_of(metric, tests) if records else None
    common = sorted(set(runs) & set(baseline_runs))
    ended = [result.record for result in results.values() if result.record]
    return ArmSummary(
        name=name,
        config=config,
        baseline=baseline,
        published=study.published.get(name),
        seeds=tuple(sorted(runs)),
        states={state: states[state] for state in ("finished", "diverged", "failed")}
        | {"missing": len(study.seeds_of(name)) - len(results)},
        troubles=tuple(
            f"seed {seed}: {result.message}" for seed, result in sorted(results.items()) if result.status != "finished"
        ),
        scores={
            key: comparison.summarize([metric.value(record) for record in records], metric.within)
            for key, metric in METRICS.items()
        }
        if records
        else {},
        mcnemar=comparison.mcnemar(_median_run(runs), _median_run(baseline_runs))
        if records and baseline_runs
        else None,
        generalization_interval=new_images.two_level_interval(list(wrong.values()), strata)
        if strata and len(records) > 1
        else None,
        generalization_difference=new_images.two_level_difference(
            [wrong[seed] for seed in common], [wrong_baseline[seed] for seed in common], strata, paired=True
        )
        if strata and len(common) > 1
        else None,
        times=times(records, targets),
        penalties=penalties(records),
        claims=claims(config, study.published.get(name), records),
        sparsity=sparsity(records),
        hard=hard(records),
        openings=sum(len(record.openings) for record in ended),
        seconds=sum(record.seconds for record in ended),
        cpu_seconds=sum(record.cpu_seconds for record in ended),
        failures=failures_of(results),
        unpredicted=unpredicted_of(records),
        **decided,
    )


def _decided(
    config: TrainConfig,
    decision: Decision | None,
    runs: Runs,
    comparisons: dict[str, comparison.Comparison],
    design: Design,
) -> dict[str, Any]:
    """Returns the fields of an arm that say what is decided of it."""
    if config.select != "test":
        if decision:
            comparisons = comparisons | {design.metric: decision.comparison}
        return {
            "comparisons": comparisons,
            "p_adjusted": decision.p_adjusted if decision else None,
            "verdict": decision.verdict if decision else None,
            "last": None,
            "exhausted": bool(decision and decision.exhausted),
        }
    metric = primary_metric(design)
    lasts = [
        (metric.of(judged), metric.value(record)) for record in runs.values() if (judged := judged_evaluation(record))
    ]
    last = None
    if lasts:
        score = comparison.summarize([value for value, _ in lasts], metric.within)
        last = LastEpoch(
            score=score,
            gain=mean(selected for _, selected in lasts) - score.mean,
            compared=decision.comparison if decision else None,
            p_adjusted=decision.p_adjusted if decision else None,
            verdict=decision.verdict if decision else None,
        )
    selected = Verdict(name="as selected", sentence="as selected on test: no verdict")
    return {
        "comparisons": comparisons,
        "p_adjusted": None,
        "verdict": selected if decision else None,
        "last": last,
        "exhausted": bool(decision and decision.exhausted),
    }


def _compare(metric: Metric, runs: Runs, baseline: Runs) -> comparison.Comparison:
    """Describes the difference of an arm to its baseline by one metric, over finished runs."""
    values, against = ({seed: metric.value(record) for seed, record in some.items()} for some in (runs, baseline))
    return comparison.compare(
        values, against, higher_is_better=metric.higher_is_better, margin=metric.margin, most=metric.most
    )


def _wrong(runs: Runs) -> dict[int, set[int]]:
    return {seed: {mistake.index for mistake in tested(record).mistakes} for seed, record in runs.items()}


def _median_run(runs: Runs) -> Collection[int]:
    """Returns the images that the run of median accuracy got wrong; of two in the middle the worse one's."""
    middle = median_low(sorted(tested(record).accuracy for record in runs.values()))
    record = next(record for record in runs.values() if tested(record).accuracy == middle)
    return {mistake.index for mistake in tested(record).mistakes}


def _environments(record: Record) -> list[Environment]:
    """Returns where a run was computed, in the order of its epochs."""
    return [*(part.environment for part in record.elsewhere), record.environment]


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
