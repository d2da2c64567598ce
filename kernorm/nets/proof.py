"""A proof, for any compiled Keras model, of which weights are penalized and whether training feels it.

Two measurements, each with the regularizers and without them: the compiled loss of one batch, and the gradient that one
training step applies. The step is the model's own, `train_step` included, so that a loop which forgets the penalty, or
takes another λ, shows. The model is left as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from kernorm.errors import UsageError
from kernorm.nets.contents import is_kernel, own_variables
from kernorm.nets.probe import gradients_of, loss_of, restored, without_regularizers
from kernorm.system.backend import keras_warnings_ignored


@dataclass(frozen=True, kw_only=True)
class PenaltyRow:
    """A weight that is a kernel or has a regularizer.

    `penalty` is what its regularizer gives, in nats, 0 where it is frozen; `formula` that of λ1·Σ|w| + λ2·Σw² in double
    precision, None for a regularizer of another kind. `felt` is the share of the penalty's gradient that a training
    step applied, 1 where it is on; None where there is none to be applied, or it is of another kind.
    """

    layer: str
    variable: str
    count: int
    kernel: bool
    trainable: bool
    regularizer: str
    l1: float
    l2: float
    penalty: float
    formula: float | None
    felt: float | None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is penalized in a model, and whether it is in its loss and in its training step.

    Attributes:
        rows: kernels and regularized weights, in the order of the model.
        in_loss: the compiled loss of the batch less that without regularizers of weights, in nats.
        by_regularizers: what the regularizers of trainable weights give.
        activity: what regularizers of activations and `add_loss` give, for this batch.
        notes: what to know although it is no fault: frozen layers, kernels without a penalty, weight decay.
        problems: what is not as it should be, in words; empty if all holds.
    """

    rows: tuple[PenaltyRow, ...]
    in_loss: float
    by_regularizers: float
    activity: float
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Tells whether every penalty is in the loss and in the training step, as stated."""
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.by_regularizers:.6g} nats of penalty by formula, {self.in_loss:.6g} in the compiled loss"
        rows = [
            f"  {row.variable}: {row.regularizer or 'no regularizer'}"
            f"{f' λ1={row.l1:g} λ2={row.l2:g}, {row.penalty:.6g} nats' if row.regularizer else ''}"
            f"{'' if row.felt is None else f', {row.felt:.3g} of it in the training step'}"
            for row in self.rows
        ]
        verdict = ["The penalty is on."] if self.holds else [f"✗ {problem}" for problem in self.problems]
        return "\n".join([head, *rows, *self.notes, *verdict])


@keras_warnings_ignored()
def prove_penalty(model: keras.Model, x: Any, y: Any, *, l1: float | None = None, l2: float | None = None) -> Proof:
    """Proves for any compiled model which weights are penalized, and whether its training feels it.

    Args:
        model: compiled and built; left as it was.
        x: a batch of inputs, as `fit` takes it.
        y: its targets.
        l1: the λ1 that you believe to be on every kernel; None: not stated.
        l2: the λ2, of Keras' convention: PyTorch's weight_decay=λ is l2=λ/2.

    Raises:
        UsageError: the model is not compiled, or cannot take the batch.
    """
    if not model.compiled:
        raise UsageError("A penalty is proven in a compiled model.", f"{model.name}, which is not", "Call compile().")
    try:
        total = loss_of(model, x, y)
    except (ValueError, TypeError, AttributeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError("A penalty is proven on a batch that the model takes.", line, "Give x and y of one.") from None
    pairs = own_variables(model)
    kinds = [variable.regularizer for _, variable in pairs]
    with without_regularizers(model, activities=True):
        no_activities = loss_of(model, x, y)
    with without_regularizers(model, activities=True, weights=True):
        bare = loss_of(model, x, y)
    felt = _felt(model, x, y)
    trained = {id(variable) for variable in model.trainable_variables}
    rows = tuple(
        _row(layer, variable, kind, id(variable) in trained, felt)
        for (layer, variable), kind in zip(pairs, kinds, strict=True)
        if kind is not None or is_kernel(variable)
    )
    proof = Proof(
        rows=rows,
        in_loss=no_activities - bare,
        by_regularizers=sum(row.penalty for row in rows),
        activity=total - no_activities,
        notes=tuple(_notes(rows, total - no_activities, model.optimizer)),
        problems=(),
    )
    problems = [*_loss_problems(proof, total), *_step_problems(rows, felt), *_stated_problems(rows, l1, l2)]
    return replace(proof, problems=tuple(problems))


def _row(layer: Any, variable: Any, kind: Any, trained: bool, felt: dict[int, float] | None) -> PenaltyRow:
    values = ops.convert_to_numpy(variable).astype(np.float64)
    lambdas = _lambdas(kind)
    formula = (
        None if lambdas is None else float(lambdas[0] * np.abs(values).sum() + lambdas[1] * np.square(values).sum())
    )
    penalty = float(ops.sum(kind(variable))) if kind is not None and trained else 0.0
    return PenaltyRow(
        layer=layer.name,
        variable=variable.path,
        count=int(values.size),
        kernel=is_kernel(variable),
        trainable=trained,
        regularizer=type(kind).__name__ if kind is not None else "",
        l1=lambdas[0] if lambdas else 0.0,
        l2=lambdas[1] if lambdas else 0.0,
        penalty=penalty,
        formula=formula if kind is not None and trained else None,
        felt=(felt or {}).get(id(variable)) if trained else None,
    )


def _lambdas(kind: Any) -> tuple[float, float] | None:
    """Returns λ1 and λ2 of one of Keras' regularizers; None for any other."""
    match kind:
        case None:
            return 0.0, 0.0
        case keras.regularizers.L1L2():
            return _single(kind.l1), _single(kind.l2)
        case keras.regularizers.L1():
            return _single(kind.l1), 0.0
        case keras.regularizers.L2():
            return 0.0, _single(kind.l2)
    return None


