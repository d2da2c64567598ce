"""Runs of one static config that train side by side as one program, on the JAX backend; groups.py makes them.

A member is an ordinary run. Every epoch is one loop over dispatches to the programs of vmap.py; what a member leaves,
its history, checkpoint and record, is written by its own Trainer.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from numpy.typing import NDArray

from kernorm.datasets.batches import EVALUATION_BATCH
from kernorm.nets.penalties import check_penalty, lambdas, penalty_of
from kernorm.parallel.capacity import Placement
from kernorm.parallel.lowering import Lowering
from kernorm.parallel.measurement import measure_members
from kernorm.parallel.members import (
    Failed,
    equal_batches,
    in_order,
    kept_of,
    kernel_places,
    on_the_host,
    passing_errors,
    raise_error,
    set_state,
)
from kernorm.parallel.vmap import State, Steps, stack
from kernorm.records.history import write_history
from kernorm.records.record import Epoch, Record
from kernorm.training.callbacks import Diverged
from kernorm.training.run import fail
from kernorm.training.trainer import Trainer

# Steps a dispatch on an accelerator.
STEPS = 32
# Between two writings of all members' checkpoints; a killed population loses at most so much.
SAVE_SECONDS = 30.0

_LOG = logging.getLogger("kernorm")


class Population(Placement):
    """Runs of one static config, side by side from the same epoch on.

    Args:
        runs: begun; as many of the first as memory allows are its members, `count`.
        done: epochs behind them.
        width: members at most; None: as many as memory allows.
        lowering: of their convolutions; None: the faster one.
        steps: a dispatch, about; None: STEPS on an accelerator, 1 on a CPU.
        devices: all that JAX finds by default.
        failed: called for a member that cannot be measured; None: its error is raised.
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
        devices = devices or jax.devices()
        first = runs[0]
        self.failed, self.last = failed or raise_error, first.last
        super().__init__(
            runs,
            done,
            width=width,
            lowering=lowering,
            # On a CPU XLA runs convolutions inside a loop without threads (jax issue 12868).
            steps=steps or (STEPS if devices[0].platform != "cpu" else 1),
            devices=devices,
            memory=memory,
        )
        self.ended: dict[int, Record | None] = {}
        self.monitored = first.open_monitored_split() if done < self.last else None
        for run in self.runs[1:] if done < self.last else ():
            run.open_monitored_split()
        for run in self.runs:
            run.note_looks()
            run.record = replace(run.record, environment=replace(run.record.environment, population=self.count))
        # The variables of each member's best epoch stay on the devices until they are written.
        self.best = self._begin_best() if first.config.select != "last" else None
        self.saved = time.monotonic()

    def _begin_best(self) -> State:
        kept = [kept_of(run) for run in self.runs]
        return self.programs.members(stack([*kept, *[kept[0]] * (self.width - self.count)]))

    def prove(self) -> None:
        """Proves that the loss that is minimized holds each member's penalty, as the formula gives it."""
        size = self.runs[0].config.batch_size
        probe = self.programs.shared((self.data.train.images[:size], np.asarray(self.data.train.labels[:size])))
        totals, entropies = (np.asarray(part).tolist() for part in self.programs.parts(self.state, self.hyper, probe))
        weights, own = _fetched(self.state), self.programs.own(self.state)
        for place, run in enumerate(self.runs):
            self.ended[place] = None
            by_weight = lambdas(run.model, run.config)
            penalty = penalty_of([values[place] for values in weights], by_weight)
            asked, losses = bool(by_weight.any()), own[place] or 0.0
            with passing_errors(self.failed, run.config):
                check_penalty(totals[place], entropies[place], penalty, run.config, asked, losses)
                del self.ended[place]

    def train(self) -> dict[str, Record]:
        """Trains the epochs that are left and measures; returns the records by run id, of those without an error."""
        if self.done < self.last:
            self.prove()
        for epoch in range(self.done, self.last):
            trained = self._training
            self._epoch(epoch)
            self._save(epoch, [(place, run) for place, run in trained if place not in self.ended])
            if not self._training:
                break
        self._measure()
        ended = {run.config.run_id: self.ended[place] for place, run in enumerate(self.runs)}
        return {name: record for name, record in ended.items() if record}

    @property
    def _alive(self) -> list[tuple[int, Trainer]]:
        return [(place, run) for place, run in enumerate(self.runs) if place not in self.ended]

    @property
    def _training(self) -> list[tuple[int, Trainer]]:
        """The members that are trained further; the others' places are computed, and nothing reads them."""
        return [(place, run) for place, run in self._alive if not run.stopped]

    def _epoch(self, epoch: int) -> None:
        """Trains an epoch, from 0, and adds it to the members' histories."""
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
        evaluated = self.programs.averaged(self.state)
        scores = self._scores(evaluated, self.monitored) if self.monitored else None
        percentiles, weights = self.programs.watch(evaluated), _fetched(self.state)
        seen = weights if evaluated is self.state else _fetched(evaluated)
        losses = self.programs.own(self.state)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        alive = self._training
        better = np.zeros(self.width, bool)
        for place, run in alive:
            penalty = penalty_of([values[place] for values in weights], lambdas(run.model, run.config))
            kernels = [seen[index][place] for index in kernel_places(run)]
            last_step = (epoch + 1) * len(sizes) - 1
            means = [float(np.average(part[place].astype(np.float64), weights=sizes)) for part in steps[:3]]
            row = Epoch(
                epoch=epoch + 1,
                loss=means[0],
                cross_entropy=means[2],
                weighted_cross_entropy=None if run.class_weights is None else means[1],
                l1_penalty=penalty.l1,
                l2_penalty=penalty.l2,
                own_losses=losses[place],
                accuracy=float(steps.right[place].sum() / sizes.sum()),
                val_cross_entropy=scores[0][place] if scores else None,
                val_accuracy=scores[1][place] if scores else None,
                learning_rate=float(run.tables[0][last_step]),
                momentum=float(run.tables[1][last_step]),
                # Its share: the members of a population cost together what the clock shows.
                seconds=seconds / len(alive),
                cpu_seconds=cpu / len(alive),
                watched=run.watch.describe(kernels, percentiles[place]),
            )
            better[place] = run.reached.add(row, run.config.select)
        if self.best is not None:
            self.best = self.programs.choose(self.programs.members(better), evaluated, self.best)
        best = max((run.reached.history[-1].val_accuracy or 0 for _, run in alive), default=0.0)
        _LOG.info(
            f"epoch {epoch + 1}/{self.last}  {self.count} members ({self.width} wide), {seconds:.1f} s, "
            f"{len(alive) / seconds:.2f} member-epochs/s, best accuracy {100 * best:.2f} %"
        )

    def _end_diverged(self, epoch: int, losses: NDArray[np.float32]) -> None:
        """Ends the members with a loss that is not finite at its first such step."""
        for place, run in self._training:
            wrong = np.flatnonzero(~np.isfinite(losses[place]))
            if wrong.size:
                batch = int(wrong[0])
                step = epoch * losses.shape[1] + batch
                with on_the_host():
                    self.ended[place] = fail(run, Diverged.at(step, epoch, batch, float(losses[place, batch])))

    def _save(self, epoch: int, trained: Sequence[tuple[int, Trainer]]) -> None:
        """Writes these members' state if it is time; till then each look at the test split is noted by itself.

        It is time where one of them has stopped: its place is computed further.
        """
        due = epoch + 1 == self.last or time.monotonic() - self.saved >= SAVE_SECONDS
        if not (due or any(run.stopped for _, run in trained)):
            for _, run in trained:
                run.announce_look()
                run.note_looks()
            return
        state = jax.device_get(self.state)
        self._fetch_best()
        with on_the_host():
            for place, run in trained:
                set_state(run, State(*([values[place] for values in group] for group in state)))
                write_history(run.reached.history, run.folder / "history.csv")
                run.save(run.model)
                run.announce_look()
                run.note_looks()
        self.saved = time.monotonic()

    def _fetch_best(self) -> None:
        """Gives each run the variables of its best epoch."""
        if self.best is None:
            return
        best = jax.device_get(self.best)
        for place, run in self._alive:
            if run.reached.selected:
                run.reached.kept = in_order(run, best, place)

    def _scores(self, state: State, split: Sequence[NDArray]) -> tuple[list[float], list[float]]:
        """Returns the members' cross-entropy in nats and accuracy on a split, in inference mode."""
        sums = []
        for images, labels in equal_batches(split[0], split[1], EVALUATION_BATCH):
            sums.append(self.programs.scores(state, self.programs.shared(images), self.programs.shared(labels)))
        entropy, right = (np.sum([np.asarray(value, np.float64) for value in part], axis=0) for part in zip(*sums))  # noqa: B905
        return (entropy / len(split[1])).tolist(), (right / len(split[1])).tolist()

    def _measure(self) -> None:
        """Measures the members that are finished, each on its selected weights; paused ones stay as they are."""
        for place, run in self._alive if self.runs[0].config.stop_after is not None else ():
            self.ended[place] = run.so_far()
        alive = dict(self._alive)
        if not alive:
            return
        self.ended |= measure_members(self.programs, self.data, alive, self.failed)


def _fetched(state: State) -> list[NDArray[np.float32]]:
    """Returns the members' trainable variables, (P, …) each, from the devices."""
    return [np.asarray(values) for values in state.trainable]
