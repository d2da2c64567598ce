"""What describes an arm without a verdict: times to a target, penalties, sparsity, the images that are hard."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from kernorm.config import TrainConfig
from kernorm.records.record import Epoch, Record
from kernorm.reporting.format import unpredicted
from kernorm.stats.times import TimeTo, time_to
from kernorm.studies.metrics import tested
from kernorm.studies.published import Published
from kernorm.studies.summary import Claim, HardImage, Sparsity, counted

Runs = dict[int, Record]


def times(records: Sequence[Record], targets: Sequence[float]) -> dict[str, TimeTo]:
    """Summarizes when runs reached target accuracies on the monitored split, in epochs and CPU-seconds."""
    found = {}
    for target in targets:
        reached: dict[str, list[float | None]] = {"epochs": [], "CPU-seconds": []}
        budgets: dict[str, list[float]] = {"epochs": [], "CPU-seconds": []}
        for record in records:
            rows = record.history[1:]
            clocks = {
                "epochs": [float(row.epoch) for row in rows],
                "CPU-seconds": list(accumulate(row.cpu_seconds for row in rows)),
            }
            first = next((place for place, row in enumerate(rows) if (row.val_accuracy or 0) >= target), None)
            for clock, at in clocks.items():
                reached[clock].append(None if first is None else at[first])
                budgets[clock].append(at[-1])
        if any(record.monitored != "none" for record in records):
            for clock, values in reached.items():
                found[f"{clock} to {100 * target:.1f} %"] = time_to(values, budgets[clock])
    return found


def penalties(records: Sequence[Record]) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Returns the mean L1 and L2 penalties at step 0 and at the end, in nats; None without a run."""
    return (_penalty(records, 0), _penalty(records, -1)) if records else None


def _penalty(records: Sequence[Record], epoch: int) -> tuple[float, float]:
    rows = [record.history[epoch] for record in records]
    return mean(row.l1_penalty for row in rows), mean(row.l2_penalty for row in rows)


def claims(config: TrainConfig, published: Published | None, records: Sequence[Record]) -> tuple[Claim, ...]:
    """Compares what is stated with what the penalty columns show; a part that neither has is left out."""
    if published is None or not records:
        return ()
    stated = (("1", published.l1, config.l1, "l1_penalty"), ("2", published.l2, config.l2, "l2_penalty"))
    claims = (
        Claim(
            part=part,
            stated=value,
            applied=applied,
            measured=mean(getattr(record.history[0], column) for record in records),
            most=max(mean(getattr(row, column) for row in rows) for rows in _by_epoch(records)),
        )
        for part, value, applied, column in stated
    )
    return tuple(claim for claim in claims if claim.stated or claim.applied)


def _by_epoch(records: Sequence[Record]) -> list[tuple[Epoch, ...]]:
    """Returns the rows of each epoch, of the runs that came so far."""
    columns = itertools.zip_longest(*(record.history for record in records))
    return [tuple(row for row in rows if row) for rows in columns]


def sparsity(records: Sequence[Record]) -> tuple[Sparsity, ...]:
    """Returns the share of weights below each threshold, and the accuracy without them, means over runs."""
    by_threshold = zip(*(record.pruned for record in records), strict=True)
    return tuple(
        Sparsity(
            threshold=rows[0].threshold,
            share=mean(row.share for row in rows),
            accuracy=mean(row.accuracy for row in rows),
            split=rows[0].split,
        )
        for rows in by_threshold
    )


def hard(records: Sequence[Record]) -> tuple[HardImage, ...]:
    """Lists the images that at least one run got wrong, the most often wrong first."""
    predictions: dict[int, list[int]] = {}
    targets: dict[int, int] = {}
    for record in records:
        for mistake in tested(record).mistakes:
            predictions.setdefault(mistake.index, []).append(mistake.prediction)
            targets[mistake.index] = mistake.target
    hard = [
        HardImage(
            index=index,
            target=targets[index],
            prediction=Counter(made).most_common(1)[0][0],
            wrong=len(made),
            runs=len(records),
        )
        for index, made in predictions.items()
    ]
    return tuple(sorted(hard, key=lambda image: (-image.wrong, image.index)))


def unpredicted_of(records: Sequence[Record]) -> str:
    """Names the classes that runs never predicted, in words; empty if there are none."""
    found = [words for record in records if (words := unpredicted(tested(record).confusion, record.data.labels))]
    if not found:
        return ""
    (title, names), runs = Counter(found).most_common(1)[0]
    others = f", others in {len(found) - runs}" if len(found) > runs else ""
    return f"{title}: {names}; in {runs} of {counted(len(records), 'run')}{others}"


def mean(values: Iterable[float]) -> float:
    """Returns the mean of some numbers."""
    listed = list(values)
    return sum(listed) / len(listed)
