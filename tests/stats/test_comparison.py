import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from kernorm.stats import comparison as module
from kernorm.stats.comparison import (
    Comparison,
    compare,
    holm,
    holm_levels,
    mcnemar,
    pairing_pays,
    pooled_correlation,
    summarize,
)
from kernorm.stats.planning import MOST_SEEDS, plan_seeds, seeds_needed, visible_difference
from kernorm.stats.verdict import percentage_points, verdict


def arm(values):
    return dict(enumerate(values))


def spread(n, mean, sd):
    """n values with exactly this mean and sd."""
    values = np.linspace(-1, 1, n)
    return arm(mean + sd * values / values.std(ddof=1))


def simulated_error(rate, trials):
    """Three binomial standard errors of a rate found by simulation: exceeded in 1 of 370 cases."""
    return 3 * math.sqrt(rate * (1 - rate) / trials)


@pytest.fixture
def quick(monkeypatch):
    """Leaves bootstrap intervals out of simulations that do not look at them."""
    monkeypatch.setattr(module, "bootstrap_interval", lambda *_: (0.0, 0.0))


def test_summary_is_scipys_interval_and_the_enumerated_bootstrap():
    values = [0.9941, 0.9935, 0.9950, 0.9938]
    summary = summarize(values)
    assert (summary.n, summary.minimum, summary.maximum) == (4, 0.9935, 0.9950)
    assert summary.mean == pytest.approx(0.9941)
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    expected = scipy_stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert summary.interval == pytest.approx(expected, abs=1e-12)
    # All 4^4 resamples of four values; 2,000 drawn ones miss their percentiles by a step of that distribution.
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=4)]
    assert summary.bootstrap == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=1e-4)


def test_intervals_end_at_what_is_possible():
    """Two runs of 10 and 87 %: Student's t with one degree of freedom leaves the possible far behind."""
    values = [0.1, 0.87]
    assert summarize(values).interval[1] == pytest.approx(np.mean(values) + 12.7062 * 0.385, abs=1e-4)
    assert summarize(values, (0.0, 1.0)).interval == (0.0, 1.0)
    assert summarize([0.99, 0.995], (0.0, 1.0)).interval[1] == 1.0
    words = {"higher_is_better": True, "margin": None}
    pairs = {0: 0.1, 1: 0.87}, {0: 0.9, 1: 0.2}
    free, bounded = compare(*pairs, **words), compare(*pairs, **words, most=1.0)
    assert free.interval[0] < -1
    assert (bounded.interval, bounded.welch) == ((-1.0, 1.0), (-1.0, 1.0))
    assert bounded.interval_at(0.5) == pytest.approx(free.interval_at(0.5))
    assert bounded.p == free.p


def test_summary_of_a_single_a_constant_and_no_value():
    single = summarize([0.99])
    assert (single.n, single.mean, single.sd, single.interval, single.bootstrap) == (1, 0.99, None, None, None)
    constant = summarize([0.9941] * 5)
    assert constant.sd == pytest.approx(0, abs=1e-15)
    assert (*constant.interval, *constant.bootstrap) == pytest.approx([0.9941] * 4)
    with pytest.raises(ValueError, match="needs a value"):
        summarize([])
    with pytest.raises(ValueError, match="finite. Received: run 1: nan"):
        summarize([0.99, math.nan])


def test_comparison_of_a_case_counted_by_hand():
    comparison = compare({0: 1, 1: 2, 2: 3}, {2: 0, 1: 0, 0: 0}, higher_is_better=True, margin=None)
    # Differences 1, 2, 3: t = 2√3 with 2 degrees of freedom, whose p is 1 − t/√(t² + 2).
    assert (comparison.pairs, comparison.difference, comparison.sd) == (3, 2, 1)
    assert comparison.p_paired == pytest.approx(1 - math.sqrt(12 / 14))
    assert (comparison.probability_better, comparison.probability_interval) == (1, (1, 1))
    assert comparison.tost_p is None
    # Pairs won: 1 by the first value, ½ + ½ + 1 by the second, 3 by the third.
    mixed = compare({0: 1, 1: 2, 2: 3}, {0: 2, 1: 2, 2: 0}, higher_is_better=True, margin=None)
    assert mixed.probability_better == pytest.approx(6 / 9)
    assert mixed.probability_interval[0] < 6 / 9 < mixed.probability_interval[1] <= 1


