"""The steps of a whole population as compiled JAX programs: training, validation and prediction of stacked members.

Behind population.py. A member's state is what Keras' own JAX trainer keeps (trainable and non-trainable variables, the
optimizer's), each array stacked along a first axis of members, (P, …); `jax.vmap` runs the members side by side and
`shard_map` spreads them over devices, none of which needs another's. A member's λ's, rates and momenta are values of
the program, so runs that differ in these alone share one compilation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from kernorm.datasets.augment import Augmentation
from kernorm.datasets.batches import Fed
from kernorm.parallel.losses import cross_entropies, data_loss, right
from kernorm.parallel.lowering import Lowering, augment, lowered
from kernorm.records.record import PERCENTILES
from kernorm.training.averages import constrained

if TYPE_CHECKING:
    from kernorm.training.diagnostics import Watch

_MEMBERS = PartitionSpec("members")
_SHARED = PartitionSpec()


class State(NamedTuple):
    """What training changes: lists of arrays, a member each, or stacked along a first axis of members."""

    trainable: list[Any]
    fixed: list[Any]
    optimizer: list[Any]


class Hyper(NamedTuple):
    """What a member is trained by: λ's (V, 2) of its trainable variables, rate and momentum by step, (steps,) each."""

    lambdas: Any
    rates: Any
    momenta: Any


class Steps(NamedTuple):
    """What some steps found, (K,) each: loss, its part without penalties, cross-entropy in nats, and images right.

    The first three are means over the batch; the part is the cross-entropy where images count alike and targets are
    not smoothed.
    """

    loss: Any
    data: Any
    cross_entropy: Any
    right: Any


@dataclass(frozen=True)
class Memory:
    """What the programs need on each device at most, in bytes, by XLA's own account: in all, and a member."""

    total: int
    member: int


def stack(members: list[State]) -> State:
    """Stacks members' states along a new first axis."""
    return State(*([np.stack(arrays) for arrays in zip(*group, strict=True)] for group in zip(*members, strict=True)))


