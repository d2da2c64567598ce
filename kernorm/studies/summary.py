"""What can be said of a study and of its arms, as typed tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from kernorm.config import TrainConfig
from kernorm.records.data import Duplicates
from kernorm.records.record import BY_COLUMNS
from kernorm.reporting.format import concise
from kernorm.stats import comparison
from kernorm.stats.planning import MOST_SEEDS
from kernorm.stats.times import TimeTo
from kernorm.stats.verdict import Verdict
from kernorm.studies.design import Design
from kernorm.studies.published import Published, Statement


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A penalty that a publication states, and the one that was measured in this arm.

    `stated` and `applied` are λ's in Keras' convention; `measured` is the penalty at step 0 and `most` the greatest one
    at any epoch, both means over runs in nats.
    """

    part: str
    stated: float
    applied: float
    measured: float
    most: float

    @property
    def kept(self) -> bool:
        """Tells whether what was stated is what was on."""
        return abs(self.applied - self.stated) <= 1e-3 * self.stated and (self.most > 0) == (self.stated > 0)

    @property
    def sentence(self) -> str:
        """Says it in words."""
        stated, applied = (concise(value, 6) for value in (self.stated, self.applied))
        found = f"measured at step 0: {self.measured:.4g}."
        if self.kept:
            return f"λ{self.part} = {stated} as stated; {found}"
        if self.most == 0:
            return f"λ{self.part} = {stated} is stated, but no such penalty was on: it measured 0 at every epoch."
        times = f", {self.applied / self.stated:.3g} times that" if self.stated else ""
        return f"λ{self.part} = {stated} is stated, {applied} was on{times}; {found}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a publication concludes, and what the runs of a study say to it."""

    statement: Statement
    name: Literal["yes", "no", "not resolved"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a factor: the mean over all arms that have it, and how it differs from the first value.

    `effect` is the main effect, the mean over the seeds that every arm has; `interval` is of that, 95 %, by Student's t
    over seeds; None below two seeds. They are described and have no verdict.
    """

    value: str
    arms: tuple[str, ...]
    mean: float | None
    effect: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A setting that a study varies in full combination with others; `follows` are settings that change with it."""

    name: str
    levels: tuple[Level, ...]
    follows: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HardImage:
    """A test image that runs of an arm got wrong: in `wrong` of `runs`, most often taken for `prediction`."""

    index: int
    target: int
    prediction: int
    wrong: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Means over runs: the share of kernel weights below a threshold, and the accuracy once they are set to 0."""

    threshold: float
    share: float
    accuracy: float
    split: str


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How many of an arm's runs failed: diverged, failed or `collapsed`; `interval` is exact, 95 %, of the rate."""

    runs: int
    failed: int
    collapsed: int
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The seeds of each arm, least and most, that would show a true difference, in one look at new seeds."""

    difference: float
    seeds: tuple[int, int]

    def sentence(self, show: Callable[[float], str]) -> str:
        """Says it in words."""
        low, high = self.seeds
        many = f"about {low}" if low == high else f"{low} to {high}"
        if high >= MOST_SEEDS:
            many = f"{low} or more"
        return f"{many} new seeds in one look, or --until-resolved, would see {show(self.difference)}"


@dataclass(frozen=True, kw_only=True)
class LastEpoch:
    """An arm whose epoch was selected on test, judged by its last epoch instead.

    `gain` is what selecting on test is worth: the mean of the selected epoch's accuracy less that of the last one.
    """

    score: comparison.Summary
    gain: float
    compared: comparison.Comparison | None
    p_adjusted: float | None
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """An arm, its runs, and what can be said of it.

    Attributes:
        seeds: of the finished runs.
        states: how many runs are finished, diverged, failed or missing.
        troubles: the messages of runs that did not finish.
        scores: by the names of METRICS, over finished runs.
        comparisons: with the arm's baseline, by the same names, over finished runs; empty for a baseline.
        p_adjusted: Holm's of the primary metric, over the arms with the same baseline.
        verdict: on the primary metric; None for a baseline.
        last: the last epoch, if the epoch was selected on test and the last one was kept too.
        failures: of the arm's runs.
        unpredicted: names the classes that runs never predicted, in words; empty if there are none.
        exhausted: whether more seeds cannot tell more, but more images would.
        mcnemar: between the run of median accuracy and the baseline's.
        generalization_interval: interval over runs and images, for images that were never seen, of the primary metric,
            or of the accuracy where that is no mean over images.
        generalization_difference: of the difference to the baseline.
        times: runs until a target accuracy on the monitored split, by names such as `epochs to 99.0 %`.
        penalties: mean λ1·Σ|w| and λ2·Σw² at step 0 and at the end.
        claims: what the published row says, and what was on.
        openings: how often the arm's runs opened the test split.
    """

    name: str
    config: TrainConfig
    baseline: str | None
    published: Published | None
    seeds: tuple[int, ...]
    states: dict[str, int]
    troubles: tuple[str, ...]
    scores: dict[str, comparison.Summary]
    comparisons: dict[str, comparison.Comparison]
    p_adjusted: float | None
    verdict: Verdict | None
    last: LastEpoch | None
    failures: Failures
    unpredicted: str
    exhausted: bool
    mcnemar: comparison.McNemar | None
    generalization_interval: tuple[float, float] | None
    generalization_difference: tuple[float, float] | None
    times: dict[str, TimeTo]
    penalties: tuple[tuple[float, float], tuple[float, float]] | None
    claims: tuple[Claim, ...]
    sparsity: tuple[Sparsity, ...]
    hard: Annotated[tuple[HardImage, ...], *BY_COLUMNS]
    openings: int
    seconds: float
    cpu_seconds: float

    @property
    def decided(self) -> Verdict | None:
        """The verdict that counts: on the last epoch, where the epoch was selected on test."""
        return self.last.verdict if self.last else self.verdict


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study with the runs that it has.

    `selections` are the selection rules of its arms, and `monitored` the splits behind the curves. `revisions` are
    those of the training code behind the runs, `taken` counts runs that other studies trained, by their names, and
    `unusable` runs with a result that was not taken, by the reason (see `ledger.Shared`). `duplicates` are those of
    the data sets, by name, where they were counted. `metric` is the primary one, `design` how verdicts were found,
    and `anytime` whether by tests that are valid however often one looks. `visible` says which difference the planned
    seeds can see, where their number is fixed; `answers` are to what a publication concludes, and `factors` the
    settings whose values are all combined, if the arms are such a product of two or more. `test_gains` is, by data set,
    the test accuracy less that of validation, a mean over runs. `provisional` says that runs are missing, so that there
    are no verdicts yet, and `chosen` that the runs were chosen afterwards, so that there are none at all.
    `side_by_side` counts runs that were trained in populations, whose times are shares of theirs.
    """

    name: str
    question: str
    text: str
    seeds: tuple[int, ...]
    arms: tuple[ArmSummary, ...]
    selections: tuple[str, ...]
    monitored: tuple[str, ...]
    openings: int
    finished: int
    missing: int
    seconds: float
    cpu_seconds: float
    versions: dict[str, tuple[str, ...]]
    devices: tuple[str, ...]
    commits: tuple[str, ...]
    revisions: tuple[int, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)
    unusable: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, Duplicates] = field(default_factory=dict)
    metric: str = "accuracy"
    design: Design = field(default_factory=Design)
    anytime: bool = False
    visible: str = ""
    answers: tuple[Answer, ...] = ()
    factors: tuple[Factor, ...] = ()
    test_gains: dict[str, float] = field(default_factory=dict)
    provisional: bool = False
    chosen: bool = False
    side_by_side: int = 0


def counted(number: int, thing: str) -> str:
    """Returns a number of things, with an s where there are several."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
