"""Trains every arm of a study times its seeds and says which differences are real: `python -m kernorm.study eva6`.

One line a run goes to records.jsonl as soon as it has ended; the same command again does only what is missing, and more
seeds extend what is there. How long it takes on this machine: see `--dry-run`; the studies' own docstrings say what to
expect.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from kernorm.config import Tracker, TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import check_settings
from kernorm.parallel.settings import ENGINE_GROUP, Engine, EngineConfig
from kernorm.studies import choices
from kernorm.system import cli
from kernorm.system.words import settings_of, split_words

if TYPE_CHECKING:
    from kernorm.studies.definition import Study, UntilResolved

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
    - fashion: does the answer carry over to Fashion-MNIST? (its files: see kernorm.data)
    - smoke: half a minute, to see that it works

    Or no name, and what is to be varied, every combination an arm; other flags are those of kernorm.train:
        python -m kernorm.study --vary norm=bn,gn --vary l2=0,1e-4 --seeds 5 --net eva6

    Or runs that exist, compared without training: --where 'norm=gn l2>0', or --runs RUN RUN.

    Interrupted, the same command resumes it; more --seeds extend it. It writes reports/studies/<name>/report.html.
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "which runs": ("vary", "seeds", "until_resolved", "time_budget", "max_seeds", "epochs", "only", "tune_rate"),
        "runs that exist": ("runs", "where"),
        "verdicts": ("metric", "margin", "targets"),
        **ENGINE_GROUP,
        "results": ("name", "reports_dir", "saved_models_dir", "pictures", "push", "track"),
        "this command": ("dry_run", "report_only", "quiet", "verbose", "help"),
    }

    study: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE.py")] = None
    """Which one."""

    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,…")] = ()
    """Instead of a name: a setting of kernorm.train and its values, such as norm=bn,gn; may be given several times. The
    first arm is the baseline. --epochs is then the recipe's. The study file that it stands for is written."""

    runs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN …")] = ()
    """Instead of a name: compare these runs, which exist, without training. What is alike but for the seed is an
    arm, the first run's the baseline. Chosen afterwards, they have means and intervals, but no verdict and no p."""

    where: Annotated[tuple[str, ...], tyro.conf.arg(metavar="'NAME=VALUE …'")] = ()
    """The same of the runs that meet conditions, such as 'norm=gn l2>0'; see kernorm.runs."""

    seeds: int | None = None
    """How many seeds, from 0, fixed before you look; None: as many as the study says. --dry-run shows which difference
    they can see. Seeds that are added after a look at verdicts cost power."""

    until_resolved: bool = False
    """Add seeds round by round, for the baseline and the arms still open, until every arm is better, worse or
    equivalent. Verdicts stay valid however often you look."""

    time_budget: str | None = None
    """With --until-resolved: begin no round that would end after this time, for example 30m or 2h. Given again, it goes
    on."""

    max_seeds: int | None = None
    """With --until-resolved: the most seeds of an arm; None: 50. 20, 30 or 50, given before the first run, are declared
    and need fewer seeds."""

    metric: str | None = None
    """Primary metric, which alone has verdicts: accuracy, balanced_accuracy, macro_f1, worst_recall, cross_entropy,
    brier or ece; fixed by the first run. auto: balanced accuracy if the largest test class has 1.5 times the images of
    the smallest, else accuracy. None: the study's own, or auto."""

    margin: str | None = None
    """What counts as no difference of it: 0.5pp for points, or a number; fixed by the first run. auto: 0.05 points of
    accuracies, and at least five test images, but at most one point. None: the study's own, or auto."""

    targets: str | None = None
    """Accuracies whose time is shown, in percent, such as 90,95. auto: from what the runs reach. None: the study's own,
    or 99,99.4 on MNIST and auto on other sets."""

    epochs: int | None = None
    """Another number of epochs for every arm: a shortened schedule, kept in a folder of its own."""

    only: tuple[str, ...] = ()
    """Arms by name or pattern, such as 'ln-*'; their baselines are run as well."""

    tune_rate: Annotated[str | None, tyro.conf.arg(metavar="LOW:HIGH")] = None
    """First find each arm's learning rate, for example within 0.01:0.1: three values a decade by two seeds that the
    study does not have, judged by validation cross-entropy, with the test split sealed. Arms that differ in norm or
    penalty like different rates; at one rate for all, or at kernorm's, that is part of the difference."""

    dry_run: bool = False
    """Show the runs, what is done and how long the rest would take; train nothing."""

    report_only: bool = False
    """Write the report again from the records; train nothing."""

    engine: Engine = field(default_factory=EngineConfig)
    """Where runs are computed."""

    name: str | None = None
    """Folder under reports/studies. None: the study's name, and -e<epochs> with --epochs."""

    pictures: bool = True
    """Show misclassified images in the report. --no-pictures: no image of the set on the page or in its folder."""

    push: bool = False
    """Then export the best run of the best arm, both by validation cross-entropy, evaluate it against the thresholds
    that come with its set (there are some for mnist) and the newest blessed version, validate it in the runtimes of
    this machine, and publish it as saved_models/kernorm/<version>/. Exit code 1 if it is refused."""

    track: Tracker = TrainConfig.track
    """Also log the runs to W&B or MLflow, as kernorm.train does, with their arm, the study and its question."""

    train_words: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """With --vary: what kernorm.train is given for every arm."""

    reports_dir: Path = Path("reports")
    """Where studies/<name>/ and runs/<run id>/ are written."""

    saved_models_dir: Path = Path("saved_models")
    """Where --push exports and publishes."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits."""
        check_settings(self)
        if self.name is not None and (
            not self.name.strip() or {"/", "\0"} & set(self.name) or self.name in (".", "..")
        ):
            raise UsageError("--name is one folder's name.", f"{self.name!r}", "Give for example eva6-short.")
        choices.require_one_source(self)
        if self.tune_rate is not None:
            from kernorm.studies.rates import rate_range

            rate_range(self.tune_rate)
        checks = {"metric": choices.primary, "margin": choices.margin_of, "targets": choices.targets_of_text}
        for name, check in checks.items():
            if getattr(self, name) is not None:
                check(getattr(self, name), f"--{name}")
        self.until()

    def until(self) -> "UntilResolved | None":
        """Returns how long the study may go on; None where its number of seeds is fixed."""
        from kernorm.studies.definition import until_resolved_or_none

        return until_resolved_or_none(self.until_resolved, self.seeds, self.time_budget, self.max_seeds)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        name = self.name or "-".join(text.partition("=")[0].strip().lstrip("-") for text in self.vary)
        name = name or Path(self.study or "").stem + (f"-e{self.epochs}" if self.epochs else "")
        return self.reports_dir / "studies" / name