def test_comparison_is_scipys():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.3, 1, 6), generator.normal(0, 2, 9)
    comparison = compare(arm(a), arm(b), higher_is_better=False, margin=0.8)
    paired = scipy_stats.ttest_rel(a, b[:6])
    assert comparison.pairs == 6
    assert comparison.p_paired == pytest.approx(paired.pvalue)
    assert comparison.p == pytest.approx(paired.pvalue)
    assert comparison.interval == pytest.approx(tuple(paired.confidence_interval()))
    assert comparison.interval_at(0.01) == pytest.approx(tuple(paired.confidence_interval(0.99)))
    welch = scipy_stats.ttest_ind(a, b, equal_var=False)
    assert comparison.p_welch == pytest.approx(welch.pvalue)
    assert comparison.welch == pytest.approx(tuple(welch.confidence_interval()))
    assert comparison.probability_better == pytest.approx(scipy_stats.mannwhitneyu(b, a).statistic / 54)
    above = scipy_stats.ttest_1samp(a - b[:6], -0.8, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(a - b[:6], 0.8, alternative="less").pvalue
    assert comparison.tost_p == pytest.approx(max(above, below))
    assert comparison.bootstrap == pytest.approx(summarize(a - b[:6]).bootstrap)
    apart = compare(arm(a), arm(b), higher_is_better=False, margin=0.8, paired=False)
    assert apart.difference == pytest.approx(a.mean() - b.mean())
    assert (apart.p, apart.df) == pytest.approx((welch.pvalue, welch.df))
    assert apart.interval == pytest.approx(tuple(welch.confidence_interval()))
    sides = (("greater", -0.8), ("less", 0.8))
    shifted = [scipy_stats.ttest_ind(a - by, b, equal_var=False, alternative=side).pvalue for side, by in sides]
    assert apart.tost_p == pytest.approx(max(shifted))
    for _ in range(20):
        shuffled = (dict(generator.permutation(list(arm(values).items()))) for values in (a, b))
        assert compare(*shuffled, higher_is_better=False, margin=0.8) == comparison


@pytest.mark.parametrize(
    ("seeds", "half_width", "smallest"),
    [(3, 0.124, 0.113), (5, 0.062, 0.073), (10, 0.036, 0.047), (20, 0.023, 0.032), (30, 0.019, 0.026)],
)
def test_what_so_many_seeds_can_tell_at_a_spread_of_005(seeds, half_width, smallest):
    # Arms of equal n have 2n − 2 degrees of freedom: the table is t · 0.05 / √n and t · 0.05 · √(2/n).
    interval = summarize(list(spread(seeds, 99.4, 0.05).values())).interval
    assert (interval[1] - interval[0]) / 2 == pytest.approx(half_width, abs=6e-4)
    below, above = (
        compare(spread(seeds, 99.4 + d, 0.05), spread(seeds, 99.4, 0.05), higher_is_better=True, margin=None).p_welch
        for d in (smallest - 6e-4, smallest + 6e-4)
    )
    assert above < 0.05 < below


@pytest.mark.parametrize(("a", "b", "pairs"), [({}, {}, 0), ({1: 0.9}, {1: 0.8}, 1), ({0: 1.0, 1: 2.0}, {2: 1.0}, 0)])
def test_below_two_common_seeds_nothing_is_said(a, b, pairs):
    comparison = compare(a, b, higher_is_better=True, margin=0.1)
    assert comparison == Comparison(pairs=pairs, higher_is_better=True, margin=0.1)
    assert comparison.interval_at(0.05) is None
    assert verdict(comparison, None).sentence.startswith("no verdict: fewer than 2 seeds")


def test_equal_differences_are_judged_by_their_signs():
    values = [0.9941, 0.9952, 0.9948, 0.9930, 0.9939]
    same = compare(arm(values), arm(values), higher_is_better=True, margin=0.0005)
    assert (same.difference, same.sd, same.interval, same.p_paired) == (0, 0, (0, 0), 1)
    assert same.tost_p == pytest.approx(0.5**5)
    # Five signs alike have p = 2 / 2^5, also where the differences are equal but for rounding.
    values = [0.1, 0.7, 0.35, 0.9, 0.2]
    shifted = compare(arm([value + 0.3 for value in values]), arm(values), higher_is_better=True, margin=0.3)
    assert np.ptp([value + 0.3 - value for value in values]) > 0
    assert (shifted.sd, shifted.p_paired, shifted.tost_p) == (0, pytest.approx(2 / 32), 1)
    rounded = compare(arm([0.1 + 0.2] * 3), arm([0.3] * 3), higher_is_better=True, margin=None)
    assert (rounded.p_paired, rounded.difference == 0) == (1, False)
    assert compare({0: 3, 1: 3}, {0: 5, 1: 5}, higher_is_better=False, margin=None).p_paired == pytest.approx(0.5)
    constant = compare(arm([0.5] * 4), arm([0.5] * 4), higher_is_better=True, margin=None)
    assert (constant.p_welch, constant.welch, constant.probability_better) == (None, None, 0.5)
    assert compare(arm([0.9941] * 4), arm(values), higher_is_better=True, margin=None).p_welch < 1


@pytest.mark.parametrize("paired", [True, False])
def test_a_floor_is_the_least_spread_of_a_difference(paired):
    """Differences of 9, 11 and 11 images of 10,000 where the images imply an sd of 10.3, as in a real study."""
    baseline = arm([0.9930, 0.9931, 0.9929])
    better = {
        seed: value + images / 10_000 for (seed, value), images in zip(baseline.items(), (9, 11, 11), strict=True)
    }
    words = {"higher_is_better": True, "margin": 5e-4, "paired": paired}
    assert compare(better, baseline, **words).p < 0.05
    floored = compare(better, baseline, **words, floor=10.3e-4**2)
    # Variances in images: of the differences; or of 6939, 6942, 6940 and of the baseline, one after the other.
    seen = np.var((9, 11, 11), ddof=1) if paired else np.var((9, 12, 10), ddof=1) + np.var((0, 1, -1), ddof=1)
    error = 10.3e-4 / math.sqrt(3)
    t = 31e-4 / 3 / error
    df = 2 if paired else 4
    assert (floored.error, floored.df) == pytest.approx((error, df))
    assert floored.p == pytest.approx(2 * scipy_stats.t.sf(t, df))
    assert floored.interval == pytest.approx(scipy_stats.t.interval(0.95, df, 31e-4 / 3, error))
    assert floored.p > 0.15
    assert (floored.spread, floored.spread_seen) == pytest.approx((10.3e-4, math.sqrt(seen) * 1e-4))
    # A floor below the spread that there is changes nothing.
    assert compare(better, baseline, **words, floor=1e-12).p == compare(better, baseline, **words).p


def test_correlation_is_pooled_over_the_comparisons_of_a_study():
    generator = np.random.default_rng(0)
    pairs = []
    for shift, n in ((0, 6), (50, 9)):
        seeds = generator.normal(0, 1, n)
        pairs.append(tuple(arm(shift + seeds + generator.normal(0, 1, n)) for _ in range(2)))
    values = [[np.array(list(one.values())) for one in side] for side in zip(*pairs, strict=True)]
    flat = [np.concatenate([one - one.mean() for one in side]) for side in values]
    expected = np.sum(flat[0] * flat[1]) / math.sqrt(np.sum(flat[0] ** 2) * np.sum(flat[1] ** 2))
    assert pooled_correlation(pairs) == pytest.approx(expected)
    one = pairs[0]
    assert pooled_correlation([one]) == pytest.approx(np.corrcoef(list(one[0].values()), list(one[1].values()))[0, 1])
    assert pooled_correlation([({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 1.0}, {0: 1.0, 1: 2.0})]) is None
    assert [pairing_pays(value) for value in (None, 0.1, 0.3, 0.31)] == [False, False, False, True]
    assert [pairing_pays(None, seeds) for seeds in (9, 10)] == [False, True]


def test_a_correlation_that_rounding_would_lift_above_one_can_be_planned_with(rng):
    # Live pages of a study see two seeds of each arm, whose correlation is 1 or −1.
    for values in rng.integers(9900, 9960, (300, 2, 2)) / 10_000:
        found = pooled_correlation([(arm(values[0]), arm(values[1]))])
        if found is None:
            continue
        assert abs(found) == pytest.approx(1)
        assert abs(found) <= 1
        low, high = plan_seeds(1e-7, 2, 5e-4, paired=True, correlation=found)
        assert 2 <= low <= high <= MOST_SEEDS


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="finite. Received: seed 7: nan"):
        compare({3: 0.9, 7: math.nan}, {3: 0.9, 7: 0.8}, higher_is_better=True, margin=None)
    for margin in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"margin is positive. Received: margin={margin}"):
            compare({}, {}, higher_is_better=True, margin=margin)
    for spread_, effect in ((-1, 1), (math.inf, 1), (1, math.nan)):
        with pytest.raises(ValueError, match="planned from a spread"):
            seeds_needed(spread_, effect)
    with pytest.raises(ValueError, match="finite. Received: p of rms: nan"):
        holm({"rms": math.nan})


