"""Verdicts from records whose truth is known; `tests.benchmarks.verdicts` does the same at full size."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.stats import anytime, comparison, intervals, new_images
from kernorm.stats.planning import plan_seeds, visible_difference
from kernorm.studies.analysis import analyse, results_by_arm
from kernorm.studies.definition import with_overrides
from kernorm.studies.design import Design
from kernorm.studies.judged import chance, ended_runs, failures_of, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS
from kernorm.studies.plans import format_visible, plan_of, pooled_variance
from kernorm.studies.report.cautions import cautions
from kernorm.studies.verdicts import decide
from tests.benchmarks import verdicts as simulation
from tests.builders import COUNT, a_study, cautions_of, evaluation, make_record, some_results

ARMS = {"bn": TrainConfig(), "ln": TrainConfig(norm="ln"), "gn": TrainConfig(norm="gn")}


def decided(study, results, **words):
    return decide(study, Design(**words), results_by_arm(study, results))


def test_better_needs_new_images_too():
    """The arm has 6 images right that the baseline has wrong, always the same ones: surely better on these images."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6)
    for fewer, name in ((2, "better on these images"), (40, "better")):
        results = {}
        for run in study.runs():
            wrong = list(range(100 - (fewer if run.arm == "ln" else 0))) + [500 + run.seed % 3]
            record = make_record(count=COUNT, config=run.config, run_id=run.config.run_id, test=evaluation(wrong))
            results[run.config.run_id] = Result(
                arm=run.arm, seed=run.seed, run_id=run.config.run_id, status="finished", record=record
            )
        found = decided(study, results)["ln"]
        assert found.verdict.name == name
        wrong = [[list(range(100 - less)) + [500 + seed % 3] for seed in range(6)] for less in (fewer, 0)]
        expected = new_images.two_level_difference(*wrong, COUNT, paired=True, alpha=0.05)
        assert found.new_images == expected
        assert (found.new_images[0] > 0) == (name == "better")
        assert found.exhausted  # these seeds differ in nothing


def test_one_family_a_baseline_and_one_metric():
    study = a_study(
        {**ARMS, "rms": TrainConfig(norm="rms"), "cln": TrainConfig(norm="cln")},
        baselines={"bn": "bn", "ln": "bn", "gn": "bn", "rms": "rms", "cln": "rms"},
        seeds=4,
    )
    errors = {"bn": (20, 22, 21, 23), "ln": (26, 27, 29, 25), "gn": (21, 24, 22, 20), "rms": (20, 22, 21, 23)}
    results = some_results(study, {**errors, "cln": (26, 27, 29, 25)})
    found = decided(study, results)
    assert set(found) == {"ln", "gn", "cln"}
    # ln has two in its family, cln the same numbers and is alone.
    assert found["ln"].p_adjusted == pytest.approx(2 * found["cln"].p_adjusted)
    summary = analyse(study, results)
    assert summary.metric == "accuracy"
    assert all(set(arm.comparisons) == set(METRICS) for arm in summary.arms if arm.baseline)
    by_loss = analyse(replace(study, metric="cross_entropy"), results)
    assert by_loss.arms[1].verdict.of == "these images"
    assert by_loss.arms[1].comparisons["cross_entropy"].floor == 0
    # Of 1,000 images five are half a point.
    assert by_loss.arms[1].comparisons["accuracy"].margin == 0.005


