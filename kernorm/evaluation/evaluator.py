"""Evaluates an exported model on the test split, against thresholds and a baseline.

What is evaluated is the reloaded SavedModel, asked through `serving_default`, not the model that was trained.
"""

import datetime
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernorm.datasets.dataset import Split, load_test_split
from kernorm.datasets.splits import stratified_order
from kernorm.errors import UsageError
from kernorm.evaluation.gate import decide, measure, scored
from kernorm.evaluation.latency import read_latency
from kernorm.evaluation.report import render
from kernorm.evaluation.result import (
    BLESSED,
    NOT_BLESSED,
    REPORT,
    Baseline,
    ModelEvaluation,
    Robustness,
    blessing_problem,
    latest_blessed,
    read_evaluation,
    same_data,
    write_evaluation,
)
from kernorm.evaluation.robustness import corrupted
from kernorm.evaluation.thresholds import read_thresholds
from kernorm.limits import expanded
from kernorm.saved_model.card import FOLDER, Card, read_card
from kernorm.saved_model.inference import load_in_batches
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.versions import PUBLISHED, model_of, version_number
from kernorm.stats.comparison import mcnemar
from kernorm.stats.intervals import wilson
from kernorm.system.files import write_atomically

ROBUSTNESS_IMAGES = 2000

_LOG = logging.getLogger("kernorm")


def evaluate_model(
    path: Path,
    *,
    baseline: str | Path | None = None,
    published: Path = Path("saved_models") / PUBLISHED,
    thresholds: str | Path | None = None,
    others: Iterable[Path] = (),
    robustness: bool = True,
    manual_dir: Path | None = None,
    data_dir: Path | None = None,
) -> ModelEvaluation:
    """Evaluates an exported model on the test split and writes evaluation, report and blessing into its folder.

    Args:
        path: the model's folder.
        baseline: a model to compare with on the same images, or its folder of versions; `latest` is the newest blessed
            one in `published` that is of the same data and not this very model.
        published: folder of a published model's versions.
        thresholds: what must hold; see `read_thresholds`. None: no blessing.
        others: further models whose robustness is measured too.
        robustness: measure accuracy on corrupted images as well.
        manual_dir: folder with the original files of the data set.
        data_dir: folder of tensorflow-datasets.

    Raises:
        UsageError: the path is no model of kernorm's or was changed after its export; it is blessed, and there are no
            thresholds; the thresholds, the baseline or the data cannot be used.
    """
    card, digest = verify_integrity(path)
    limits = read_thresholds(thresholds, card.data.labels, card.data.name) if thresholds else ()
    if not thresholds and blessing_problem(path, digest) is None:
        raise UsageError(
            "A blessed model is evaluated with thresholds, since without them it would lose its blessing.",
            f"{path} without --thresholds",
            "Give those that it was blessed by, or evaluate a copy.",
        )
    before = _baseline_path(baseline, published, path)
    beside = [model_of(expanded(other)) for other in others]
    compared = {other: verify_integrity(other)[0] for other in (*beside, *([before] if before else []))}
    for other, its_card in compared.items():
        _require_comparable(card, its_card, other)
    sealed = load_test_split(card.data, manual_dir=manual_dir, data_dir=data_dir)
    test = sealed.open(purpose="evaluation of the exported model", epoch=0)
    mine = scored(load_in_batches(path)(test.images), test.labels)
    comparison, theirs = None, None
    if before:
        its_card, its_digest = verify_integrity(before)
        theirs = scored(load_in_batches(before)(test.images), test.labels)
        wrong = [set((~found.right).nonzero()[0].tolist()) for found in (mine, theirs)]
        comparison = Baseline(
            run_id=its_card.run_id, version=int(before.name), tree_sha256=its_digest, mcnemar=mcnemar(*wrong)
        )
    measures, changes = measure(mine, card.data.labels, theirs)
    decisions = decide(limits, measures, changes)
    found = ModelEvaluation(
        tree_sha256=digest,
        run_id=card.run_id,
        norm=str(card.config["norm"]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data=f"{card.data.name} {card.data.version}",
        split="test",
        count=len(test.labels),
        blessed=all(decision.passed for decision in decisions) if limits else None,
        measures=measures,
        baseline=comparison,
        changes=changes,
        decisions=decisions,
        robustness=_robustness(_by_run({path: card, **compared}), test) if robustness else (),
    )
    _write(found, path)
    return found


def _baseline_path(baseline: str | Path | None, published: Path, candidate: Path) -> Path | None:
    if baseline is None:
        return None
    if str(baseline) != "latest":
        return model_of(expanded(baseline))
    found, left_out = latest_blessed(published, candidate)
    _LOG.info(
        "baseline: %s%s",
        found or f"none; no {'other ' if left_out else ''}version under {published} is blessed and of the same data",
        f"; left out: {'; '.join(left_out)}" if left_out else "",
    )
    return found


def _require_comparable(card: Card, other: Card, path: Path) -> None:
    if not same_data(card, other):
        raise UsageError(
            "Models are compared on the same data.",
            f"{path}, of {other.data.name}, for a model of {card.data.name}",
            "Give another --baseline or --beside.",
        )
    if version_number(path.name) is None:
        raise UsageError("A baseline is a version's folder.", path, "Give saved_models/<name>/<version>.")


def _by_run(models: dict[Path, Card]) -> dict[Path, Card]:
    """Leaves one model a run, the first: another export of it answers the same."""
    paths: dict[str, Path] = {}
    for path, card in models.items():
        paths.setdefault(card.run_id, path)
    return {path: models[path] for path in paths.values()}


def _robustness(models: dict[Path, Card], test: Split) -> tuple[Robustness, ...]:
    # The first ones would be of the first classes, where images stand class by class.
    drawn = np.sort(stratified_order(test.labels)[:ROBUSTNESS_IMAGES])
    images: NDArray[np.uint8] = test.images[drawn]
    labels = test.labels[drawn]
    count, loaded = len(labels), {path: load_in_batches(path) for path in models}
    clean = {path: float((predict(images).argmax(-1) == labels).mean()) for path, predict in loaded.items()}
    right: dict[tuple[Path, str], list[int]] = {}
    for name, _, changed in corrupted(images):
        for path, predict in loaded.items():
            right.setdefault((path, name), []).append(int((predict(changed).argmax(-1) == labels).sum()))
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
    write_evaluation(found, path)
    write_report(path)
    if found.blessed is not None:
        write_atomically(folder / (BLESSED if found.blessed else NOT_BLESSED), f"{found.tree_sha256}\n".encode())


def write_report(path: Path) -> None:
    """Writes the report of the model in `path` from what was measured of it.

    Raises:
        UsageError: it was never evaluated.
    """
    found = read_evaluation(path)
    if found is None:
        raise UsageError("A report is of an evaluation.", f"{path}, which was never evaluated", "Evaluate it.")
    write_atomically(path / FOLDER / REPORT, render(found, read_card(path), read_latency(path)).encode())
