"""The report of one run: report.html, which opens offline, and its charts as PNG files.

Everything shown is read or recomputed from the record; the page's words are in
report.html.j2, its looks in report.css.
"""

import dataclasses
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from kernorm.by_layer import layer_settings
from kernorm.records.data import Duplicates
from kernorm.records.record import THRESHOLDS, Evaluation, Record
from kernorm.reporting.charts import FEW, TINY, charts
from kernorm.reporting.command import command
from kernorm.reporting.figures import to_png, to_svg
from kernorm.reporting.format import moment, name_of, points, unpredicted, worst_class
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.page import mistakes_as_uris, page_renderer
from kernorm.stats.scores import BY_CLASS, class_accuracies, frequent_confusions, is_uneven, resolution
from kernorm.system.files import write_atomically


@dataclass(frozen=True)
class Notice:
    """One plain statement about how the run was done, and whether it is good news."""

    kind: Literal["good", "note", "warning", "bad"]
    title: str
    text: str


def write_report(record: Record, folder: Path, mistakes: NDArray[np.uint8]) -> Path:
    """Writes report.html and the PNG files of its charts into `folder`, each atomically, and returns the page's path.

    `mistakes` (M, H, W, C) are the images of `drawn_mistakes` of the test evaluation, in their order; none where the
    config wants no pictures.

    Raises:
        ValueError: there are more or fewer images than that.
        OSError: the disk is full or the folder cannot be written.
    """
    expected = len(drawn_mistakes(record.test, record.config))
    if len(mistakes) != expected:
        raise ValueError(
            "A report takes an image for each mistake that is drawn from the test split. Received: "
            f"{len(mistakes)} images for {expected} mistakes. Give those of drawn_mistakes(record.test)."
        )
    drawn = charts(record, mistakes)
    for name, group in drawn.items():
        write_atomically(folder / f"{name}.png", to_png(group, record.run_id))
    # The page shows the misclassified images as pixels of their own, which stay sharp and follow the theme.
    panels = {panel.name: panel for name, group in drawn.items() if name != "misclassified" for panel in group}
    svgs = {name: Markup(to_svg(panel)) for name, panel in panels.items()}
    template = page_renderer().get_template("report.html.j2")
    page = template.render(panels=panels, svgs=svgs, **_context(record, mistakes))
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def notices(record: Record) -> list[Notice]:
    """Says in plain words what a reader must know before believing the numbers, most serious first."""
    found = [_openings(record), _penalty(record)]
    if record.status in ("running", "finished"):
        found.insert(0, _selection(record))
    if record.status != "finished":
        found.insert(0, _unfinished(record))
    if record.test:
        found += [_resolution(record.test), *_unpredicted(record.test, record.data.labels)]
    found += _left_norms(record)
    if record.data.duplicates:
        found.append(duplicates_notice(record.data.name, record.data.duplicates))
    order = ("bad", "warning", "good", "note")
    return sorted(found, key=lambda verdict: order.index(verdict.kind))


def _context(record: Record, mistakes: NDArray[np.uint8]) -> dict[str, Any]:
    evaluation = record.test or record.validation
    splits = [split for split in (record.train, record.validation, record.test) if split]
    settings = [
        (field.name, getattr(record.config, field.name), field.default)
        for field in dataclasses.fields(record.config)
        if field.name not in ("net_source", "net_weights")
    ]
    return {
        "record": record,
        "evaluation": evaluation,
        "verdicts": notices(record),
        "splits": splits,
        "accuracies": {split.split: split for split in splits},
        "strips": _strips(splits),
        "by_class": {split.split: {key: of(split.confusion) for key, of in BY_CLASS.items()} for split in splits},
        "uneven": record.test is not None and is_uneven(map(sum, record.test.confusion)),
        "worst_class": partial(worst_class, labels=record.data.labels),
        "name": partial(name_of, labels=record.data.labels),
        "tiles": list(zip(mistakes_as_uris(mistakes), drawn_mistakes(record.test), strict=False)),
        "class_accuracies": class_accuracies(evaluation.confusion) if evaluation else (),
        "confusions": frequent_confusions(record.test.confusion, 16) if record.test else [],
        "sure_mistakes": sum(mistake.confidence > 0.9 for mistake in record.test.mistakes) if record.test else 0,
        "taken_for": partial(_taken_for, evaluation.confusion if evaluation else ()),
        "many_classes": evaluation is not None and len(evaluation.confusion) > FEW,
        "thresholds": THRESHOLDS,
        "tiny": TINY,
        "grouped": any(layer.groups is not None for layer in record.layers),
        "settings": settings,
        "changed": [setting for setting in settings if setting[1] != setting[2] and setting[0] != "dataset"],
        "command": command(record.config, record.environment.backend, record.run_id),
        **_serving(record),
        "sizes": {"train": record.data.train, "validation": record.data.validation, "test": record.data.test},
    }


