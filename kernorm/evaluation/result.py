"""What an evaluation of an exported model found, as a typed file in the model's folder."""

from dataclasses import dataclass
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.evaluation.gate import Change, Decision, Measure
from kernorm.evaluation.thresholds import METRICS
from kernorm.records.data import OVERALL
from kernorm.records.schema import Schema, strict
from kernorm.saved_model.card import FOLDER, Card
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.versions import versions
from kernorm.stats.comparison import McNemar
from kernorm.stats.intervals import Interval

SCHEMA = 2
EVALUATION, REPORT, BLESSED, NOT_BLESSED = "evaluation.json", "report.html", "BLESSED", "NOT_BLESSED"


@strict
@dataclass(frozen=True, kw_only=True)
class Robustness:
    """A model's accuracy on `count` images under one corruption, by severity from 1; `clean` on them as they are."""

    run_id: str
    norm: str
    corruption: str
    count: int
    clean: float
    accuracies: tuple[float, ...]
    intervals: tuple[Interval, ...]


@strict
@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The model that was compared with, and how often only one of the two was wrong (McNemar's exact test)."""

    run_id: str
    version: int
    tree_sha256: str
    mcnemar: McNemar


@strict
@dataclass(frozen=True, kw_only=True)
class ModelEvaluation:
    """What an evaluation found; it is of exactly one tree of files.

    Attributes:
        blessed: None without thresholds.
        openings: looks at the test split that it took.
    """

    schema_version: int = SCHEMA
    tree_sha256: str
    run_id: str
    norm: str
    created: str
    data: str
    split: str
    count: int
    openings: int = 1
    blessed: bool | None
    measures: tuple[Measure, ...]
    baseline: Baseline | None
    changes: tuple[Change, ...]
    decisions: tuple[Decision, ...]
    robustness: tuple[Robustness, ...]

    def measured(self, metric: str, slice_: str = OVERALL) -> Measure:
        """Returns a metric's measure in a slice."""
        return next(found for found in self.measures if (found.metric, found.slice) == (metric, slice_))

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Classes that thresholds name and of which there are no test images."""
        measured = {found.slice for found in self.measures}
        return tuple(dict.fromkeys(decision.slice for decision in self.decisions if decision.slice not in measured))

    @property
    def not_compared(self) -> str:
        """Says how many thresholds of changes passed without a baseline; empty if there are none."""
        measured = {found.slice for found in self.measures}
        changes = [one for one in self.decisions if one.kind == "change" and one.slice in measured]
        if self.baseline or not changes:
            return ""
        return f"not compared: no baseline ({len(changes)} threshold{'s' if len(changes) > 1 else ''})"


_SCHEMA = Schema("An evaluation", ModelEvaluation, version=SCHEMA, fix="Evaluate the model again.")


def read_evaluation(path: Path) -> ModelEvaluation | None:
    """Reads what an evaluation of the model in `path` found; None if there was none.

    Raises:
        UsageError: the file is damaged.
    """
    return _SCHEMA.read(path / FOLDER / EVALUATION)


def write_evaluation(found: ModelEvaluation, path: Path) -> None:
    """Writes evaluation.json into the model in `path`, atomically."""
    _SCHEMA.write(found, path / FOLDER / EVALUATION)


def blessing_problem(path: Path, digest: str) -> str | None:
    """Says why the model in `path` with that hash counts as not blessed; None if it is."""
    found = read_evaluation(path)
    if found is None:
        return "it was never evaluated"
    if found.tree_sha256 != digest:
        return "its evaluation is of other files"
    if found.blessed is None:
        return "it was evaluated without thresholds"
    if not found.blessed or not (path / FOLDER / BLESSED).is_file():
        failed = [decision.sentence for decision in found.decisions if not decision.passed]
        return "; ".join(["it is not blessed", *failed[:3]])
    return None


def format_evaluation(found: ModelEvaluation, path: Path) -> list[str]:
    """Puts an evaluation of the model in `path` into a few lines: scores, what did not pass, blessing, report."""
    measured = {one.metric for one in found.measures}
    scores = [found.measured(metric) for metric in METRICS.values() if metric in measured]
    blessing = {True: BLESSED, False: NOT_BLESSED, None: "no thresholds, no blessing"}[found.blessed]
    return [
        *(
            f"{one.metric:17} {one.value:.4f} [{one.interval[0]:.4f}, {one.interval[1]:.4f}]  n = {one.count}"
            for one in scores
        ),
        *(f"not passed: {decision.sentence}" for decision in found.decisions if not decision.passed),
        *([f"not judged, for lack of test images: {', '.join(found.not_judged)}"] if found.not_judged else []),
        *([found.not_compared] if found.not_compared else []),
        blessing,
        f"report   {path / FOLDER / REPORT}",
    ]


def latest_blessed(base: Path, candidate: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest version in a published model's folder that a candidate can be compared with.

    That is one that is whole, was blessed and is of the same data, but not the candidate itself, nor a copy of it.

    Args:
        base: the published model's folder.
        candidate: the folder of the other model.

    Returns:
        The version, None if there is none, and in words which newer blessed ones were left out.

    Raises:
        UsageError: the candidate is no model of kernorm's or was changed after its export.
    """
    its_card, its_digest = verify_integrity(candidate)
    left_out = []
    for number in reversed(versions(base)):
        path = base / str(number)
        try:
            card, digest = verify_integrity(path)
            if blessing_problem(path, digest):
                continue
        except UsageError:
            continue
        if digest == its_digest or path.resolve() == candidate.resolve():
            left_out.append(f"{number}, which is this model")
        elif not same_data(card, its_card):
            left_out.append(f"{number}, which is of other data")
        else:
            return path, left_out
    return None, left_out


def same_data(card: Card, other: Card) -> bool:
    """Tells whether two models are of the same data set, classes and shape of images."""
    return all(getattr(card.data, name) == getattr(other.data, name) for name in ("name", "labels", "image_shape"))
