"""What can be said of a study and of its arms, as typed tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from kernorm.config import TrainConfig
from kernorm.records.record import BY_COLUMNS, Duplicates, Evaluation, Record
from kernorm.stats import comparison, intervals
from kernorm.studies.definition import Published

TARGETS = (0.99, 0.994)
MARGIN = 0.0005  # 0.05 percentage points


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of a run: what it is called, which direction is better, and the margin that counts as no difference."""

    label: str
    value: Callable[[Record], float]
    higher_is_better: bool = False
    margin: float | None = None
    show: Callable[[float], str] = "{:.2g}".format


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        label="test accuracy",
        value=lambda record: _test(record).accuracy,
        higher_is_better=True,
        margin=MARGIN,
        show=comparison.percentage_points,
    ),
    "cross_entropy": Metric(label="cross-entropy (NLL)", value=lambda record: _test(record).cross_entropy),
    "brier": Metric(label="Brier score", value=lambda record: _test(record).brier),
    "ece": Metric(label="calibration error (ECE)", value=lambda record: _test(record).ece),
}


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
        stated, applied = (f"{value:g}".replace("e-0", "e-") for value in (self.stated, self.applied))
        found = f"measured at step 0: {self.measured:.4g}."
        if self.kept:
            return f"λ{self.part} = {stated} as stated; {found}"
        if self.most == 0:
            return f"λ{self.part} = {stated} is stated, but no such penalty was on: it measured 0 at every epoch."
        times = f", {self.applied / self.stated:.3g} times that" if self.stated else ""
        return f"λ{self.part} = {stated} is stated, {applied} was on{times}; {found}"


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
class ArmSummary:
    """An arm, its runs, and what can be said of it.

    Attributes:
        seeds: of the finished runs.
        states: how many runs are finished, diverged, failed or missing.
        troubles: the messages of runs that did not finish.
        scores: by the names of METRICS, over finished runs.
        comparisons: with the arm's baseline, by the same names; empty for a baseline.
        p_adjusted: Holm's, over all compared arms of the study.
        verdicts: by the same names.
        mcnemar: between the run of median accuracy and the baseline's.
        generalization_interval: interval of the accuracy over runs and images, for digits that were never seen.
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
    p_adjusted: dict[str, float | None]
    verdicts: dict[str, comparison.Verdict]
    mcnemar: comparison.McNemar | None
    generalization_interval: tuple[float, float] | None
    generalization_difference: tuple[float, float] | None
    times: dict[str, intervals.TimeTo]
    penalties: tuple[tuple[float, float], tuple[float, float]] | None
    claims: tuple[Claim, ...]
    sparsity: tuple[Sparsity, ...]
    hard: Annotated[tuple[HardImage, ...], *BY_COLUMNS]
    openings: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study with the runs that it has.

    `selections` are the selection rules of its arms, and `monitored` the splits behind the curves. `revisions` are
    those of the training code behind the runs, `taken` counts runs that other studies trained, by their names, and
    `unusable` runs with a result that was not taken, by the reason (see `ledger.Shared`). `duplicates` are those of
    the data sets, by name, where they were counted.
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


def _test(record: Record) -> Evaluation:
    if record.test is None:
        raise ValueError(f"A finished run has been tested. Received: {record.run_id}, which was not.")
    return record.test
