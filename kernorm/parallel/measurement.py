"""Measures the members of a population that are finished, each on its selected weights; for population.py."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernorm.datasets.batches import EVALUATION_BATCH
from kernorm.datasets.dataset import Dataset, Split
from kernorm.parallel.members import Failed, equal_batches, kernel_places, on_the_host, passing_errors, state_of
from kernorm.parallel.vmap import Programs, State, stack
from kernorm.records.record import THRESHOLDS, Record
from kernorm.training.answers import Logits
from kernorm.training.diagnostics import pruned
from kernorm.training.run import finish

if TYPE_CHECKING:
    from kernorm.training.trainer import Trainer


def measure_members(
    programs: Programs, data: Dataset, runs: "Mapping[int, Trainer]", failed: Failed
) -> dict[int, Record | None]:
    """Measures runs and ends them.

    Args:
        programs: of the population.
        data: of its members.
        runs: to be measured, by place.
        failed: called for a run that cannot be measured.

    Returns:
        The records by place, None where a run failed.
    """
    ended: dict[int, Record | None] = dict.fromkeys(runs)
    looks: dict[int, Split] = {}
    last: dict[int, State] = {}
    for place, run in runs.items():
        with passing_errors(failed, run.config), on_the_host():
            look = run.final_look()
            if run.selects_on_test:
                last[place] = state_of(run)
            run.keep_selected()
            looks[place] = look
    if not looks:
        return ended
    answers = _answers(programs, data, {place: runs[place] for place in looks}, last, next(iter(looks.values())))
    for place, look in looks.items():
        run = runs[place]
        own = Logits(
            train=answers.train[place],
            validation=None if answers.validation is None else answers.validation[place],
            test=answers.test[place],
            test_last=None if answers.test_last is None else answers.test_last[place],
            pruned=[logits[place] for logits in answers.pruned],
        )
        # Logits may be infinite where the loss was not: the others are to be measured all the same.
        with passing_errors(failed, run.config), on_the_host():
            ended[place] = finish(run, *run.scored(own, look))
    return ended


def _answers(
    programs: Programs, data: Dataset, runs: "Mapping[int, Trainer]", last: Mapping[int, State], test: Split
) -> Logits:
    """Returns what the runs' selected weights answer, by place, and what the last epoch's answer to the test split."""
    first = next(iter(runs.values()))
    stacked = _stacked({place: state_of(run) for place, run in runs.items()}, programs.width)
    kernels, split = kernel_places(first), first.probe[1]
    cut = [
        [pruned(values, threshold) if index in kernels else values for index, values in enumerate(stacked.trainable)]
        for threshold in THRESHOLDS
    ]
    of_last = _stacked({place: last[place] for place in runs}, programs.width) if last else None
    return Logits(
        train=_logits(programs, stacked, data.train),
        validation=_logits(programs, stacked, data.validation) if data.validation else None,
        test=_logits(programs, stacked, test),
        test_last=_logits(programs, of_last, test) if of_last else None,
        pruned=[_logits(programs, stacked._replace(trainable=trainable), split) for trainable in cut],
    )


def _stacked(states: Mapping[int, State], width: int) -> State:
    """Stacks states by place; places without one get any of them, which nothing reads."""
    filler = next(iter(states.values()))
    return stack([states.get(place, filler) for place in range(width)])


def _logits(programs: Programs, stacked: State, split: Split) -> NDArray[np.float32]:
    """Returns what the members answer to a split's images, (P, N, K)."""
    state = programs.members(stacked)
    found = np.empty((programs.width, len(split.labels), programs.model.output_shape[-1]), np.float32)
    starts = range(0, len(split.labels), EVALUATION_BATCH)
    for start, (images, _) in zip(starts, equal_batches(*split, EVALUATION_BATCH), strict=True):
        part = found[:, start : start + EVALUATION_BATCH]
        part[:] = np.asarray(programs.logits(state, programs.shared(images)))[:, : part.shape[1]]
    return found
