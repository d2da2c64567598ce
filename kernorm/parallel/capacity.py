"""Which members train side by side, by which lowering of their convolutions, so that they fit the devices' memory.

The base of population.py's class: it stacks the members' states, loads them, and asks and calibrates.
"""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from kernorm.datasets.batches import Fed
from kernorm.parallel.grouping import WIDTHS, padded
from kernorm.parallel.lowering import LOWERINGS, Lowering
from kernorm.parallel.members import equal_batches, feed_of, hyper_of, sees, state_of
from kernorm.parallel.vmap import Hyper, Memory, Programs, State, Steps, stack

if TYPE_CHECKING:
    from kernorm.training.trainer import Trainer

# Of the device's free memory that `auto` uses.
SHARE_OF_MEMORY = 0.8
# Of each lowering, in calibration.
TIMINGS = 5
# What calibration has found in this process.
_FASTER: dict[tuple, Lowering] = {}

_LOG = logging.getLogger("kernorm")


class Placement:
    """Runs of one static config, stacked and loaded on the devices.

    Args:
        runs: begun; as many of the first as memory allows are the members, `count`.
        done: epochs behind them.
        width: members at most; None: as many as memory allows.
        lowering: of their convolutions; None: the faster one.
        steps: a dispatch, about.
        devices: on which they are.
        memory: share of the devices' free memory that may be used.
    """

    def __init__(
        self,
        runs: "Sequence[Trainer]",
        done: int,
        *,
        width: int | None,
        lowering: Lowering | None,
        steps: int,
        devices: list,
        memory: float,
    ) -> None:
        first = runs[0]
        self.done, self.data, self.devices = done, first.data, devices
        self.augmentation = first.batches.augmentation
        self.steps, self.memory = steps, SHARE_OF_MEMORY * memory
        self._place(runs, width)
        self._choose(runs, [lowering] if lowering else list(LOWERINGS), width)

    def _place(self, runs: "Sequence[Trainer]", width: int | None) -> None:
        """Makes these runs the members, at most `width` of them."""
        self.runs = list(runs[: width or WIDTHS[-1]])
        self.count = len(self.runs)
        self.width = padded(self.count, width or WIDTHS[-1], len(self.devices))
        # Padding is the first member once more; nothing reads what becomes of it.
        slots = [*range(self.count), *[0] * (self.width - self.count)]
        self.slots = [self.runs[slot] for slot in slots]
        states, hypers = [state_of(run) for run in self.runs], [hyper_of(run) for run in self.runs]
        columns = zip(*(hypers[slot] for slot in slots), strict=True)
        self._begin = stack([states[slot] for slot in slots])
        self._hyper = Hyper(*(np.stack(column).astype(np.float32) for column in columns))
        self._programs: dict[Lowering, Programs] = {}

    def _choose(self, runs: "Sequence[Trainer]", lowerings: list[Lowering], width: int | None) -> None:
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
                augmentation=self.augmentation,
                smoothing=first.config.label_smoothing,
                weights=first.class_weights,
                width=self.width,
                lowering=lowering,
                devices=self.devices,
            )
        self.programs = self._programs[lowering]
        self.state, self.hyper = self.programs.members(self._begin), self.programs.members(self._hyper)

    def _free(self) -> int | None:
        """Asks how many bytes of a device's memory are free, before anything of this population is there.

        None where the device does not say, as with allocators that know no limit.
        """
        stats = self.devices[0].memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None

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
        """Asks what a program with this lowering needs of each device; None where XLA does not say."""
        self._load(lowering)
        _, feed = next(self._feeds(self.done))
        return self.programs.memory(self.state, self.hyper, feed, next(equal_batches(*self.data.train)))

    def _faster(self, lowerings: list[Lowering]) -> Lowering:
        """Times a dispatch of each lowering, once a process for a net and batch size; leaves no trace in a run.

        They take turns, since others may use the device meanwhile. By batch size, since the answer depends on it: on an
        H200 an answer found at batch 128 was used at 16 too, where it took 2.78 ms a step, and the other one 0.83.
        """
        config = self.runs[0].config
        key = (config.net, config.net_source, config.batch_size, self.data.info.image_shape, *lowerings)
        if len(lowerings) > 1 and key not in _FASTER:
            seconds: dict[Lowering, float] = {}
            for turn in range(1 + TIMINGS):  # the first one compiles
                for lowering in lowerings if turn == 0 else list(seconds):
                    with contextlib.suppress(jax.errors.JaxRuntimeError):
                        taken = self._step_seconds(lowering)
                        seconds[lowering] = min(taken, seconds.get(lowering, taken)) if turn > 1 else taken
            _LOG.info(
                "milliseconds a step: " + ", ".join(f"{name} {1e3 * taken:.2f}" for name, taken in seconds.items())
            )
            _FASTER[key] = min(seconds, key=seconds.__getitem__, default=lowerings[0])
        return _FASTER.get(key, lowerings[0])

    def _step_seconds(self, lowering: Lowering) -> float:
        """Returns the seconds that a step of the members takes as they begin."""
        self._load(lowering)
        count, feed = next(self._feeds(self.done))
        jax.block_until_ready((self.state, feed))
        begun_at = time.perf_counter()
        self.state, found = self._train(feed, count)
        jax.block_until_ready(found)
        return (time.perf_counter() - begun_at) / count

    def _feeds(self, epoch: int) -> Iterator[tuple[int, Fed]]:
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
            fed: dict[tuple, Fed] = {}
            for run in self.runs:
                if (key := sees(run)) not in fed:
                    fed[key] = feed_of(run, indices, steps)
            columns = zip(*(fed[sees(run)] for run in self.slots), strict=True)
            yield len(indices), self.programs.members(Fed(*map(np.stack, columns)))

    def _train(self, feed: Fed, count: int) -> tuple[State, Steps]:
        programs = self.programs
        return programs.train(self.state, self.hyper, feed, count, programs.images, programs.labels)
