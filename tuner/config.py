"""The settings of a search: every default, every limit and the help text of `python -m tuner.search`.

Imports neither Keras nor KerasTuner.
"""

import math
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings, is_path, seconds_of
from kernorm.parallel.settings import ENGINE_GROUP, Engine, EngineConfig
from kernorm.recipes import recipe
from kernorm.studies.definition import UntilResolved, until_resolved_or_none
from kernorm.system.words import settings_of
from kernorm.unused import require_recipe, require_used
from tuner.space import Space, space_of

OracleName = Literal["best", "optuna", "random", "grid", "bayesian", "hyperband"]

# Trials are to be cheap: a fifth of MNIST's training split and half of the epochs.
TRIAL = {"epochs": 4, "train_size": 10_000}
# Own images are rarely so many: all of them.
OWN_TRIAL = {"epochs": 4}
# Settings of kernorm.train that a search sets itself, and what does.
HELD = {
    "batch_size": "--batch-sizes",
    "export": "--final",
    "report": "--report-only",
    "stop_after": "--epochs",
    "retrain": "--overwrite",
    "track": "the report",
}


def first_of_trials(train: TrainConfig) -> TrainConfig:
    """Returns the settings that a search of this recipe and data leaves to kernorm.train where no flag says another."""
    if train.recipe != TrainConfig.recipe:
        return recipe(train.recipe)
    own = is_path(train.dataset) or "@" in train.dataset
    return recipe(train.recipe, **(OWN_TRIAL if own else TRIAL))


