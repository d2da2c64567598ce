"""What a search varies: fields of TrainConfig with ranges and choices, declared to KerasTuner before the first trial.

Values travel as KerasTuner keeps them, by name; `l1_on` and `l2_on` say whether that penalty is on.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from kernorm.config import NormName, TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import Range, range_of
from kernorm.reporting.format import concise

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Value = str | int | float | bool
# What Hyperband adds to a trial's values.
EPOCHS = "tuner/epochs"


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched; a field of TrainConfig with one value is not."""

    l1: Range | float
    l2: Range | float
    batch_size: tuple[int, ...]
    norm: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    learning_rate: Range | float | None = None

    def described(self) -> list[tuple[str, str]]:
        """Returns a row a searched field: its name, and its values in words."""
        rows = []
        for name in ("norm", "groups", "l1", "l2", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if isinstance(value, Range):
                off = "off, or " if name in ("l1", "l2") else ""
                rows.append((name, f"{off}{concise(value.low)} to {concise(value.high)}, log scale"))
            elif isinstance(value, tuple) and len(value) > 1:
                rows.append((name, ", ".join(map(str, value))))
        return rows

    def distinct(self) -> float:
        """Returns how many different points it has: infinitely many with a range."""
        ranges = any(isinstance(value, Range) for value in (self.l1, self.l2, self.learning_rate))
        return math.inf if ranges else self.points()

    def points(self) -> int:
        """Returns the points of its grid; groups count for gn alone."""
        norms = sum(max(len(self.groups), 1) if norm == "gn" else 1 for norm in self.norm)
        found = norms * len(self.batch_size)
        for name, off in (("l1", 1), ("l2", 1), ("learning_rate", 0)):
            if isinstance(value := getattr(self, name), Range):
                found *= off + len(value.grid())
        return found


def space_of(
    base: TrainConfig,
    *,
    l1: str,
    l2: str,
    batch_sizes: str,
    norms: str | None,
    groups: str | None,
    learning_rate: str | None,
) -> Space:
    """Reads the words of a command into a space.

    Raises:
        UsageError: a range, a choice or a value that TrainConfig refuses.
    """
    space = Space(
        l1=_range("--l1", l1),
        l2=_range("--l2", l2),
        batch_size=tuple(_whole("--batch-sizes", batch_sizes)),
        norm=tuple(_norms(norms or base.norm)),
        groups=tuple(_whole("--groups", groups)) if groups else (),
        learning_rate=_range("--learning-rate", learning_rate) if learning_rate else None,
    )
    if space.groups and "gn" not in space.norm:
        raise UsageError("--groups belongs to gn.", f"groups={groups} with {', '.join(space.norm)}", "Add gn.")
    if space.learning_rate == 0:
        raise UsageError("--learning-rate must be above 0.", "off", "Give for example 0.01:0.1.")
    if not space.described():
        raise UsageError("A search varies something.", "one value of everything", "Give for example --l2 1e-6:1e-2.")
    _check_limits(base, space)
    return space


def declare(space: Space, *, grid: bool = False) -> "HyperParameters":
    """Returns KerasTuner's form of a space; with `grid` each range becomes one value a decade."""
    from keras_tuner import HyperParameters

    hp = HyperParameters()

    def declare_range(name: str, found: Range) -> None:
        if grid:
            hp.Choice(name, found.grid(), ordered=True)
        else:
            hp.Float(name, found.low, found.high, sampling="log")

    if len(space.norm) > 1:
        hp.Choice("norm", list(space.norm))
        if len(space.groups) > 1:
            with hp.conditional_scope("norm", ["gn"]):
                hp.Choice("groups", list(space.groups))
    elif len(space.groups) > 1:
        hp.Choice("groups", list(space.groups))
    for name in ("l1", "l2"):
        if isinstance(found := getattr(space, name), Range):
            hp.Boolean(f"{name}_on")
            with hp.conditional_scope(f"{name}_on", [True]):
                declare_range(name, found)
    if len(space.batch_size) > 1:
        hp.Choice("batch_size", list(space.batch_size))
    if isinstance(space.learning_rate, Range):
        declare_range("learning_rate", space.learning_rate)
    return hp


def configured(space: Space, base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Returns the config of a trial, from KerasTuner's values and, where the space has one value, from the space.

    Hyperband's epochs of this rung become `stop_after`, so that a promoted trial continues with its optimizer's state.

    Raises:
        UsageError: TrainConfig refuses a value.
    """
    norm = values.get("norm", space.norm[0])
    changes: dict[str, Any] = {
        "norm": norm,
        "batch_size": int(values.get("batch_size", space.batch_size[0])),
        "stop_after": int(values.get(EPOCHS, base.epochs)),
    }
    for name in ("l1", "l2"):
        found = getattr(space, name)
        changes[name] = found if not isinstance(found, Range) else values[name] if values[f"{name}_on"] else 0.0
    if norm == "gn" and space.groups:
        changes["groups"] = int(values.get("groups", space.groups[0]))
    if space.learning_rate is not None:
        changes["learning_rate"] = float(values.get("learning_rate", space.learning_rate))
    return dataclasses.replace(base, **changes)


def point(space: Space, given: Mapping[str, Any]) -> dict[str, Value]:
    """Returns KerasTuner's values for a point to try first, given as fields of TrainConfig.

    A penalty that is missing is off, a choice is its first, a learning rate the middle of its range.

    Raises:
        UsageError: a field that is not searched, or a value outside the space.
    """
    values: dict[str, Value] = {}
    known = dict(space.described())
    for name in given:
        if name not in known:
            raise UsageError("A point names what is searched.", f"{name!r}", nearest(name, known))
    for name in ("norm", "groups", "l1", "l2", "batch_size", "learning_rate"):
        found = getattr(space, name)
        if name not in known or (name == "groups" and values.get("norm", space.norm[0]) != "gn"):
            continue
        value = given.get(name, found[0] if isinstance(found, tuple) else 0.0)
        if name == "learning_rate" and name not in given and isinstance(found, Range):
            value = math.sqrt(found.low * found.high)
        if name in ("l1", "l2"):
            values[f"{name}_on"] = bool(value)
            if not value:
                continue
        if isinstance(found, Range):
            inside = isinstance(value, int | float) and found.low <= value <= found.high
            value = float(value) if inside else value
        else:
            inside = value in found
        if not inside:
            raise UsageError(
                "A point lies in the space.",
                f"{name}={value!r}, searched: {known[name]}",
                "Widen the space, or remove the point.",
            )
        values[name] = value
    return values


def _range(flag: str, text: str) -> Range | float:
    if text == "off":
        return 0.0
    if found := range_of(text):
        return found
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < math.inf:
            return value
    raise UsageError(f"{flag} takes LOW:HIGH with 0 < LOW < HIGH, a number, or off.", f"{text!r}", "Give 1e-6:1e-3.")


def _whole(flag: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1 or len(set(values)) < len(values):
        raise UsageError(f"{flag} takes different whole numbers from 1.", f"{text!r}", "Give for example 16,64.")
    return values


def _norms(text: str) -> list[str]:
    norms = text.split(",")
    for norm in norms:
        if norm not in get_args(NormName):
            raise UsageError("--norms takes known names.", f"{norm!r}", nearest(norm, get_args(NormName)))
    if len(set(norms)) < len(norms):
        raise UsageError("--norms takes each norm once.", f"{text!r}", "Remove one of them.")
    return norms


def _check_limits(base: TrainConfig, space: Space) -> None:
    """Lets TrainConfig refuse the ends of the ranges before the first trial does."""
    for name in ("l1", "l2", "learning_rate"):
        found = getattr(space, name)
        for value in (found.low, found.high) if isinstance(found, Range) else () if found is None else (found,):
            changes: dict[str, Any] = {name: value}
            dataclasses.replace(base, **changes)


def check_batches(base: TrainConfig, space: Space) -> None:
    """Refuses batches that are larger than the training split, where its size is given.

    Raises:
        UsageError: so.
    """
    if isinstance(base.train_size, int) and max(space.batch_size) > base.train_size:
        raise UsageError(
            "A batch is at most the training split.",
            f"{max(space.batch_size)} of --batch-sizes with train_size={base.train_size}",
            "Remove it.",
        )
