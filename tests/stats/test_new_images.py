import math

import numpy as np
import pytest
from scipy import optimize, special
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score

from kernorm.stats.comparison import summarize
from kernorm.stats.new_images import (
    chance_variance,
    chance_variances,
    two_level_difference,
    two_level_interval,
    variance_parts,
)
from kernorm.stats.strata import Strata


def test_new_images_alone_are_a_binomial_interval():
    # Runs that agree tell of images only: 0.94 ± t √(0.94 · 0.06 / 4,999), and t of so many images is nearly 1.96.
    wrong = np.r_[np.ones(300), np.zeros(4700)]
    df = 2 * 5000 / (scipy_stats.kurtosis(wrong, fisher=False) - 1)
    expected = scipy_stats.t.interval(0.95, df, 0.94, scipy_stats.sem(wrong))
    assert two_level_interval([range(300)] * 4, 5000) == pytest.approx(expected)
    assert expected == pytest.approx(0.94 + np.array([-1, 1]) * 1.96 * math.sqrt(0.94 * 0.06 / 5000), abs=2e-5)


def test_a_difference_of_few_images_has_their_degrees_of_freedom():
    """Eight images that one arm always has wrong and the other never: t with nearly sixteen degrees of freedom."""
    low, high = two_level_difference([range(8)] * 5, [[]] * 5, 10_000, paired=True)
    share = np.r_[np.ones(8), np.zeros(9992)]
    df = 2 * 10_000 / (scipy_stats.kurtosis(share, fisher=False) - 1)
    assert df == pytest.approx(16, rel=0.01)
    assert (low, high) == pytest.approx(scipy_stats.t.interval(0.95, df, -8e-4, scipy_stats.sem(share)))
    # Seeds add what they vary beyond chance, with runs − 1 degrees of freedom: Welch's and Satterthwaite's sum.
    generator = np.random.default_rng(8)
    runs = [generator.choice(10_000, size, replace=False).tolist() for size in (100, 400, 900)]
    others = [[], [], []]
    low, high = two_level_difference(runs, others, 10_000, paired=True)
    hits = np.zeros((3, 10_000))
    for row, images in zip(hits, runs, strict=True):
        row[images] = 1
    image, rows = hits.mean(0), hits.mean(1)
    residual = ((hits - image - rows[:, None] + hits.mean()) ** 2).sum() / 2 / 9999
    terms = [
        (image.var(ddof=1) / 10_000, 2 * 10_000 / (scipy_stats.kurtosis(image, fisher=False) - 1)),
        ((rows.var(ddof=1) - residual / 10_000) / 3, 2),
    ]
    total = sum(variance for variance, _ in terms)
    df = total**2 / sum(variance**2 / df for variance, df in terms)
    assert (low, high) == pytest.approx(scipy_stats.t.interval(0.95, df, -hits.mean(), math.sqrt(total)))


def test_new_seeds_alone_are_students_interval():
    generator = np.random.default_rng(0)
    shares = np.array([0.1, 0.2, 0.25, 0.4])
    runs = [generator.choice(20_000, round(20_000 * share), replace=False).tolist() for share in shares]
    interval = two_level_interval(runs, 20_000)
    assert interval == pytest.approx(summarize(1 - shares).interval, abs=0.01)
    # The same seeds in both arms, and 500 more images wrong in each run of the one: nothing is left of the seeds.
    others = [sorted(set(run) | set(range(500))) for run in runs]
    paired = two_level_difference(runs, others, 20_000, paired=True)
    unpaired = two_level_difference(runs, others, 20_000, paired=False)
    assert 0 < paired[0] < paired[1] < 0.03
    ours, theirs = ([1 - len(run) / 20_000 for run in one] for one in (runs, others))
    welch = scipy_stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert unpaired == pytest.approx(tuple(welch), abs=0.01)


def test_two_levels_of_runs_that_tell_nothing():
    assert two_level_interval([{1, 2}], 10) is None
    assert two_level_difference([], [{1}, {2}], 10, paired=False) is None
    # Ten images of which none tells the arms apart, or is wrong: the next ones may, as Clopper and Pearson say.
    unseen = scipy_stats.binomtest(0, 10).proportion_ci(0.95).high
    assert two_level_difference([{1}, {2}], [{1}, {2}], 10, paired=True) == pytest.approx((-unseen, unseen))
    assert two_level_interval([set(), []], 10) == pytest.approx((1 - unseen, 1))
    assert two_level_interval([range(10)] * 2, 10) == pytest.approx((0, unseen))
    with pytest.raises(ValueError, match="count from 0 to 9. Received: 3 to 10"):
        two_level_interval([{3, 10}, {3}], 10)
    with pytest.raises(ValueError, match="Received: 2 and 3 runs"):
        two_level_difference([{1}] * 2, [{1}] * 3, 10, paired=True)


