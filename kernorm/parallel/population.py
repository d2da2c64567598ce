"""Trains many runs at once on one accelerator, as one program: `train_population(configs)`, on the JAX backend.

Beside train.py, whose folders, locks, checkpoints and records it shares: a member is an ordinary run, and whichever of
the two trained it, the other goes on with it. Runs of the same static config (grouping.py) are stacked, padded to one
of WIDTHS and trained by the programs of device.py. Study and search reach it by `--population`.
"""

import contextlib
import gc
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.datasets.dataset import Split, load
from kernorm.errors import UsageError
from kernorm.nets.penalties import check_penalty, lambdas, penalty_of
from kernorm.parallel.grouping import WIDTHS, grouped, padded
from kernorm.parallel.vmap import LOWERINGS, Feed, Hyper, Lowering, Memory, Programs, State, Steps, stack
from kernorm.records.history import write_history
from kernorm.records.record import THRESHOLDS, Epoch, Record
from kernorm.system.backend import require_jax
from kernorm.training.callbacks import Diverged
from kernorm.training.diagnostics import pruned
from kernorm.training.run import (
    check_config,
    complete_if_trained,
    fail,
    finish,
    locked_run_folder,
    start_or_resume,
    train,
)
from kernorm.training.trainer import EVALUATION_BATCH, Logits, Trainer

# Of the device's free memory that `auto` uses.
SHARE_OF_MEMORY = 0.8
# Steps a dispatch on an accelerator.
STEPS = 32
# Between two writings of all members' checkpoints; a killed population loses at most so much.
SAVE_SECONDS = 30.0

_LOG = logging.getLogger("kernorm")
Failed = Callable[[TrainConfig, Exception], None]
# What calibration has found in this process.
_FASTER: dict[tuple, Lowering] = {}


