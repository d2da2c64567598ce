"""The arms of a study as its report shows them: finished runs, means over epochs, and one look in every chart.

Between the analysis and the study's charts.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.records.record import PERCENTILES, THRESHOLDS, Epoch, Record
from kernorm.reporting.figures import LOOKS
from kernorm.studies.analysis import finished, results_by_arm
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Result
from kernorm.studies.summary import ArmSummary, StudySummary

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: a colour of PALETTE, a marker, what a legend calls it, and whether it has it alone.

    Up to as many arms as there are LOOKS have one each; more share a colour by what they have in common, and are drawn
    a panel each.
    """

    colour: str
    marker: str
    label: str
    alone: bool


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean and standard deviation (E,) over `runs` runs at `epochs` (E,); a single run deviates by 0."""

    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    runs: int

    @property
    def halves(self) -> NDArray[np.float64]:
        """Half of the 95 % interval of each mean, by Student's t over runs; empty for a single run."""
        if self.runs < 2:
            return np.zeros(0)
        return float(stats.t.isf(0.025, self.runs - 1)) * self.sd / np.sqrt(self.runs)


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm with its place in the study, its results and the records of its finished runs, both by seed."""

    place: int
    summary: ArmSummary
    results: Mapping[int, Result]
    records: Mapping[int, Record]
    look: Look

    @property
    def name(self) -> str:
        """The arm's name in the study file."""
        return self.summary.name

    def curve(self, measure: str) -> Curve | None:
        """Returns one of MEASURES at the epochs at which every finished run has it; None if there is no such epoch."""
        value = MEASURES[measure]
        by_epoch: dict[int, list[float]] = {}
        for record in self.records.values():
            for row in record.history:
                if (found := value(row)) is not None:
                    by_epoch.setdefault(row.epoch, []).append(found)
        columns = {epoch: values for epoch, values in sorted(by_epoch.items()) if len(values) == len(self.records)}
        if not columns:
            return None
        values = np.array(list(columns.values()), dtype=np.float64)
        runs = values.shape[1]
        sd = values.std(axis=1, ddof=1) if runs > 1 else np.zeros(len(values))
        return Curve(np.array(list(columns)), values.mean(axis=1), sd, runs)


def _column(name: str) -> Callable[[Epoch], float | None]:
    return lambda row: getattr(row, name)


def _watched(name: str, place: int | None = None) -> Callable[[Epoch], float | None]:
    def value(row: Epoch) -> float | None:
        found = getattr(row.watched, name) if row.watched else None
        return found if found is None or place is None else found[place]

    return value


# What is shown over epochs, by its name in tables.csv.
MEASURES: dict[str, Callable[[Epoch], float | None]] = {
    **{name: _column(name) for name in ("val_accuracy", "val_cross_entropy", "accuracy", "cross_entropy")},
    **{name: _column(name) for name in ("l1_penalty", "l2_penalty")},
    "kernel_norm": _watched("kernel_norm"),
    **{f"near_zero_{mark:g}": _watched("near_zero", place) for place, mark in enumerate(THRESHOLDS)},
    **{f"activation_p{mark}": _watched("activations", place) for place, mark in enumerate(PERCENTILES)},
}


def arms_of(study: Study, summary: StudySummary, results: Mapping[str, Result]) -> list[Arm]:
    """Returns the arms of a study in its order."""
    found, looks = results_by_arm(study, results), _looks(summary.arms)
    return [
        Arm(place, arm, found[arm.name], finished(found[arm.name]), looks[arm.name])
        for place, arm in enumerate(summary.arms)
    ]


def compared_groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Returns each baseline and the arms that are compared with it, in the order of the study."""
    found: dict[str, list[Arm]] = {}
    for arm in arms:
        found.setdefault(arm.summary.baseline or arm.name, []).append(arm)
    return [sorted(group, key=lambda arm: arm.summary.baseline is not None) for group in found.values()]


def readable(errors: Mapping[Name, float]) -> set[Name]:
    """Returns whose error is small enough to choose an axis by, so that the others do not squash it.

    It is at most four times the smallest error above 0, or three times the median.
    """
    known = {name: error for name, error in errors.items() if np.isfinite(error)}
    if not known:
        return set()
    some = [error for error in known.values() if error > 0]
    limit = max(4 * min(some, default=0.0), 3 * median_low(known.values()))
    return {name for name, error in known.items() if error <= limit}


def _looks(arms: Sequence[ArmSummary]) -> dict[str, Look]:
    """Gives few arms a look each, many arms a colour by their kind; the only baseline is drawn in ink."""
    baselines = {arm.baseline for arm in arms if arm.baseline}
    first = baselines.pop() if len(baselines) == 1 else None
    alone = len(arms) <= len(LOOKS)
    kinds = {arm.name: arm.name for arm in arms} if alone else _kinds(arms)
    others = dict.fromkeys(kind for arm, kind in kinds.items() if arm != first)
    looks = dict(zip(others, LOOKS[1:] if first else (*LOOKS[1:], LOOKS[0]), strict=False))
    found = {}
    for arm, kind in kinds.items():
        colour, marker = LOOKS[0] if arm == first else looks[kind] if len(looks) > 1 or alone else ("muted", "o")
        found[arm] = Look(colour, marker, f"{arm} (baseline)" if arm == first else kind, alone or arm == first)
    return found


def _kinds(arms: Sequence[ArmSummary]) -> dict[str, str]:
    """Sorts many arms into a few kinds by one setting, rather one in which arms differ from their baselines."""
    found = [{arm.name: kind(arm.config) for arm in arms} for kind in _KINDS]
    few = [kinds for kinds in found if 2 <= len(set(kinds.values())) < len(LOOKS)]
    telling = [kinds for kinds in few if all(kinds[arm.name] != kinds[arm.baseline] for arm in arms if arm.baseline)]
    return next(iter(telling + few), dict.fromkeys((arm.name for arm in arms), ""))


def penalties(config: TrainConfig) -> str:
    """Names the penalties of an arm."""
    return " and ".join(name for name, value in (("L1", config.l1), ("L2", config.l2)) if value) or "no penalty"


_KINDS: tuple[Callable[[TrainConfig], str], ...] = (
    lambda config: f"norm {config.norm}",
    penalties,
    lambda config: f"{config.train_size:,} images" if config.train_size else "all images",
    lambda config: f"batch {config.batch_size}",
    lambda config: config.net,
    lambda config: config.dataset,
    lambda config: f"rate {config.peak_rate:g}",
    lambda config: f"{config.epochs} epochs",
)
