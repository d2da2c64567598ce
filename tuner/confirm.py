"""Trains the best trials again on fresh seeds, compares them by the study's statistics, and exports the confirmed best.

The best of many scores is biased upward (the winner's curse); fresh seeds show by how much. Chosen is the arm of
the lowest mean validation cross-entropy; the test split, opened once a run, only reports.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from kernorm.config import TrainConfig
from kernorm.records.record import RECORD, Record, read_record
from kernorm.studies.analysis import finished, results_by_arm
from kernorm.studies.definition import Study, UntilResolved
from kernorm.studies.ledger import Ledger
from kernorm.studies.runner import run_study
from kernorm.studies.selection import export_best, validation_score
from kernorm.studies.summary import StudySummary
from kernorm.studies.terminal import show_verdicts
from tuner.config import SearchConfig
from tuner.space import configured
from tuner.trials import Trial, Trials

# What a search was begun with, in its folder.
SETTINGS = "search.json"
# How the best are confirmed and trained in full. 1, where a search does not say: both by the same seeds, without a
# penalty at the values of the recipe, in full for the default recipe's epochs.
CONFIRMATION = 2
# The trials' seeds are far below. The full training has others than the confirmation, whose runs chose what is trained.
FRESH, FULL = 1000, 2000
BASELINE = "no penalty"
# Arms of the full training: what was found, and the recipe as it is without a search.
FOUND, DEFAULT = "found", "not searched"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A confirmed trial, or None for the baseline, and its validation cross-entropies on fresh seeds, in nats.

    `failed` counts the seeds whose runs did not finish; an arm with fewer of them goes before one with more.
    """

    name: str
    trial: Trial | None
    scores: tuple[float, ...]
    failed: int = 0

    @property
    def score(self) -> float:
        """Their mean."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The best trials after confirmation.

    Attributes:
        arms: those confirmed, the best first; empty without confirmation.
        baseline: the best trial's settings without penalty, or the recipe as it is; None if a confirmed trial is that.
        chosen: the trial that was confirmed best, or scored best.
        study: of the confirmation, None without one.
        final: of the full training of the chosen one and of the recipe as it is, None without it.
        exported: the record of the run that was exported, None if there is none.
    """

    arms: tuple[Arm, ...]
    chosen: Trial
    config: TrainConfig
    baseline: Arm | None = None
    study: StudySummary | None = None
    final: StudySummary | None = None
    exported: Record | None = None


def confirm(config: SearchConfig, trials: Trials) -> Confirmed:
    """Confirms the best trials, trains the chosen one in full next to the recipe as it is, and exports its best run."""
    best = trials.best()
    found: Confirmed | None = None
    records: dict[int, Record] = {}
    if config.top_k:
        arms, baseline = confirmed_arms(config, best)
        question = f"Are the best of {len(best)} trials as good on fresh seeds?"
        summary, by_arm, failed = _study(config, "confirm", arms, baseline, question, config.until())
        trials_of = {_name(trial): trial for trial in best}
        scored = [
            Arm(
                name=name,
                trial=trials_of.get(name),
                scores=tuple(map(validation_score, by_arm[name].values())),
                failed=failed[name],
            )
            for name in arms
            if by_arm[name]
        ]
        # The seeds that an arm survived say nothing for it.
        scored.sort(key=lambda arm: (arm.failed, arm.score))
        for arm in scored:
            if arm.trial:
                found = Confirmed(
                    arms=tuple(arm for arm in scored if arm.trial),
                    chosen=arm.trial,
                    config=arms[arm.name],
                    baseline=next((arm for arm in scored if not arm.trial), None),
                    study=summary,
                )
                records = by_arm[arm.name]
                break
    if found is None:
        found = unconfirmed(config, trials)
    if config.final:
        arms = final_arms(config, found.config)
        question = "How good is what was found, trained in full, and how good is the recipe without a search?"
        baseline = DEFAULT if DEFAULT in arms else FOUND
        summary, by_arm, _ = _study(config, "final", arms, baseline, question)
        found = replace(found, final=summary, config=arms[FOUND])
        records = by_arm[FOUND] or records
    return replace(found, exported=_export(config, records))


def unconfirmed(config: SearchConfig, trials: Trials) -> Confirmed:
    """Returns the best trial as it scored."""
    best = trials.best()[0]
    return Confirmed(arms=(), chosen=best, config=_fresh(config, best))