def _strips(splits: Iterable[Evaluation]) -> dict[str, tuple[float, float, float]]:
    """Places each split's interval on one scale from 0 to 100: its start, its width and the accuracy."""
    splits = list(splits)
    low = min((split.interval[0] for split in splits), default=0.0)
    high = max((split.interval[1] for split in splits), default=1.0)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        split.split: (
            place(split.interval[0]),
            round(place(split.interval[1]) - place(split.interval[0]), 2),
            place(split.accuracy),
        )
        for split in splits
    }


def _taken_for(confusion: Sequence[Sequence[int]], target: int) -> list[tuple[int, int]]:
    """Returns the wrong predictions for a class with their counts, the most frequent first."""
    wrong = [
        (prediction, count) for prediction, count in enumerate(confusion[target]) if count and prediction != target
    ]
    return sorted(wrong, key=lambda pair: -pair[1])


def _serving(record: Record) -> dict[str, str]:
    if not (record.export and record.export.path):
        return {}
    path = Path(record.export.path)
    return {
        "serve": "tensorflow_model_server --rest_api_port=8501 --model_name=kernorm "
        f'--model_base_path="$(realpath {shlex.quote(str(path.parent))})"',
    }


def _unfinished(record: Record) -> Notice:
    done = record.history[-1].epoch if record.history else 0
    when = f"After {done} of {record.config.epochs} epochs"
    if record.status == "running":
        return Notice("warning", "The run is not finished", f"{when}. These numbers will change.")
    title = "Training diverged" if record.status == "diverged" else "The run failed"
    return Notice("bad", title, f"{when}: {record.message or 'no message was left.'}")


def _selection(record: Record) -> Notice:
    epochs, kept, data = record.config.epochs, record.selected_epoch, record.data
    which = "No epoch has been kept yet." if kept is None else f"Epoch {kept} of {epochs} was kept"
    if record.config.select == "test":
        text = f"{which}: the best on the test split itself, after as many looks at it as epochs. "
        return Notice(
            "warning",
            "The test split selected the weights",
            f"{text}Its test accuracy is the maximum of them, hence biased upward; compare it only with "
            "results that were selected the same way.",
        )
    if record.config.select == "validation":
        return Notice(
            "good",
            "The validation split selected the weights",
            f"{which}, the best on {data.validation:,} validation images. {_stopped(record)}The validation score is "
            "slightly biased upward by that, the test score is not.",
        )
    text = f"The last epoch{'' if kept is None else f', {kept},'} is kept, as decided before training."
    if record.monitored == "test":
        return Notice("warning", "The test split was watched during training", f"{text} Nobody should tune by it.")
    return Notice("good", "No split selected the weights", text)


def _stopped(record: Record) -> str:
    """Says when and why training ended before its last epoch; nothing if it did not."""
    if record.stopped_epoch is None:
        return ""
    config = record.config
    least = f" by more than {100 * config.min_delta:g} points" if config.min_delta else ""
    return (
        f"Training stopped after epoch {record.stopped_epoch}: {config.patience} in a row were not better{least} "
        f"(--patience). "
    )


