"""What a run leaves: one typed, versioned schema, from which every number of a report can be recomputed.

Written by train, read by report, export, studies and searches. `record.json` is this, field by field.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from kernorm.config import TrainConfig, with_added
from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.records.schema import BY_COLUMNS, Schema, strict

SCHEMA = 1
# What training computes, raised by hand with every change that alters the result of a config, however little:
# 1  until 462db31
# 2  images are augmented to the bit alike on every machine (one pixel in sixteen moved by one grey level)
# A record without a revision is of 1.
REVISION = 2
RECORD, WEIGHTS, CHECKPOINT = "record.json", "model.weights.h5", "checkpoint.npz"
THRESHOLDS = (1e-4, 1e-3, 1e-2)
PERCENTILES = (1, 20, 80, 99)
# Mistakes whose pictures a report shows.
SHOWN = 25


def _config(value: Any) -> Any:
    """Completes the settings that an older version wrote."""
    return with_added(value) if isinstance(value, dict) else value


@strict
@dataclass(frozen=True, kw_only=True)
class Watched:
    """The net after an epoch, in inference mode on the same training images.

    `kernel_norm` is ‖w‖₂ over all kernels together, `near_zero` the share of their weights below each of THRESHOLDS,
    `activations` the PERCENTILES of the output of `layer` before its norm. NaN once a weight is.
    """

    layer: str
    kernel_norm: float
    near_zero: tuple[float, ...]
    activations: tuple[float, ...]


@strict
@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of history.csv.

    `loss` is what the optimizer minimized, the mean over the epoch's steps; `cross_entropy` and `accuracy` are the
    same means in training mode, on augmented images, each image counted once. `weighted_cross_entropy` is what the loss
    holds without penalties where images are weighted by class, with smoothed targets if there are any. `l1_penalty` and
    `l2_penalty` are measured on the weights at the epoch's end; `own_losses` are what an own net adds by itself, on a
    batch then, None if that is nothing. Row 0 is the state before the first step and has neither loss nor accuracy.
    `val_*` are of the monitored split in inference mode. `learning_rate` and `momentum` are those of the epoch's last
    step.
    """

    epoch: int
    loss: float | None = None
    cross_entropy: float | None = None
    weighted_cross_entropy: float | None = None
    l1_penalty: float
    l2_penalty: float
    own_losses: float | None = None
    accuracy: float | None = None
    val_cross_entropy: float | None = None
    val_accuracy: float | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    watched: Watched | None = None


@strict
@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of the per-layer table: a layer with weights.

    `norm` and `axes` are empty for a convolution, `l1` to `near_zero` are None for a layer without kernel.
    `near_zero` holds the share of |w| below each of THRESHOLDS; `kernel_norm` is ‖w‖₂. `note` says of a layer of an own
    net which norm stood in its place, or which regularizer it has by itself.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    norm: str = ""
    axes: str = ""
    groups: int | None = None
    l1: float | None = None
    l2: float | None = None
    kernel_norm: float | None = None
    near_zero: tuple[float, ...] | None = None
    note: str = ""


@strict
@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What is left when kernel weights of |w| < threshold are set to 0, on the split named in `split`.

    `count` kernel weights are set to 0, `share` of all of them.
    """

    threshold: float
    count: int
    share: float
    accuracy: float
    split: str


@strict
@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One misclassified image, and the probability given to the prediction.

    `index` counts from 0 in the split, whose images are in tensorflow-datasets' order.
    """

    index: int
    target: int
    prediction: int
    confidence: float


