"""Trains every arm of a study times its seeds and says which differences are real: `python -m kernorm.study eva6`.

Behind train, which computes each run. One line a run goes to records.jsonl as soon as it has ended; the same command
again does only what is missing, and more seeds extend what is there. Without a plan for the machine at hand, see
`--dry-run`; the studies' own docstrings say what they take and what to expect.
"""

import shlex
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kernorm import cli
from kernorm.engine import EngineName, check_engine, cores
from kernorm.errors import UsageError
from kernorm.files import locked, make_folder, require_folder
from kernorm.grouping import check_population, open_populations
from kernorm.plan import Planned, Study, load_study, narrowed, train_run

if TYPE_CHECKING:
    from kernorm.analysis import StudySummary
    from kernorm.engine import Outcome
    from kernorm.ledger import Ledger, Result, Shared
    from kernorm.record import Record

PROG = "python -m kernorm.study"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Trains every arm of a study times its seeds, and says which differences are real.

    The studies that come with kernorm, or the path of your own Python file:
    - eva4, eva6: every row of the published tables, as claimed
    - eva4_as_run, eva6_as_run: the same with the faults of the published runs
    - batch_size: norms by batch sizes by rules for the learning rate
    - recipes: kernorm's own, default and best
    - small_data: 1,000, 5,000 and 50,000 training images by penalties
    - smoke: half a minute, to see that it works

    Interrupted, it goes on with the same command; more --seeds extend it. It writes reports/studies/<name>/report.html.
    """

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE.py")]
    """Which one."""

    seeds: int | None = None
    """How many seeds, from 0; None: as many as the study says. At least 2 for a verdict, 10 for small differences."""

    epochs: int | None = None
    """Another number of epochs for every arm: a shortened schedule, kept in a folder of its own."""

    only: tuple[str, ...] = ()
    """Arms by name or pattern, such as 'ln-*'; their baselines are run as well."""

    dry_run: bool = False
    """Show the runs, what is done and how long the rest would take; train nothing."""

    report_only: bool = False
    """Write the report again from the records; train nothing."""

    engine: EngineName = "local"
    """local: processes on this machine. ray: Ray tasks, here or on the cluster at --address (extra ray)."""

    workers: int | None = None
    """Runs at a time. None: one a CPU core, or what the Ray cluster has room for."""

    address: str | None = None
    """Of a Ray cluster; None starts Ray on this machine."""

    gpus_per_job: float = 0.0
    """GPUs that Ray reserves for a run; 0.25 puts four runs on one."""

    threads: int = 1
    """CPU threads of a run. Two runs of one thread finish sooner than one after another with two."""

    population: int | Literal["auto"] | None = None
    """Train runs that differ in λ's, rates, schedules or seeds alone side by side, as one program. auto: as many as an
    accelerator's memory holds; where there is none, one after another, which is faster there. A number: so many at
    most. Needs KERAS_BACKEND=jax."""

    name: str | None = None
    """Folder under reports/studies. None: the study's name, and -e<epochs> with --epochs."""

    push: bool = False
    """Then export the best run of the best arm, both by validation cross-entropy, hold it against
    kernorm/thresholds.json (MNIST's) and the newest blessed version, try it in the runtimes that are here, and publish
    it as saved_models/kernorm/<version>/. Exit code 1 if it is refused."""

    reports_dir: Path = Path("reports")
    """Where studies/<name>/ and runs/<run id>/ are written."""

    saved_models_dir: Path = Path("saved_models")
    """Where --push exports and publishes."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits."""
        check_engine(
            self.engine,
            workers=self.workers,
            address=self.address,
            cpus_per_job=self.threads,
            gpus_per_job=self.gpus_per_job,
        )
        check_population(self.population)
        if self.name is not None and (
            not self.name.strip() or {"/", "\0"} & set(self.name) or self.name in (".", "..")
        ):
            raise UsageError("--name is one folder's name.", f"{self.name!r}", "Give for example eva6-short.")

    @property
    def folder(self) -> Path:
        """The study's folder."""
        name = self.name or Path(self.study).stem + (f"-e{self.epochs}" if self.epochs else "")
        return self.reports_dir / "studies" / name


def plan(config: StudyConfig) -> Study:
    """Reads the study and applies the command's own words to it.

    Raises:
        UsageError: see `load_study` and `narrowed`.
    """
    return narrowed(
        load_study(config.study),
        seeds=config.seeds,
        epochs=config.epochs,
        only=config.only,
        threads=config.threads,
        reports_dir=config.reports_dir,
        export=False,
        report=False,
    )


def study(config: StudyConfig) -> int:
    """Runs what is missing and writes the report; returns 1 if a run failed, or none has finished yet.

    Raises:
        UsageError: the study, its data or the engine cannot be used.
    """
    from kernorm.study_tables import show_plan

    planned = plan(config)
    require_folder(config.folder, "--reports-dir")
    if config.dry_run:
        show_plan(planned, _missing(planned, _shared(planned, config)), config.workers or cores())
        return 0
    summary = conduct(planned, config, command(config), train=not config.report_only)
    failed = sum(arm.states["failed"] for arm in summary.arms)
    if failed or not summary.finished:
        return 1
    return _push(planned, config) if config.push else 0