def _single(value: Any) -> float:
    """Returns the number that was meant by one in single precision."""
    return float(f"{float(value):.7g}")


def _felt(model: Any, x: Any, y: Any) -> dict[int, float] | None:
    """Returns of each penalized variable the share of its penalty's gradient that a training step applies.

    None if the step does not use the compiled optimizer.
    """
    with restored(model):
        weights = {id(v): ops.convert_to_numpy(v).astype(np.float64) for v in model.trainable_variables}
        with_penalty = gradients_of(model, x, y)
        with without_regularizers(model, weights=True):
            without = gradients_of(model, x, y)
    if all(np.array_equal(weights[key], gradient) for key, gradient in without.items()):
        return None
    found = {}
    for variable in model.trainable_variables:
        key, kind = id(variable), variable.regularizer
        if kind is None:
            continue
        change, lambdas = with_penalty[key] - without[key], _lambdas(kind)
        if lambdas is None:
            found[key] = 1.0 if np.abs(change).max() > 0 else 0.0
            continue
        wanted = lambdas[0] * np.sign(weights[key]) + 2 * lambdas[1] * weights[key]
        if wanted.any():
            found[key] = float((change * wanted).sum() / np.square(wanted).sum())
    return found


def _notes(rows: tuple[PenaltyRow, ...], activity: float, optimizer: Any) -> Iterator[str]:
    """Says what a reader should know although it is no fault."""
    if frozen := [row.variable for row in rows if row.regularizer and not row.trainable]:
        yield f"Frozen, so that their regularizers add nothing: {', '.join(frozen)}."
    if bare := [row.variable for row in rows if row.kernel and row.trainable and not row.regularizer]:
        yield f"Kernels without a penalty: {', '.join(bare)}."
    if activity:
        yield f"Regularizers of activations add {activity:.6g} on this batch."
    if decay := getattr(optimizer, "weight_decay", None):
        yield f"The optimizer's weight decay of {float(decay):g} is decoupled: it is in no loss."


def _loss_problems(proof: Proof, total: float) -> Iterator[str]:
    # The difference of two single-precision sums carries their rounding.
    tolerance = 1e-3 * proof.by_regularizers + 1e-5 * max(1.0, abs(total))
    if not abs(proof.in_loss - proof.by_regularizers) <= tolerance:
        yield (
            f"The compiled loss holds {proof.in_loss:.6g} nats of penalty; the regularizers give "
            f"{proof.by_regularizers:.6g}."
        )
    for row in proof.rows:
        if row.formula is not None and not abs(row.penalty - row.formula) <= 1e-3 * row.formula + 1e-7:
            yield f"{row.variable}: its {row.regularizer} gives {row.penalty:.6g}, the formula {row.formula:.6g}."


def _step_problems(rows: tuple[PenaltyRow, ...], felt: dict[int, float] | None) -> Iterator[str]:
    if felt is None:
        yield "The training step does not use the compiled optimizer, so that what it applies cannot be seen."
        return
    for row in rows:
        if row.felt is None or abs(row.felt - 1) <= 0.01:
            continue
        if abs(row.felt) <= 0.01:
            yield f"{row.variable}: the training step does not apply its penalty."
        else:
            yield f"{row.variable}: the training step applies {row.felt:.3g} times its penalty."


def _stated_problems(rows: tuple[PenaltyRow, ...], l1: float | None, l2: float | None) -> Iterator[str]:
    if l1 is None and l2 is None:
        if not any(row.regularizer and row.trainable for row in rows):
            yield "No weight that is trained has a regularizer."
        return
    for row in rows:
        if row.kernel and row.trainable:
            for name, stated, on in (("λ1", l1, row.l1), ("λ2", l2, row.l2)):
                if stated is not None and not abs(on - stated) <= 1e-6 * stated:
                    yield f"{row.variable}: {name} = {stated:g} is stated, {on:g} is on."
