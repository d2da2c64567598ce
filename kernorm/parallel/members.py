"""What a member of a population is to its program: state, hyperparameters, feed; and what a split is."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets.batches import EVALUATION_BATCH, Fed
from kernorm.nets.contents import kernels
from kernorm.nets.penalties import lambdas
from kernorm.parallel.vmap import Hyper, State

if TYPE_CHECKING:
    from kernorm.training.trainer import Trainer


def state_of(run: "Trainer") -> State:
    """Copies the state of a run."""
    model, optimizer = run.model, run.model.optimizer
    optimizer.build(model.trainable_variables)
    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    return State(*([np.array(variable) for variable in variables] for variables in groups))


def set_state(run: "Trainer", state: State) -> None:
    """Puts a state into a run's model and optimizer."""
    model, optimizer = run.model, run.model.optimizer
    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    for variables, values in zip(groups, state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def on_the_host() -> contextlib.AbstractContextManager:
    """Lets the small operations of single runs be done by the processor if JAX was given it, not by the devices."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def kept_of(run: "Trainer") -> State:
    """Returns the variables of a run's selected epoch, without the optimizer's; the run's own before its first one."""
    model = run.model
    values = run.reached.kept or [np.array(variable) for variable in model.variables]
    by_variable = {id(variable): value for variable, value in zip(model.variables, values, strict=True)}
    trainable, fixed = (
        [by_variable[id(variable)] for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    return State(trainable, fixed, optimizer=[])


def in_order(run: "Trainer", state: State, place: int) -> list[NDArray]:
    """Returns a member's variables in the model's order, as `checkpoint.variables_of` gives them."""
    model = run.model
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    by_variable = {
        id(variable): values[place]
        for variable, values in zip(variables, [*state.trainable, *state.fixed], strict=True)
    }
    return [np.array(by_variable[id(variable)]) for variable in model.variables]


def hyper_of(run: "Trainer") -> Hyper:
    """Returns what may differ between members: λ's by weight, rates and momenta by step."""
    return Hyper(lambdas(run.model, run.config), *run.tables)


def kernel_places(run: "Trainer") -> list[int]:
    """Returns where the kernels are among the trainable variables."""
    found = {id(kernel) for _, kernel in kernels(run.model)}
    return [index for index, variable in enumerate(run.model.trainable_variables) if id(variable) in found]


def sees(run: "Trainer") -> tuple:
    """Returns what decides the images that a member sees; equal for arms of a study with one seed."""
    return run.config.seed, run.batches.augmentation


def feed_of(run: "Trainer", indices: range, steps: int) -> Fed:
    """Returns what a member is fed in some steps; those that are padded are not done."""
    fed = run.batches.fed(indices)
    fed = fed._replace(chosen=fed.chosen.astype(np.int32))
    padding = (0, steps - len(indices))
    return Fed(*(np.pad(values, [padding, *[(0, 0)] * (values.ndim - 1)]) for values in fed))


def equal_batches(
    images: NDArray[np.uint8], labels: NDArray, size: int = EVALUATION_BATCH
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """Yields a split in equal batches; the last one is padded by black images of label −1."""
    for start in range(0, len(labels), size):
        part, own = images[start : start + size], labels[start : start + size]
        missing = size - len(own)
        yield (
            np.pad(part, [(0, missing), *[(0, 0)] * 3]),
            np.pad(own.astype(np.int32), (0, missing), constant_values=-1),
        )


Failed = Callable[[TrainConfig, Exception], None]


def raise_error(config: TrainConfig, error: Exception) -> None:
    """Raises a member's error."""
    raise error


@contextlib.contextmanager
def passing_errors(failed: Failed, config: TrainConfig) -> Iterator[None]:
    """Passes a member's error to `failed`."""
    try:
        yield
    except Exception as error:
        failed(config, error)
