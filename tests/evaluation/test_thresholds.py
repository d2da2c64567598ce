"""Thresholds in the form of TFMA's EvalConfig: what is read, and what is refused."""

import json
import math
from importlib import resources

import pytest

from kernorm.errors import UsageError
from kernorm.evaluation.thresholds import Threshold, read_thresholds

LABELS = tuple("0123456789")


def read(tmp_path, content):
    path = tmp_path / "thresholds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_thresholds(path, LABELS)


def config(metric, **more):
    return {"metricsSpecs": [{"metrics": [metric]}], **more}


def test_the_file_that_comes_with_the_package_asks_for_the_whole_and_for_each_digit(tmp_path):
    content = (resources.files("kernorm.evaluation") / "limits" / "mnist.json").read_text()
    found = read(tmp_path, content)
    assert Threshold(metric="accuracy", slice="overall", kind="value", side="least", bound=0.98) in found
    assert Threshold(metric="accuracy", slice="7", kind="change", side="least", bound=-0.005) in found
    assert Threshold(metric="cross_entropy", slice="overall", kind="value", side="most", bound=0.1) in found
    assert len(found) == 2 + 2 * 10 + 1


def test_a_file_lies_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    content = (resources.files("kernorm.evaluation") / "limits" / "mnist.json").read_text()
    assert read(tmp_path, content) == read_thresholds("~/thresholds.json", LABELS)


@pytest.mark.parametrize("names", ["camel", "snake"])
def test_a_threshold_goes_to_every_slice_as_in_tfma(tmp_path, names):
    camel = {
        "slicingSpecs": [{}, {"featureValues": {"label": "7"}}],
        "metricsSpecs": [
            {
                "metrics": [
                    {
                        "className": "BrierScore",
                        "threshold": {
                            "valueThreshold": {"upperBound": 0.02},
                            "changeThreshold": {"direction": "LOWER_IS_BETTER", "relative": 0.1},
                        },
                    }
                ]
            }
        ],
    }
    text = json.dumps(camel)
    if names == "snake":
        for name, other in (
            ("slicingSpecs", "slicing_specs"),
            ("featureValues", "feature_values"),
            ("metricsSpecs", "metrics_specs"),
            ("className", "class_name"),
            ("valueThreshold", "value_threshold"),
            ("upperBound", "upper_bound"),
            ("changeThreshold", "change_threshold"),
        ):
            text = text.replace(name, other)
    found = read(tmp_path, text)
    expected = [
        Threshold(metric="brier", slice=slice_, kind=kind, side="most", bound=bound, relative=kind == "change")
        for slice_ in ("overall", "7")
        for kind, bound in (("value", 0.02), ("change", 0.1))
    ]
    assert list(found) == expected