def test_what_chance_over_images_implies():
    """Runs whose errors on each image are independent, with chances of its own, vary by Σp(1−p)/N² and no more."""
    generator, count = np.random.default_rng(9), 2000
    p = generator.beta(0.3, 3, count)
    found, differences = [], []
    for _ in range(40):
        mine, base = ([np.flatnonzero(generator.random(count) < p).tolist() for _ in range(6)] for _ in range(2))
        found.append((chance_variance(mine, count), chance_variance(mine, count, base)))
        differences.append(variance_parts(mine, count, base).seeds)
    implied = np.sum(p * (1 - p)) / count**2
    assert np.mean(found, axis=0) == pytest.approx([implied, 2 * implied], rel=0.02)
    assert np.mean(differences) == pytest.approx(2 * implied, rel=0.2)
    every = chance_variances(mine, count, base)
    assert every == pytest.approx([0.0, *(chance_variance(mine[:n], count, base[:n]) for n in range(2, 7))])
    assert chance_variance(mine[:1], count) == 0.0
    # What all runs have wrong is the images' own: their variance over images, and none over seeds.
    same = variance_parts([range(100)] * 3, count, [range(50)] * 3)
    assert same.seeds == pytest.approx(0, abs=1e-30)
    assert same.images == pytest.approx(np.var([1] * 50 + [0] * 1950, ddof=1) / count)


def test_a_higher_level_of_the_interval_for_new_images():
    generator = np.random.default_rng(0)
    runs = [np.flatnonzero(generator.random(5000) < 0.05).tolist() for _ in range(2)]
    found = [
        two_level_difference(runs, [range(100)] * 2, 5000, paired=True, alpha=alpha) for alpha in (0.05, 0.01, 0.001)
    ]
    assert found[2][0] < found[1][0] < found[0][0] < found[0][1] < found[1][1] < found[2][1]
    # Runs that agree tell of images only, so that the widths are the normal distribution's.
    runs, others = [range(2000)] * 3, [range(1000, 3000)] * 3
    agreed = [two_level_difference(runs, others, 20_000, paired=True, alpha=alpha) for alpha in (0.05, 0.001)]
    ratio = np.ptp(agreed[1]) / np.ptp(agreed[0])
    assert ratio == pytest.approx(scipy_stats.norm.isf(0.0005) / scipy_stats.norm.isf(0.025), rel=0.03)


@pytest.mark.parametrize(("seed_spread", "paired"), [(0.0, True), (0.3, True), (0.3, False)])
def test_two_levels_cover_on_new_digits(seed_spread, paired):
    # Images differ in how hard they are, for both arms and for each; seeds move all images of their run.
    generator, trials, runs, count = np.random.default_rng(5), 600, 5, 400
    covered = []
    for _ in range(trials):
        hard = generator.normal(-3.5, 2, count)
        a, b = (
            [
                np.flatnonzero(generator.random(count) < special.expit(images + moved)).tolist()
                for moved in generator.normal(0, seed_spread, runs)
            ]
            for images in hard + generator.normal(0, 0.5, (2, count))
        )
        low, high = two_level_difference(a, b, count, paired=paired)
        covered.append(low <= 0 <= high)
    # 1,500 trials gave 0.968, 0.935 and 0.945, since five runs tell their spread but roughly; 0.03 is three binomial
    # errors. Seeds resampled beside the images give 0.995 in the first case.
    assert 0.905 <= np.mean(covered) <= 0.985


def uneven(generator, sizes=(60, 30, 10), runs=5, moved=0.4):
    """Wrong images of two arms on classes of these sizes, whose images differ in how hard they are."""
    classes = np.repeat(np.arange(len(sizes)), sizes)[generator.permutation(sum(sizes))]
    hard = generator.normal(-2.0 + classes, 1.5)
    arms = [
        [
            np.flatnonzero(generator.random(len(classes)) < special.expit(images + seed)).tolist()
            for seed in generator.normal(0, moved, runs)
        ]
        for images in hard + generator.normal(0, 0.7, (2, len(classes)))
    ]
    return classes, *arms


def hits_of(runs, count):
    hits = np.zeros((len(runs), count))
    for row, images in zip(hits, runs, strict=True):
        row[list(images)] = 1
    return hits


