"""The thresholds that a candidate must hold, in the form of TFMA's EvalConfig (proto-JSON), so that TFMA reads it too.

Read by evaluate; decided in gate.py. TFMA's own semantics: a metric's `threshold` is applied to every slice of
`slicingSpecs`, `perSliceThresholds` to those that they name. Slices are by `label`, the feature that
tensorflow-datasets writes. A file may have TFMA's names in camelCase or snake_case, as proto-JSON may.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded
from kernorm.records.data import OVERALL

# TFMA's class names (Keras' metrics; all but the first two are kernorm's own) to the names that kernorm uses.
BY_IMAGE = {
    "SparseCategoricalAccuracy": "accuracy",
    "SparseCategoricalCrossentropy": "cross_entropy",
    "BrierScore": "brier",
    "ExpectedCalibrationError": "ece",
}
# Of the whole split alone.
WHOLE = {"BalancedAccuracy": "balanced_accuracy", "MacroF1": "macro_f1", "WorstRecall": "worst_recall"}
METRICS = BY_IMAGE | WHOLE
HIGHER_IS_BETTER = {name: name in ("accuracy", *WHOLE.values()) for name in METRICS.values()}
# Shares, which lie from 0 to 1, and their changes from -1 to 1.
_SHARES = {"ece", *(name for name, higher in HIGHER_IS_BETTER.items() if higher)}
_TOP = ("model_specs", "slicing_specs", "metrics_specs", "options")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A bound for one metric in one slice: of its value, or of its change against the baseline.

    Attributes:
        slice: `overall` or a label.
        side: whether `bound` is the least or the most that is allowed.
        relative: the bound is a share of the baseline's value.
    """

    metric: str
    slice: str
    kind: Literal["value", "change"]
    side: Literal["least", "most"]
    bound: float
    relative: bool = False


