"""What a study is: named arms, seeds and a baseline, read from a small Python file; and the runs that it asks for.

Before study.py, which runs it. A study file holds a docstring whose first paragraph is the question, and:

    ARMS: dict[str, TrainConfig]        the arms by name; an arm's own seed is added to the study's seeds
    BASELINE: str | dict[str, str]      the arm that the others are compared with, or each arm's own by name; the first
                                        arm if it is missing
    SEEDS: int                          how many, 5 if it is missing
    PRIMARY: str                        the metric with verdicts, see `choices.PRIMARY`; auto if it is missing
    MARGIN: str | float                 what counts as no difference of it: "0.5pp" for points, or a number
    TARGETS: str                        accuracies whose time is shown, in percent: "90,95", or auto
    PUBLISHED: dict[str, Published]     what a paper says of an arm, shown next to what is found here
    STATEMENTS: tuple[Statement, ...]   what a paper concludes, each answered by the runs
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import seconds_of, whole_number
from kernorm.nets.source import with_net
from kernorm.studies.choices import AUTO, margin_of, primary, targets_of_text
from kernorm.studies.published import Published, Statement
from kernorm.training.tracking import Membership
from kernorm.unused import require_recipe, without_unused

if TYPE_CHECKING:
    from kernorm.studies.rates import Rates

SEEDS = 5
# The first number of seeds that may decide, `stats.anytime.FIRST`, which takes long to import.
LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a study: an arm with one of the study's seeds."""

    arm: str
    seed: int
    config: TrainConfig
    member: Membership | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Named arms, seeds and a baseline.

    Attributes:
        text: the file's docstring; its first paragraph is the question.
        seeds: are added to each arm's own seed.
        chosen: of runs that were chosen afterwards, the seeds of each arm by what they are compared by; else empty.
        counts: how many of the seeds an arm has, where that is not all of them.
        metric: the primary one, which alone has verdicts; or auto.
        margin: what counts as no difference of it; or auto.
        targets: accuracies whose time is shown; empty: those that fit MNIST there, and auto elsewhere.
        baselines: the arm that each arm is compared with; an arm that is its own baseline, or has none, is compared
            with nothing.
        rates: how the arms' learning rates were found, where `--tune-rate` did.
        shortened: the epochs that arms have in the study file, where the command gave them others.
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
    chosen: Mapping[str, Mapping[int, int]] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    metric: str = AUTO
    margin: float | Literal["auto"] = AUTO
    targets: tuple[float, ...] | Literal["auto"] = ()
    rates: "Rates | None" = None
    shortened: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Returns the seeds of an arm."""
        return tuple(self.chosen[arm]) if self.chosen else self.seeds[: self.counts.get(arm, len(self.seeds))]

    @property
    def question(self) -> str:
        """The first paragraph of the text, in one line."""
        return " ".join(self.text.strip().split("\n\n")[0].split())

    def runs(self) -> list[Planned]:
        """Returns every run, seed by seed, so that a study that is interrupted has compared all arms so far."""
        member = Membership(study=self.name, arm="", question=self.question)
        return [
            Planned(arm=arm, seed=seed, config=replace(config, seed=own), member=replace(member, arm=arm))
            for seed in self.seeds
            for arm, config in self.arms.items()
            if seed in self.seeds_of(arm)
            for own in [self.chosen[arm][seed] if self.chosen else config.seed + seed]
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


def with_overrides(
    study: Study,
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    only: Iterable[str] = (),
    metric: str | None = None,
    margin: str | float | None = None,
    targets: str | None = None,
    **changes: Any,
) -> Study:
    """Returns the study with fewer or more seeds, another number of epochs, or some of its arms, its data prepared.

    Own images and nets, which arms name by their path, are read here: an arm has the prepared set's name and the text.

    Args:
        study: as it was read.
        seeds: how many, from 0.
        epochs: of every arm; schedules keep their shape, those by steps rounded to whole epochs.
        only: names of arms or patterns such as `ln-*`; their baselines stay in any case.
        metric: the primary one; None: the study's own.
        margin: what counts as no difference, as `margin_of` takes it; None: the study's own.
        targets: accuracies whose time is shown, as `targets_of_text` takes them; None: the study's own.
        changes: fields of TrainConfig, the same for every arm.

    Raises:
        UsageError: a pattern matches no arm, or a number is refused.
    """
    from kernorm.datasets.own import with_prepared  # NumPy, which --help does without

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
        arm: with_prepared(with_net(replace(config, **shortened(config, epochs), **changes)))
        for arm, config in study.arms.items()
        if arm in kept
    }
    return replace(
        study,
        arms=arms,
        statements=tuple(one for one in study.statements if _arms_of(one) <= arms.keys()),
        seeds=study.seeds if count is None else tuple(range(count)),
        shortened={arm: study.arms[arm].epochs for arm in arms if arms[arm].epochs != study.arms[arm].epochs},
        metric=study.metric if metric is None else primary(metric, "--metric"),
        margin=study.margin if margin is None else margin_of(margin, "--margin"),
        targets=study.targets if targets is None else targets_of_text(targets, "--targets"),
    )


def _arms_of(statement: Statement) -> set[str]:
    return {statement.arm, *statement.better_than, *statement.worse_than}


def shortened(config: TrainConfig, epochs: int | None) -> dict[str, Any]:
    """Returns the fields that give a config another number of epochs; its schedule shrinks or grows with it."""
    if epochs is None:
        return {}
    if config.schedule == "cosine" and config.warmup >= 1:
        return {"epochs": epochs, "warmup": config.warmup / config.epochs}
    if config.schedule != "step" or whole_number(epochs) is None:
        return {"epochs": epochs}
    share = epochs / config.epochs
    return {
        "epochs": epochs,
        "step_size": max(1, round(config.step_size * share)),
        "step_after": round(config.step_after * share),
    }


def study_of(
    name: str,
    arms: Any,
    *,
    text: str,
    baseline: str | Mapping[str, str] | None = None,
    seeds: Any = SEEDS,
    published: Mapping[str, Published] | None = None,
    statements: Any = (),
    metric: Any = AUTO,
    margin: Any = AUTO,
    targets: Any = None,
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
        margin: what counts as no difference.
        targets: accuracies whose time is shown.
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
        require_recipe(config)
        # Neither the name of a recipe nor a setting that is not used makes another result.
        identity = json.dumps(without_unused(config).identity | {"recipe": ""}, sort_keys=True)
        if identity in seen:
            raise UsageError(
                "Two arms must differ.",
                f"{seen[identity]!r} and {arm!r} of {source}, which compute the same",
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
        margin=margin_of(margin, f"MARGIN of {source}"),
        targets=() if targets is None else targets_of_text(targets, f"TARGETS of {source}"),
    )