def plan(config: StudyConfig) -> "Study":
    """Reads the study and applies the command's flags to it.

    Raises:
        UsageError: see `load_study` and `with_overrides`.
    """
    from kernorm.studies.definition import with_overrides
    from kernorm.studies.loading import load_study
    from kernorm.studies.vary import varied_study

    name = config.folder.name
    return with_overrides(
        varied_study(config.vary, config.train_words, name=name) if config.vary else load_study(config.study or ""),
        seeds=config.seeds,
        epochs=config.epochs,
        only=config.only,
        metric=config.metric,
        margin=config.margin,
        targets=config.targets,
        threads=config.engine.threads,
        reports_dir=config.reports_dir,
        export=False,
        report=False,
        **({} if config.pictures else {"pictures": False}),
        **({} if config.track == "none" else {"track": config.track}),
    )


def main(config: StudyConfig) -> int:
    """Runs what is missing and shows the verdicts; returns 1 if a run failed, or none has finished yet."""
    if config.runs or config.where:
        return _compare(config)
    from kernorm.studies.command import command
    from kernorm.studies.ledger import RECORDS
    from kernorm.studies.runner import missing_runs, run_study, visible
    from kernorm.studies.terminal import show_plan, show_trials, show_verdicts
    from kernorm.studies.tuning import check_rates, missing_trials, with_found_rates, with_rates
    from kernorm.studies.vary import FILE, write_study_file
    from kernorm.system.files import make_folder, require_folder, unless_refused
    from kernorm.training.tracking import require_tracker

    study = plan(config)
    require_folder(config.folder, "--reports-dir")
    for tracker in {arm.track for arm in study.arms.values()}:
        require_tracker(tracker)
    if config.push:
        from kernorm.serving.publish import require_thresholds

        for arm in study.arms.values():
            require_thresholds(arm.dataset)
    if config.dry_run:
        check_rates(study, config.folder, config.tune_rate)
        trials = missing_trials(study, config.folder, config.tune_rate) if config.tune_rate else []
        study = with_found_rates(study, config.folder)
        show_plan(study, missing_runs(study, config.folder), config.engine.local_workers)
        show_trials(trials, config.engine.local_workers)
        if not config.until_resolved:
            print(visible(study, config.folder))
        return 0
    with unless_refused(config.folder, RECORDS):
        study = with_rates(study, config.folder, config.tune_rate, config.engine, train=not config.report_only)
        if config.vary and not config.report_only:
            make_folder(config.folder, "--reports-dir")
            write_study_file(study, config.folder / FILE)
        train, until = not config.report_only, config.until()
        summary = run_study(study, config.folder, config.engine, command=command(config), train=train, until=until)
    show_verdicts(summary)
    print(f"report   {config.folder / 'report.html'}")
    if any(arm.states["failed"] for arm in summary.arms) or not summary.finished:
        return 1
    if not config.push:
        return 0
    from kernorm.studies.selection import publish_best_arm

    published = publish_best_arm(
        study, config.folder, reports_dir=config.reports_dir, saved_models_dir=config.saved_models_dir
    )
    if published:
        print(published)
    return 0 if published else 1


def _compare(config: StudyConfig) -> int:
    """Compares runs that exist, and shows them."""
    from kernorm.studies.chosen import choose_runs, compare_runs, default_name
    from kernorm.studies.command import command
    from kernorm.studies.terminal import show_verdicts

    lines = choose_runs(config.runs, config.where, config.reports_dir)
    folder = config.reports_dir / "studies" / (config.name or default_name(lines))
    summary = compare_runs(
        lines,
        folder,
        reports_dir=config.reports_dir,
        command=command(config),
        **{name: getattr(config, name) for name in ("metric", "margin", "targets", "pictures")},
    )
    show_verdicts(summary)
    print(f"report   {folder / 'report.html'}")
    return 0


def default(words: list[str]) -> tuple[StudyConfig | None, list[str]]:
    """Returns the settings that --vary leaves to kernorm.train, and the study's own words; None without --vary."""
    if not any(word.partition("=")[0] == "--vary" for word in words):
        return None, words
    from kernorm.studies.vary import HELD, varied_words

    theirs = settings_of(TrainConfig) - {"reports_dir", "saved_models_dir", "push", "pictures", "threads", "track"}
    own = settings_of(StudyConfig) - theirs
    held = {name: flag for name, flag in HELD.items() if name not in own}
    mine, left = split_words(words, own=own, theirs=theirs, held=held, holder="A study", prog=PROG)
    varied, others = varied_words(mine)
    return StudyConfig(vary=varied, train_words=tuple(left)), others


if __name__ == "__main__":
    sys.exit(cli.run(StudyConfig, main, prog=PROG, default=default, interrupted=cli.EPOCHS_KEPT))
