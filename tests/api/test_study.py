import pytest

import kernorm
from kernorm import TrainConfig, UsageError
from kernorm.api.study import StudyResult, range_as_text
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"engine": "local"},
            r"^An engine is an EngineConfig\. Received: 'local' \(str\)\. Give kernorm\.EngineConfig\(",
        ),
        ({"tune_rate": 0.1}, r"^A range of rates is LOW:HIGH, or two numbers\. Received: 0\.1 \(float\)\."),
        (
            {"tune_rate": (0.1, "1")},
            r"^A range of rates is LOW:HIGH, or two numbers\. Received: \(0\.1, '1'\) \(tuple\)",
        ),
        ({"tune_rate": (0.1, 0.01)}, r"Received: '0\.1:0\.01'"),
        ({"only": "gn"}, r"^--only takes names of arms\. Received: 'gn'\."),
    ],
)
def test_refuses_a_study_by_words_of_another_type(tmp_path, boxes_cache, words, message):
    arms = {name: TrainConfig(dataset="boxes", norm=name, validation_size=32) for name in ("bn", "ln")}
    with pytest.raises(UsageError, match=message):
        kernorm.run_study(arms, reports_dir=tmp_path, **words)


def test_two_numbers_are_a_range_of_rates():
    assert [range_as_text(rates) for rates in (None, "1e-2:0.1", (0.01, 0.1), [1e-5, 1])] == [
        None,
        "1e-2:0.1",
        "0.01:0.1",
        "1e-05:1",
    ]
