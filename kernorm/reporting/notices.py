"""What a reader must know of a run before believing its numbers, in plain words.

Before the pages of runs; those of studies say some of it too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kernorm.by_layer import layer_settings
from kernorm.records.data import Duplicates
from kernorm.records.record import Evaluation, Record
from kernorm.reporting.format import concise, moment, points, unpredicted
from kernorm.stats.scores import BY_CLASS, resolution


@dataclass(frozen=True)
class Notice:
    """One plain statement about how the run was done, and whether it is good news."""

    kind: Literal["good", "note", "warning", "bad"]
    title: str
    text: str


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
    if record.data.name == "mnist" and record.test and record.validation:
        gain = record.test.accuracy - record.validation.accuracy
        found += [Notice("note", EASIER, easier(gain))] if gain > 0 else []
    if record.data.duplicates:
        found.append(duplicates_notice(record.data.name, record.data.duplicates))
    order = ("bad", "warning", "good", "note")
    return sorted(found, key=lambda verdict: order.index(verdict.kind))


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


EASIER = "MNIST's test split is the easier one"


def easier(gain: float) -> str:
    """Says what a test accuracy above that of validation is worth on MNIST; `gain` is the difference."""
    return (
        f"Test accuracy is {100 * gain:.2f} points above validation accuracy, as with other nets: images held out from "
        "MNIST's training files are harder than its test files. It is no sign of good generalization; compare test "
        "accuracies with test accuracies alone."
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
    where = f"λ1 = {concise(config.l1)}, λ2 = {concise(config.l2)} on {scope}"
    where += f", other values in single layers: {' '.join(config.penalty_at)}" if config.penalty_at else ""
    if record.history and (own := record.history[0].own_losses):
        where += f"; the net's own losses, {own:.6g} on a batch at the start, are apart from it"
    if proof is None:
        kind: Literal["warning", "note"] = "warning" if on else "note"
        return Notice(kind, f"The penalty is {'on, but unchecked' if on else 'off'}", f"{where}. It was not measured.")
    measured, formula = proof
    found = (
        f"Before the first step, the loss of one batch held a penalty of {measured:.6g}; λ1·Σ|w| + λ2·Σw² over the "
        f"same weights is {formula:.6g}."
    )
    if last := record.penalty_proof_last:
        found += f" After the last epoch they are {last[0]:.6g} and {last[1]:.6g}."
    if not on and measured == 0:
        text = "Every λ is 0, and before the first step the loss of one batch held no penalty."
        return Notice("note", "The penalty is off", text)
    checked = [pair for pair in (proof, record.penalty_proof_last) if pair]
    if on and all(held > 0 and math.isclose(held, due, rel_tol=1e-3) for held, due in checked):
        when = "before the first step and after the last epoch" if len(checked) == 2 else "before the first step"
        return Notice("good", f"The penalty was on {when}", f"{where}. {found}")
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
