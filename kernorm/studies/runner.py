"""Runs what is missing of a study, and writes its report.

One line a run goes to records.jsonl as soon as it has ended; the same call again runs only what is missing, and more
seeds extend it. This process schedules jobs and collects results: it imports neither Keras nor TensorFlow.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from kernorm.errors import UsageError, is_of_surroundings
from kernorm.parallel.batches import Populations
from kernorm.parallel.engine import Engine, Outcome
from kernorm.parallel.factory import open_training
from kernorm.parallel.settings import EngineConfig
from kernorm.records.record import Record
from kernorm.reporting.live import Live, LivePage
from kernorm.reporting.progress import StudyProgress
from kernorm.studies.analysis import analyse, results_by_arm
from kernorm.studies.choices import AUTO
from kernorm.studies.definition import Planned, Study, UntilResolved
from kernorm.studies.design import Design, read_design, settled, with_looks_of_others, write_design
from kernorm.studies.judged import ended_runs
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.plans import format_visible
from kernorm.studies.preparation import prepare
from kernorm.studies.primary import asked_design, class_sizes, resolved
from kernorm.studies.provisional import is_complete, without_verdicts
from kernorm.studies.report.page import write_study_report
from kernorm.studies.rounds import format_round, next_round, open_arms, require_order, with_counts
from kernorm.studies.summary import StudySummary, counted
from kernorm.studies.taking import lacking_results, missing_runs_of, shared_runs, take_over
from kernorm.studies.terminal import format_primary, format_result
from kernorm.system.files import locked, locked_if_free, make_folder

# Writes the page of a study as it stands, while its runs are under way or at their end; returns what it says.
Show = Callable[[Study, Live | None], StudySummary]

_LOG = logging.getLogger("kernorm")


def run_study(
    study: Study,
    folder: Path,
    engine: EngineConfig | None = None,
    *,
    command: str = "",
    train: bool = True,
    until: UntilResolved | None = None,
) -> StudySummary:
    """Runs what is missing of a study and writes report.html and its tables into the study's folder.

    Verdicts that are shown are a look, which design.json keeps.

    Args:
        study: arms, seeds and baselines; its configs say where runs are kept.
        folder: of the study; takes records.jsonl and the report.
        engine: where runs are computed; by default on this machine, one a core.
        command: how to make the report again, as it shows it.
        train: False writes the report from the records alone.
        until: adds seeds round by round until every arm is resolved, or that says stop.

    Returns:
        What can be said of the study by all runs there are.

    Raises:
        UsageError: its data or the engine cannot be used, its folder is another study's, another process runs it, or
            what was fixed before its first run would change.
    """
    make_folder(folder, "--reports-dir")
    planned = study
    with locked(folder / "lock", "run this study") if train else locked_if_free(folder / "lock") as free:
        # Another process adds runs to what is only shown here.
        alone = free is not False
        ledger = Ledger(folder, mend=alone)
        _check_file(study, ledger)
        if ledger.damaged:
            _LOG.warning(
                "%d damaged lines of %s were moved to records.damaged.jsonl: line %s. Their runs are repeated.",
                len(ledger.damaged),
                ledger.path,
                ", ".join(map(str, ledger.damaged)),
            )
        asked = replace(asked_design(study), until_resolved=until is not None, cap=until.most if until else None)
        design = settled(read_design(folder), asked, begun=bool(ledger.results), train=train)
        if AUTO in (design.metric, design.margin):
            design = resolved(design, class_sizes(study, ledger.results, prepare=train))
        if train:
            taken = lacking_results(study, shared_runs(study, folder), ledger).keys()
            design = with_looks_of_others(design, study, taken | ledger.results.keys(), taken, folder)
            write_design(design, folder)
        if design.until_resolved:
            study = _as_far_as_it_is(study, design, ledger)

        def show(study: Study, live: Live | None = None) -> StudySummary:
            return _show(study, ledger, design, command, live=live)

        if train and until:
            study = _run_until_resolved(study, engine or EngineConfig(), ledger, design, until, show)
        elif train:
            _run(study, engine or EngineConfig(), ledger, show)
        complete = is_complete(study, design, ledger.results)
        if alone and complete and (train or ledger.results):
            # Before the page, so that a page that is made again says the same of its looks.
            kept = read_design(folder)
            design = replace(design, looks=kept.looks if kept else design.looks)
            design = _looked(design, study, ledger)
        summary = show(study, None if alone else _far(study, ledger))
    if alone or (folder / "lock").exists():
        return summary
    # The other process has ended meanwhile: its last page is not to be hidden by an older one.
    return run_study(planned, folder, command=command, train=False, until=until)


def _looked(design: Design, study: Study, ledger: Ledger) -> Design:
    """Keeps a look at the verdicts, where anything is compared; returns the design with it."""
    if design.families(study):
        design = design.looked(ended_runs(results_by_arm(study, ledger.results)))
    write_design(design, ledger.path.parent)
    return design


def _show(study: Study, ledger: Ledger, design: Design, command: str, *, live: Live | None) -> StudySummary:
    """Analyses a study as it stands, and writes its page; `live` while runs are under way."""
    folder = ledger.path.parent
    summary = analyse(study, ledger.results, unusable=shared_runs(study, folder).unusable, design=design)
    if not is_complete(study, design, ledger.results):
        summary = without_verdicts(summary)
    write_study_report(study, summary, ledger, folder, command, live=live)
    return summary


def _far(study: Study, ledger: Ledger) -> Live:
    """Returns how far a study is that another process runs."""
    runs = study.runs()
    return Live(sum(run.config.run_id in ledger.results for run in runs), len(runs))


def _check_file(study: Study, ledger: Ledger) -> None:
    """Refuses a folder that another study file has filled; one that shares a run is the same study, edited or moved."""
    if not (study.file and ledger.file) or study.file == ledger.file:
        return
    if not any(run.config.run_id in ledger.results for run in study.runs()):
        raise UsageError(
            "A study's folder belongs to one study file.",
            f"{study.file}, and in {ledger.path.parent} the runs of {ledger.file}",
            "Give --name another name.",
        )


def missing_runs(study: Study, folder: Path) -> list[Planned]:
    """Returns the runs of a study that no study's records hold; see `find_shared` for which of those count."""
    return missing_runs_of(study, shared_runs(study, folder))


