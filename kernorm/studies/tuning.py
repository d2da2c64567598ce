"""Finds a learning rate for each arm of a study on validation, before its first run, with the test split sealed.

A rate is tried by runs of the arm's own length, on seeds that the study does not have, which end before anything is
measured. A line a run goes to rates.jsonl; what any study next to it has tried is taken.
"""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import prepared_sha256
from kernorm.errors import UsageError
from kernorm.parallel.batches import Populations
from kernorm.parallel.engine import Engine, Outcome
from kernorm.parallel.factory import open_training
from kernorm.parallel.settings import EngineConfig
from kernorm.records.jsonl import JsonLines
from kernorm.records.record import CHECKPOINT, REVISION, Record
from kernorm.records.schema import strict
from kernorm.reporting.progress import StudyProgress
from kernorm.studies.definition import Planned, Study
from kernorm.studies.ledger import RECORDS, Ledger
from kernorm.studies.preparation import prepare
from kernorm.studies.rates import SEEDS, ArmRate, Rates, best_rate, read_rates, tried_rates, write_rates
from kernorm.studies.selection import scored_row
from kernorm.system.files import locked, make_folder

TRIALS = "rates.jsonl"
# Folder in the study's, with the runs.
RUNS = "rates"

_LOG = logging.getLogger("kernorm")


@strict
@dataclass(frozen=True, kw_only=True)
class RateTrial:
    """A rate that was tried: the run, what computed it from what, and its cross-entropy, None if it diverged."""

    arm: str
    seed: int
    rate: float
    run_id: str
    revision: int
    data: str
    status: Literal["finished", "diverged"]
    cross_entropy: float | None


_LINES = JsonLines(RateTrial)


def with_rates(
    study: Study, folder: Path, asked: str | None, engine: EngineConfig | None = None, *, train: bool = True
) -> Study:
    """Returns the study with a learning rate of its own for each arm, found on validation; unchanged if none is asked.

    Args:
        study: whose configs say where runs are kept.
        folder: of the study; takes rates.json and rates.jsonl.
        asked: LOW:HIGH; None: the rates are the arms' own.
        engine: where runs are computed.
        train: False takes what was found before.

    Raises:
        UsageError: the range is none or not that of before, an arm has no validation split, arms differ in the rate
            alone, none of an arm's rates trains, or the rates were not found yet and may not be.
    """
    check_rates(study, folder, asked)
    if asked is None:
        return study
    kept = read_rates(folder)
    open_arms = _open(study, kept)
    if open_arms and not train:
        raise UsageError("A rate is found by training.", f"{', '.join(open_arms)} without one", "Run the study first.")
    if open_arms:
        make_folder(folder, "--reports-dir")
        with locked(folder / "lock", "run this study"):
            kept = _found(study, folder, asked, kept, open_arms, engine or EngineConfig())
            write_rates(kept, folder)
        _LOG.info(kept.sentence)
    return _applied(study, kept) if kept else study


def missing_trials(study: Study, folder: Path, asked: str) -> list[Planned]:
    """Returns the runs that are still to be trained to find the rates."""
    open_arms = _open(study, read_rates(folder))
    known = _known(folder, study)
    return [run for arm in open_arms for run in _trials(study, folder, arm, asked) if run.config.run_id not in known]


def with_found_rates(study: Study, folder: Path) -> Study:
    """Returns the study with the rates that were found before, if they were for all of its arms."""
    kept = read_rates(folder)
    return study if kept is None or _open(study, kept) else _applied(study, kept)


def check_rates(study: Study, folder: Path, asked: str | None) -> None:
    """Refuses what `with_rates` refuses before it trains anything."""
    kept = read_rates(folder)
    if kept and asked is None:
        fix = f"Give --tune-rate {kept.asked}, or --name another name."
        raise UsageError("A study keeps the rates that were found for it.", "no --tune-rate", fix)
    if asked is None:
        return
    tried_rates(asked)
    if kept and kept.asked != asked:
        raise UsageError(
            "A study keeps the range of its rates.",
            f"{asked}, and {kept.asked} when it was begun",
            "Give --name another name; runs that found rates are taken.",
        )
    if kept is None and Ledger(folder).results:
        raise UsageError(
            "Rates are found before the first run.",
            f"--tune-rate and {folder / RECORDS}, begun without it",
            "Give --name another name.",
        )
    seen: dict[str, str] = {}
    for arm, config in study.arms.items():
        if config.validation_size == 0:
            fix = "Give --validation-size auto, or remove --tune-rate."
            raise UsageError("--tune-rate needs a validation split.", f"{arm!r} with validation_size=0", fix)
        rest = json.dumps(config.identity | {"learning_rate": None}, sort_keys=True)
        if rest in seen:
            raise UsageError(
                "Arms differ in more than the rate that is found for them.",
                f"{seen[rest]!r} and {arm!r}",
                "Remove one, or --tune-rate.",
            )
        seen[rest] = arm


def _open(study: Study, kept: Rates | None) -> list[str]:
    """Returns the arms without a rate, or with one of another config of that name."""
    found = kept.arms if kept else {}
    return [arm for arm, config in study.arms.items() if arm not in found or found[arm].run_id != config.run_id]