def test_scores_over_classes_have_thresholds_of_the_whole_split(tmp_path):
    bounds = {
        "valueThreshold": {"lowerBound": 0.8},
        "changeThreshold": {"direction": "HIGHER_IS_BETTER", "absolute": -0.01},
    }
    found = read(tmp_path, config({"className": "BalancedAccuracy", "threshold": bounds}))
    kinds = {"value": 0.8, "change": -0.01}
    assert [(one.metric, one.slice, one.side) for one in found] == [("balanced_accuracy", "overall", "least")] * 2
    assert {one.kind: one.bound for one in found} == kinds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "--thresholds takes JSON. Received: "),
        ("[]", "Thresholds have the form of TFMA's EvalConfig. Received: "),
        ({"slicingSpecs": []}, "Thresholds have the form of TFMA's EvalConfig. Received: .*metrics_specs"),
        (config({"className": "AUC"}), "A threshold belongs to a known metric. Received: 'AUC'. Known: Sparse"),
        (config({"className": "BrierScore"}), "A file of thresholds holds at least one. Received: "),
        (config({"className": "BrierScore", "threshhold": {}}), "Received: 'threshhold'. Did you mean 'threshold'"),
        (
            config({"className": "BrierScore", "threshold": {}}, slicingSpecs=[{"featureKeys": ["age"]}]),
            r"Slices are by label. Received: \['age'\]",
        ),
        (
            config({"className": "BrierScore", "threshold": {}}, slicingSpecs=[{"featureValues": {"label": "ten"}}]),
            "Slices are by label. Received: {'label': 'ten'}. Known: 0, 1",
        ),
        (
            config(
                {
                    "className": "BrierScore",
                    "threshold": {"changeThreshold": {"direction": "HIGHER_IS_BETTER", "absolute": 0}},
                }
            ),
            "A change threshold has its metric's direction. Received: HIGHER_IS_BETTER for brier. Use the op",
        ),
        (
            config({"className": "MacroF1", "threshold": {}}, slicingSpecs=[{}, {"featureKeys": ["label"]}]),
            r"A score over classes is of the whole split\. Received: MacroF1 of 0\. Give it perSliceThresholds",
        ),
        (
            config(
                {
                    "className": "WorstRecall",
                    "threshold": {"changeThreshold": {"direction": "HIGHER_IS_BETTER", "absolute": -0.01}},
                }
            ),
            r"The worst recall has thresholds of its value alone\. Received: a changeThreshold of WorstRecall\.",
        ),
        *(
            (config({"className": name, "threshold": threshold}), message)
            for name, threshold, message in (
                (
                    "BrierScore",
                    {"valueThreshold": {"upperBound": "low"}},
                    "A bound is a finite number. Received: 'low'",
                ),
                ("BrierScore", {"valueThreshold": {"upperBound": math.nan}}, "finite number. Received: nan for brier"),
                ("BrierScore", {"valueThreshold": {"upperBound": "Infinity"}}, "A bound is a finite number"),
                ("BrierScore", {"valueThreshold": {"upperBound": 10**400}}, "A bound is a finite number"),
                ("BrierScore", {"valueThreshold": {"upperBound": []}}, "A bound is a finite number"),
                (
                    "SparseCategoricalAccuracy",
                    {"valueThreshold": {"lowerBound": 90}},
                    r"accuracy is a share from 0 to 1\. Received: 90\. Give 0\.9\.",
                ),
                ("MacroF1", {"valueThreshold": {"lowerBound": -0.1}}, "macro_f1 is a share from 0 to 1"),
                (
                    "BalancedAccuracy",
                    {"changeThreshold": {"direction": "HIGHER_IS_BETTER", "absolute": -5}},
                    r"balanced_accuracy is a difference of shares from -1 to 1\. Received: -5\. Give -0\.05\.",
                ),
            )
        ),
    ],
)
def test_refuses_what_it_cannot_judge(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, content)


def test_thresholds_of_a_set_are_for_its_models():
    assert read_thresholds("mnist", LABELS, "mnist")
    message = (
        r"^Thresholds that come with a set are for its models\. Received: --thresholds mnist for a model of leaves@1"
    )
    with pytest.raises(UsageError, match=message):
        read_thresholds("mnist", ("ash", "elm"), "leaves@1")


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"^--thresholds takes a name or a file\. Received: .*No such file"):
        read_thresholds(tmp_path / "none.json", LABELS)


def test_bounds_of_the_whole_split_are_read_from_a_text():
    found = read_thresholds("balanced_accuracy=0.9,cross_entropy=5e-1", ("a", "b"), "photos@0123456789ab")
    assert found == (
        Threshold(metric="balanced_accuracy", slice="overall", kind="value", side="least", bound=0.9),
        Threshold(metric="cross_entropy", slice="overall", kind="value", side="most", bound=0.5),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "accurracy=0.9",
            r"A threshold belongs to a known metric\. Received: 'accurracy' in --thresholds\. .*'accuracy'",
        ),
        ("accuracy=high", r"A bound of --thresholds is a number of at least 0\. Received: 'accuracy=high'"),
        ("accuracy=-1", "number of at least 0"),
        ("accuracy=nan", "number of at least 0"),
        ("worst_recall=90", r"worst_recall is a share from 0 to 1\. Received: 90\. Give 0\.9\."),
        ("accuracy=0.9,", "known metric"),
    ],
)
def test_refuses_bounds_that_are_none(text, message):
    with pytest.raises(UsageError, match=message):
        read_thresholds(text, ("a", "b"))