def test_strata_say_what_a_score_is_made_of():
    classes = np.array([2, 0, 0, 2, 2, 2, 5])
    strata = Strata.by_class(classes)  # of classes that have images
    assert (strata.sizes, strata.weights, strata.part.tolist()) == ((2, 4, 1), (1 / 3,) * 3, [1, 0, 0, 1, 1, 1, 2])
    assert strata.count == 7
    assert strata.rounding == pytest.approx((1 / 4 + 1 / 16 + 1) / 9 / 6)
    assert strata.effective == pytest.approx(9 / (1 / 2 + 1 / 4 + 1))
    assert (Strata.whole(10).rounding, Strata.whole(10).effective) == pytest.approx((1 / 600, 10))
    assert Strata.by_class(np.arange(40) % 4).effective == pytest.approx(40)


def test_a_balanced_accuracy_is_that_of_scikit_learn_with_the_variances_of_stratified_sampling():
    generator = np.random.default_rng(11)
    classes, mine, base = uneven(generator, sizes=(60, 50, 40))
    strata, sizes, runs = Strata.by_class(classes), np.array([60, 50, 40]), 5
    low, high = two_level_difference(mine, base, strata, paired=True)
    # By hand, class by class: the variance over images, and the residual of runs by images.
    hits = hits_of(base, 150) - hits_of(mine, 150)
    scores = [
        [balanced_accuracy_score(classes, np.where(row, (classes + 1) % 3, classes)) for row in hits_of(one, 150)]
        for one in (mine, base)
    ]
    differences = np.subtract(*scores)
    over_images = chance = 0.0
    terms = []
    for label, size in enumerate(sizes):
        part = hits[:, classes == label]
        image, rows = part.mean(0), part.mean(1)
        variance = image.var(ddof=1) / size / 9
        residual = ((part - image - rows[:, None] + part.mean()) ** 2).sum() / (runs - 1) / (size - 1)
        over_images, chance = over_images + variance, chance + residual / size / 9
        kurtosis = scipy_stats.kurtosis(image, fisher=False)
        terms.append((variance, 2 * size / (kurtosis - (size - 3) / (size - 1))))
    terms.append((max(0, differences.var(ddof=1) - chance) / runs, runs - 1))
    total = sum(variance for variance, _ in terms)
    df = total**2 / sum(variance**2 / df for variance, df in terms)
    assert (low, high) == pytest.approx(scipy_stats.t.interval(0.95, df, differences.mean(), math.sqrt(total)))
    assert chance_variance(mine, strata, base) == pytest.approx(chance)
    assert chance_variances(mine, strata, base)[1:] == pytest.approx(
        [chance_variance(mine[:n], strata, base[:n]) for n in range(2, 6)]
    )
    parts = variance_parts(mine, strata, base)
    assert (parts.images, parts.seeds) == pytest.approx((over_images, differences.var(ddof=1)))
    # Of one part it is an accuracy, as without.
    whole = Strata(sizes=(150,), weights=(1.0,), part=np.zeros(150, np.int64))
    assert two_level_difference(mine, base, whole, paired=False) == pytest.approx(
        two_level_difference(mine, base, 150, paired=False)
    )


def test_the_variance_over_images_is_the_bootstraps_within_classes():
    generator = np.random.default_rng(12)
    classes, mine, base = uneven(generator, sizes=(300, 90, 40))
    strata = Strata.by_class(classes)
    shares = (hits_of(base, 430) - hits_of(mine, 430)).mean(0)
    drawn = []
    for label in range(3):
        part = shares[classes == label]
        drawn.append(generator.choice(part, (20_000, len(part))).mean(1))
    bootstrap = np.mean(drawn, axis=0).var()
    assert variance_parts(mine, strata, base).images == pytest.approx(bootstrap, rel=0.05)
    # That classes differ in how hard they are is no spread: images that all runs of a class have wrong add none. What
    # is left is what the next images may be: of the smallest class up to 8.8 % may change the score by 2/3.
    every = np.flatnonzero(classes == 2)
    same = variance_parts([every] * 2, strata, [[]] * 2)
    unseen = scipy_stats.binomtest(0, 40).proportion_ci(0.95).high
    assert same.images == pytest.approx((unseen * 2 / 3 / scipy_stats.norm.isf(0.025)) ** 2)
    strict = scipy_stats.binomtest(0, 40).proportion_ci(0.998).high
    found = variance_parts([every] * 2, strata, [[]] * 2, alpha=0.002).images
    assert found == pytest.approx((strict * 2 / 3 / scipy_stats.norm.isf(0.001)) ** 2, rel=1e-3)
    assert variance_parts([every] * 2, 430, [[]] * 2).images > 0


