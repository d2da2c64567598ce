"""Evaluates an exported model on the test split, against thresholds and a baseline: BLESSED or not.

    python -m kernorm.evaluate saved_models/<run id>/<version> --baseline latest --thresholds kernorm/thresholds.json

takes about half a minute on MNIST. After export, before push, in the way of a model. What is evaluated is the reloaded
SavedModel, asked through `serving_default`, not the model that was trained.
"""

import datetime
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from kernorm import cli
from kernorm.card import FOLDER, Card, read_card
from kernorm.errors import UsageError
from kernorm.files import tree_sha256, write_atomically
from kernorm.formats import saved_model
from kernorm.gate import Change, Decision, Interval, Measure, decide, measure, scored
from kernorm.metrics import wilson
from kernorm.stats import McNemar, mcnemar
from kernorm.thresholds import OVERALL, read_thresholds
from kernorm.versions import versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernorm.formats import Ask

PROG = "python -m kernorm.evaluate"
SCHEMA = 2
EVALUATION, REPORT, BLESSED, NOT_BLESSED = "evaluation.json", "report.html", "BLESSED", "NOT_BLESSED"
# The published model that comes with the repository, and what push publishes to.
MODEL = "kernorm"
ROBUSTNESS_IMAGES = 2000
_BATCH = 500

_strict = with_config(ConfigDict(extra="forbid"))


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluates an exported model on the test split, overall and by class, and decides whether it is blessed.

    It writes evaluation.json, report.html and, with thresholds, BLESSED or NOT_BLESSED into assets.extra/kernorm/ of
    the model. Exit code 1 if it is not blessed.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>."""

    baseline: str | None = None
    """A model to compare with, on the same images: a path, or 'latest', the newest published one that was blessed."""

    thresholds: Path | None = None
    """What must hold, in the form of TFMA's EvalConfig; kernorm/thresholds.json is one for MNIST. None: no blessing."""

    model: str = MODEL
    """Name under which models are published, for --baseline latest."""

    beside: tuple[Path, ...] = ()
    """Other models whose robustness is shown beside, such as one of each norm. Nothing else is measured of them."""

    robustness: bool = True
    """Measure accuracy on corrupted images too, in the manner of MNIST-C, on the first 2,000 of the split."""

    saved_models_dir: Path = Path("saved_models")
    """Where <model>/<version>/ lie."""

    manual_dir: Path | None = None
    """Folder with the files of a data set that must be fetched by hand."""

    data_dir: Path | None = None
    """Where tensorflow-datasets keeps its sets."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Robustness:
    """A model's accuracy on `count` images under one corruption, by severity from 1; `clean` on them as they are."""

    run_id: str
    norm: str
    corruption: str
    count: int
    clean: float
    accuracies: tuple[float, ...]
    intervals: tuple[Interval, ...]