def train_population(
    configs: Sequence[TrainConfig],
    *,
    width: int | None = None,
    lowering: Lowering | None = None,
    failed: Failed | None = None,
    memory: float = 1.0,
) -> list[Record]:
    """Trains, measures, reports and exports many runs side by side, or what is left of them, as `train` does each.

    A member whose loss is no longer finite ends as `diverged` and leaves the others alone.

    Args:
        configs: of the members, no run twice.
        width: members side by side at most. None: as many as fit the device's memory, up to the largest of WIDTHS; on
            a CPU, where side by side is slower, one after another.
        lowering: of their convolutions. None: the faster one, by a short calibration on an accelerator.
        failed: told of each member that cannot be trained or measured, which is then left out. None: the first such
            error is raised, once the members begun before it have ended.
        memory: share of the devices' memory that is this population's, where others train beside it.

    Returns:
        Their records, in the order of the configs.

    Raises:
        UsageError: the backend is not JAX, a run is there twice or held by another process, or as `train` raises it.
        RuntimeError: a penalty is not in the loss as configured.
    """
    require_jax()
    names = [config.run_id for config in configs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError("A population's members differ.", f"{twice} twice", "Leave one away.")
    _keep_compiled()
    errors: list[Exception] = []
    told = failed or (lambda _, error: errors.append(error))
    records: dict[str, Record] = {}
    if width is None and jax.default_backend() == "cpu":
        for config in configs:
            with _telling(told, config):
                records[config.run_id] = train(config)
    else:
        for group in grouped(configs):
            limit = width or WIDTHS[-1]
            for start in range(0, len(group), limit):
                records |= _train_group(group[start : start + limit], width, lowering, told, memory)
    if errors:
        raise errors[0]
    return [records[name] for name in names if name in records]


@contextlib.contextmanager
def _telling(failed: Failed, config: TrainConfig) -> Iterator[None]:
    """Takes an error of one member to the one who is to be told."""
    try:
        yield
    except Exception as error:
        failed(config, error)


def _keep_compiled() -> None:
    """Lets JAX keep what it compiles in kernorm's cache, unless it was told where, for later populations."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache.cache_dir() / "xla"))
        # Also the hundred small programs that begin a run.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _train_group(
    configs: Sequence[TrainConfig], width: int | None, lowering: Lowering | None, failed: Failed, memory: float
) -> dict[str, Record]:
    """Trains runs of one static config; returns their records by run id."""
    records: dict[str, Record] = {}
    with contextlib.ExitStack() as held:
        # Members that have come as far as each other go on together: Hyperband's survivors, an interrupted population.
        together: dict[tuple[int, int, bool], list[Trainer]] = {}
        data = None
        for config in configs:
            with _telling(failed, config), _on_the_host():
                if config.track != "none":
                    raise UsageError(
                        "A tracker follows one run.", f"track={config.track!r} in a population", "Leave it away."
                    )
                check_config(config)
                folder = held.enter_context(locked_run_folder(config))
                if record := complete_if_trained(config, folder):
                    records[config.run_id] = record
                    continue
                data = data or load(config)
                run, done = start_or_resume(config, folder, data._replace(test=data.test.sealed_again()))
                together.setdefault((done, run.last, config.stop_after is None), []).append(run)
        for (done, *_), runs in together.items():
            limit = width or WIDTHS[-1]
            while runs:
                members, ended = runs[:limit], {}
                try:
                    population = Population(members, done, width=width, lowering=lowering, failed=failed, memory=memory)
                    members, ended = population.runs, population.ended
                    limit = min(limit, population.count)
                    population.train()
                except Exception as error:  # of what they share: the device, its memory
                    for place, run in enumerate(members):
                        if place not in ended:
                            failed(run.config, error)
                records |= {members[place].config.run_id: record for place, record in ended.items() if record}
                runs = runs[len(members) :]
                population = None  # type: ignore[assignment]
                gc.collect()  # so that what it held is free when the next one asks
    return records


def _on_the_host() -> contextlib.AbstractContextManager:
    """Lets what begins a run, a hundred small operations, be done by the processor if JAX was given it."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


class Population:
    """Runs of one static config, side by side from the same epoch on.

    Args:
        runs: begun; as many of the first as memory allows are its members, `count`.
        done: epochs behind them.
        width: members at most; None: as many as memory allows.
        lowering: of their convolutions; None: the faster one.
        steps: a dispatch, about; None: STEPS on an accelerator, 1 on a CPU.
        devices: all that JAX finds by default.
        failed: told of a member that cannot be measured; None: its error is raised.
        memory: share of the devices' memory that is this population's.
    """

    def __init__(
        self,
        runs: Sequence[Trainer],
        done: int,
        *,
        width: int | None = None,
        lowering: Lowering | None = None,
        steps: int | None = None,
        devices: list | None = None,
        failed: Failed | None = None,
        memory: float = 1.0,
    ) -> None:
        self.devices = devices or jax.devices()
        first = runs[0]
        self.done, self.last, self.data = done, first.last, first.data
        ranges = first.batches.ranges
        self.interpolation = ranges.interpolation if ranges.active else None
        # On a CPU XLA runs convolutions inside a loop without threads (jax issue 12868).
        self.steps = steps or (STEPS if self._accelerated else 1)
        self.failed, self.memory = failed or _raising, SHARE_OF_MEMORY * memory
        self._place(runs, width)
        self._choose(runs, [lowering] if lowering else list(LOWERINGS), width)
        self.ended: dict[int, Record | None] = {}
        self.monitored = first.monitored_split() if done < self.last else None
        for run in self.runs[1:] if done < self.last else ():
            run.monitored_split()
        for run in self.runs:
            run.record = replace(run.record, environment=replace(run.record.environment, population=self.count))
        self.saved = time.monotonic()

    def _place(self, runs: Sequence[Trainer], width: int | None) -> None:
        """Makes these runs the members, at most `width` of them."""
        self.runs = list(runs[: width or WIDTHS[-1]])
        self.count = len(self.runs)
        self.width = padded(self.count, width or WIDTHS[-1], len(self.devices))
        # Padding is the first member once more; nothing reads what becomes of it.
        slots = [*range(self.count), *[0] * (self.width - self.count)]
        self.slots = [self.runs[slot] for slot in slots]
        states, hypers = [state_of(run) for run in self.runs], [_hyper(run) for run in self.runs]
        columns = zip(*(hypers[slot] for slot in slots), strict=True)
        self._begin = stack([states[slot] for slot in slots])
        self._hyper = Hyper(*(np.stack(column).astype(np.float32) for column in columns))
        self._programs: dict[Lowering, Programs] = {}

    def _choose(self, runs: Sequence[Trainer], lowerings: list[Lowering], width: int | None) -> None:
        """Loads the members by the faster lowering; fewer of them where the width is free and they do not fit."""
        if not self._accelerated:
            self._load(lowerings[0])
            return
        free = self._free()
        while True:
            fitting = [lowering for lowering in lowerings if self._fits(lowering, free)]
            narrower = [
                limit for limit in WIDTHS if padded(min(limit, len(runs)), limit, len(self.devices)) < self.width
            ]
            if fitting or width is not None or not narrower:
                break
            self._place(runs, narrower[-1])
        self._load(self._faster(fitting or lowerings))

    @property
    def _accelerated(self) -> bool:
        return self.devices[0].platform != "cpu"

    def _load(self, lowering: Lowering) -> None:
        """Puts the members' state, as they begin, and the data on the devices."""
        first = self.runs[0]
        if lowering not in self._programs:
            self._programs[lowering] = Programs(
                first.model,
                first.watch,
                *self.data.train,
                interpolation=self.interpolation,
                width=self.width,
                lowering=lowering,
                devices=self.devices,
            )
        self.programs = self._programs[lowering]
        self.state, self.hyper = self.programs.members(self._begin), self.programs.members(self._hyper)

    def _free(self) -> int | None:
        """Asks how many bytes of a device's memory are free, before anything of this population is there."""
        stats = self.devices[0].memory_stats()
        return stats["bytes_limit"] - stats["bytes_in_use"] if stats else None

    def _fits(self, lowering: Lowering, free: int | None) -> bool:
        """Tells whether the programs need no more than their share of the free memory; says what they need."""
        try:
            memory = self.needs(lowering)
        except jax.errors.JaxRuntimeError as error:  # trying ways to convolve can run out of memory by itself
            _LOG.info(f"{lowering} convolutions, {self.width} wide: {str(error).partition(chr(10))[0]}")
            return False
        if memory is None or free is None:
            return True
        _LOG.info(
            f"device memory, {lowering}: {memory.member / 2**20:.1f} MiB a member, {memory.total / 2**20:.0f} MiB "
            f"on each device for {self.width}, {self.memory * free / 2**20:.0f} MiB allowed"
        )
        return memory.total <= self.memory * free

    def needs(self, lowering: Lowering) -> Memory | None:
        """Asks what a program with this lowering needs of each device; None where XLA does not tell."""
        self._load(lowering)
        _, feed = next(self._feeds(self.done))
        return self.programs.memory(self.state, self.hyper, feed, next(_batches(*self.data.train)))

    def _faster(self, lowerings: list[Lowering]) -> Lowering:
        """Times a dispatch of each lowering, once a process for a net and width, and leaves no trace in a run."""
        config = self.runs[0].config
        key = (config.net, self.data.info.image_shape, config.batch_size, self.width, *lowerings)
        if len(lowerings) > 1 and key not in _FASTER:
            seconds: dict[Lowering, float] = {}
            for lowering in lowerings:
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    seconds[lowering] = self._step_seconds(lowering)
            _LOG.info(
                "milliseconds a step: " + ", ".join(f"{name} {1e3 * taken:.2f}" for name, taken in seconds.items())
            )
            _FASTER[key] = min(seconds, key=seconds.__getitem__, default=lowerings[0])
        return _FASTER.get(key, lowerings[0])

    def _step_seconds(self, lowering: Lowering) -> float:
        self._load(lowering)
        count, feed = next(self._feeds(self.done))
        for _ in range(2):  # the first one compiles
            begun_at = time.perf_counter()
            self.state, found = self._train(feed, count)
            jax.block_until_ready(found)
            taken = time.perf_counter() - begun_at
        return taken / count

    def _feeds(self, epoch: int) -> Iterator[tuple[int, Feed]]:
        """Yields the steps of an epoch, from 0, as dispatches: how many, and what is fed.

        All have as many, padded by steps that are not done; a smaller last batch comes by itself.
        """
        for run in self.runs:
            run.batches.epoch = epoch
        batches = self.runs[0].batches
        full = len(batches.labels) // batches.batch_size
        steps = math.ceil(full / math.ceil(full / self.steps))
        starts = [(range(start, min(start + steps, full)), steps) for start in range(0, full, steps)]
        if full < batches.num_batches:
            starts.append((range(full, batches.num_batches), 1))
        for indices, steps in starts:
            # Members of one seed and one augmentation see the same images: arms of a study.
            fed: dict[tuple, Feed] = {}
            for run in self.runs:
                if (key := _sees(run)) not in fed:
                    fed[key] = _fed(run, indices, steps, self.interpolation is not None)
            columns = zip(*(fed[_sees(run)] for run in self.slots), strict=True)
            yield len(indices), self.programs.members(Feed(*map(np.stack, columns)))

    def _train(self, feed: Feed, count: int) -> tuple[State, Steps]:
        programs = self.programs
        return programs.train(self.state, self.hyper, feed, count, programs.images, programs.labels)

    def prove(self) -> None:
        """Proves that the loss that is minimized holds each member's penalty, as the formula gives it."""
        first = self.runs[0]
        size = first.config.batch_size
        probe = self.programs.shared((self.data.train.images[:size], np.asarray(self.data.train.labels[:size])))
        totals, entropies = map(np.asarray, self.programs.parts(self.state, self.hyper, probe))
        weights = self._weights()
        for place, run in enumerate(self.runs):
            self.ended[place] = None
            by_weight = lambdas(run.model, run.config)
            penalty = penalty_of([values[place] for values in weights], by_weight)
            with _telling(self.failed, run.config):
                check_penalty(float(totals[place]), float(entropies[place]), penalty, run.config, bool(by_weight.any()))
                del self.ended[place]

    def _weights(self) -> list[NDArray[np.float32]]:
        return [np.asarray(values) for values in self.state.trainable]

    def train(self) -> dict[str, Record]:
        """Trains the epochs that are left and measures; returns the records by run id, of those that were not told."""
        if self.done < self.last:
            self.prove()
        for epoch in range(self.done, self.last):
            self._epoch(epoch)
            if len(self.ended) == self.count:
                break
        self._measure()
        ended = {run.config.run_id: self.ended[place] for place, run in enumerate(self.runs)}
        return {name: record for name, record in ended.items() if record}

    @property
    def _alive(self) -> list[tuple[int, Trainer]]:
        return [(place, run) for place, run in enumerate(self.runs) if place not in self.ended]

    def _epoch(self, epoch: int) -> None:
        """Trains an epoch, from 0, and enters it into the members' histories."""
        began, cpu_began = time.perf_counter(), time.process_time()
        found = []
        for count, feed in self._feeds(epoch):
            # Not waited for: the next steps are prepared while the device does these.
            self.state, steps = self._train(feed, count)
            found.append((count, steps))
        steps = Steps(
            *(
                np.concatenate([np.asarray(values)[:, :count] for count, values in column], axis=1)
                for column in ([(count, steps[index]) for count, steps in found] for index in range(len(Steps._fields)))
            )
        )
        sizes = np.array([len(self.runs[0].batches.chosen(index)) for index in range(steps.loss.shape[1])])
        self._end_diverged(epoch, steps.loss)
        scores = self._scores(self.monitored) if self.monitored else None
        percentiles, weights = self.programs.watch(self.state), self._weights()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        alive = self._alive
        selects = self.runs[0].config.select != "last"
        kept = jax.device_get(self.state) if selects else self.state
        for place, run in alive:
            own = [values[place] for values in weights]
            penalty = penalty_of(own, lambdas(run.model, run.config))
            last_step = (epoch + 1) * len(sizes) - 1
            row = Epoch(
                epoch=epoch + 1,
                loss=float(np.average(steps.loss[place].astype(np.float64), weights=sizes)),
                cross_entropy=float(np.average(steps.cross_entropy[place].astype(np.float64), weights=sizes)),
                l1_penalty=penalty.l1,
                l2_penalty=penalty.l2,
                accuracy=float(steps.right[place].sum() / sizes.sum()),
                val_cross_entropy=scores[0][place] if scores else None,
                val_accuracy=scores[1][place] if scores else None,
                learning_rate=float(run.tables[0][last_step]),
                momentum=float(run.tables[1][last_step]),
                # Its share: the members of a population cost together what the clock shows.
                seconds=seconds / len(alive),
                cpu_seconds=cpu / len(alive),
                watched=run.watch.describe([own[index] for index in _kernels(run)], percentiles[place]),
            )
            run.reached.add(row, run.config.select, partial(_in_order, run, kept, place))
        best = max((run.reached.history[-1].val_accuracy or 0 for _, run in alive), default=0.0)
        _LOG.info(
            f"epoch {epoch + 1}/{self.last}  {self.count} members ({self.width} wide), {seconds:.1f} s, "
            f"{len(alive) / seconds:.2f} member-epochs/s, best accuracy {100 * best:.2f} %"
        )
        self._save(epoch)

    def _end_diverged(self, epoch: int, losses: NDArray[np.float32]) -> None:
        """Ends the members with a loss that is not finite at its first such step."""
        for place, run in self._alive:
            wrong = np.flatnonzero(~np.isfinite(losses[place]))
            if wrong.size:
                batch = int(wrong[0])
                step = epoch * losses.shape[1] + batch
                self.ended[place] = fail(run, Diverged.at(step, epoch, batch, float(losses[place, batch])))

    def _save(self, epoch: int) -> None:
        """Writes the members' state if it is time; always where the test split was looked at, to keep it on record."""
        pause = time.monotonic() - self.saved < SAVE_SECONDS
        if epoch + 1 < self.last and pause and self.runs[0].monitored != "test":
            return
        state = jax.device_get(self.state)
        for place, run in self._alive:
            set_state(run, State(*([values[place] for values in group] for group in state)))
            write_history(run.reached.history, run.folder / "history.csv")
            run.save(run.model)
            run.announce_look()
        self.saved = time.monotonic()

    def _scores(self, split: Sequence[NDArray]) -> tuple[list[float], list[float]]:
        """Returns the members' cross-entropy in nats and accuracy on a split, in inference mode."""
        sums = []
        for images, labels in _batches(*split):
            sums.append(self.programs.scores(self.state, self.programs.shared(images), self.programs.shared(labels)))
        entropy, right = (np.sum([np.asarray(value, np.float64) for value in part], axis=0) for part in zip(*sums))  # noqa: B905
        return (entropy / len(split[1])).tolist(), (right / len(split[1])).tolist()

    def _measure(self) -> None:
        """Measures the members that came to their end, each on its selected weights; those that pause are left so."""
        for place, run in self._alive if self.runs[0].config.stop_after is not None else ():
            self.ended[place] = run.so_far()
        alive = dict(self._alive)
        if not alive:
            return
        looks: dict[int, Split] = {}
        last: dict[int, State] = {}
        for place, run in alive.items():
            self.ended[place] = None
            with _telling(self.failed, run.config):
                look = run.final_look()
                if run.selects_on_test:
                    last[place] = state_of(run)
                run.keep_selected()
                looks[place] = look
        if not looks:
            return
        chosen = {place: state_of(alive[place]) for place in looks}
        stacked = self._stacked(chosen)
        kernels = _kernels(self.runs[0])
        split = self.runs[0].probe[1]
        cut = [
            [
                pruned(values, threshold) if index in kernels else values
                for index, values in enumerate(stacked.trainable)
            ]
            for threshold in THRESHOLDS
        ]
        train, validation, test = self.data.train, self.data.validation, next(iter(looks.values()))
        answers = Logits(
            train=self._logits(stacked, train),
            validation=self._logits(stacked, validation) if validation else None,
            test=self._logits(stacked, test),
            test_last=self._logits(self._stacked({place: last[place] for place in looks}), test) if last else None,
            pruned=[self._logits(stacked._replace(trainable=trainable), split) for trainable in cut],
        )
        for place in looks:
            run = self.runs[place]
            own = Logits(
                train=answers.train[place],
                validation=None if answers.validation is None else answers.validation[place],
                test=answers.test[place],
                test_last=None if answers.test_last is None else answers.test_last[place],
                pruned=[logits[place] for logits in answers.pruned],
            )
            # Logits may be infinite where the loss was not: the others are to be measured all the same.
            with _telling(self.failed, run.config):
                self.ended[place] = finish(run, *run.scored(own, looks[place]))

    def _stacked(self, states: Mapping[int, State]) -> State:
        """Stacks states by place; places without one get any of them, which nothing reads."""
        filler = next(iter(states.values()))
        return stack([states.get(place, filler) for place in range(self.width)])

    def _logits(self, stacked: State, split: Split) -> NDArray[np.float32]:
        """Returns what the members answer to a split's images, (P, N, K)."""
        state = self.programs.members(stacked)
        found = np.empty((self.width, len(split.labels), len(self.data.info.labels)), np.float32)
        for start, (images, _) in zip(range(0, len(split.labels), EVALUATION_BATCH), _batches(*split), strict=True):
            part = found[:, start : start + EVALUATION_BATCH]
            part[:] = np.asarray(self.programs.logits(state, self.programs.shared(images)))[:, : part.shape[1]]
        return found


def state_of(run: Trainer) -> State:
    """Copies the state of a run."""
    model, optimizer = run.model, run.model.optimizer
    optimizer.build(model.trainable_variables)
    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    return State(*([np.array(variable) for variable in variables] for variables in groups))


def set_state(run: Trainer, state: State) -> None:
    """Puts a state into a run's model and optimizer."""
    model, optimizer = run.model, run.model.optimizer
    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    for variables, values in zip(groups, state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _in_order(run: Trainer, state: State, place: int) -> list[NDArray]:
    """Returns a member's variables in the model's order, as `checkpoint.variables_of` gives them."""
    model = run.model
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    by_variable = {
        id(variable): values[place]
        for variable, values in zip(variables, [*state.trainable, *state.fixed], strict=True)
    }
    return [np.array(by_variable[id(variable)]) for variable in model.variables]


def _hyper(run: Trainer) -> Hyper:
    return Hyper(lambdas(run.model, run.config), *run.tables)


def _kernels(run: Trainer) -> list[int]:
    """Returns where the kernels are among the trainable variables."""
    kernels = {id(layer.kernel) for layer in run.model.layers if hasattr(layer, "kernel")}
    return [index for index, variable in enumerate(run.model.trainable_variables) if id(variable) in kernels]


def _sees(run: Trainer) -> tuple:
    return run.config.seed, run.batches.ranges


def _fed(run: Trainer, indices: range, steps: int, mapped: bool) -> Feed:
    """Returns what a member is fed in some steps; those that are padded are not done."""
    if mapped:
        chosen, maps = run.batches.fed(indices)
    else:
        chosen = np.stack([run.batches.chosen(index) for index in indices])
        maps = np.zeros((*chosen.shape, 2, 3), np.float32)
    padding = [(0, steps - len(indices))]
    return Feed(np.pad(chosen.astype(np.int32), [*padding, (0, 0)]), np.pad(maps, [*padding, *[(0, 0)] * 3]))


def _batches(images: NDArray[np.uint8], labels: NDArray) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """Yields a split in equal batches; the last one is padded by black images of label −1."""
    for start in range(0, len(labels), EVALUATION_BATCH):
        part, own = images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH]
        missing = EVALUATION_BATCH - len(own)
        yield (
            np.pad(part, [(0, missing), *[(0, 0)] * 3]),
            np.pad(own.astype(np.int32), (0, missing), constant_values=-1),
        )


def _raising(config: TrainConfig, error: Exception) -> None:
    raise error
