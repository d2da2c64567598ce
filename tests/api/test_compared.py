"""Anybody's numbers, compared."""

import pytest

import kernorm
from kernorm import UsageError


def test_anybodys_numbers_are_compared_on_these_images_at_most():
    found = kernorm.compare({0: 0.994, 1: 0.995, 2: 0.9945}, {0: 0.993, 1: 0.994, 2: 0.9931})
    assert str(found) == "better on these images; not resolved for new ones"
    assert found.new_images is None
    assert found.comparison.difference == pytest.approx(0.0034 / 3)
    alike = kernorm.compare({0: 0.994, 1: 0.995}, {0: 0.994, 1: 0.994})
    assert alike.verdict == "not resolved"
    assert kernorm.compare({0: 0.9}, {0: 0.8}).verdict.startswith("no verdict: fewer than 2 seeds")
    nats = [{seed: mean + 1e-5 * seed**2 for seed in range(5)} for mean in (0.02, 0.021)]
    small = kernorm.compare(*nats, higher_is_better=False, margin=0.01)
    assert str(small) == "equivalent within 0.01 on these images"


def test_with_mistakes_by_image_the_verdict_speaks_of_new_images():
    arm = {seed: set(range(20 + seed)) for seed in range(3)}
    baseline = {seed: set(range(60 + 2 * seed)) for seed in range(3)}
    accuracies = [{seed: 1 - len(wrong) / 1000 for seed, wrong in runs.items()} for runs in (arm, baseline)]
    found = kernorm.compare(*accuracies, wrong=(arm, baseline), count=1000)
    low, high = found.new_images
    assert 0 < low < 0.04 < high
    assert found.verdict == "better"
    # The same by error rates, with the signs turned.
    rates = [{seed: len(wrong) / 1000 for seed, wrong in runs.items()} for runs in (arm, baseline)]
    turned = kernorm.compare(*rates, wrong=(arm, baseline), count=1000, higher_is_better=False)
    assert (turned.verdict, turned.new_images) == ("better", (-high, -low))
    told = r"^With mistakes by image, the values are the accuracies that follow from them, or the error rates"
    for values, higher in ((rates, True), (accuracies, False), ([{0: 0.2, 1: 0.3, 2: 0.2}] * 2, False)):
        with pytest.raises(UsageError, match=told):
            kernorm.compare(*values, wrong=(arm, baseline), count=1000, higher_is_better=higher)
    # Both arms have the same images wrong, but one more: on new images nothing is sure.
    alike = {seed: {*wrong, 900} for seed, wrong in baseline.items()}
    accuracies = [{seed: 1 - len(wrong) / 1000 for seed, wrong in runs.items()} for runs in (alike, baseline)]
    found = kernorm.compare(*accuracies, wrong=(alike, baseline), count=1000)
    assert found.verdict == "not resolved"  # three equal signs prove nothing
    with pytest.raises(UsageError, match=r"^Mistakes by image need every seed in common and the number of images\."):
        kernorm.compare(*accuracies, wrong=(arm, {0: set()}), count=1000)


NUMBERS = {0: 0.991, 1: 0.992}


@pytest.mark.parametrize(
    ("arm", "words", "message"),
    [
        (
            [0.99, 0.98],
            {},
            r"^Runs are given as numbers by seed\. Received: \[0\.99, 0\.98\] \(list\)\. Write \{0: 0\.991",
        ),
        ({0: "0.99"}, {}, r"^Runs are given as numbers by seed\. Received: \{0: '0\.99'\} \(dict\)"),
        (
            {0: 99.1, 1: 99.2},
            {},
            r"^Accuracies are shares from 0 to 1\. Received: 99\.1 of seed 0, which looks like perc",
        ),
        ({0: 0.9, 1: -0.5}, {}, r"^Accuracies are shares from 0 to 1\. Received: -0\.5 of seed 1\. "),
        (NUMBERS, {"margin": "0.5"}, r"^A margin is a number, or in points\. Received: '0\.5' \(str\)\. Give .*0\.5pp"),
        (NUMBERS, {"margin": "auto"}, r"^A margin is a number, or in points\. Received: 'auto' \(str\)\."),
        (NUMBERS, {"margin": "xpp"}, r"^margin is a difference above 0 and below 1, or in points.* Received: 'xpp'\."),
        (NUMBERS, {"margin": [0.1]}, r"^A margin is a number, or in points\. Received: \[0\.1\] \(list\)\."),
    ],
)
def test_refuses_what_are_no_numbers_of_runs(arm, words, message):
    with pytest.raises(UsageError, match=message):
        kernorm.compare(arm, NUMBERS, **words)
    with pytest.raises(UsageError, match=message):
        kernorm.compare(NUMBERS, arm, **words)


def test_a_margin_may_be_in_points():
    found = [kernorm.compare(NUMBERS, NUMBERS, margin=margin) for margin in ("0.5pp", 0.005)]
    assert found[0].comparison == found[1].comparison
    assert kernorm.compare({0: 99.1}, {0: 99.2}, higher_is_better=False).comparison.pairs == 1
