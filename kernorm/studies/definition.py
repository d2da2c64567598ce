"""What a study is: named arms, seeds and a baseline, read from a small Python file; and the runs that it asks for.

Before study.py, which runs it. A study file holds a docstring whose first paragraph is the question, and:

    ARMS: dict[str, TrainConfig]        the arms by name; an arm's own seed is added to the study's seeds
    BASELINE: str | dict[str, str]      the arm that the others are compared with, or each arm's own by name; the first
                                        arm if it is missing
    SEEDS: int                          how many, 5 if it is missing
    PUBLISHED: dict[str, Published]     what a paper says of an arm, shown next to what is found here
"""

import ast
import contextlib
import dataclasses
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
from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded, whole_number

SEEDS = 5


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
        baselines: the arm that each arm is compared with; an arm that is its own baseline, or has none, is compared
            with nothing.
        file: where it is defined: a path relative to the current folder, or `kernorm:NAME`; empty for a call.
    """

    name: str
    text: str
    arms: Mapping[str, TrainConfig]
    seeds: tuple[int, ...]
    baselines: Mapping[str, str]
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    file: str = ""

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
        ]


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
    return replace(study, file=f"kernorm:{name}" if name in known else os.path.relpath(path))


def with_overrides(
    study: Study, *, seeds: int | None = None, epochs: int | None = None, only: Iterable[str] = (), **changes: Any
) -> Study:
    """Returns the study with fewer or more seeds, another number of epochs, or some of its arms.

    Args:
        study: as it was read.
        seeds: how many, from 0.
        epochs: of every arm; step schedules keep their shape, rounded to whole epochs.
        only: names of arms or patterns such as `ln-*`; their baselines stay in any case.
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
        arm: replace(config, **shortened(config, epochs), **changes)
        for arm, config in study.arms.items()
        if arm in kept
    }
    return replace(study, arms=arms, seeds=study.seeds if count is None else tuple(range(count)))


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
    count = whole_number(seeds)
    if count is None or count < 1:
        raise UsageError("SEEDS is a number of at least 1.", f"{seeds!r} in {source}", "Give 5.")
    return Study(name=name, text=text, arms=arms, seeds=tuple(range(count)), baselines=baselines, published=published)


def _study(name: str, path: Path, values: Mapping[str, Any]) -> Study:
    return study_of(
        name,
        values.get("ARMS"),
        text=str(values.get("__doc__") or name),
        baseline=values.get("BASELINE"),
        seeds=values.get("SEEDS", SEEDS),
        published=values.get("PUBLISHED", {}),
        source=str(path),
    )