def test_failures_count_as_the_worst_value():
    """Six of ten runs diverge; the four that are left are better than the baseline, but the recipe is not."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=10)
    baseline = (60, 62, 61, 63, 59, 60, 61, 62, 60, 61)
    survivors = some_results(study, {"bn": baseline, "ln": (None,) * 6 + (20, 21, 22, 20)})
    all_well = some_results(study, {"bn": baseline, "ln": (20, 21, 22, 20, 21, 20, 20, 21, 22, 20)})
    assert decided(study, all_well)["ln"].verdict.name == "better"
    found = decided(study, survivors)["ln"]
    assert found.comparison.pairs == 10
    assert found.comparison.difference < -0.4
    assert found.verdict.name == "worse"
    failures = analyse(study, survivors).arms[1].failures
    assert (failures.runs, failures.failed, failures.collapsed) == (10, 6, 0)
    assert failures.interval == pytest.approx((0.2624, 0.8784), abs=1e-4)  # Clopper and Pearson's table


def test_a_run_of_chance_or_below_half_of_the_median_has_collapsed():
    study = a_study({"bn": TrainConfig()}, seeds=6)
    (runs,) = results_by_arm(study, some_results(study, {"bn": (20, 22, 21, 600, 23, 20)})).values()
    assert COUNT == 1000
    assert failures_of(runs).collapsed == 1
    one = {0: next(iter(runs.values()))}
    assert failures_of(one).collapsed == 0
    dull = replace(one[0].record.test, confusion=[[100, *[0] * 9]] * 10, accuracy=0.1)
    assert chance(dull) == pytest.approx(0.1)
    assert failures_of({0: replace(one[0], record=replace(one[0].record, test=dull))}).failed == 1
    assert failures_of({}).interval is None


def of_confusion(confusion):
    """A study's one result, whose test split has this confusion matrix."""
    study = a_study({"bn": TrainConfig()}, seeds=1)
    (runs,) = results_by_arm(study, some_results(study, {"bn": (20,)})).values()
    record, total = runs[0].record, int(np.sum(confusion))
    test = replace(record.test, confusion=confusion, count=total, accuracy=float(np.trace(confusion)) / total)
    return {0: replace(runs[0], record=replace(record, test=test))}


def test_answers_that_do_not_depend_on_the_image_are_chance():
    """NumPy draws answers of uneven shares; two standard deviations leave out about a fortieth of them."""
    generator, sizes, shares = np.random.default_rng(3), (200, 40, 60), (0.7, 0.1, 0.2)
    collapsed = 0
    for _ in range(200):
        confusion = [generator.multinomial(size, shares).tolist() for size in sizes]
        collapsed += failures_of(of_confusion(confusion)).collapsed
    assert 190 <= collapsed <= 200
    test = of_confusion([[80, 20], [1, 4]])[0].record.test
    p = 81 / 105
    sd = np.sqrt(p * (1 - p) * (1 / 100 + 1 / 5)) / 2
    assert chance(test) == pytest.approx(0.5 + min(2 * sd, 0.25))


@pytest.mark.parametrize(
    "confusion",
    [
        [[17, 0], [0, 3]],  # all right, where naming the larger class is right for 85 of 100
        [[2, 0], [0, 2]],
        [[1, 0], [0, 1]],
        [[850, 100], [5, 45]],  # less accurate than naming the larger class, and right about both
    ],
)
def test_a_run_that_tells_the_classes_apart_has_not_collapsed(confusion):
    assert failures_of(of_confusion(confusion)).collapsed == 0


def test_a_failed_run_is_no_better_than_a_finished_one():
    """A cross-entropy of log K is what an even guess has; a run that finished far above it is not the worse one."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=4, metric="cross_entropy")
    results = some_results(study, {"bn": (20, 21, 22, 20), "ln": (None,) * 4})
    for name, result in results.items():
        if result.status == "finished":
            test = replace(result.record.test, cross_entropy=4.06 + result.seed / 100)
            results[name] = replace(result, record=replace(result.record, test=test))
    for margin in (None, 0.05):  # far wider than the differences
        found = decide(study, Design(metric="cross_entropy", margin=margin), results_by_arm(study, results))["ln"]
        # Of each seed the worst so far: a later run does not change what an earlier one counted as.
        assert found.comparison.difference == pytest.approx(0)
        assert (found.verdict.name, found.p_adjusted) == ("not resolved", 1)


@pytest.mark.parametrize(("failing", "said"), [("bn", "better on these images"), ("ln", "worse on these images")])
def test_where_a_metric_has_no_worst_value_a_failed_run_speaks_against_its_arm_alone(failing, said):
    """Failed runs count as log 10 = 2.30 here, and the other arm's as 2.5 or 0.02."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=5, metric="cross_entropy")
    for finished, expected in ((0.02, said), (2.5, "not resolved")):
        results = some_results(study, {"bn": (20,) * 5, "ln": (20,) * 5} | {failing: (None,) * 5})
        for name, result in results.items():
            if result.status == "finished":
                test = replace(result.record.test, cross_entropy=finished + result.seed / 1000)
                results[name] = replace(result, record=replace(result.record, test=test))
        found = decide(study, Design(metric="cross_entropy", margin=0.5), results_by_arm(study, results))["ln"]
        assert found.verdict.name == expected
        rules = cautions_of(replace(study, metric="cross_entropy"), results)["How a verdict is found"].text
        assert rules.endswith("Runs that failed count as the worst that finished, and speak for no arm.")