def packaged_thresholds() -> dict[str, Path]:
    """Returns the files of thresholds that come with kernorm, by the name of their data set."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "limits").glob("*.json"))}


def read_thresholds(name: str | Path, labels: tuple[str, ...], dataset: str | None = None) -> tuple[Threshold, ...]:
    """Reads thresholds: those of a data set that come with kernorm, by its name; bounds in a text; or a file's.

    Args:
        name: of the set; bounds of the whole split, such as accuracy=0.9,cross_entropy=0.5; or the file's path.
        labels: of the model's classes.
        dataset: the set of the model; None: any.

    Raises:
        UsageError: the thresholds are of another set; the file cannot be read, is no such JSON, or names metrics,
            slices or fields that kernorm does not know; a bound is no number, or one that the metric cannot have.
    """
    packaged = packaged_thresholds().get(str(name))
    if packaged and dataset not in (None, str(name)):
        raise UsageError(
            "Thresholds that come with a set are for its models.",
            f"--thresholds {name} for a model of {dataset}",
            "Give a file of your own, in the form of TFMA's EvalConfig.",
        )
    if not packaged and re.fullmatch(r"\w+=[^/]*", str(name)):
        return tuple(_bound(part) for part in str(name).split(","))
    path = packaged or expanded(name)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            "--thresholds takes a name or a file.",
            f"{path}: {os.strerror(error.errno or 0)}",
            f"Give {' or '.join(packaged_thresholds())}, a bound such as accuracy=0.9, or a JSON file.",
        ) from None
    except ValueError as error:
        raise UsageError("--thresholds takes JSON.", f"{path}: {error}", "Fix it.") from None
    try:
        found = tuple(_thresholds(_snake(content), labels))
    except (AttributeError, TypeError, KeyError) as error:
        raise UsageError(
            "Thresholds have the form of TFMA's EvalConfig.",
            f"{path}: {error!r}",
            "See kernorm/evaluation/limits/mnist.json.",
        ) from None
    if not found:
        raise UsageError(
            "A file of thresholds holds at least one.", f"{path} with none", "Remove --thresholds to measure."
        )
    return found


def _bound(text: str) -> Threshold:
    """Reads NAME=BOUND, of the whole split: the least of what is better high, the most of what is better low."""
    metric, _, bound = text.partition("=")
    if metric not in HIGHER_IS_BETTER:
        raise UsageError(
            "A threshold belongs to a known metric.", f"{metric!r} in --thresholds", nearest(metric, HIGHER_IS_BETTER)
        )
    try:
        number = float(bound)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        rule = "A bound of --thresholds is a number of at least 0."
        raise UsageError(rule, f"{text!r}", "Give for example balanced_accuracy=0.9.")
    side: Literal["least", "most"] = "least" if HIGHER_IS_BETTER[metric] else "most"
    return Threshold(metric=metric, slice=OVERALL, kind="value", side=side, bound=_number(metric, number))


def _number(metric: str, bound: Any, *, least: float = 0.0) -> float:
    """Reads a bound; one of a share goes from `least` to 1."""
    try:
        number = float(bound)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError("A bound is a finite number.", f"{bound!r} for {metric}", "Give for example 0.9.")
    if metric in _SHARES and not least <= number <= 1:
        what = "a share" if least == 0 else "a difference of shares"
        meant = f"{number / 100:g}" if least <= number / 100 <= 1 else "one"
        raise UsageError(f"{metric} is {what} from {least:g} to 1.", f"{number:g}", f"Give {meant}.")
    return number


def _thresholds(config: dict[str, Any], labels: tuple[str, ...]) -> Iterator[Threshold]:
    _known(config, _TOP)
    everywhere = list(config.get("slicing_specs") or [{}])
    for spec in config["metrics_specs"]:
        _known(spec, ("metrics", "model_names", "output_names"))
        for metric in spec["metrics"]:
            _known(metric, ("class_name", "module", "config", "threshold", "per_slice_thresholds"))
            if metric["class_name"] not in METRICS:
                raise UsageError(
                    "A threshold belongs to a known metric.",
                    f"{metric['class_name']!r}",
                    nearest(metric["class_name"], METRICS),
                )
            name = METRICS[metric["class_name"]]
            groups = [(everywhere, metric["threshold"])] if "threshold" in metric else []
            groups += [(group["slicing_specs"], group["threshold"]) for group in metric.get("per_slice_thresholds", ())]
            for slices, threshold in groups:
                for slice_ in dict.fromkeys(part for spec in slices for part in _slices(spec, labels)):
                    if metric["class_name"] in WHOLE and slice_ != OVERALL:
                        raise UsageError(
                            "A score over classes is of the whole split.",
                            f"{metric['class_name']} of {slice_}",
                            'Give it perSliceThresholds with "slicingSpecs": [{}].',
                        )
                    yield from _bounds(name, slice_, threshold)


def _slices(spec: Mapping[str, Any], labels: tuple[str, ...]) -> list[str]:
    _known(spec, ("feature_keys", "feature_values"))
    if spec.get("feature_keys") == ["label"]:
        return list(labels)
    if spec.get("feature_values"):
        (feature, value), *more = spec["feature_values"].items()
        if feature == "label" and str(value) in labels and not more:
            return [str(value)]
        raise UsageError("Slices are by label.", spec["feature_values"], f"Known: {', '.join(labels)}.")
    if spec.get("feature_keys"):
        raise UsageError("Slices are by label.", spec["feature_keys"], 'Give ["label"].')
    return [OVERALL]


def _bounds(metric: str, slice_: str, threshold: Mapping[str, Any]) -> Iterator[Threshold]:
    _known(threshold, ("value_threshold", "change_threshold"))
    value, change = threshold.get("value_threshold") or {}, threshold.get("change_threshold") or {}
    _known(value, ("lower_bound", "upper_bound"))
    _known(change, ("direction", "absolute", "relative"))
    if change and metric == "worst_recall":
        raise UsageError(
            "The worst recall has thresholds of its value alone.",
            "a changeThreshold of WorstRecall",
            "Give BalancedAccuracy one.",
        )
    if "lower_bound" in value:
        yield Threshold(
            metric=metric, slice=slice_, kind="value", side="least", bound=_number(metric, value["lower_bound"])
        )
    if "upper_bound" in value:
        yield Threshold(
            metric=metric, slice=slice_, kind="value", side="most", bound=_number(metric, value["upper_bound"])
        )
    if change:
        higher = {"HIGHER_IS_BETTER": True, "LOWER_IS_BETTER": False}[change["direction"]]
        if higher != HIGHER_IS_BETTER[metric]:
            raise UsageError(
                "A change threshold has its metric's direction.",
                f"{change['direction']} for {metric}",
                "Use the opposite direction.",
            )
        side: Literal["least", "most"] = "least" if higher else "most"
        for name in ("absolute", "relative"):
            if name in change:
                yield Threshold(
                    metric=metric,
                    slice=slice_,
                    kind="change",
                    side=side,
                    bound=_number(metric, change[name], least=-math.inf if name == "relative" else -1.0),
                    relative=name == "relative",
                )


def _known(given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in names:
            raise UsageError("Thresholds have the fields of TFMA's EvalConfig.", f"{name!r}", nearest(name, names))


def _snake(value: Any, *, keys: bool = True) -> Any:
    """Writes the names of proto-JSON in snake_case; the keys of feature_values and config are a user's own."""
    if isinstance(value, list):
        return [_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        name = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower() if keys else key
        found[name] = _snake(item, keys=name not in ("feature_values", "config"))
    return found