def test_a_small_class_leaves_open_what_its_next_images_are():
    """Images of a class of two that all tell for one arm may be followed by as many that tell for the other."""
    strata = Strata.by_class(np.repeat([0, 1, 2], (500, 500, 2)))
    unseen = scipy_stats.binomtest(0, 2).proportion_ci(0.95).high
    low, high = two_level_difference([[]] * 5, [{1000, 1001}] * 5, strata, paired=True)
    assert (low, high) == pytest.approx(np.array([1 - 2 * unseen, 1 + 2 * unseen]) / 3)
    # The part that may change the score most counts: here that of two images, as the large classes' do not matter.
    level = two_level_difference([{3}] * 5, [{4}] * 5, strata, paired=True, alpha=0.002)
    assert level == pytest.approx(np.array([-1, 1]) * scipy_stats.binomtest(0, 2).proportion_ci(0.998).high / 3)


@pytest.mark.parametrize(("classes", "images"), [(10, 2), (100, 2), (10, 5), (10, 20)])
def test_classes_that_are_all_right_leave_open_what_they_may_together(classes, images):
    """The interval begins where drawing no wrong image of any class has a chance of 2.5 %."""
    low, high = two_level_interval([[]] * 2, Strata.by_class(np.repeat(np.arange(classes), images)))
    assert high == 1
    assert low ** (classes * images) == pytest.approx(0.025)


def test_the_classes_where_an_unseen_image_moves_the_score_most_come_first():
    """By SciPy: what shares of unseen images move a balanced accuracy most, whose chance to be missed is 2.5 %."""
    sizes = (2, 3, 8, 400)
    strata = Strata.by_class(np.repeat(np.arange(4), sizes))
    found = optimize.minimize(
        lambda missed: np.mean(np.expm1(-missed)),
        np.full(4, 0.01),
        bounds=[(0, None)] * 4,
        constraints={"type": "eq", "fun": lambda missed: missed @ np.array(sizes) - math.log(40)},
        tol=1e-10,
    )
    low, _ = two_level_interval([[]] * 2, strata)
    assert found.success
    assert 1 - low == pytest.approx(-found.fun, rel=1e-4)
    assert found.x[3] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("sizes", "wrong"), [((500, 500, 2), (0.02, 0.02, 0.5)), ((500, 5), (0.02, 0.3)), ((12,), (0.1,))]
)
def test_equal_recipes_are_seldom_told_apart_by_a_few_images(sizes, wrong):
    """Images that an arm has nearly always wrong or nearly always right; before, up to 13 % came out as different."""
    generator, trials, apart = np.random.default_rng(14), 300, 0
    strata = Strata.by_class(np.repeat(np.arange(len(sizes)), sizes))
    for _ in range(trials):
        arms = []
        for _ in range(2):
            hard = generator.random(sum(sizes)) < np.repeat(wrong, sizes)
            chance = np.where(hard, 0.95, 0.002)
            arms.append([np.flatnonzero(generator.random(sum(sizes)) < chance).tolist() for _ in range(4)])
        low, high = two_level_difference(*arms, strata, paired=True)
        apart += not low <= 0 <= high
    assert apart / trials <= 0.05


def test_a_class_of_one_image_tells_nothing_of_new_ones():
    strata = Strata.by_class(np.array([0, 0, 0, 1]))
    mine, base = [{0, 3}, {3}, {1}], [{0}, {0}, {2}]
    assert two_level_difference(mine, base, strata, paired=True) is None
    assert two_level_interval(mine, strata) is None
    # Its chance is what its runs vary; of the class of three the residual is left.
    differences = hits_of(mine, 4) - hits_of(base, 4)
    part = differences[:, :3]
    residual = part - part.mean(0) - part.mean(1)[:, None] + part.mean()
    expected = (residual**2).sum() / 2 / 2 / 3 / 4 + differences[:, 3].var(ddof=1) / 4
    assert chance_variance(mine, strata, base) == pytest.approx(expected)
    assert chance_variances(mine, strata, base)[-1] == pytest.approx(expected)


def test_two_levels_of_a_balanced_accuracy_cover():
    generator, trials, covered = np.random.default_rng(13), 400, 0
    for _ in range(trials):
        classes, mine, base = uneven(generator, sizes=(120, 60, 25), runs=6, moved=0.2)
        low, high = two_level_difference(mine, base, Strata.by_class(classes), paired=True)
        covered += low <= 0 <= high
    # 1,000 trials of eight such splits gave 0.933 to 0.967; 0.033 is three binomial errors.
    assert 0.9 <= covered / trials <= 0.985