def test_everything_is_json():
    comparison = compare({0: 1, 1: 2, 2: 4}, {0: 1, 1: 1, 2: 2}, higher_is_better=True, margin=1)
    results = [
        summarize([1, 2]),
        comparison,
        mcnemar({1, 2}, {3}),
        verdict(comparison, 1),
    ]
    for result in results:
        assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


def test_holm_by_hand():
    # 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 raised to its predecessor's 0.06.
    adjusted = holm({"a": 0.01, "none": None, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == {"a": pytest.approx(0.03), "none": None, "b": 0.06, "c": 0.06, "d": pytest.approx(0.02)}
    assert list(adjusted) == ["a", "none", "b", "c", "d"]
    assert holm({}) == {}
    assert holm({"a": None}) == {"a": None}


def test_holm_as_statsmodels_has_it():
    for p_values in np.random.default_rng(0).uniform(0, 0.2, (20, 7)).round(2):  # with ties
        names = dict(zip("abcdefg", p_values.tolist(), strict=True))
        assert list(holm(names).values()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_levels_of_holm_are_those_at_which_each_is_refuted():
    p_values = {"a": 0.01, "none": None, "b": 0.04, "c": 0.03, "d": 0.005}
    # 0.05/4 refutes d, 0.05/3 a; at 0.05/2 c stands, and so b too.
    levels = holm_levels(p_values)
    assert levels == {"d": 0.05 / 4, "a": 0.05 / 3, "c": 0.05 / 2, "b": 0.05 / 2, "none": 0.05 / 4}
    adjusted = holm(p_values)
    for name, p in p_values.items():
        if p is not None:
            assert (adjusted[name] <= 0.05) == (p <= levels[name])
    assert holm_levels({}) == {}
    assert holm_levels({"a": None}) == {"a": 0.05}


NEW = {
    "no": None,
    "above": (0.0001, 0.002),
    "below": (-0.002, -0.0001),
    "around": (-0.001, 0.001),
    "narrow": (-4e-4, -1e-4),
}


@pytest.mark.parametrize(
    ("difference", "higher", "p", "tost", "new", "sentence"),
    [
        (0.001, True, 0.01, 0.9, "above", "better"),
        (0.001, False, 0.05, 0.9, "above", "worse"),
        (-0.001, False, 0.01, None, "below", "better"),
        (-0.0002, True, 0.01, 0.04, "narrow", "worse, though by less than 0.05 pp"),
        (-0.0002, True, 0.01, 0.04, "below", "worse"),  # by up to 0.2 points on new images
        (0.001, True, 0.01, 0.9, "around", "better on these images; not resolved for new ones"),
        (0.001, True, 0.01, 0.9, "below", "better on these images; not resolved for new ones"),
        (0.001, True, 0.01, 0.9, "no", "better on these images; not resolved for new ones"),
        (-0.0002, True, 0.01, 0.04, "around", "worse on these images, though by less than 0.05 pp; not resolved for n"),
        (0.0001, True, 0.051, 0.05, "above", "equivalent within 0.05 pp on these images"),
        (0.0001, True, 0.2, 0.2, "above", "not resolved: 7 seeds"),
        (0.0001, True, 0.2, None, "no", "not resolved: 7 seeds"),
    ],
)
def test_verdict_in_words(difference, higher, p, tost, new, sentence):
    comparison = Comparison(pairs=5, higher_is_better=higher, margin=0.0005, difference=difference, error=0.0002, df=4)
    result = verdict(comparison, p, tost, new_images=NEW[new], alpha=0.02, show=percentage_points, plan="7 seeds")
    assert result.sentence.startswith(sentence)
    assert ("though" in result.sentence) == ("though" in sentence)
    assert sentence.startswith(result.name)
    if result.name in ("better", "worse"):
        assert (result.interval, result.of, result.alpha) == (NEW[new], "new images", 0.02)
    else:
        alpha = 0.1 if result.name == "equivalent" else 0.02
        expected = scipy_stats.t.interval(1 - alpha, 4, difference, 0.0002)
        assert (result.interval, result.of, result.alpha) == (pytest.approx(expected), "these images", alpha)


def test_seeds_needed_are_the_published_ones():
    # Paired t-test, alpha 0.05, power 0.8, for effects of 1, 0.5 and 0.2 sd: 10, 34 and 199 (Cohen 1988; G*Power).
    assert [seeds_needed(1, effect) for effect in (1, 0.5, -0.2)] == [10, 34, 199]
    assert [seeds_needed(1, effect) for effect in (0.01, 0, 1e-300)] == [MOST_SEEDS] * 3
    assert seeds_needed(1e-300, 1) == 2
    # Six equal differences have p = 2 / 2^6 = 0.031, five 0.0625.
    assert seeds_needed(0, 1) == 6
    # Unpaired arms of spread 0.05 show 0.045 with 20 seeds each; taken as pairs they have half the degrees of freedom.
    assert 20 <= seeds_needed(0.05 * math.sqrt(2), 0.045) <= 23


def test_seeds_are_planned_from_a_pooled_variance_as_a_range():
    # The ends of the 80 % interval of a variance with 33 degrees of freedom: s² · 33 / χ².
    variance, df = 0.0007**2, 33
    low, high = plan_seeds(variance, df, 5e-4, paired=False)
    ends = [math.sqrt(2 * variance * df / scipy_stats.chi2.ppf(q, df)) for q in (0.9, 0.1)]
    assert (low, high) == tuple(seeds_needed(sd, 5e-4) for sd in ends)
    assert low < seeds_needed(math.sqrt(2 * variance), 5e-4) < high
    assert plan_seeds(variance, df, 5e-4, paired=True, correlation=0.5) == tuple(
        seeds_needed(sd / math.sqrt(2), 5e-4) for sd in ends
    )
    assert plan_seeds(variance, df, 5e-4, paired=False, alpha=0.05 / 11)[0] > low
    assert plan_seeds(variance, df, 1e-9, paired=False) == (MOST_SEEDS, MOST_SEEDS)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("seeds", "alpha"), [(2, 0.05), (3, 0.05 / 11), (10, 0.05), (20, 0.05 / 11)])
def test_what_a_plan_can_see_it_sees_with_the_promised_power(seeds, alpha, paired):
    sd = 0.3
    effect, df = visible_difference(sd**2, seeds, alpha, paired=paired), (seeds - 1) * (1 if paired else 2)
    shift, limit = effect / (sd * math.sqrt(2 / seeds)), scipy_stats.t.isf(alpha / 2, df)
    power = scipy_stats.nct.sf(limit, df, shift)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert visible_difference(sd**2, 1, alpha) == math.inf


@pytest.mark.parametrize(("discordant", "needed"), [(40, 14), (60, 18), (80, 20)])
def test_mcnemar_needs_so_many_digits(discordant, needed):
    # Of 10,000 digits these are 0.14, 0.18 and 0.20 percentage points.
    def p(difference):
        more = (discordant + difference) // 2
        return mcnemar(range(0, more), range(5000, 5000 + discordant - more)).p

    assert p(needed) <= 0.05 < p(needed - 2)


def test_mcnemar_by_hand():
    # Only the images 1, 2, 3 and only 9: p = 2 · (1 + 4) / 2^4.
    result = mcnemar([1, 2, 3, 4], {4, 9})
    assert (result.only_a, result.only_b, result.p) == (3, 1, pytest.approx(10 / 16))
    assert mcnemar({1, 2}, {1, 2}).p == mcnemar([], []).p == 1


def test_students_interval_covers_and_the_bootstraps_covers_less(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 300)
    generator, trials = np.random.default_rng(1), 600
    summaries = [summarize(values) for values in generator.normal(0, 1, (trials, 5))]
    coverage = np.mean([s.interval[0] <= 0 <= s.interval[1] for s in summaries])
    assert abs(coverage - 0.95) <= simulated_error(0.95, trials)
    bootstrap = np.mean([s.bootstrap[0] <= 0 <= s.bootstrap[1] for s in summaries])
    assert abs(bootstrap - 0.83) <= simulated_error(0.83, trials)


def test_equal_arms_are_rarely_told_apart(quick, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage in every correction by Holm
    generator, studies = np.random.default_rng(2), 400
    told_apart, uncorrected, covered = [], [], []
    for _ in range(studies):
        seeds = generator.normal(0, 1, 4)  # what pairs the arms
        baseline = arm(seeds + generator.normal(0, 1, 4))
        compared = {
            name: compare(arm(seeds + generator.normal(0, 1, 4)), baseline, higher_is_better=True, margin=None)
            for name in "abcd"
        }
        adjusted = holm({name: comparison.p_paired for name, comparison in compared.items()})
        said = {verdict(compared[name], adjusted[name]).name for name in compared}
        told_apart.append(bool(said & {"better on these images", "worse on these images"}))
        uncorrected.append(min(comparison.p_paired for comparison in compared.values()) <= 0.05)
        covered.append(compared["a"].interval[0] <= 0 <= compared["a"].interval[1])
    assert np.mean(told_apart) <= 0.05 + simulated_error(0.05, studies) < np.mean(uncorrected)
    assert abs(np.mean(covered) - 0.95) <= simulated_error(0.95, studies)


def test_arms_the_margin_apart_are_rarely_equivalent(quick):
    generator, trials = np.random.default_rng(6), 500
    pairs = zip(generator.normal(5, 1, (trials, 4)), generator.normal(0, 1, (trials, 4)), strict=True)
    tests = [compare(arm(a), arm(b), higher_is_better=True, margin=5.0).tost_p for a, b in pairs]
    assert abs(np.mean(np.array(tests) <= 0.05) - 0.05) <= simulated_error(0.05, trials)


@pytest.mark.parametrize(("sd", "effect", "alpha"), [(1.0, 1.0, 0.05), (0.07, 0.05, 0.05), (1.0, 0.9, 0.05 / 6)])
def test_predicted_seeds_have_the_promised_power(sd, effect, alpha):
    generator, trials = np.random.default_rng(3), 20_000
    needed = seeds_needed(sd, effect, alpha)
    enough, fewer = (
        np.mean(scipy_stats.ttest_1samp(generator.normal(effect, sd, (trials, n)), 0, axis=1).pvalue <= alpha)
        for n in (needed, needed - 1)
    )
    assert enough >= 0.8 - simulated_error(0.8, trials)
    assert fewer < 0.8 + simulated_error(0.8, trials)
