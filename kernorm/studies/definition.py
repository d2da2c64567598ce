"""What a study is: named arms, seeds and a baseline, read from a small Python file; and the runs that it asks for.

Before study.py, which runs it. A study file holds a docstring whose first paragraph is the question, and:

    ARMS: dict[str, TrainConfig]        the arms by name; an arm's own seed is added to the study's seeds
    BASELINE: str | dict[str, str]      the arm that the others are compared with, or each arm's own by name; the first
                                        arm if it is missing
    SEEDS: int                          how many, 5 if it is missing
    PRIMARY: str                        the metric with verdicts: accuracy (default), cross_entropy, brier, ece
    PUBLISHED: dict[str, Published]     what a paper says of an arm, shown next to what is found here
    STATEMENTS: tuple[Statement, ...]   what a paper concludes, each answered by the runs
"""

import ast
import contextlib
import dataclasses
import hashlib
import json
import os
import runpy
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kernorm.config import TrainConfig
from kernorm.datasets.own import with_prepared
from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded, seconds_of, whole_number

SEEDS = 5
# Metrics that verdicts may be by; see `summary.METRICS`.
PRIMARY = ("accuracy", "cross_entropy", "brier", "ece")
# The first number of seeds that may decide, `stats.anytime.FIRST`, which takes long to import.
LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a published table, in its own convention.

    Attributes:
        accuracy: in percent, as selected there.
        l1: λ1 as stated.
        weight_decay: as stated, PyTorch's: the derivative of weight_decay/2·w², so twice the λ2 of
            `keras.regularizers.L1L2`.
        source: where it stands.
    """

    accuracy: float
    l1: float = 0.0
    weight_decay: float = 0.0
    source: str = ""

    @property
    def l2(self) -> float:
        """The λ2 of Keras' convention."""
        return self.weight_decay / 2


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a publication concludes of an arm, in a form that runs can answer.

    Attributes:
        text: in its own words.
        arm: that it speaks of.
        better_than: arms that `arm` is said to be better than, all of them.
        worse_than: arms that it is said to be worse than.
        reaches: the accuracy in percent that it is said to reach, selected as there.
        note: what the publication left out.
    """

    text: str
    arm: str
    better_than: tuple[str, ...] = ()
    worse_than: tuple[str, ...] = ()
    reaches: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        """Refuses a statement of nothing, and one of two things."""
        if sum((bool(self.better_than), bool(self.worse_than), self.reaches is not None)) != 1:
            raise UsageError(
                "A Statement has one of better_than, worse_than and reaches.",
                f"{self.text!r} with {'none' if not (self.better_than or self.worse_than) else 'several'}",
                'Write for example Statement(text="…", arm="l2", better_than=("none",)).',
            )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a study: an arm with one of the study's seeds."""

    arm: str
    seed: int
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class Study:
    """Named arms, seeds and a baseline.

    Attributes:
        text: the file's docstring; its first paragraph is the question.
        seeds: are added to each arm's own seed.
        counts: how many of the seeds an arm has, where that is not all of them.
        metric: the primary one, which alone has verdicts.
        baselines: the arm that each arm is compared with; an arm that is its own baseline, or has none, is compared
            with nothing.
        file: where it is defined: a path from the current folder, `kernorm:NAME`, or a name and a digest of the path of
            a file elsewhere; empty for a call.
    """

    name: str
    text: str
    arms: Mapping[str, TrainConfig]
    seeds: tuple[int, ...]
    baselines: Mapping[str, str]
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    file: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    metric: str = PRIMARY[0]

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Returns the seeds of an arm."""
        return self.seeds[: self.counts.get(arm, len(self.seeds))]

    @property
    def question(self) -> str:
        """The first paragraph of the text, in one line."""
        return " ".join(self.text.strip().split("\n\n")[0].split())

    def runs(self) -> list[Planned]:
        """Returns every run, seed by seed, so that a study that is interrupted has compared all arms so far."""
        return [
            Planned(arm=arm, seed=seed, config=replace(config, seed=config.seed + seed))
            for seed in self.seeds
            for arm, config in self.arms.items()
            if seed in self.seeds_of(arm)
        ]


@dataclass(frozen=True, kw_only=True)
class UntilResolved:
    """How long a study may go on: no round begins that would end after `seconds`; `most` seeds of an arm at most."""

    seconds: float | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        """Refuses too few seeds."""
        if self.most is not None and self.most < LEAST:
            raise UsageError(
                f"--max-seeds must be at least {LEAST}, the first number that may decide.",
                f"max_seeds={self.most}",
                "Give for example 50.",
            )


def until_resolved_or_none(
    until_resolved: bool, seeds: int | None, time_budget: str | None, max_seeds: int | None
) -> UntilResolved | None:
    """Returns how long a study may go on, as the command and the call take it; None for a fixed number of seeds.

    Raises:
        UsageError: the settings contradict each other, or one is wrong.
    """
    seconds = None if time_budget is None else seconds_of(time_budget, "--time-budget")
    found = UntilResolved(seconds=seconds, most=max_seeds)
    if until_resolved and seeds is not None:
        raise UsageError(
            "A number of seeds is fixed, or found by rounds.",
            f"--seeds {seeds} and --until-resolved",
            "Give one of them.",
        )
    for flag, value in (("--time-budget", time_budget), ("--max-seeds", max_seeds)):
        if value is not None and not until_resolved:
            raise UsageError(f"{flag} goes with --until-resolved.", f"{flag} {value} alone", "Add that flag.")
    return found if until_resolved else None


def packaged() -> dict[str, Path]:
    """Returns the files of the package's own studies by name."""
    folder = Path(__file__).parent / "library"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load_study(name: str) -> Study:
    """Reads a study of the package by its name, or a user's own by the path of its file.

    Raises:
        UsageError: there is none of that name, or the file is not a study; it says what is wrong and where.
    """
    known = packaged()
    path = known.get(name) or expanded(name)
    if name not in known and path.suffix != ".py":
        raise UsageError("A study is a known name or a Python file.", f"{name!r}", nearest(name, known))
    if not path.is_file():
        raise UsageError("A study file must be there.", f"{name}, which is not", f"Known: {', '.join(known)}.")
    study = _study(path.stem, path, _values(path))
    return replace(study, file=f"kernorm:{name}" if name in known else _file_name(path))