def visible(study: Study, folder: Path) -> str:
    """Says what a study judges by, and which true difference its seeds can see, by the runs that there are."""
    shared = shared_runs(study, folder)
    results = shared.usable
    design = read_design(folder) or resolved(asked_design(study), class_sizes(study, results, prepare=False))
    taken = lacking_results(study, shared, Ledger(folder, mend=False)).keys()
    design = with_looks_of_others(design, study, results.keys(), taken, folder)
    return f"{format_primary(design)}\n{format_visible(study, design, results_by_arm(study, results))}"


def _run(study: Study, engine_config: EngineConfig, ledger: Ledger, show: Show) -> None:
    """Takes the runs that any study has trained, and trains the others; each result is in the ledger once it ended."""
    folder = ledger.path.parent
    prepare(run.config for run in missing_runs(study, folder))
    shared = shared_runs(study, folder)  # once more: now the digests of all data are known
    missing = missing_runs_of(study, shared)
    take_over(study, shared, ledger, set())
    if not missing:
        _LOG.info("All %d runs of %s are done; more --seeds extend it.", len(study.runs()), study.name)
        return
    opened: Engine[Planned, Record] | Populations[Planned] = open_training(engine_config, log_dir=folder / "logs")
    with opened as engine:
        _train(study, missing, engine, ledger, LivePage(), show)


def _as_far_as_it_is(study: Study, design: Design, ledger: Ledger) -> Study:
    """Returns a study with the seeds that each arm has, where their number is not fixed."""
    wide = replace(study, seeds=tuple(range(design.most)), counts={})
    found = results_by_arm(wide, ledger.results)
    require_order(study, found)
    return with_counts(study, ended_runs(found))


def _run_until_resolved(
    study: Study, engine_config: EngineConfig, ledger: Ledger, design: Design, until: UntilResolved, show: Show
) -> Study:
    """Adds seeds round by round; returns the study with those that it has then."""
    folder, begun, rounds, pages = ledger.path.parent, time.monotonic(), 0, LivePage()
    told: set[str] = set()
    spent: list[float] = []  # seconds of rounds that trained; one whose runs all existed tells nothing of the next
    prepare(study.arms.values())
    opened: Engine[Planned, Record] | Populations[Planned] = open_training(engine_config, log_dir=folder / "logs")
    with opened as engine:
        while True:
            found = results_by_arm(study, ledger.results)
            summary = analyse(study, ledger.results, design=design)
            took = sum(spent) / len(spent) if spent else 0.0
            _LOG.info(format_round(summary, design, study.counts, took))
            design = _looked(design, study, ledger)
            counts = next_round(study, design, [arm.name for arm in open_arms(summary)], ended_runs(found))
            if not counts:
                return study
            if until.seconds is not None and rounds and time.monotonic() - begun + took > until.seconds:
                _LOG.info("The time budget ends; the same command with a longer one goes on.")
                return study
            study = with_counts(study, counts)
            shared = shared_runs(study, folder)
            take_over(study, shared, ledger, told)
            rounds += 1
            if missing := missing_runs_of(study, shared):
                started = time.monotonic()
                _train(study, missing, engine, ledger, pages, show, f"runs of round {rounds}")
                spent.append(time.monotonic() - started)


def _train(
    study: Study,
    missing: Iterable[Planned],
    engine: Engine[Planned, Record] | Populations[Planned],
    ledger: Ledger,
    pages: LivePage,
    show: Show,
    what: str = "runs",
) -> None:
    """Trains these runs; each result is in the ledger once it ended, and on the page within a minute or so.

    Raises:
        UsageError: files, a full disk or another process kept runs from being trained. They are no results.
    """
    missing, total = list(missing), len(study.runs())
    untrained: list[str] = []
    with StudyProgress(total=total, done=total - len(missing), slots=engine.slots) as progress:
        for run in missing:
            engine.submit(run)
        for outcome in engine.outcomes():
            if outcome.error and is_of_surroundings(outcome.error):
                untrained.append(f"{outcome.job.config.run_id}: {outcome.error}")
                progress.line(untrained[-1])
                continue
            result = replace(_result(outcome), file=study.file)
            ledger.add(result)
            left = progress.ended(format_result(result))
            pages.ended(lambda live: show(study, live), progress.done, total, left, what)
    if untrained:
        raise UsageError(
            "Every run of a study must be trained.",
            f"{counted(len(untrained), 'run')} that could not be, the first {untrained[0]}",
            "Run the same command to go on once that is settled.",
        )


def _result(outcome: Outcome[Planned, Record]) -> Result:
    run, record = outcome.job, outcome.result
    return Result(
        arm=run.arm,
        seed=run.seed,
        run_id=run.config.run_id,
        status="diverged" if record and record.status == "diverged" else "finished" if record else "failed",
        message=(record.message if record else outcome.error) or "",
        attempts=outcome.attempts,
        record=record,
    )