def _push(planned: Study, config: StudyConfig) -> int:
    """Hands the best run of the best arm over to be published; returns 1 if it is refused."""
    from statistics import mean

    from kernorm.analysis import finished, results_by_arm
    from kernorm.ledger import Ledger
    from kernorm.ship import export_best, ship, validation_score

    found = results_by_arm(planned, Ledger(config.folder).results)
    runs = [records for results in found.values() if (records := list(finished(results).values()))]
    best = min(runs, key=lambda records: mean(map(validation_score, records)))
    places = replace(best[0].config, reports_dir=config.reports_dir, saved_models_dir=config.saved_models_dir)
    record = export_best(best, places)
    if not (record.export and record.export.path):
        return 1
    return ship(Path(record.export.path), places)


def conduct(planned: Study, config: StudyConfig, words: str, *, train: bool = True) -> "StudySummary":
    """Runs what is missing of a study, writes its report and prints its verdicts; `words` is the command that does so.

    Raises:
        UsageError: its data or the engine cannot be used.
    """
    from kernorm.ledger import Ledger

    make_folder(config.folder, "--reports-dir")
    with locked(config.folder / "lock", "run this study"):
        ledger = Ledger(config.folder)
        if ledger.damaged:
            _say(
                f"{len(ledger.damaged)} damaged lines of {ledger.path} were put aside, in records.damaged.jsonl: "
                f"line {', '.join(map(str, ledger.damaged))}. Their runs are done again."
            )
        if train:
            _run(planned, config, ledger)
        return _report(planned, config, ledger, words)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _run(planned: Study, config: StudyConfig, ledger: "Ledger") -> None:
    """Takes the runs that any study has trained, and trains the others; each result is in the ledger once it ended."""
    _prepare_data(_missing(planned, _shared(planned, config)))
    shared = _shared(planned, config)  # once more: now the digests of all data are known
    missing = _missing(planned, shared)
    _take(planned, shared, ledger)
    total = len(planned.runs())
    if not missing:
        _say(f"All {total} runs of {planned.name} are there; more --seeds extend it.")
        return
    from kernorm.progress import StudyProgress
    from kernorm.study_tables import described

    with (
        open_populations(
            train_run,
            config.population,
            config.engine,
            workers=config.workers,
            address=config.address,
            cpus_per_job=config.threads,
            gpus_per_job=config.gpus_per_job,
            log_dir=config.folder / "logs",
        ) as engine,
        StudyProgress(total=total, done=total - len(missing), slots=engine.slots) as progress,
    ):
        for run in missing:
            engine.submit(run)
        for outcome in engine.outcomes():
            result = _result(outcome)
            ledger.add(result)
            progress.ended(described(result))


def _shared(planned: Study, config: StudyConfig) -> "Shared":
    """Looks for the study's runs in the records of all studies."""
    from kernorm.cache import prepared_sha256
    from kernorm.ledger import RECORDS, find_shared

    configs = [run.config for run in planned.runs()]
    digests = {name: prepared_sha256(name) for name in {config.dataset for config in configs}}
    return find_shared(config.folder / RECORDS, {config.run_id for config in configs}, digests)


def _missing(planned: Study, shared: "Shared") -> list[Planned]:
    """A diverged run would diverge again; a failed one may not."""
    return [run for run in planned.runs() if run.config.run_id not in shared.usable]


def _take(planned: Study, shared: "Shared", ledger: "Ledger") -> None:
    """Copies usable results that the ledger lacks into it, and says what is taken and what is not."""
    from kernorm.ledger import source_of
    from kernorm.study_words import not_used, taken

    lacking: dict[str, Result] = {}
    for run in planned.runs():
        result, own = shared.usable.get(run.config.run_id), ledger.results.get(run.config.run_id)
        if result and result.record:
            same = own and own.record and source_of(own.record) == source_of(result.record)
            if not same:
                lacking[result.run_id] = replace(result, arm=run.arm, seed=run.seed)
    for result in lacking.values():
        ledger.add(result)
    counts = Counter(result.taken_from for result in lacking.values() if result.taken_from)
    for text in (taken(counts), not_used(shared.unusable)):
        if text:
            _say(text)


def _prepare_data(runs: list[Planned]) -> None:
    """Loads every set once and checks the sizes, so that a wrong one is told at once and workers find the cache."""
    from kernorm.data import load

    seen = set()
    for run in runs:
        config = run.config
        key = (
            config.dataset,
            config.manual_dir,
            config.data_dir,
            config.validation_size,
            config.train_size,
            config.batch_size,
        )
        if key not in seen:
            seen.add(key)
            load(config)


def _result(outcome: "Outcome[Planned, Record]") -> "Result":
    from kernorm.ledger import Result

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


def _report(planned: Study, config: StudyConfig, ledger: "Ledger", words: str) -> "StudySummary":
    """Writes the report from the ledger and prints the verdicts."""
    from kernorm.analysis import analyse
    from kernorm.study_report import write_study_report
    from kernorm.study_tables import show_verdicts

    summary = analyse(planned, ledger.results, unusable=_shared(planned, config).unusable)
    path = write_study_report(planned, summary, ledger, config.folder, words)
    show_verdicts(summary)
    print(f"report   {path}")
    return summary


def command(config: StudyConfig) -> str:
    """Returns the command line of this config, without the words that leave the result alone."""
    words = ["python", "-m", "kernorm.study", shlex.quote(config.study)]
    for name in ("seeds", "epochs", "name"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name}", shlex.quote(str(value))]
    if config.only:
        words += ["--only", *map(shlex.quote, config.only)]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(cli.run(StudyConfig, study, prog=PROG))