def training_settings() -> list[str]:
    """Returns the settings of kernorm.train that a search takes too, in their order."""
    left_out = settings_of(SearchConfig) | HELD.keys()
    return [field.name for field in fields(TrainConfig) if field.name in settings_of(TrainConfig) - left_out]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Searches λ1, λ2 and the batch size with KerasTuner, confirms the best on fresh seeds and exports it.

    About 45 minutes on two busy CPU cores as it is:
        python -m tuner.search

    A trial is a run of kernorm.train; its other flags set, under the same names, what is not searched, for example
    --net eva6 --epochs 5 --train-size 5000; see python -m kernorm.train --help. By default a trial trains 4 epochs on
    10,000 images, or on all own images. The objective is the cross-entropy on the validation split after the last
    epoch; the test split stays sealed until the best are confirmed.

    It writes reports/searches/<name>/report.html. Interrupted, the same command with --resume continues.
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what is searched": ("l1", "l2", "batch_sizes", "norms", "groups", "learning_rate"),
        "trials": ("oracle", "max_trials", "time_budget", "repeats", "seed", "enqueue", "keep_checkpoints"),
        "after the trials": ("top_k", "confirm_seeds", "until_resolved", "max_seeds", "final", "push"),
        **ENGINE_GROUP,
        "results": ("name", "reports_dir", "saved_models_dir"),
        "this command": ("resume", "overwrite", "dry_run", "report_only", "quiet", "verbose", "help"),
    }

    name: str = "search"
    """Folder under reports/searches."""

    oracle: OracleName = "best"
    """What suggests the trials. best: optuna if it is installed, else random. Those of KerasTuner: random, grid (a
    value a decade), bayesian (Gaussian process; pip install scikit-learn), hyperband (ends bad trials early)."""

    l1: str = "1e-6:1e-3"
    """λ1: a range LOW:HIGH, searched on a log scale, with 'off' as another choice; or one value, or off."""

    l2: str = "1e-6:1e-2"
    """λ2, in the same way."""

    batch_sizes: str = "16,32,64,128"
    """Batch sizes to choose from."""

    norms: str | None = None
    """Norms to choose from, for example bn,ln,gn. None: the one of --norm."""

    groups: str | None = None
    """Groups of gn to choose from, for example 2,4. None: auto."""

    learning_rate: str | None = None
    """Peak rate: a range LOW:HIGH on a log scale, or one value. None: auto, by norm."""

    enqueue: str | None = None
    """Points to try first: 'published' for the rows of the published tables, or a JSON file with a list of objects such
    as {"l2": 0.0066, "batch_size": 64}."""

    max_trials: Annotated[int, Limit(1, math.inf, "at least 1")] = 30
    """Trials at most. hyperband ends by itself; so does grid."""

    time_budget: str | None = None
    """Start no trial after this time, for example 30m or 1.5h."""

    repeats: Annotated[int, Limit(1, math.inf, "at least 1")] = 1
    """Seeds of a trial; its score is their mean."""

    seed: Annotated[int, Limit(0, math.inf, "at least 0")] = 0
    """Seed of the oracle, and the first one of the trials."""

    top_k: Annotated[int, Limit(0, math.inf, "at least 0")] = 3
    """Confirm this many of the best on fresh seeds, together with the same recipe without penalty. 0: none."""

    confirm_seeds: Annotated[int, Limit(1, math.inf, "at least 1")] = 5
    """Fresh seeds a confirmed arm."""

    until_resolved: bool = False
    """Confirm by as many seeds as it takes until each arm is better, worse or equivalent, not by --confirm-seeds."""

    max_seeds: int | None = None
    """With --until-resolved: the most seeds of an arm; None: 50."""

    final: bool = True
    """Train the confirmed best on the whole training split for kernorm.train's own number of epochs, with as many fresh
    seeds, next to the same recipe as it is, without a search; export the best run of what was found, by validation."""

    push: bool = False
    """Then evaluate the exported model against the thresholds that come with its set (there are some for mnist) and the
    newest blessed version, validate it in the runtimes of this machine, and publish it as
    saved_models/kernorm/<version>/. Exit code 1 if it is refused."""

    keep_checkpoints: Annotated[int, Limit(0, math.inf, "at least 0")] = 10
    """Trials, the best ones, whose weights and optimizer state are kept."""

    resume: bool = False
    """Resume the search of that name."""

    overwrite: bool = False
    """Delete the search of that name first."""

    dry_run: bool = False
    """Show the space and what it would cost; train nothing."""

    report_only: bool = False
    """Write the report again from what is there."""

    engine: Engine = field(default_factory=EngineConfig)
    """Where runs are computed. With one worker the same seed gives the same trials; with more, a suggestion depends on
    which trials have ended. So many trials as --population says are suggested at once, before any of them has a score;
    auto: a quarter of --max-trials, at most 32."""

    reports_dir: Path = Path("reports")
    """Where searches/<name>/ is written."""

    saved_models_dir: Path = Path("saved_models")
    """Where the best model is exported."""

    train: Annotated[TrainConfig, tyro.conf.Suppress] = field(default_factory=lambda: TrainConfig(**TRIAL))  # type: ignore[arg-type]
    """What is not searched."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits with a UsageError that names the rule, the value and the fix."""
        check_settings(self)
        require_recipe(self.train)
        self.until()
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise UsageError("--name is one folder's name.", f"{self.name!r}", "Give for example norms.")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other.", "both", "Give one.")
        if self.report_only and self.overwrite:
            raise UsageError("--overwrite deletes what --report-only shows.", "both", "Give one.")
        if self.train.select == "test":
            raise UsageError("A search keeps the test split sealed.", "select='test'", "Give --select last.")
        if self.train.validation_size == 0:
            raise UsageError("A search needs a validation split.", "validation_size=0", "Give --validation-size auto.")
        self.budget_seconds  # noqa: B018
        require_used([replace(self.train, norm=norm) for norm in self.space.norm])  # type: ignore[arg-type]

    @property
    def folder(self) -> Path:
        """The search's folder."""
        return self.reports_dir / "searches" / self.name

    @property
    def space(self) -> Space:
        """What is searched."""
        return space_of(
            self.train,
            l1=self.l1,
            l2=self.l2,
            batch_sizes=self.batch_sizes,
            norms=self.norms,
            groups=self.groups,
            learning_rate=self.learning_rate,
        )

    @property
    def full_epochs(self) -> int:
        """Epochs of a full training: the recipe's own, or those of a trial, if that has more."""
        return max(recipe(self.train.recipe).epochs, self.train.epochs)

    @property
    def asked(self) -> int:
        """Trials that are suggested at once for a population."""
        population = self.engine.population
        return population if isinstance(population, int) else min(math.ceil(self.max_trials / 4), 32)

    def until(self) -> UntilResolved | None:
        """Returns how long the confirmation may go on; None for a fixed number of seeds."""
        return until_resolved_or_none(self.until_resolved, None, None, self.max_seeds)

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds."""
        return None if self.time_budget is None else seconds_of(self.time_budget, "--time-budget")

    @property
    def base(self) -> TrainConfig:
        """A trial's config without what is searched: in the search's folder, without report and export."""
        return replace(
            self.train,
            seed=self.seed,
            threads=self.engine.threads,
            reports_dir=self.folder,
            saved_models_dir=self.saved_models_dir,
            export=False,
            report=False,
        )
