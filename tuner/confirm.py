"""Trains the best trials again on fresh seeds, compares them by the study's statistics, and exports the confirmed best.

The best of many scores is biased upward (the winner's curse); fresh seeds show by how much. Chosen is the arm of
the lowest mean validation cross-entropy; the test split, opened once a run, only reports.
"""

from dataclasses import dataclass, replace

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

# The trials' seeds are far below.
FRESH = 1000
BASELINE = "no penalty"
# Arms of the full training: what was found, and the recipe as it is without a search.
FOUND, DEFAULT = "found", "not searched"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A confirmed trial, or None for the baseline, and its validation cross-entropies on fresh seeds, in nats."""

    name: str
    trial: Trial | None
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Their mean."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The best trials after confirmation.

    Attributes:
        arms: those confirmed, the best first; empty without confirmation.
        baseline: the same recipe without penalty, if no confirmed trial is that.
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
        arms = confirmed_arms(config, best[: config.top_k])
        question = f"Are the best of {len(best)} trials as good on fresh seeds?"
        summary, by_arm = _study(config, "confirm", arms, question, config.until())
        trials_of = {_name(trial): trial for trial in best}
        scored = [
            Arm(name=name, trial=trials_of.get(name), scores=tuple(map(validation_score, by_arm[name].values())))
            for name in arms
            if by_arm[name]
        ]
        scored.sort(key=lambda arm: arm.score)
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
        summary, by_arm = _study(config, "final", arms, question)
        found = replace(found, final=summary, config=arms[FOUND])
        records = by_arm[FOUND] or records
    return replace(found, exported=_export(config, records))


def unconfirmed(config: SearchConfig, trials: Trials) -> Confirmed:
    """Returns the best trial as it scored."""
    best = trials.best()[0]
    return Confirmed(arms=(), chosen=best, config=_fresh(config, best))


def final_arms(config: SearchConfig, found: TrainConfig) -> dict[str, TrainConfig]:
    """Returns the arms of the full training: what was found, and the recipe as it is, with no value searched."""
    epochs = max(TrainConfig.epochs, config.train.epochs)
    base = replace(config.base, seed=config.seed + FRESH)
    arms = {name: replace(one, epochs=epochs, train_size=None) for name, one in ((FOUND, found), (DEFAULT, base))}
    return arms if arms[FOUND].identity != arms[DEFAULT].identity else {FOUND: arms[FOUND]}


def confirmed_arms(config: SearchConfig, best: list[Trial]) -> dict[str, TrainConfig]:
    """Returns the arms of the confirmation by name, the baseline last; a trial that is the baseline is not repeated."""
    arms = {_name(trial): _fresh(config, trial) for trial in best}
    baseline = replace(config.base, l1=0.0, l2=0.0, seed=config.seed + FRESH)
    if all(arm.identity != baseline.identity for arm in arms.values()):
        arms[BASELINE] = baseline
    return arms


def _name(trial: Trial) -> str:
    return f"trial {trial.number + 1}"


def _fresh(config: SearchConfig, trial: Trial) -> TrainConfig:
    found = configured(config.space, config.base, trial.values)
    return replace(found, seed=config.seed + FRESH, stop_after=None)


def _study(
    config: SearchConfig,
    name: str,
    arms: dict[str, TrainConfig],
    question: str,
    until: UntilResolved | None = None,
) -> tuple[StudySummary, dict[str, dict[int, Record]]]:
    """Runs a study of these arms in the search's folder; returns its summary and its records by arm and seed."""
    baseline = next((arm for arm in (BASELINE, DEFAULT) if arm in arms), list(arms)[-1])
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
    return summary, {arm: finished(results) for arm, results in found.items()}


def _export(config: SearchConfig, records: dict[int, Record]) -> Record | None:
    """Exports the run of the lowest validation cross-entropy, with a report of its own."""
    if not records:
        return None
    if config.report_only:
        best = min(records.values(), key=validation_score)
        path = config.folder / "runs" / best.run_id / RECORD
        return read_record(path) if path.exists() else best
    return export_best(records.values(), replace(config.base, saved_models_dir=config.saved_models_dir))
