"""The settings of one run: every default, every limit and the help text of `python -m kernorm.train`.

First in the way of a run; imports neither Keras nor NumPy, so that `--help` and every refusal answer at once.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kernorm.errors import UsageError, nearest

NetName = Literal["eva6", "eva4"]
NormName = Literal["none", "bn", "gbn", "brn", "ln", "cln", "gn", "in", "rms", "frn"]
Initializer = Literal["glorot_uniform", "he_normal", "torch"]
Schedule = Literal["onecycle", "step", "constant"]
OptimizerName = Literal["sgd", "muon"]
Selection = Literal["last", "validation", "test"]
FormatName = Literal["onnx", "openvino", "litert"]
Tracker = Literal["none", "wandb", "mlflow"]

# These say where a run reads, writes and reports and how far it goes now, not what it computes: they stay out of its
# identity.
NOT_IDENTITY = (
    "manual_dir",
    "data_dir",
    "reports_dir",
    "saved_models_dir",
    "track",
    "export",
    "format",
    "push",
    "report",
    "retrain",
    "stop_after",
)

# Settings that came after the first run ids, each with the value that means "as before". A run with that value keeps
# the id that it had before the setting existed; the value stays here even if the default changes.
ADDED: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains one small image classifier, reports on it and exports it as a SavedModel for TF Serving.

    The main job, three to four minutes on two CPU cores, at least 99.2 % on MNIST's test split:
        python -m kernorm.train --norm ln --l2 0.0066

    It writes reports/runs/<run id>/report.html and saved_models/<run id>/<version>/. The same command again resumes
    an interrupted run and never trains a finished one twice. KERAS_BACKEND=jax trains the same run with JAX.
    """

    net: NetName = "eva4"
    """The architecture. eva4: 9,962 parameters, Conv-Norm-ReLU-Dropout. eva6: 7,288, Conv-ReLU-Norm-Dropout, half the
    time a step, about 0.1 percentage points less accurate."""

    norm: str = "bn"
    """The normalization, of inputs (N, H, W, C), and what its statistics go over:
    - none
    - bn: batch normalization, N,H,W
    - gbn: ghost batch normalization, N,H,W of a part of the batch
    - brn: batch renormalization, N,H,W
    - ln: layer normalization of an image, H,W,C
    - cln: layer normalization of each pixel, C
    - gn: group normalization, H,W and the channels of a group
    - in: instance normalization, H,W
    - rms: root mean square of each pixel, C, no mean
    - frn: filter response normalization with its TLU, H,W, no mean"""

    groups: int | Literal["auto"] = "auto"
    """Groups of gn. auto: in each layer the largest divisor of its channels up to 4; the summary shows it."""

    ghost_batch_size: int = 32
    """Images a ghost batch of gbn holds in training; the last one of a batch may hold fewer."""

    standardize_kernels: bool = False
    """Weight standardization of every convolution before a norm (Qiao et al. 2019, arXiv:1903.10520)."""

    norm_at: tuple[str, ...] = ()
    """Another norm in single layers: LAYER=NAME …, for example conv1=none conv6=ln. Layers are conv1, conv2, …"""

    l1: float = 0.0
    """λ1 of the penalty l1·Σ|w| + l2·Σw² (keras.regularizers.L1L2) on every kernel, added to the cross-entropy."""

    l2: float = 0.0
    """λ2 of that penalty. Keras' convention: PyTorch's weight_decay=λ is --l2 λ/2."""

    penalize: Literal["kernels", "all"] = "kernels"
    """all: the norms' scales and offsets too, as both published studies did."""

    penalty_at: tuple[str, ...] = ()
    """Another penalty in single layers: LAYER=L1,L2 …, for example conv1=0,0 conv8=1e-4,0."""

    recipe: str = "default"
    """A named set of values, which flags given beside it override:
    - default: 8 epochs
    - best: the highest accuracy, 20 epochs of stronger augmentation
    - eva4: the first published study's, 40 epochs
    - eva6: the second published study's, 25 epochs"""

    epochs: int = 8
    """Passes over the training split."""

    batch_size: int = 64
    """Images a training step sees; the last step of an epoch takes what is left."""

    optimizer: OptimizerName = "sgd"
    """sgd, or muon: steps of equal size in all directions of a kernel (Jordan et al. 2024), and Adam for the norms'
    scales and offsets. Fewer epochs, but a penalty pulls less evenly than under SGD."""

    learning_rate: float | Literal["auto"] = "auto"
    """Peak rate; of muon the step's root mean square is 0.2 of it. auto: 0.07 with a norm over the batch (bn, gbn,
    brn), 0.03 with any other or none, which bear less."""

    momentum: float = 0.9
    """Momentum, v ← μv + g, w ← w − lr·v as in PyTorch; with --base-momentum its highest value."""

    nesterov: bool = True
    """Nesterov's form of the momentum step."""

    clip_ratio: float | None = 0.2
    """Gradients whose norm over all weights is more than this share of all kernels' norm are scaled down to it (after
    Brock et al. 2021, arXiv:2102.06171). A strong L2 penalty shrinks kernels before a norm until their gradients
    explode; None: no clipping."""

    schedule: Schedule = "onecycle"
    """The learning rate over steps: onecycle as PyTorch's OneCycleLR, step as its StepLR after --step-after epochs."""

    pct_start: float = 0.3
    """onecycle: share of the steps in which the rate rises."""

    div_factor: float = 25.0
    """onecycle: the first rate is the peak divided by this."""

    final_div_factor: float = 1e4
    """onecycle: the last rate is the first divided by this."""

    anneal: Literal["cos", "linear"] = "cos"
    """onecycle: the shape of rise and fall."""

    base_momentum: float | None = None
    """onecycle: the momentum at the peak rate, cycled against the rate between it and --momentum. None: constant."""

    step_size: int = 2
    """step: epochs between two drops."""

    step_gamma: float = 0.1
    """step: factor of each drop."""

    step_after: int = 0
    """step: epochs before the first interval of --step-size begins."""

    dropout: float = 0.0
    """Share of activations dropped after each block."""

    initializer: Initializer = "torch"
    """How kernels begin. torch: PyTorch's default, uniform in ±1/sqrt(fan_in)."""

    rotation: float = 7.0
    """Augmentation: each training image turns by up to this many degrees."""

    shift: float = 0.08
    """Augmentation: it moves by up to this fraction of its height and width."""

    zoom: float = 0.0
    """Augmentation: each axis grows or shrinks by up to this fraction."""

    shear: float = 0.0
    """Augmentation: it leans by up to this many degrees along x."""

    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Augmentation: how pixels are resampled; nearest is what the published recipes did."""

    select: Selection = "last"
    """Which epoch's weights are kept: last, or the best by validation or by test accuracy. The published studies chose
    by test; that opens the test split after every epoch, and the report says so."""

    dataset: str = "mnist"
    """A tensorflow-datasets image classification set by name. mnist is embedded; others are fetched by
    tensorflow-datasets, or read from --manual-dir."""

    manual_dir: Path | None = None
    """Folder with the set's original files, for a machine without network."""

    data_dir: Path | None = None
    """Folder of tensorflow-datasets; None is its own default, ~/tensorflow_datasets."""

    validation_size: int = 10_000
    """Images held out of the training images, stratified, always the same ones. 0: none, as the published studies."""

    train_size: int | None = None
    """Train on this many of the training images, stratified: the small-data regime."""

    seed: int = 0
    """Seed of initialization, order, augmentation and dropout."""

    threads: int | None = None
    """CPU threads of TensorFlow; None is one a core. The same number gives bit-identical weights."""

    reports_dir: Path = Path("reports")
    """Where runs/<run id>/ is written."""

    saved_models_dir: Path = Path("saved_models")
    """Where <run id>/<version>/ is written."""

    export: bool = True
    """Export the trained model as a SavedModel candidate."""

    format: tuple[FormatName, ...] = ()
    """Also write the exported model as onnx, openvino or litert beside it, checked against it (extra runtimes)."""

    push: bool = False
    """Then hold it against kernorm/thresholds.json (MNIST's) and the newest blessed version, try it in the runtimes
    that are here, and publish it as saved_models/kernorm/<version>/. Exit code 1 if it is refused."""

    report: bool = True
    """Write report.html and its pictures; the same command again adds them to a run that was trained without."""

    track: Tracker = "none"
    """Also log to Weights & Biases or MLflow, offline unless they are configured otherwise (extras wandb, mlflow)."""

    stop_after: int | None = None
    """Pause after this epoch, before anything is measured and with the test split shut; the same command without it
    goes on from there."""

    retrain: bool = False
    """Train a finished run once more, beside the first, in <run id>-r2, -r3, …"""

    def __post_init__(self) -> None:
        """Refuses values outside their limits with a UsageError that names the rule, the value and the fix."""
        for field in dataclasses.fields(self):
            value, kinds = getattr(self, field.name), (field.type, *get_args(field.type))
            # 1 and 1.0 are the same setting, and so the same run.
            if type(value) is int and float in kinds:
                object.__setattr__(self, field.name, float(value))
            elif isinstance(value, str) and Path in kinds:
                object.__setattr__(self, field.name, Path(value))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{_flag(name)} takes a known name.",
                    f"{getattr(self, name)!r}",
                    nearest(str(getattr(self, name)), known),
                )
        if self.push and not self.export:
            raise UsageError("--push publishes what is exported.", "--push with --no-export", "Leave one away.")
        if self.format and not self.export:
            raise UsageError("--format converts what is exported.", "--format with --no-export", "Leave one away.")
        for name, (low, high, rule) in _LIMITS.items():
            value = getattr(self, name)
            if (name, value) == ("learning_rate", "auto"):
                continue
            if value is not None and not (_is_number(value) and low <= value <= high):
                raise UsageError(f"{_flag(name)} must be {rule}.", f"{name}={value!r}", "Give a value in that range.")
        if self.groups != "auto" and not (_is_number(self.groups) and self.groups >= 1):
            raise UsageError("--groups must be auto or at least 1.", f"groups={self.groups!r}", "Give auto.")
        if self.select == "validation" and self.validation_size == 0:
            raise UsageError(
                "--select validation needs a validation split.",
                "validation_size=0",
                "Give --validation-size 10000 or --select last.",
            )
        if self.base_momentum is not None and self.schedule != "onecycle":
            raise UsageError(
                "--base-momentum belongs to --schedule onecycle.", f"schedule={self.schedule!r}", "Leave it away."
            )
        if self.nesterov and self.momentum == 0:
            raise UsageError("--nesterov needs momentum.", "momentum=0", "Give --no-nesterov.")
        if self.dataset.partition("/")[0] != self.dataset.partition("/")[0].lower():
            raise UsageError(
                "--dataset takes tensorflow-datasets' lower-case name.",
                f"{self.dataset!r}",
                f"Give {self.dataset.lower()}.",
            )
        for name in ("norm_at", "penalty_at"):
            _check_layer_settings(name, getattr(self, name))

    @property
    def peak_rate(self) -> float:
        """The learning rate as a number."""
        if self.learning_rate == "auto":
            return _RATE_OF_BATCH_NORMS if self.norm in _BATCH_NORMS else _RATE
        return self.learning_rate

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the weights, JSON-ready; two configs with equal identities are the same run."""
        values = to_json(self) | {"learning_rate": self.peak_rate}
        return {name: value for name, value in values.items() if name not in NOT_IDENTITY}

    @property
    def run_id(self) -> str:
        """Readable name of the run and its folders, for example `eva6-ln-l2_0.0066-bs128-s0-3f2a90c1`.

        Eight digits of the digest: a search holds thousands of runs that share what can be read. A setting of ADDED
        is part of the digest only where it differs from its value there.
        """
        parts = [self.net, self.norm]
        if self.dataset != "mnist":
            parts.insert(0, self.dataset.replace("/", "_"))
        if self.groups != "auto":
            parts.append(f"g{self.groups}")
        parts += [f"{name}_{getattr(self, name):g}" for name in ("l1", "l2") if getattr(self, name)]
        decisive = {name: value for name, value in self.identity.items() if name not in ADDED or value != ADDED[name]}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return "-".join([*parts, f"bs{self.batch_size}", f"s{self.seed}", digest[:8]])


def with_added(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings that an older version wrote, completed by ADDED: an identity, or a whole config as JSON."""
    return ADDED | dict(settings)


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Returns the config as JSON-ready values, paths as text and tuples as lists."""
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }


def without_places(config: TrainConfig) -> TrainConfig:
    """Returns the config with the defaults of PLACES: the same run, without the folders of one machine."""
    defaults: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config) if field.name in NOT_IDENTITY
    }
    return dataclasses.replace(config, **defaults)


def layer_settings(name: str, settings: Iterable[str]) -> dict[str, str]:
    """Splits LAYER=VALUE settings of the field `name` into a dict by layer.

    Raises:
        UsageError: a setting has no `=`, or one layer is named twice.
    """
    by_layer: dict[str, str] = {}
    for setting in settings:
        layer, equals, value = setting.partition("=")
        if not (layer and equals and value):
            raise UsageError(
                f"{_flag(name)} takes LAYER=VALUE.", f"{setting!r}", f"Give for example {_EXAMPLES[name]}."
            )
        if layer in by_layer:
            raise UsageError(f"{_flag(name)} takes each layer once.", f"{layer!r} twice", "Leave one away.")
        by_layer[layer] = value
    return by_layer


def parse_penalty(setting: str) -> tuple[float, float]:
    """Reads the L1,L2 of a `--penalty-at` setting.

    Raises:
        UsageError: it is not two finite numbers of at least 0.
    """
    try:
        l1, l2 = (float(value) for value in setting.split(","))
    except ValueError:
        l1 = l2 = math.nan
    if not (0 <= l1 <= _LAMBDA and 0 <= l2 <= _LAMBDA):
        raise UsageError(
            f"--penalty-at takes LAYER=L1,L2, two numbers from 0 to {_LAMBDA:g}.",
            f"{setting!r}",
            f"Give for example {_EXAMPLES['penalty_at']}.",
        )
    return l1, l2


def _check_layer_settings(name: str, settings: Iterable[str]) -> None:
    for value in layer_settings(name, settings).values():
        if name == "penalty_at":
            parse_penalty(value)
        elif value not in get_args(NormName):
            raise UsageError("--norm-at takes a known norm.", f"{value!r}", nearest(value, get_args(NormName)))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_EXAMPLES = {"norm_at": "conv1=none", "penalty_at": "conv1=0,0.001"}
_LAMBDA = 1e3
_BATCH_NORMS = ("bn", "gbn", "brn")
_RATE_OF_BATCH_NORMS, _RATE = 0.07, 0.03
_CHOICES: dict[str, tuple[str, ...]] = {
    "net": get_args(NetName),
    "norm": get_args(NormName),
    "penalize": ("kernels", "all"),
    "schedule": get_args(Schedule),
    "anneal": ("cos", "linear"),
    "optimizer": get_args(OptimizerName),
    "initializer": get_args(Initializer),
    "interpolation": ("bilinear", "nearest"),
    "select": get_args(Selection),
    "track": get_args(Tracker),
}
_LIMITS: dict[str, tuple[float, float, str]] = {
    "l1": (0, _LAMBDA, "a finite number of at least 0 and at most 1000"),
    "l2": (0, _LAMBDA, "a finite number of at least 0 and at most 1000"),
    "ghost_batch_size": (2, math.inf, "at least 2"),
    "epochs": (1, 100_000, "from 1 to 100000"),
    "stop_after": (1, math.inf, "at least 1"),
    "batch_size": (1, math.inf, "at least 1"),
    "learning_rate": (1e-12, 1e3, "above 0 and at most 1000"),
    "momentum": (0, 0.9999, "at least 0 and below 1"),
    "base_momentum": (0, 0.9999, "at least 0 and below 1"),
    "clip_ratio": (1e-9, 1e9, "above 0"),
    "pct_start": (0.0, 1.0, "between 0 and 1"),
    "div_factor": (1, 1e12, "at least 1"),
    "final_div_factor": (1, 1e12, "at least 1"),
    "step_size": (1, math.inf, "at least 1"),
    "step_gamma": (1e-12, 1, "above 0 and at most 1"),
    "step_after": (0, math.inf, "at least 0"),
    "dropout": (0, 0.95, "from 0 to 0.95"),
    "rotation": (0, 180, "from 0 to 180 degrees"),
    "shift": (0, 1, "from 0 to 1, a fraction of the image"),
    "zoom": (0, 0.9, "from 0 to 0.9, a fraction of the image"),
    "shear": (0, 60, "from 0 to 60 degrees"),
    "validation_size": (0, math.inf, "at least 0"),
    "train_size": (1, math.inf, "at least 1"),
    "seed": (0, 2**31 - 1, "from 0 to 2147483647"),
    "threads": (1, 1024, "from 1 to 1024"),
}