def _file_name(path: Path) -> str:
    """Names a study file by its path from the current folder; one elsewhere without the folders of this machine."""
    relative = os.path.relpath(path)
    if not relative.startswith(os.pardir):
        return relative
    return f"{path.name} ({hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]})"


def with_overrides(
    study: Study,
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    only: Iterable[str] = (),
    metric: str | None = None,
    **changes: Any,
) -> Study:
    """Returns the study with fewer or more seeds, another number of epochs, or some of its arms, its data prepared.

    Own images, which arms name by their path, are prepared here, so that every arm has the name of the prepared set.

    Args:
        study: as it was read.
        seeds: how many, from 0.
        epochs: of every arm; step schedules keep their shape, rounded to whole epochs.
        only: names of arms or patterns such as `ln-*`; their baselines stay in any case.
        metric: the primary one; None: the study's own.
        changes: fields of TrainConfig, the same for every arm.

    Raises:
        UsageError: a pattern matches no arm, or a number is refused.
    """
    count = None if seeds is None else whole_number(seeds)
    if seeds is not None and (count is None or count < 1):
        raise UsageError("--seeds must be at least 1.", f"seeds={seeds}", "Give 5, or at least 2 for a verdict.")
    patterns = list(only)
    for pattern in patterns:
        if not any(fnmatchcase(arm, pattern) for arm in study.arms):
            raise UsageError("--only takes names of arms.", f"{pattern!r}", nearest(pattern, study.arms))
    named = {arm for arm in study.arms if not patterns or any(fnmatchcase(arm, pattern) for pattern in patterns)}
    kept = named | {study.baselines[arm] for arm in named if arm in study.baselines}
    arms = {
        arm: with_prepared(replace(config, **shortened(config, epochs), **changes))
        for arm, config in study.arms.items()
        if arm in kept
    }
    return replace(
        study,
        arms=arms,
        statements=tuple(one for one in study.statements if _arms_of(one) <= arms.keys()),
        seeds=study.seeds if count is None else tuple(range(count)),
        metric=study.metric if metric is None else primary(metric, "--metric"),
    )


def _arms_of(statement: Statement) -> set[str]:
    return {statement.arm, *statement.better_than, *statement.worse_than}