@strict
@dataclass(frozen=True, kw_only=True)
class Bin:
    """One bin of the reliability diagram, over predictions with confidence in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@strict
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one split; intervals are Wilson's, 95 %.

    Of `count` images `errors` were misclassified; `mistakes` lists them for validation and test, and is empty for
    train. `confusion[t][p]` counts images of class t predicted as p. `cross_entropy` is the mean negative
    log-likelihood in nats, `brier` the mean squared error over all classes (0 to 2), `ece` over 15 bins of equal width.
    """

    split: str
    count: int
    errors: int
    accuracy: float
    interval: tuple[float, float]
    cross_entropy: float
    brier: float
    ece: float
    bins: Annotated[tuple[Bin, ...], *BY_COLUMNS]
    confusion: tuple[tuple[int, ...], ...]
    class_intervals: tuple[tuple[float, float], ...]
    mistakes: Annotated[tuple[Mistake, ...], *BY_COLUMNS] = ()


@strict
@dataclass(frozen=True, kw_only=True)
class Opening:
    """One look at the test split: when (ISO 8601, UTC), after which epoch, and for what."""

    time: str
    epoch: int
    purpose: str


@strict
@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where and with what a run was computed.

    `peak_memory` is in bytes of the whole process, `population` the runs that were trained side by side, which share
    its time. `precision` is how float32 products are computed, empty in records of before it was kept.
    """

    backend: str
    device: str
    threads: int
    versions: dict[str, str]
    commit: str | None = None
    peak_memory: int = 0
    population: int = 1
    precision: str = ""


@strict
@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Where the epochs before a resumption were computed: those up to `last`, after the ones listed before it."""

    last: int
    environment: Environment


@strict
@dataclass(frozen=True, kw_only=True)
class Export:
    """The candidate a run left, or why it left none (`path` None, `reason` says it)."""

    path: str | None = None
    version: int | None = None
    tree_sha256: str | None = None
    reason: str = ""


@strict
@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything a run leaves.

    Attributes:
        revision: REVISION of the code that trained.
        environment: of the last process that trained or measured.
        elsewhere: earlier ones, of a run that was resumed on another device, backend or precision.
        status: `running` between epochs; `diverged` and `failed` carry `message`.
        history: row 0 is the state before the first step.
        monitored: the split behind the history's val_ columns: `validation`, `test` or `none`.
        selected_epoch: the epoch whose weights were kept, by `config.select`.
        stopped_epoch: the last one, where `config.patience` ended training; None elsewhere.
        test: of the selected epoch.
        test_last: of the last epoch, where `config.select` is `test`; None elsewhere, and in records of revision 1.
        penalty_proof: penalty found in the loss of one batch before the first step, and what the formula gives for the
            same weights.
        penalty_proof_last: the same after the last epoch; None in records of before it was checked again.
    """

    schema_version: int = SCHEMA
    revision: int = 1
    run_id: str
    status: Literal["running", "finished", "diverged", "failed"]
    message: str = ""
    started: str
    config: Annotated[TrainConfig, BeforeValidator(_config)]
    data: Data
    environment: Environment
    elsewhere: tuple[Elsewhere, ...] = ()
    parameters: int
    parameters_total: int
    penalty_proof: tuple[float, float] | None = None
    penalty_proof_last: tuple[float, float] | None = None
    history: Annotated[tuple[Epoch, ...], *BY_COLUMNS] = ()
    monitored: str = "validation"
    selected_epoch: int | None = None
    stopped_epoch: int | None = None
    train: Evaluation | None = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
    test_last: Evaluation | None = None
    openings: tuple[Opening, ...] = ()
    layers: tuple[Layer, ...] = ()
    pruned: tuple[Pruned, ...] = ()
    export: Export | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0


_SCHEMA = Schema("A record.json", Record, version=SCHEMA, fix="Move its folder away and run the command again.")


def write_record(record: Record, path: Path) -> None:
    """Writes record.json atomically."""
    _SCHEMA.write(record, path)


def read_record(path: Path) -> Record:
    """Reads a record.json.

    Raises:
        UsageError: the file is missing, half-written, or of another schema.
    """
    if record := _SCHEMA.read(path):
        return record
    raise UsageError(
        "A run folder holds a record.json.",
        f"{path}, which is missing",
        "Give the folder of a run under reports/runs.",
    )