def _openings(record: Record) -> Notice:
    looks = record.openings
    if not looks:
        return Notice("note", "The test split was not opened", f"Its {record.data.test:,} images are still unseen.")
    first, last = (f"after epoch {look.epoch} ({moment(look.time)})" for look in (looks[0], looks[-1]))
    if len(looks) == 1:
        return Notice("good", "The test split was opened once", f"For: {looks[0].purpose}, {first}.")
    purposes = ", ".join(dict.fromkeys(look.purpose for look in looks))
    return Notice(
        "warning", f"The test split was opened {len(looks)} times", f"For: {purposes}. First {first}, last {last}."
    )


def duplicates_notice(name: str, found: Duplicates) -> Notice:
    """Says how many images of a data set stand in it more than once; a warning above 0."""
    text = f"In {name}, by exact pixels: {found}."
    if found.across:
        return Notice("warning", f"{found.across:,} test images stand in training too", text)
    if found.train or found.test:
        return Notice("warning", "Some images stand in their split more than once", text)
    return Notice("good", "No image stands in the set twice", text)


def _unpredicted(test: Evaluation, labels: Sequence[str]) -> list[Notice]:
    """Names the classes of the test split that no image was taken for."""
    found = unpredicted(test.confusion, labels)
    if found is None:
        return []
    title, names = found
    mean = 100 * BY_CLASS["balanced_accuracy"](test.confusion)
    return [Notice("bad", title, f"{names}. The balanced accuracy, the mean over classes, is {mean:.1f} %.")]


def _left_norms(record: Record) -> list[Notice]:
    """Names the norms of an own net that no setting has chosen."""
    chosen = {record.config.norm, *layer_settings("norm_at", record.config.norm_at).values()}
    left = [f"{layer.name} ({layer.norm})" for layer in record.layers if layer.norm and layer.norm not in chosen]
    if not left or record.config.net_source is None:
        return []
    text = f"{', '.join(left)}: the net's own, which stay in every arm of a comparison. Let `conv` make them."
    return [Notice("warning", "Some norms are not those of --norm", text)]


def _penalty(record: Record) -> Notice:
    config, proof = record.config, record.penalty_proof
    on = any([config.l1, config.l2, *(layer.l1 or layer.l2 for layer in record.layers)])
    scope = "every kernel" if config.penalize == "kernels" else "every kernel and the norms' scales and offsets"
    where = f"λ1 = {config.l1:g}, λ2 = {config.l2:g} on {scope}"
    where += f", other values in single layers: {' '.join(config.penalty_at)}" if config.penalty_at else ""
    if record.history and (own := record.history[0].own_losses):
        where += f"; the net's own losses, {own:.6g} on a batch at the start, are apart from it"
    if proof is None:
        kind: Literal["warning", "note"] = "warning" if on else "note"
        return Notice(kind, f"The penalty is {'on, but unproven' if on else 'off'}", f"{where}. It was not measured.")
    measured, formula = proof
    found = (
        f"The loss of the first step held a penalty of {measured:.6g}; λ1·Σ|w| + λ2·Σw² over the same weights "
        f"is {formula:.6g}."
    )
    if not on and measured == 0:
        return Notice("note", "The penalty is off", "Every λ is 0, and the loss of the first step held no penalty.")
    if on and measured > 0 and math.isclose(measured, formula, rel_tol=1e-3):
        return Notice("good", "The penalty is on, and proven", f"{where}. {found}")
    title = "The penalty was not applied" if on and measured == 0 else "The penalty is not what was asked for"
    return Notice("bad", title, f"{where}. {found}")


def _resolution(test: Evaluation) -> Notice:
    least = points(resolution(test.accuracy, test.count), test.count).lstrip("+")
    return Notice(
        "note",
        "One run, one seed",
        f"On {test.count:,} images another single run must differ by more than {least} to be distinguishable "
        "from this one. Another seed (`--seed 1`) moves the result too.",
    )