@_strict
@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The model that was compared with, and how often only one of the two was wrong (McNemar's exact test)."""

    run_id: str
    version: int
    tree_sha256: str
    mcnemar: McNemar


@_strict
@dataclass(frozen=True, kw_only=True)
class ModelEvaluation:
    """What an evaluation found; it is of exactly one tree of files.

    Attributes:
        blessed: None without thresholds.
        openings: looks at the test split that it took.
    """

    schema_version: int = SCHEMA
    tree_sha256: str
    run_id: str
    norm: str
    created: str
    data: str
    split: str
    count: int
    openings: int = 1
    blessed: bool | None
    measures: tuple[Measure, ...]
    baseline: Baseline | None
    changes: tuple[Change, ...]
    decisions: tuple[Decision, ...]
    robustness: tuple[Robustness, ...]

    def measured(self, metric: str, slice_: str = OVERALL) -> Measure:
        """Returns a metric's measure in a slice."""
        return next(found for found in self.measures if (found.metric, found.slice) == (metric, slice_))


_ADAPTER = TypeAdapter(ModelEvaluation)


def evaluate_model(config: EvaluateConfig) -> ModelEvaluation:
    """Evaluates a model and writes what it found beside it.

    Raises:
        UsageError: the path is no model of kernorm's or was changed after its export; the thresholds, the baseline or
            the data cannot be used.
    """
    card, digest = require_whole(config.path)
    thresholds = read_thresholds(config.thresholds, card.data.labels) if config.thresholds else ()
    before = _baseline_path(config)
    others = {path: require_whole(path)[0] for path in (*config.beside, *([before] if before else []))}
    for path, other in others.items():
        _require_comparable(card, other, path)
    images, labels = _test_split(config, card)
    ask = answers(config.path)
    mine = scored(ask(images), labels)
    baseline, theirs = None, None
    if before:
        other, other_digest = require_whole(before)
        theirs = scored(answers(before)(images), labels)
        wrong = [set((~found.right).nonzero()[0].tolist()) for found in (mine, theirs)]
        baseline = Baseline(
            run_id=other.run_id, version=int(before.name), tree_sha256=other_digest, mcnemar=mcnemar(*wrong)
        )
    measures, changes = measure(mine, card.data.labels, theirs)
    decisions = decide(thresholds, measures, changes)
    found = ModelEvaluation(
        tree_sha256=digest,
        run_id=card.run_id,
        norm=str(card.config["norm"]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data=f"{card.data.name} {card.data.version}",
        split="test",
        count=len(labels),
        blessed=all(decision.passed for decision in decisions) if thresholds else None,
        measures=measures,
        baseline=baseline,
        changes=changes,
        decisions=decisions,
        robustness=_robustness(_by_run({config.path: card, **others}), images, labels) if config.robustness else (),
    )
    _write(found, config.path)
    return found


def require_whole(path: Path) -> tuple[Card, str]:
    """Returns a model's card and the hash of its files, which must be the one of its export.

    Raises:
        UsageError: it is no model of kernorm's, or was changed.
    """
    card = read_card(path)
    try:
        exported = (path / FOLDER / "tree.sha256").read_text().strip()
    except FileNotFoundError:
        exported = "none"
    digest = tree_sha256(path)
    if digest != exported:
        raise UsageError(
            "A model must be as it was exported.",
            f"{path} with the hash {digest[:12]}…, exported with {exported[:12]}…",
            "Export the run again.",
        )
    return card, digest


def read_evaluation(path: Path) -> ModelEvaluation | None:
    """Reads what an evaluation of the model in `path` found; None if there was none.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        return _ADAPTER.validate_json((path / FOLDER / EVALUATION).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"An evaluation must be whole and of schema {SCHEMA}.",
            f"{path / FOLDER / EVALUATION}: {first['msg']}",
            "Evaluate the model again.",
        ) from None


def unblessed(path: Path, digest: str) -> str:
    """Says why the model in `path` with that hash counts as not blessed; empty if it is."""
    found = read_evaluation(path)
    if found is None:
        return "it was never evaluated"
    if found.tree_sha256 != digest:
        return "its evaluation is of other files"
    if found.blessed is None:
        return "it was evaluated without thresholds"
    if not found.blessed or not (path / FOLDER / BLESSED).is_file():
        failed = [decision.sentence for decision in found.decisions if not decision.passed]
        return "; ".join(["it is not blessed", *failed[:3]])
    return ""


def answers(path: Path) -> "Ask":
    """Returns what asks the SavedModel in `path` for logits (N, K) of uint8 images (N, H, W, C), in batches."""
    import numpy as np

    whole = saved_model(path)

    def ask(images: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        return np.concatenate([whole(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])

    return ask


def latest_blessed(base: Path) -> Path | None:
    """Returns the newest version in a published model's folder that is whole and was blessed; None if there is none."""
    for number in reversed(versions(base)):
        path = base / str(number)
        try:
            _, digest = require_whole(path)
            if not unblessed(path, digest):
                return path
        except UsageError:
            continue
    return None


def _baseline_path(config: EvaluateConfig) -> Path | None:
    if config.baseline is None:
        return None
    if config.baseline != "latest":
        return Path(config.baseline)
    found = latest_blessed(config.saved_models_dir / config.model)
    if found is None:
        _say(f"baseline: none; no version under {config.saved_models_dir / config.model} is blessed")
    return found


def _require_comparable(card: Card, other: Card, path: Path) -> None:
    if (card.data.name, card.data.labels, card.data.image_shape) != (
        other.data.name,
        other.data.labels,
        other.data.image_shape,
    ):
        raise UsageError(
            "Models are compared on the same data.",
            f"{path}, of {other.data.name}, for a model of {card.data.name}",
            "Give another --baseline or --beside.",
        )
    if not path.name.isdecimal():
        raise UsageError("A baseline is a version's folder.", path, "Give saved_models/<name>/<version>.")


def _test_split(config: EvaluateConfig, card: Card) -> "tuple[NDArray[np.uint8], NDArray[np.int32]]":
    from kernorm.data import TestSplit, load_arrays

    arrays = load_arrays(card.data.name, manual_dir=config.manual_dir, data_dir=config.data_dir)
    if arrays.sha256 != card.data.sha256:
        raise UsageError(
            "A model is measured on the set that it was trained on.",
            f"{arrays.name} with the hash {arrays.sha256[:12]}…, trained on {card.data.sha256[:12]}…",
            "Give its --data-dir.",
        )
    test = TestSplit(arrays.test_images, arrays.test_labels).open(purpose="evaluation of the exported model", epoch=0)
    return test.images, test.labels


def _by_run(models: dict[Path, Card]) -> dict[Path, Card]:
    """Leaves one model a run, the first: another export of it answers the same."""
    paths: dict[str, Path] = {}
    for path, card in models.items():
        paths.setdefault(card.run_id, path)
    return {path: models[path] for path in paths.values()}


def _robustness(
    models: dict[Path, Card], images: "NDArray[np.uint8]", labels: "NDArray[np.int32]"
) -> tuple[Robustness, ...]:
    from kernorm.corruptions import corrupted

    images, labels = images[:ROBUSTNESS_IMAGES], labels[:ROBUSTNESS_IMAGES]
    count, asks = len(labels), {path: answers(path) for path in models}
    clean = {path: float((ask(images).argmax(-1) == labels).mean()) for path, ask in asks.items()}
    right: dict[tuple[Path, str], list[int]] = {}
    for name, _, changed in corrupted(images):
        for path, ask in asks.items():
            right.setdefault((path, name), []).append(int((ask(changed).argmax(-1) == labels).sum()))
    return tuple(
        Robustness(
            run_id=models[path].run_id,
            norm=str(models[path].config["norm"]),
            corruption=name,
            count=count,
            clean=clean[path],
            accuracies=tuple(number / count for number in numbers),
            intervals=tuple(wilson(number, count) for number in numbers),
        )
        for (path, name), numbers in right.items()
    )


def _write(found: ModelEvaluation, path: Path) -> None:
    folder = path / FOLDER
    for marker in (BLESSED, NOT_BLESSED):
        (folder / marker).unlink(missing_ok=True)
    write_atomically(folder / EVALUATION, _ADAPTER.dump_json(found, indent=1) + b"\n")
    write_report(path)
    if found.blessed is not None:
        write_atomically(folder / (BLESSED if found.blessed else NOT_BLESSED), f"{found.tree_sha256}\n".encode())


def write_report(path: Path) -> None:
    """Writes the report of the model in `path` from what was measured of it."""
    from kernorm.evaluation_report import render
    from kernorm.latency import read_latency

    found = read_evaluation(path)
    if found is None:
        raise UsageError("A report is of an evaluation.", f"{path}, which was never evaluated", "Evaluate it.")
    write_atomically(path / FOLDER / REPORT, render(found, read_card(path), read_latency(path)).encode())


def main(config: EvaluateConfig) -> int:
    """Evaluates a model and prints the verdict; returns 1 if it is not blessed."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = evaluate_model(config)
    for metric in ("accuracy", "cross_entropy", "brier", "ece"):
        one = found.measured(metric)
        print(f"{metric:14} {one.value:.4f} [{one.interval[0]:.4f}, {one.interval[1]:.4f}]  n = {one.count}")
    for decision in found.decisions:
        if not decision.passed:
            print(f"not passed: {decision.sentence}")
    verdict = {True: BLESSED, False: NOT_BLESSED, None: "no thresholds, no blessing"}[found.blessed]
    print(f"{verdict}\nreport   {config.path / FOLDER / REPORT}")
    return 1 if found.blessed is False else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(EvaluateConfig, main, prog=PROG))