def _applied(study: Study, kept: Rates) -> Study:
    arms = {arm: replace(config, learning_rate=kept.arms[arm].rate) for arm, config in study.arms.items()}
    return replace(study, arms=arms, rates=replace(kept, arms={arm: kept.arms[arm] for arm in study.arms}))


def _trials(study: Study, folder: Path, arm: str, asked: str) -> list[Planned]:
    """Returns the runs of an arm that find its rate."""
    config = study.arms[arm]
    return [
        Planned(arm=arm, seed=seed, config=_trial(config, folder, rate, config.seed + seed))
        for rate in tried_rates(asked)
        for seed in SEEDS
    ]


def _trial(config: TrainConfig, folder: Path, rate: float, seed: int) -> TrainConfig:
    return replace(
        config,
        learning_rate=rate,
        seed=seed,
        # Ends before anything is measured; and no epoch looks at the test split.
        stop_after=config.epochs,
        select="last" if config.select == "test" else config.select,
        reports_dir=folder / RUNS,
    )


def _found(study: Study, folder: Path, asked: str, kept: Rates | None, arms: list[str], engine: EngineConfig) -> Rates:
    """Trains what is missing and returns the rates of before with those of these arms."""
    prepare(study.arms[arm] for arm in arms)
    planned = {arm: _trials(study, folder, arm, asked) for arm in arms}
    known = _known(folder, study)
    _train([run for runs in planned.values() for run in runs if run.config.run_id not in known], folder, engine, known)
    tried = tried_rates(asked)
    rates = kept or Rates(asked=asked, tried=tried)
    for arm, runs in planned.items():
        means = tuple(
            sum(_score(known[run.config.run_id]) for run in runs if run.config.learning_rate == rate) / len(SEEDS)
            for rate in tried
        )
        best = best_rate(tried, means)
        if best is None:
            received = f"{arm!r}, which diverged at each from {tried[0]:g} to {tried[-1]:g}"
            raise UsageError("A rate is found among those that train.", received, "Give lower ones.")
        one = ArmRate(run_id=study.arms[arm].run_id, rate=best, cross_entropies=means)
        rates = replace(rates, arms={**rates.arms, arm: one})
    return rates


def _score(trial: RateTrial) -> float:
    return math.inf if trial.cross_entropy is None else trial.cross_entropy


def _train(missing: list[Planned], folder: Path, config: EngineConfig, known: dict[str, RateTrial]) -> None:
    """Trains runs and adds what they found to `known` and to the file, a line each."""
    if not missing:
        return
    failed = []
    opened: Engine[Planned, Record] | Populations[Planned] = open_training(config, log_dir=folder / "logs")
    with opened as engine, StudyProgress(total=len(missing), done=0, slots=engine.slots, what="rates") as progress:
        for run in missing:
            engine.submit(run)
        for outcome in engine.outcomes():
            if outcome.result is None:
                failed.append(f"{outcome.job.arm} at {outcome.job.config.peak_rate:g}, {outcome.error}")
                progress.ended(failed[-1])
                continue
            trial = _trial_of(outcome, outcome.result)
            _LINES.append(folder / TRIALS, trial)
            known[trial.run_id] = trial
            # What it resumes from; the record and the history stay.
            (outcome.job.config.reports_dir / "runs" / trial.run_id / CHECKPOINT).unlink(missing_ok=True)
            progress.ended(_format(trial))
    if failed:
        raise UsageError("Every run that finds a rate must end.", failed[0], "Run the same command to try it again.")


def _trial_of(outcome: Outcome[Planned, Record], record: Record) -> RateTrial:
    run, diverged = outcome.job, record.status == "diverged"
    score = None if diverged else scored_row(record, run.config.epochs).val_cross_entropy
    return RateTrial(
        arm=run.arm,
        seed=run.seed,
        rate=run.config.peak_rate,
        run_id=run.config.run_id,
        revision=record.revision,
        data=record.data.sha256,
        status="diverged" if diverged else "finished",
        cross_entropy=score if score is not None and math.isfinite(score) else None,
    )


def _format(trial: RateTrial) -> str:
    score = "diverged" if trial.cross_entropy is None else f"validation cross-entropy {trial.cross_entropy:.4f}"
    return f"{trial.arm} at {trial.rate:g}, seed {trial.seed}: {score}"


def _known(folder: Path, study: Study) -> dict[str, RateTrial]:
    """Returns what this study and those next to it have tried, by run id, if today's code and data would give it."""
    sources = {(config.dataset, config.manual_dir, config.data_dir) for config in study.arms.values()}
    digests = {prepared_sha256(name, manual_dir=first, data_dir=second) for name, first, second in sources} - {None}
    return {
        trial.run_id: trial
        for trial in _read(folder)
        if trial.revision == REVISION and (not digests or trial.data in digests)
    }


def _read(folder: Path) -> Iterator[RateTrial]:
    for path in sorted(folder.parent.glob(f"*/{TRIALS}"), key=lambda path: (path.parent == folder, path)):
        yield from (trial for _, trial in _LINES.read(path) if trial)