def primary(name: Any, source: str) -> str:
    """Returns a primary metric's name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PRIMARY:
        raise UsageError("A primary metric is a known one.", f"{name!r} as {source}", nearest(str(name), PRIMARY))
    return str(name)


def shortened(config: TrainConfig, epochs: int | None) -> dict[str, Any]:
    """Returns the fields that give a config another number of epochs; a step schedule shrinks or grows with it."""
    if epochs is None:
        return {}
    if config.schedule != "step" or whole_number(epochs) is None:
        return {"epochs": epochs}
    share = epochs / config.epochs
    return {
        "epochs": epochs,
        "step_size": max(1, round(config.step_size * share)),
        "step_after": round(config.step_after * share),
    }


def _values(path: Path) -> dict[str, Any]:
    """Runs a study file and returns what it defines; it may import its neighbours, as any script."""
    try:
        ast.parse(path.read_bytes(), str(path))
        with _neighbours_importable(path.resolve().parent):
            return runpy.run_path(str(path))
    except SyntaxError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        reason = f"{type(error).__name__}: {error}"
    raise UsageError("A study file must run as Python.", f"{path}, {reason}", "Fix it.")


@contextlib.contextmanager
def _neighbours_importable(folder: Path) -> Iterator[None]:
    """Lets the body import modules of the folder; what it imported from there is forgotten after."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder in Path(file).parents:
                del sys.modules[name]


def study_of(
    name: str,
    arms: Any,
    *,
    text: str,
    baseline: str | Mapping[str, str] | None = None,
    seeds: Any = SEEDS,
    published: Mapping[str, Published] | None = None,
    statements: Any = (),
    metric: Any = PRIMARY[0],
    source: str = "this call",
) -> Study:
    """Returns a study of these arms; `source` is where they are defined, for messages.

    Args:
        name: of the study.
        arms: configs by name.
        text: its first paragraph is the question.
        baseline: the arm that the others are compared with, or each arm's own by name; None: the first.
        seeds: how many.
        published: what a paper says of arms.
        statements: what it concludes of them.
        metric: the primary one, which alone has verdicts.
        source: names the file, or says that it is a call.

    Raises:
        UsageError: an arm has no name or no config, two are the same, or a name or a number is wrong.
    """
    if not (isinstance(arms, dict) and arms and all(isinstance(config, TrainConfig) for config in arms.values())):
        raise UsageError(
            "A study defines ARMS, a dict from names to TrainConfig.",
            f"{source}, {'without ARMS' if arms is None else 'whose ARMS is not one, or empty'}",
            'Write for example ARMS = {"bn": TrainConfig(norm="bn"), "ln": TrainConfig(norm="ln")}.',
        )
    seen: dict[str, str] = {}
    for arm, config in arms.items():
        if not (isinstance(arm, str) and arm.strip()):
            raise UsageError("An arm has a name.", f"{arm!r} in {source}", "Give it one.")
        identity = json.dumps(config.identity, sort_keys=True)
        if identity in seen:
            raise UsageError(
                "Two arms must differ.",
                f"{seen[identity]!r} and {arm!r} of {source} with the same config",
                "Remove one, or give it another seed to see what noise is.",
            )
        seen[identity] = arm
    chosen = next(iter(arms)) if baseline is None else baseline
    baselines = chosen if isinstance(chosen, Mapping) else dict.fromkeys(arms, chosen)
    if stray := next((arm for pair in baselines.items() for arm in pair if arm not in arms), None):
        raise UsageError("BASELINE names arms.", f"{stray!r} in {source}", nearest(str(stray), arms))
    published = published or {}
    if stray := next((arm for arm in published if arm not in arms), None):
        raise UsageError("PUBLISHED names arms.", f"{stray!r} in {source}", nearest(stray, arms))
    if not (isinstance(statements, tuple | list) and all(isinstance(one, Statement) for one in statements)):
        raise UsageError("STATEMENTS is a tuple of Statement.", f"{statements!r} in {source}", "See kernorm.Statement.")
    if stray := next((arm for one in statements for arm in sorted(_arms_of(one)) if arm not in arms), None):
        raise UsageError("STATEMENTS names arms.", f"{stray!r} in {source}", nearest(stray, arms))
    count = whole_number(seeds)
    if count is None or count < 1:
        raise UsageError("SEEDS is a number of at least 1.", f"{seeds!r} in {source}", "Give 5.")
    return Study(
        name=name,
        text=text,
        arms=arms,
        seeds=tuple(range(count)),
        baselines=baselines,
        published=published,
        statements=tuple(statements),
        metric=primary(metric, f"PRIMARY of {source}"),
    )


def _study(name: str, path: Path, values: Mapping[str, Any]) -> Study:
    return study_of(
        name,
        values.get("ARMS"),
        text=str(values.get("__doc__") or name),
        baseline=values.get("BASELINE"),
        seeds=values.get("SEEDS", SEEDS),
        published=values.get("PUBLISHED", {}),
        statements=values.get("STATEMENTS", ()),
        metric=values.get("PRIMARY", PRIMARY[0]),
        source=str(path),
    )