class Programs:
    """The programs of a population of one static config.

    Args:
        model: a member's, compiled; its variables' values are not used.
        watch: of that model.
        images: the training split's, uint8 (N, H, W, C).
        labels: (N,).
        smoothing: of targets, as `kernorm.training.losses` says.
        weights: of the classes in the loss, (K,), likewise; None: images count alike.
        augmentation: of images; its kinds count, not its sizes, which may differ between members.
        width: members side by side, P; a multiple of the number of devices.
        lowering: of the members' convolutions: grouped ones, which is what vmap makes of them, or patches.
        devices: all that JAX finds by default.
    """

    def __init__(
        self,
        model: keras.Model,
        watch: "Watch",
        images: NDArray[np.uint8],
        labels: NDArray,
        *,
        augmentation: Augmentation,
        smoothing: float = 0.0,
        weights: NDArray[np.float32] | None = None,
        width: int,
        lowering: Lowering = "grouped",
        devices: list[Any] | None = None,
    ) -> None:
        self.devices = devices or jax.devices()
        if width % len(self.devices):
            raise ValueError(f"Members are spread evenly. Received: width={width} over {len(self.devices)} devices.")
        self.mesh = Mesh(np.array(self.devices), ("members",))
        self.model, self.width, self.lowering, self.augmentation = model, width, lowering, augmentation
        self.smoothing, self.weights = smoothing, None if weights is None else jnp.asarray(weights)
        self.images, self.labels = self._put(images, _SHARED), self._put(np.asarray(labels, np.int32), _SHARED)
        # A sub-model's variables are some of the model's, in an order of its own.
        self._watched = [_places(group, model) for group in _groups(watch.activations)]
        self._watch_images = self._put(watch.images, _SHARED)
        self._activations = watch.activations
        self._own = watch.own
        self._own_images = self._put(watch.own.images, _SHARED)
        self.train = self._mapped(self._steps, (0, 0, 0, None, None, None), donate=(0,))
        self.parts = self._mapped(self._parts, (0, 0, None))
        self.scores = self._mapped(self._scores, (0, None, None))
        self.logits = self._mapped(self._logits, (0, None))
        self.percentiles = self._mapped(self._percentiles, (0, None))
        self.own_losses = self._mapped(self._own_losses, (0, None))
        self.choose = self._mapped(_choose, (0, 0, 0), donate=(2,))

    def _mapped(self, work: Callable, axes: tuple[int | None, ...], donate: tuple[int, ...] = ()) -> Any:
        """Compiles the work of one member for all, each device doing its own; an axis of None is shared."""
        specs = tuple(_SHARED if axis is None else _MEMBERS for axis in axes)

        def traced(*arguments: Any) -> Any:
            with lowered(self.model, self.lowering):
                return jax.vmap(work, in_axes=axes)(*arguments)

        spread = jax.shard_map(traced, mesh=self.mesh, in_specs=specs, out_specs=_MEMBERS, check_vma=False)
        return jax.jit(spread, donate_argnums=donate)

    def _put(self, value: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(value, NamedSharding(self.mesh, spec))

    def members(self, value: Any) -> Any:
        """Puts arrays stacked by member, (P, …), on the devices."""
        return self._put(value, _MEMBERS)

    def shared(self, value: Any) -> Any:
        """Puts arrays that all members read on every device."""
        return self._put(value, _SHARED)

    def averaged(self, state: State) -> State:
        """Returns the state with the averages of the weights in place of these, where the optimizer keeps them."""
        optimizer = self.model.optimizer
        if not optimizer.use_ema:
            return state
        places = {id(variable): place for place, variable in enumerate(optimizer.variables)}
        averages = optimizer._model_variables_moving_average
        found = [state.optimizer[places[id(average)]] for average in averages]
        trained = zip(self.model.trainable_variables, found, strict=True)
        return state._replace(trainable=[jax.vmap(partial(constrained, one))(values) for one, values in trained])

    def _call(self, state: State, images: Any, training: bool) -> tuple[Any, list[Any]]:
        return self.model.stateless_call(state.trainable, state.fixed, images, training=training)

    def _objective(self, trainable: list, state: State, hyper: Hyper, images: Any, labels: Any, training: bool) -> Any:
        """Returns the loss that is minimized, and what was found on the way.

        That is its part without penalties, the cross-entropy, images right, and the variables that are not trained.
        """
        now = state._replace(trainable=trainable)
        own: Any = 0.0
        if self._own.exist:
            logits, fixed, own = self._call_with_losses(now, images, training)
        else:
            logits, fixed = self._call(now, images, training)
        data, cross_entropy = data_loss(logits, labels, self.smoothing, self.weights)
        # Not by Keras' regularizers, which take no traced λ.
        penalty = sum(
            hyper.lambdas[index, 0] * jnp.sum(jnp.abs(weight)) + hyper.lambdas[index, 1] * jnp.sum(jnp.square(weight))
            for index, weight in enumerate(trainable)
        )
        penalty = penalty + own if self._own.exist else penalty
        return data + penalty, (data, cross_entropy, right(logits, labels), fixed)

    def _call_with_losses(self, state: State, images: Any, training: bool) -> tuple[Any, list[Any], Any]:
        """Returns the sum of the net's own losses as well."""
        with self._own.alone():
            logits, fixed, losses = self.model.stateless_call(
                state.trainable, state.fixed, images, training=training, return_losses=True
            )
        return logits, fixed, sum(losses)

    def _own_losses(self, state: State, images: Any) -> Any:
        return self._call_with_losses(state, images, False)[2]

    def _step(self, state: State, hyper: Hyper, fed: Fed, data: tuple[Any, Any]) -> tuple[State, Steps]:
        images, labels = data[0][fed.chosen], data[1][fed.chosen]
        images = augment(images, fed.maps, fed.tones, fed.displaced, self.augmentation)
        find = jax.value_and_grad(self._objective, has_aux=True)
        (loss, found), gradients = find(state.trainable, state, hyper, images, labels, True)
        part, cross_entropy, recognized, fixed = found
        optimizer = self.model.optimizer
        with optimizer.following(hyper.rates, hyper.momenta):
            trainable, slots = optimizer.stateless_apply(state.optimizer, gradients, state.trainable)
        return State(list(trainable), list(fixed), list(slots)), Steps(loss, part, cross_entropy, recognized)

    def _steps(
        self, state: State, hyper: Hyper, feed: Fed, count: Any, images: Any, labels: Any
    ) -> tuple[State, Steps]:
        """Does the first `count` of K steps."""
        data = images, labels
        if len(feed.chosen) == 1:
            state, found = self._step(state, hyper, Fed(*(drawn[0] for drawn in feed)), data)
            return state, Steps(*(value[None] for value in found))

        def step(state: State, now: tuple[Any, Fed]) -> tuple[State, Steps]:
            index, fed = now
            after, found = self._step(state, hyper, fed, data)
            return jax.tree.map(partial(jnp.where, index < count), after, state), found

        return lax.scan(step, state, (jnp.arange(len(feed.chosen)), feed))

    def _parts(self, state: State, hyper: Hyper, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        """Returns the loss that is minimized and its part without penalties on one batch, in inference mode."""
        loss, (data, *_) = self._objective(state.trainable, state, hyper, *batch, False)
        return loss, data

    def _scores(self, state: State, images: Any, labels: Any) -> tuple[Any, Any]:
        """Returns Σ cross-entropy and images right over one batch, whose padding has the label −1."""
        logits, _ = self._call(state, images, False)
        real = labels >= 0
        return jnp.sum(jnp.where(real, cross_entropies(logits, jnp.maximum(labels, 0)), 0)), right(logits, labels)

    def _logits(self, state: State, images: Any) -> Any:
        return self._call(state, images, False)[0]

    def _percentiles(self, state: State, images: Any) -> Any:
        """Returns what `"Watch"` measures of its layer."""
        values = [*state.trainable, *state.fixed]
        trainable, fixed = ([values[place] for place in places] for places in self._watched)
        activations, _ = self._activations.stateless_call(trainable, fixed, images, training=False)
        return jnp.percentile(activations, jnp.array(PERCENTILES))

    def memory(self, state: State, hyper: Hyper, feed: Fed, batch: tuple[Any, Any]) -> Memory | None:
        """Asks XLA what the programs need, state and data included; None where XLA does not say.

        Args:
            state: of the members.
            hyper: of the members.
            feed: of a dispatch.
            batch: images and labels of a batch of evaluation, which may take more than training.
        """
        programs = [
            self.train.lower(state, hyper, feed, 1, self.images, self.labels),
            self.scores.lower(state, *map(self.shared, batch)),
            self.percentiles.lower(state, self._watch_images),
        ]
        found = [program.compile().memory_analysis() for program in programs]
        if None in found:
            return None
        best = state._replace(optimizer=[])  # the variables of the best epoch, where one is selected
        held = sum(array.nbytes for array in jax.tree.leaves((state, hyper, best))) // len(self.devices)
        held += self.shared_bytes
        train, *others = found
        total = train.argument_size_in_bytes + train.output_size_in_bytes - train.alias_size_in_bytes
        total += train.temp_size_in_bytes
        total += sum(array.nbytes for array in jax.tree.leaves(best)) // len(self.devices)
        total = max(total, *(held + other.temp_size_in_bytes + other.output_size_in_bytes for other in others))
        return Memory(total=total, member=(total - self.shared_bytes) * len(self.devices) // self.width)

    @property
    def shared_bytes(self) -> int:
        """What the data takes on each device."""
        return self.images.nbytes + self.labels.nbytes

    def own(self, state: State) -> list[float | None]:
        """Returns each member's own losses on the batch that is watched; None where a net has none."""
        if not self._own.exist:
            return [None] * self.width
        return np.asarray(self.own_losses(state, self._own_images), np.float64).tolist()

    def watch(self, state: State) -> NDArray:
        """Returns PERCENTILES of the watched layer's activations, (P, 4)."""
        return np.asarray(self.percentiles(state, self._watch_images))


def _groups(model: keras.Model) -> tuple[list, list]:
    return model.trainable_variables, model.non_trainable_variables


def _places(variables: list, model: keras.Model) -> list[int]:
    """Returns where variables stand among the model's trainable ones and then the others."""
    known = {id(variable): place for place, variable in enumerate(sum(_groups(model), []))}
    return [known[id(variable)] for variable in variables]


def _choose(better: Any, now: State, best: State) -> State:
    """Returns a member's variables of now if they are better than the best so far; without the optimizer's."""
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), now._replace(optimizer=[]), best)