def final_arms(config: SearchConfig, found: TrainConfig) -> dict[str, TrainConfig]:
    """Returns the arms of the full training: what was found, and the recipe as it is, with no value searched."""
    old = _confirmation(config) == 1
    epochs = max(TrainConfig.epochs, config.train.epochs) if old else config.full_epochs
    full: dict[str, Any] = {"epochs": epochs, "train_size": None, "seed": config.seed + (FRESH if old else FULL)}
    arms = {name: replace(one, **full) for name, one in ((FOUND, found), (DEFAULT, config.base))}
    return arms if arms[FOUND].identity != arms[DEFAULT].identity else {FOUND: arms[FOUND]}


def confirmed_arms(config: SearchConfig, best: list[Trial]) -> tuple[dict[str, TrainConfig], str]:
    """Returns the arms of the confirmation by name, the best trials of different settings, and the baseline's name.

    The baseline is the best trial without its penalty, the last arm; where it has none, the recipe as it is. A trial
    that is the baseline is not repeated.
    """
    arms: dict[str, TrainConfig] = {}
    for trial in best:  # Hyperband tries settings for ever more epochs
        one = _fresh(config, trial)
        if len(arms) < config.top_k and one not in arms.values():
            arms[_name(trial)] = one
    first, name = next(iter(arms.values())), BASELINE
    if _confirmation(config) == 1:
        baseline = replace(config.base, l1=0.0, l2=0.0, seed=first.seed)
    elif first.l1 or first.l2:
        baseline = replace(first, l1=0.0, l2=0.0)
    else:
        baseline, name = replace(config.base, seed=first.seed), DEFAULT
    there = next((arm for arm, one in arms.items() if one.identity == baseline.identity), None)
    return (arms, there) if there else (arms | {name: baseline}, name)


def baseline_in_words(config: SearchConfig, study: StudySummary | None) -> str:
    """Says what the confirmed trials are compared with."""
    name = next((arm.name for arm in study.arms if not arm.baseline), BASELINE) if study else BASELINE
    without = "the same recipe without penalty" if _confirmation(config) == 1 else "the best trial without its penalty"
    if name == BASELINE:
        return without
    recipe = without if _confirmation(config) == 1 else "the recipe as it is"
    return recipe if name == DEFAULT else f"{name}, which is {recipe}"


def _confirmation(config: SearchConfig) -> int:
    path = config.folder / SETTINGS
    return json.loads(path.read_bytes()).get("confirmation", 1) if path.exists() else CONFIRMATION


def _name(trial: Trial) -> str:
    return f"trial {trial.number + 1}"


def _fresh(config: SearchConfig, trial: Trial) -> TrainConfig:
    found = configured(config.space, config.base, trial.values)
    return replace(found, seed=config.seed + FRESH, stop_after=None)


def _study(
    config: SearchConfig,
    name: str,
    arms: dict[str, TrainConfig],
    baseline: str,
    question: str,
    until: UntilResolved | None = None,
) -> tuple[StudySummary, dict[str, dict[int, Record]], dict[str, int]]:
    """Runs a study of these arms in the search's folder.

    Returns:
        Its summary, the records of the runs that finished by arm and seed, and how many others each arm has.
    """
    planned = Study(
        name=f"{config.name}: {name}",
        text=question,
        arms=arms,
        seeds=tuple(range(config.confirm_seeds)),
        baselines=dict.fromkeys(arms, baseline),
    )
    folder = config.folder / "studies" / name
    summary = run_study(
        planned,
        folder,
        config.engine,
        command=f"python -m tuner.search --name {config.name}",
        train=not config.report_only,
        until=until,
    )
    show_verdicts(summary)
    found = results_by_arm(replace(planned, seeds=summary.seeds), Ledger(folder).results)
    records = {arm: finished(results) for arm, results in found.items()}
    return summary, records, {arm: len(found[arm]) - len(records[arm]) for arm in found}


def _export(config: SearchConfig, records: dict[int, Record]) -> Record | None:
    """Exports the run of the lowest validation cross-entropy, with a report of its own."""
    if not records:
        return None
    if config.report_only:
        best = min(records.values(), key=validation_score)
        path = config.folder / "runs" / best.run_id / RECORD
        return read_record(path) if path.exists() else best
    return export_best(records.values(), replace(config.base, saved_models_dir=config.saved_models_dir))