def test_a_verdict_that_failed_runs_would_give_says_so():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=5, metric="cross_entropy")
    results = some_results(study, {"bn": (20,) * 5, "ln": (20, 20, 20, 20, None)})
    for name, result in results.items():
        if result.status == "finished":
            value = (2.5 if result.arm == "bn" else 0.02) + result.seed / 1000
            results[name] = replace(
                result, record=replace(result.record, test=replace(result.record.test, cross_entropy=value))
            )
    found = decide(study, Design(metric="cross_entropy"), results_by_arm(study, results))["ln"]
    assert found.comparison.difference < -1
    assert found.verdict.sentence == "not resolved: of an arm with failed runs this metric shows nothing good"
    # Two seeds are too few for a test at every look, whatever failed.
    two = {name: result for name, result in results.items() if result.seed in (3, 4)}
    early = decide(study, Design(metric="cross_entropy", until_resolved=True), results_by_arm(study, two))["ln"]
    assert early.verdict.name == "no verdict"


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_interval_of_an_arm_with_failed_runs_holds_its_difference(metric):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6, metric=metric)
    results = some_results(study, {"bn": (20, 21, 22, 20, 21, 22), "ln": (None,) * 6})
    found = decide(study, Design(metric=metric), results_by_arm(study, results))["ln"]
    low, high = found.new_images
    assert low <= found.comparison.difference <= high
    assert found.comparison.difference == pytest.approx(-1 + 0.021)


def test_after_a_look_the_tests_are_those_that_stay_valid():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=5)
    results = some_results(study, {"bn": (20, 22, 21, 23, 20), "ln": (26, 29, 27, 28, 27)})
    once = decided(study, results)["ln"]
    looked = Design().looked({"bn": 3, "ln": 3})
    again = decide(study, looked, results_by_arm(study, results))["ln"]
    assert again.p_adjusted > once.p_adjusted
    errors = (26, 29, 27, 28, 27), (20, 22, 21, 23, 20)
    differences = [(b - a) / COUNT for a, b in zip(*errors, strict=True)]
    wrong = [[[7 * image % COUNT for image in range(n)] for n in counts] for counts in errors]
    floors = [max(1 / 6 / COUNT**2, one) for one in new_images.chance_variances(wrong[0], COUNT, wrong[1])]
    assert again.p_adjusted == pytest.approx(anytime.anytime_p(differences, floors=floors))
    if again.verdict.of == "these images":
        expected = anytime.confidence_sequence(differences, floors=floors, alpha=0.05)
        assert again.verdict.interval == pytest.approx(expected)
    assert analyse(study, results, design=looked).anytime
    assert not analyse(study, results).anytime


def test_who_looks_and_then_drops_arms_does_not_gain_by_it():
    names = ("bn", "ln", "gn", "in", "rms")
    study = a_study({name: TrainConfig(norm=name) for name in names}, seeds=5)
    errors = {"bn": (20, 22, 21, 23, 20), "ln": (26, 29, 24, 28, 27), "gn": (21, 20, 22, 20, 21)}
    errors |= {"in": (22, 20, 22, 20, 21), "rms": (23, 21, 20, 21, 22)}
    results = some_results(study, errors)
    found = decided(study, results)["ln"]
    less = with_overrides(study, only=["ln"])
    before = decided(less, results)["ln"]
    looked = Design().looked(ended_runs(results_by_arm(study, results)))
    after = decide(less, looked, results_by_arm(less, results))["ln"]
    assert after.p_adjusted == found.p_adjusted == pytest.approx(4 * before.p_adjusted)
    assert after.verdict.alpha == found.verdict.alpha
    assert "4 arms to a baseline" in format_visible(less, looked, {})
    for design, arms in ((looked, "4 arms"), (Design(), "1 arm")):
        summary = analyse(less, results, design=design)
        assert f"and {arms} to a baseline" in summary.visible
        (rule,) = [one for one in cautions(less, summary, SimpleNamespace(damaged=()), 0) if "verdict is" in one.title]
        assert f"Holm's correction over {arms} with" in rule.text


