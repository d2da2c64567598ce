"""What a publication concludes, answered by runs whose truth is known."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.stats.anytime import confidence_sequence, visible_anytime
from kernorm.stats.comparison import summarize
from kernorm.stats.new_images import chance_variance
from kernorm.studies.analysis import results_by_arm
from kernorm.studies.definition import study_of, with_overrides
from kernorm.studies.design import Design, Look
from kernorm.studies.loading import load_study
from kernorm.studies.published import Statement
from kernorm.studies.statements import answer_statements
from tests.builders import COUNT, a_study, some_results

ARMS = {name: TrainConfig(norm=name) for name in ("bn", "ln", "gn")}
NEAR, FAR = (40, 42, 41, 43, 39, 41), (90, 95, 92, 96, 91, 94)


def answer(statement, design=None, **errors):
    study = a_study(ARMS, seeds=max(map(len, errors.values())), statements=(statement,))
    results = results_by_arm(study, some_results(study, errors))
    scores = {arm: summarize([1 - wrong / COUNT for wrong in values]) for arm, values in errors.items()}
    (found,) = answer_statements(study, design or Design(), results, scores)
    assert found.statement == statement
    return found.name, found.text


@pytest.mark.parametrize(
    ("words", "errors", "name"),
    [
        ({"arm": "ln", "better_than": ("bn", "gn")}, {"bn": FAR, "ln": NEAR, "gn": FAR}, "yes"),
        ({"arm": "ln", "better_than": ("bn", "gn")}, {"bn": FAR, "ln": NEAR, "gn": NEAR[::-1]}, "not resolved"),
        ({"arm": "ln", "better_than": ("bn", "gn")}, {"bn": NEAR, "ln": FAR, "gn": FAR[::-1]}, "no"),
        ({"arm": "ln", "worse_than": ("bn", "gn")}, {"bn": NEAR, "ln": FAR, "gn": NEAR}, "yes"),
        ({"arm": "ln", "worse_than": ("bn",)}, {"bn": FAR, "ln": NEAR, "gn": NEAR}, "no"),
    ],
)
def test_an_arm_that_is_said_to_be_better_or_worse(words, errors, name):
    found, text = answer(Statement(text="so it is", **words), **errors)
    assert found == name
    assert text.count("against") == len(words.get("better_than", words.get("worse_than")))


def test_what_is_compared_only_in_part_is_refused_or_left_open():
    statement = Statement(text="so it is", arm="ln", better_than=("bn",), no_arm_for="GN at batch 4")
    found, text = answer(statement, bn=FAR, ln=NEAR)
    assert found == "not resolved"
    assert text.startswith("against bn: +")
    assert text.endswith(" pp, better; there is no arm for GN at batch 4")
    assert answer(statement, bn=NEAR, ln=FAR)[0] == "no"


def test_a_shortened_study_answers_nothing():
    statement = Statement(text="ln reaches 50", arm="ln", reaches=50.0)
    study = with_overrides(a_study(ARMS, statements=(statement,)), epochs=3)
    assert study.shortened == dict.fromkeys(ARMS, 8)
    assert with_overrides(study, epochs=3).shortened == {}
    errors = {"bn": NEAR[:3], "ln": NEAR[:3], "gn": NEAR[:3]}
    results = results_by_arm(study, some_results(study, errors))
    scores = {arm: summarize([1 - wrong / COUNT for wrong in values]) for arm, values in errors.items()}
    (found,) = answer_statements(study, Design(), results, scores)
    assert (found.name, found.text) == ("not resolved", "these runs are of other lengths, 3 epochs in place of 8")


def test_the_words_are_of_the_arm_of_the_statement():
    _, text = answer(Statement(text="so it is", arm="ln", better_than=("bn",)), bn=FAR, ln=NEAR)
    points = 100 * (np.mean(FAR) - np.mean(NEAR)) / COUNT
    assert text == f"against bn: +{points:.2f} pp, better"
    _, text = answer(Statement(text="so it is", arm="bn", better_than=("ln",)), bn=FAR, ln=NEAR)
    assert text == f"against ln: −{points:.2f} pp, worse"


def seen(variance):
    """The difference that four seeds of each of two arms show with power 0.8, at α/2."""
    limit = stats.t.isf(0.05 / 2 / 2, 6)
    shift = optimize.brentq(lambda shift: stats.nct.sf(limit, 6, shift) - 0.8, 0, 50)
    return math.sqrt(2 * variance / 4) * shift


def test_what_would_have_been_seen_is_said():
    """By the noncentral t, with the pooled variance."""
    a, b = (21, 25, 23, 28), (24, 22, 29, 20)
    found, text = answer(Statement(text="so it is", arm="ln", better_than=("bn", "gn")), bn=a, ln=b, gn=a[::-1])
    assert found == "not resolved"
    variance = np.mean([np.var(values, ddof=1) for values in (a, b, a)]) / COUNT**2
    least = seen(variance)
    assert text.endswith(f"; with 4 seeds, differences from {100 * least:.2g} pp would have been seen")
    found, text = answer(Statement(text="so it is", arm="ln", better_than=("bn",)), bn=a[:1], ln=b[:1])
    assert (found, text) == (
        "not resolved",
        "with 1 seed nothing can be seen",
    )


@pytest.mark.parametrize(
    ("errors", "name"), [((40, 42, 41), "yes"), ((60, 62, 61), "no"), ((40, 70, 50), "not resolved")]
)
def test_an_accuracy_that_is_said_to_be_reached(errors, name):
    target = 100 * (1 - 50 / COUNT)
    found, text = answer(Statement(text="so it is", arm="ln", reaches=target), ln=errors)
    assert found == name
    values = 100 * (1 - np.array(errors) / COUNT)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert text == (
        f"a mean of {values.mean():.2f} % [{low:.2f}, {high:.2f}], n = 3; the best of 3 runs has {values.max():.2f} %"
    )
    assert answer(Statement(text="so it is", arm="ln", reaches=target), ln=errors[:1]) == (
        "not resolved",
        "1 run; an interval needs two",
    )


def test_the_spread_of_an_arm_that_collapses_hides_nothing_of_the_others():
    a, b = (21, 25, 23, 28), (24, 22, 29, 20)
    collapsed = tuple(COUNT * share // 100 for share in (88, 90, 93, 89))
    found, text = answer(Statement(text="so it is", arm="ln", better_than=("bn", "gn")), bn=a, ln=b, gn=collapsed)
    variance = np.mean([np.var(values, ddof=1) for values in (a, b)]) / COUNT**2
    least = seen(variance)
    assert found == "not resolved"
    assert text.endswith(f"; with 4 seeds, differences from {100 * least:.2g} pp would have been seen")


def test_after_an_earlier_look_an_answer_allows_for_every_look():
    looked = Design(looks=(Look(time="2026-01-01T00:00:00+00:00", seeds=dict.fromkeys(ARMS, 3)),))
    a, b = (21, 25, 23, 28), (24, 22, 29, 20)
    statement = Statement(text="so it is", arm="ln", better_than=("bn",))
    found, text = answer(statement, looked, bn=a, ln=b)
    variance = np.mean([np.var(values, ddof=1) for values in (a, b)]) / COUNT**2
    least = visible_anytime(math.sqrt(2 * variance), 4, 0.05)
    assert found == "not resolved"
    assert text.endswith(f"; with 4 seeds, differences from {100 * least:.2g} pp would have been seen")
    found, text = answer(statement, looked, bn=a[:3], ln=b[:3])  # no more than were seen before
    assert "differences from" in text
    many = Statement(text="so it is", arm="ln", better_than=("bn", "gn"))
    early = Design(looks=(Look(time="2026-01-01T00:00:00+00:00", seeds=dict.fromkeys(ARMS, 2)),), alpha=0.002)
    found, text = answer(many, early, bn=a[:3], ln=b[:3], gn=a[1:])
    assert text.endswith("; with 3 seeds nothing can be seen")


def test_after_an_earlier_look_an_accuracy_is_reached_by_an_interval_of_every_look():
    errors = (40, 42, 41, 43, 39, 41)
    values = [1 - wrong / COUNT for wrong in errors]
    reaches = Statement(text="so it is", arm="ln", reaches=100 * (1 - 43.4 / COUNT))
    assert answer(reaches, ln=errors)[0] == "yes"
    looked = Design(looks=(Look(time="2026-01-01T00:00:00+00:00", seeds={"ln": 3}),))
    study = a_study(ARMS, seeds=6)
    wrong = [
        {mistake.index for mistake in result.record.test.mistakes}
        for _, result in sorted(results_by_arm(study, some_results(study, {"ln": errors}))["ln"].items())
    ]
    # Rounded to whole images: a variance of 1/12 image² of one score.
    floors = [max(1 / 12 / COUNT**2, chance_variance(wrong[:n], COUNT)) for n in range(1, 7)]
    low, high = confidence_sequence(values, floors=floors, alpha=0.05)
    name = "yes" if low >= reaches.reaches / 100 else "not resolved"
    assert answer(reaches, looked, ln=errors) == (
        name,
        f"a mean of {100 * np.mean(values):.2f} % [{100 * low:.2f}, {100 * high:.2f}], n = 6, valid at every look; "
        f"the best of 6 runs has {100 * max(values):.2f} %",
    )
    assert high - low > np.diff(stats.t.interval(0.95, 5, np.mean(values), stats.sem(values)))[0]
    two = Design(looks=(Look(time="2026-01-01T00:00:00+00:00", seeds={"ln": 2, "bn": 2}),))
    found, text = answer(reaches, two, ln=errors[:2], bn=errors)
    assert found == "not resolved"
    assert "[0.00, 100.00], n = 2, valid at every look" in text


@pytest.mark.parametrize("words", [{}, {"better_than": ("bn",), "reaches": 99.0}])
def test_refuses_a_statement_that_is_not_one(words):
    with pytest.raises(
        UsageError,
        match=r"^A Statement has one of better_than, worse_than and reaches\. Received: 'x' with (none|several)",
    ):
        Statement(text="x", arm="ln", **words)


def test_refuses_statements_of_no_arm_and_other_things():
    with pytest.raises(UsageError, match=r"^STATEMENTS names arms\. Received: 'lm' in this call\. Did you mean 'ln'\?"):
        study_of("mine", ARMS, text="?", statements=(Statement(text="x", arm="ln", better_than=("lm",)),))
    with pytest.raises(
        UsageError, match=r"^STATEMENTS is a tuple of Statement\. Received: \['LN is best'\] in this call"
    ):
        study_of("mine", ARMS, text="?", statements=["LN is best"])


@pytest.mark.parametrize(
    ("name", "arm"), [("eva4", "none"), ("eva4_as_run", "none"), ("eva6", "bn"), ("batch_size", "gn-b4")]
)
def test_the_published_studies_have_theirs_and_keep_those_of_their_arms(name, arm):
    study = load_study(name)
    assert len(study.statements) >= 3
    assert with_overrides(study, only=[arm]).statements == ()
