import pytest

import kernorm
from kernorm import TrainConfig, UsageError
from kernorm.api.study import StudyResult
from kernorm.studies.analysis import analyse
from tests.builders import a_study, some_results


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")})
    results = some_results(study, {"bn": (50, 51, 52, 53), "ln": (10, 11, 13, 12)})
    return StudyResult(study, analyse(study, results), tmp_path_factory.mktemp("study"))


def test_the_table_holds_what_the_report_says(result):
    table, arm = result.table, result.summary.arms[1]
    assert list(table.index) == ["bn", "ln"]
    assert table.loc["ln", "difference"] == arm.comparisons["accuracy"].difference
    assert table.loc["ln", "verdict"] == result.verdict("ln") == "better"
    assert table.loc["bn", "verdict"] == "baseline"
    assert (table.loc["ln", "low"], table.loc["ln", "high"]) == arm.generalization_interval
    assert "6 runs of 2 arms finished" in repr(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lm",), r"A verdict is of an arm\. Received: 'lm'\. Did you mean 'ln'\?"),
        (("ln", "ece"), r"by the study's primary metric\. Received: 'ece'\. It is accuracy; the others are described"),
        (("bn",), r"A verdict compares an arm with its baseline\. Received: 'bn', which is one\."),
    ],
)
def test_refuses_a_verdict_of_nothing(result, words, message):
    with pytest.raises(UsageError, match=message):
        result.verdict(*words)


@pytest.mark.slow
def test_two_arms_in_a_notebook(tmp_path, boxes_cache):
    tiny = {"net": "eva6", "dataset": "boxes", "validation_size": 32, "epochs": 1, "batch_size": 40}
    arms = {name: TrainConfig(**tiny, norm=name) for name in ("bn", "ln")}
    result = kernorm.run_study(arms, seeds=2, name="mine", reports_dir=tmp_path)
    assert result.report_path == tmp_path / "studies" / "mine" / "report.html"
    assert list(result.table["runs"]) == [2, 2]
    assert result.report_path.exists()
    assert "<svg" in result._repr_html_()
    again = kernorm.run_study(arms, seeds=2, name="mine", reports_dir=tmp_path)
    assert again.summary == result.summary


def test_refuses_arms_that_are_none(tmp_path):
    with pytest.raises(
        UsageError, match=r"^A study defines ARMS.* Received: this call, whose ARMS is not one, or empty"
    ):
        kernorm.run_study({}, reports_dir=tmp_path)
    with pytest.raises(UsageError, match=r"^BASELINE names arms\. Received: 'gn' in this call\."):
        kernorm.run_study({"bn": TrainConfig()}, baseline="gn", reports_dir=tmp_path)


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