@pytest.mark.parametrize("seeds", [4, 10])
@pytest.mark.parametrize(
    "third", [(20, 22, 24, 21, 20, 22, 24, 21, 23, 20), (24, 20, 22, 22, 21, 22, 20, 23, 20, 24), None]
)
def test_whether_arms_are_compared_in_pairs_is_not_said_by_their_own_runs(seeds, third):
    """By the correlation of their own runs, 6.5 % of pairs of equal arms with few seeds came out as different."""
    errors = {"bn": (20, 22, 24, 21, 20, 22, 24, 21, 23, 20), "ln": (21, 23, 25, 22, 21, 23, 26, 22, 24, 21)}
    errors |= {"gn": third} if third else {}
    study = a_study({name: TrainConfig(norm=name) for name in errors}, seeds=seeds)
    results = some_results(study, {arm: found[:seeds] for arm, found in errors.items()})
    found = decided(study, results)["ln"].comparison
    own = np.corrcoef(errors["bn"][:seeds], errors["ln"][:seeds])[0, 1]
    others = np.corrcoef(errors["bn"][:seeds], third[:seeds])[0, 1] if third else 0
    assert own > 0.9
    assert found.paired == (seeds == 10 or others > 0.3)
    assert found.df == (seeds - 1 if found.paired else pytest.approx(2 * (seeds - 1), rel=0.1))


def test_an_equivalence_after_a_look_has_the_interval_of_its_level():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=12)
    errors = {"bn": tuple(20 + seed % 3 for seed in range(12)), "ln": tuple(20 + (seed + 1) % 3 for seed in range(12))}
    results = results_by_arm(study, some_results(study, errors))
    found = decide(study, replace(Design(margin=0.02), looks=Design().looked({"bn": 3, "ln": 3}).looks), results)["ln"]
    assert (found.verdict.name, found.verdict.alpha) == ("equivalent", 0.1)
    differences = [(b - a) / COUNT for a, b in zip(errors["ln"], errors["bn"], strict=True)]
    wrong = [[[7 * image % COUNT for image in range(n)] for n in errors[arm]] for arm in ("ln", "bn")]
    floors = [max(1 / 6 / COUNT**2, one) for one in new_images.chance_variances(wrong[0], COUNT, wrong[1])]
    expected = anytime.confidence_sequence(differences, floors=floors, alpha=0.1)
    assert found.verdict.interval == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "words", "needed"), [(1, {}, 2), (2, {"until_resolved": True}, 3)])
def test_too_few_seeds_for_a_test_are_named(seeds, words, needed):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=seeds)
    results = some_results(study, {"bn": (20, 22)[:seeds], "ln": (26, 29)[:seeds]})
    said = decided(study, results, **words)["ln"].verdict
    assert said.sentence == f"no verdict: fewer than {needed} seeds in common with the baseline"


def test_what_a_plan_can_see_is_said():
    study = a_study(ARMS, seeds=3)
    assert format_visible(study, Design(), {}) == (
        "With 3 seeds, and 2 arms to a baseline, it can see differences from 0.19 pp (as runs on MNIST vary)."
    )
    assert "give two or more, or --until-resolved" in format_visible(a_study(ARMS, seeds=1), Design(), {})
    assert "known once two runs" in format_visible(study, Design(metric="ece"), {})
    results = some_results(study, {"bn": (20, 22, 24), "ln": (20, 21, 25)})
    assert format_visible(study, Design(), results_by_arm(study, results)).endswith(" (by the runs there are).")
    assert format_visible(a_study({"bn": TrainConfig()}), Design(), {}) == "Nothing is compared."


@pytest.mark.parametrize(("margin", "paired"), [(0.02, False), (0.002, True)])
def test_a_plan_of_many_seeds_is_one_of_pairs(margin, paired):
    """Ten seeds and more are compared in pairs, whatever their correlation: here a negative one, which costs seeds."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=4)
    results = results_by_arm(study, some_results(study, {"bn": (20, 26, 22, 28), "ln": (27, 22, 26, 21)}))
    design, metric = Design(), replace(METRICS["accuracy"], margin=margin)
    judged = list(judge_all(study, results, metric).values())
    pooled, correlation = pooled_variance(judged), -0.8
    plan = plan_of(judged, design.families(study)["bn"], metric, design, correlation)
    assert plan.seeds == plan_seeds(*pooled, margin, paired=paired, correlation=correlation, alpha=0.05)
    assert plan.seeds != plan_seeds(*pooled, margin, paired=not paired, correlation=correlation, alpha=0.05)
    assert (plan.seeds[0] >= 10) == paired


def test_an_arm_that_collapses_does_not_make_the_plans_of_the_others():
    errors = {"bn": (20, 22, 24), "ln": (20, 21, 25)}
    collapsed = tuple(COUNT * share // 100 for share in (88, 90, 93))
    plans, visible = [], []
    for wrong in ((21, 23, 25), collapsed):
        study = a_study({**ARMS, "same": TrainConfig(seed=9)}, seeds=3)
        results = some_results(study, {**errors, "same": (20, 22, 24), "gn": wrong})
        plans.append(decided(study, results)["ln"].verdict.sentence)
        visible.append(format_visible(study, Design(), results_by_arm(study, results)))
    without = {arm: wrong for arm, wrong in {**errors, "same": (20, 22, 24)}.items()}
    variance = np.mean([np.var(wrong, ddof=1) for wrong in without.values()]) / COUNT**2
    least = visible_difference(variance, 3, 0.05 / 3)
    assert visible[1] == (
        "With 3 seeds, and 3 arms to a baseline, it can see differences from "
        f"{100 * least:.2g} pp (by the runs there are)."
    )
    assert visible[0] != visible[1]  # a fourth arm's spread counts
    most = [int(re.search(r"(\d+) new seeds", plan)[1]) for plan in plans]
    assert 0.5 < most[1] / most[0] < 2
    # Where every arm collapses, all there is to plan by is their spread.
    every = some_results(a_study(ARMS, seeds=3), dict.fromkeys(ARMS, collapsed))
    assert "by the runs there are" in format_visible(a_study(ARMS, seeds=3), Design(), results_by_arm(study, every))


@pytest.mark.parametrize("seeds", [5, None])
def test_simulated_studies_go_the_way_of_real_ones(seeds):
    setting = simulation.Setting(arms=2, seeds=seeds, interaction=0.02, better=0.4)
    outcome = simulation.simulate(setting, 0, simulation.template_record())
    assert outcome.verdicts == {"arm 1": "better", "arm 2": "better"}
    assert simulation.judge(setting, outcome) == (False, 1.0)
    assert outcome.runs <= 15


def test_the_simulated_world_is_the_one_that_is_described():
    # Of 10,000 images 60 wrong, an sd of 5 over runs, and of true differences of `interaction` points.
    setting = simulation.Setting(arms=1, seeds=1, interaction=0.03)
    truths, counts = [], []
    for seed in range(400):
        world = simulation.World(setting, seed)
        truths.append((world.chances["base"].sum() - world.chances["arm 1"].sum()) / simulation.COUNT)
        counts.append([len(world.wrong("base")) for _ in range(5)])
    assert np.std(truths) == pytest.approx(0.03 / 100, rel=0.15)
    assert np.mean(counts) == pytest.approx(60, rel=0.05)
    assert np.sqrt(np.mean(np.var(counts, axis=1, ddof=1))) == pytest.approx(5.05, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        simulation.Setting(arms=1, seeds=20, interaction=0.03),
        simulation.Setting(arms=1, seeds=None, interaction=0.02),
    ],
)
def test_equal_recipes_are_rarely_told_apart(setting, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage in every correction by Holm
    monkeypatch.setattr(comparison, "bootstrap_interval", lambda *_: (0.0, 0.0))  # which no verdict looks at
    template = simulation.template_record()
    wrong = sum(simulation.judge(setting, simulation.simulate(setting, seed, template))[0] for seed in range(60))
    assert intervals.clopper_pearson(wrong, 60)[0] <= 0.05
