"""The settings of one run: every default, every limit and the help text of `python -m kernorm.train`.

Imports neither Keras nor NumPy, so that `--help` and every refusal answer at once.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import tyro

from kernorm.by_layer import LAMBDA, check_layer_settings
from kernorm.contradictions import check_contradictions, check_data, check_net
from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings, is_path, whole_number
from kernorm.options import TRAIN_OPTIONS

NetName = Literal["eva6", "eva4", "resnet8", "resnet20"]
NormName = Literal["none", "bn", "gbn", "brn", "ln", "cln", "gn", "in", "rms", "frn"]
Initializer = Literal["glorot_uniform", "he_normal", "torch"]
Schedule = Literal["onecycle", "step", "cosine", "constant"]
OptimizerName = Literal["sgd", "muon", "adamw"]
Selection = Literal["last", "validation", "test"]
FormatName = Literal["onnx", "openvino", "litert"]
Tracker = Literal["none", "wandb", "mlflow"]
Flip = Literal["none", "horizontal", "vertical", "both"]
Fill = Literal["constant", "reflect", "nearest"]
ClassWeight = Literal["none", "balanced"]
Resize = Literal["stretch", "crop", "pad"]
Color = Literal["rgb", "grayscale"]

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
    "pictures",
    "retrain",
    "stop_after",
)

# Filled where a command or call begins, and named to nobody.
INTERNAL = ("net_source", "net_weights")

# Settings that came after the first run ids, each with the value that means "as before". A run with that value keeps
# the id that it had before the setting existed; the value stays here even if the default changes.
# How own images are read comes first, with the defaults; the name of a prepared set stands for it.
READING: dict[str, Any] = {"image_size": None, "resize": "stretch", "color": None, "test_size": 0.2}
ADDED: dict[str, Any] = READING | {
    "net_source": None,
    "net_weights": None,
    "flip": "none",
    "elastic": 0.0,
    "elastic_sigma": 4.0,
    "fill": "constant",
    "brightness": 0.0,
    "contrast": 0.0,
    "weight_decay": 0.0,
    "ema": 0.0,
    "label_smoothing": 0.0,
    "warmup": 0.0,
    "class_weight": "none",
    "patience": None,
    "min_delta": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains one small image classifier, reports on it and exports it as a SavedModel for TF Serving.

    The main job, three to four minutes on two CPU cores, at least 99.2 % on MNIST's test split:
        python -m kernorm.train --norm ln --l2 0.0066

    It writes reports/runs/<run id>/report.html and saved_models/<run id>/<version>/. The same command again resumes
    an interrupted run and never trains a finished one twice. KERAS_BACKEND=jax trains the same run with JAX.
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = TRAIN_OPTIONS

    net: Annotated[str, tyro.conf.arg(metavar="NAME|FILE.py:FUNCTION")] = "eva4"
    """The architecture:
    - eva4: 9,962 parameters, Conv-Norm-ReLU-Dropout
    - eva6: 7,288, Conv-ReLU-Norm-Dropout, half the time a step, about 0.1 percentage points less accurate
    - resnet8, resnet20: residual nets (He et al. 2016), 0.08 and 0.27 million parameters, three times eva4's time a
      step and more
    - FILE.py:FUNCTION: your own, def net(image_shape, num_classes, conv), which returns a keras.Model from
      keras.Input(image_shape), scaled pixels, to logits. conv(x, filters, size=3, strides=1, activation=True) is a
      convolution with norm and ReLU as set here. Without the argument conv, the norms of the model are swapped.
    The file's text is part of the run, kept with it and with what it exports. See python -m kernorm.net."""

    net_weights: Annotated[str | None, tyro.conf.Suppress] = None
    """The sha256 of the initial weights of a model that was brought from Python; `net_source` is its get_config()."""

    net_source: Annotated[str | None, tyro.conf.Suppress] = None
    """The text of an own net's file, of which `net` is the function; filled where a command or call begins."""

    norm: NormName = "bn"
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

    groups: Annotated[int | Literal["auto"], Limit(1, math.inf, "auto or at least 1")] = "auto"
    """Groups of gn. auto: in each layer the largest divisor of its channels up to 4; the summary shows it."""

    ghost_batch_size: Annotated[int, Limit(2, math.inf, "at least 2")] = 32
    """Images a ghost batch of gbn holds in training; the last one of a batch may hold fewer."""

    standardize_kernels: bool = False
    """Weight standardization of every convolution before a norm (Qiao et al. 2019, arXiv:1903.10520)."""

    norm_at: tuple[str, ...] = ()
    """Another norm in single layers: LAYER=NAME …, for example conv1=none conv6=ln. Layers are conv1, conv2, …"""

    l1: Annotated[float, Limit(0, LAMBDA, "a finite number of at least 0 and at most 1000")] = 0.0
    """λ1 of the penalty l1·Σ|w| + l2·Σw² (keras.regularizers.L1L2) on every kernel, added to the cross-entropy."""

    l2: Annotated[float, Limit(0, LAMBDA, "a finite number of at least 0 and at most 1000")] = 0.0
    """λ2 of that penalty. Keras' convention: PyTorch's weight_decay=λ is --l2 λ/2."""

    penalize: Literal["kernels", "all"] = "kernels"
    """all: the norms' scales and offsets too, as both published studies did."""

    penalty_at: tuple[str, ...] = ()
    """Another penalty in single layers: LAYER=L1,L2 …, for example conv1=0,0 conv8=1e-4,0."""

    recipe: str = "default"
    """A named set of values, which other flags override:
    - default: 8 epochs
    - best: the highest accuracy, 40 epochs of stronger augmentation
    - quick: about the accuracy of the default, 5 epochs
    - photos: small sets of photos, 60 epochs of a net with shortcuts
    - cifar: the recipe that came with ResNet, 181 epochs
    - eva4: the first published study's, 40 epochs
    - eva6: the second published study's, 25 epochs"""

    epochs: Annotated[int, Limit(1, 100_000, "from 1 to 100000")] = 8
    """Passes over the training split."""

    batch_size: Annotated[int, Limit(1, math.inf, "at least 1")] = 64
    """Images a training step sees; the last step of an epoch takes what is left."""

    class_weight: ClassWeight = "none"
    """How much an image counts in the cross-entropy that is minimized. balanced: scikit-learn's N / (K·n_k), so that
    each of K classes weighs alike, however few training images n_k it has."""

    optimizer: OptimizerName = "sgd"
    """What moves the weights:
    - sgd: with momentum
    - muon: steps of equal size in all directions of a kernel (Jordan et al. 2024), and Adam for the norms' scales and
      offsets; fewer epochs, but a penalty pulls less evenly than under SGD
    - adamw: Adam with decoupled weight decay; divides a penalty's gradient as it does the rest"""

    learning_rate: Annotated[float | Literal["auto"], Limit(1e-12, 1e3, "above 0 and at most 1000")] = "auto"
    """Peak rate; of muon the step's root mean square is 0.2 of it. auto: 0.07 with a norm over the batch (bn, gbn,
    brn), 0.03 with any other or none, which tolerate less; of adamw 0.01."""

    momentum: Annotated[float, Limit(0, 0.9999, "at least 0 and below 1")] = 0.9
    """Momentum, v ← μv + g, w ← w − lr·v as in PyTorch; of adamw β1. With --base-momentum its highest value."""

    nesterov: bool = True
    """Nesterov's form of the momentum step; not of adamw."""

    weight_decay: Annotated[float, Limit(0, 1e3, "at least 0 and at most 1000")] = 0.0
    """adamw: λ of w ← w − lr·λ·w on every kernel, next to the step. It is not the L2 penalty and is in no loss."""

    clip_ratio: Annotated[float | None, Limit(1e-9, 1e9, "above 0")] = 0.2
    """Gradients whose norm over all weights is more than this share of all kernels' norm are scaled down to it (after
    Brock et al. 2021, arXiv:2102.06171). A strong L2 penalty shrinks kernels before a norm until their gradients
    explode; None: no clipping."""

    ema: Annotated[float, Limit(0, 0.99999, "at least 0 and below 1")] = 0.0
    """Momentum of a moving average of the weights over steps, a ← m·a + (1 − m)·w (use_ema of Keras' optimizers). The
    averages are evaluated, selected and exported; moving statistics of norms are then averaged as long. 0: off."""

    label_smoothing: Annotated[float, Limit(0, 0.9, "from 0 to 0.9")] = 0.0
    """Share of each target that is spread evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567). It is in the
    loss alone: cross-entropies are those of the plain targets."""

    schedule: Schedule = "onecycle"
    """The learning rate over steps: onecycle as PyTorch's OneCycleLR, step as its StepLR after --step-after epochs,
    cosine as Keras' CosineDecay, from the peak to 0 after --warmup."""

    pct_start: Annotated[float, Limit(0.0, 1.0, "between 0 and 1")] = 0.3
    """onecycle: share of the steps in which the rate rises."""

    div_factor: Annotated[float, Limit(1, 1e12, "at least 1")] = 25.0
    """onecycle: the first rate is the peak divided by this."""

    final_div_factor: Annotated[float, Limit(1, 1e12, "at least 1")] = 1e4
    """onecycle: the last rate is the first divided by this."""

    anneal: Literal["cos", "linear"] = "cos"
    """onecycle: the shape of rise and fall."""

    base_momentum: Annotated[float | None, Limit(0, 0.9999, "at least 0 and below 1")] = None
    """onecycle: the momentum at the peak rate, cycled against the rate between it and --momentum. None: constant."""

    step_size: Annotated[int, Limit(1, math.inf, "at least 1")] = 2
    """step: epochs between two drops."""

    step_gamma: Annotated[float, Limit(1e-12, 1, "above 0 and at most 1")] = 0.1
    """step: factor of each drop."""

    step_after: Annotated[int, Limit(0, math.inf, "at least 0")] = 0
    """step: epochs before the first interval of --step-size begins."""

    warmup: Annotated[float, Limit(0, 100_000, "at least 0")] = 0.0
    """cosine: epochs, or below 1 a share of all steps, in which the rate rises from 0 to its peak on a line."""

    dropout: Annotated[float, Limit(0, 0.95, "from 0 to 0.95")] = 0.0
    """Share of activations dropped after each block."""

    initializer: Initializer = "torch"
    """How kernels begin. torch: PyTorch's default, uniform in ±1/sqrt(fan_in)."""

    rotation: Annotated[float, Limit(0, 180, "from 0 to 180 degrees")] = 7.0
    """Each training image turns by up to this many degrees."""

    shift: Annotated[float, Limit(0, 1, "from 0 to 1, a fraction of the image")] = 0.08
    """It moves by up to this fraction of its height and width."""

    zoom: Annotated[float, Limit(0, 0.9, "from 0 to 0.9, a fraction of the image")] = 0.0
    """Each axis grows or shrinks by up to this fraction."""

    shear: Annotated[float, Limit(0, 60, "from 0 to 60 degrees")] = 0.0
    """It leans by up to this many degrees along x."""

    flip: Flip = "none"
    """It is mirrored with probability 1/2. horizontal: left and right; vertical: top and bottom; both: each by itself.
    Not for digits, letters and others whose mirror image means something else."""

    elastic: Annotated[float, Limit(0, 1000, "from 0 to 1000 pixels")] = 0.0
    """Elastic distortion (Simard et al. 2003): its α, by which smoothed random displacements are scaled, in pixels;
    theirs for digits is 34."""

    elastic_sigma: Annotated[float, Limit(0.5, 100, "from 0.5 to 100 pixels")] = 4.0
    """elastic: standard deviation of the Gaussian that smooths the displacements."""

    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """How pixels are resampled; nearest is what the published recipes did."""

    fill: Fill = "constant"
    """What comes from outside of the image. constant: black; reflect: the image mirrored at its edge; nearest: its
    outermost pixels."""

    brightness: Annotated[float, Limit(0, 1, "from 0 to 1, a fraction of black to white")] = 0.0
    """All its pixels become lighter or darker by up to this fraction of the range from black to white."""

    contrast: Annotated[float, Limit(0, 1, "from 0 to 1")] = 0.0
    """Its pixels' distance from the mean of their channel grows or shrinks by up to this fraction."""

    select: Selection = "last"
    """Which epoch's weights are kept: last, or the best by validation or by test accuracy. The published studies chose
    by test; that opens the test split after every epoch, and the report says so."""

    patience: Annotated[int | None, Limit(1, math.inf, "at least 1")] = None
    """Stop after so many epochs without a better validation accuracy; the best epoch is kept, as by --select
    validation. Not with onecycle, whose rate is planned over all epochs. With cosine, whose rate is small at the end
    alone, rather many or none. None: all epochs."""

    min_delta: Annotated[float, Limit(0, 1, "from 0 to 1, a fraction of the images")] = 0.0
    """patience: an epoch is better if its accuracy is more than this above the best before it, 0.001 for 0.1 points."""

    dataset: str = "mnist"
    """A tensorflow-datasets image classification set by name; mnist is embedded, others are fetched, or read from
    --manual-dir. Or the path of your own images, beginning with / ./ ../ or ~ or ending in .npz:
    - DIR/train/CLASS/* and DIR/test/CLASS/*, perhaps DIR/val/CLASS/*
    - DIR/CLASS/*, split by --test-size
    - a file.npz with x_train, y_train, x_test, y_test, or MedMNIST's train_images, train_labels, …"""

    manual_dir: Path | None = None
    """Folder with the set's original files, for a machine without network."""

    data_dir: Path | None = None
    """Folder of tensorflow-datasets; None is its own default, ~/tensorflow_datasets."""

    validation_size: Annotated[int | float | Literal["auto"], Limit(0, math.inf, "auto or at least 0")] = "auto"
    """Images held out of the training images, stratified, always the same ones: a number, or a share such as 0.2. auto:
    10,000 or 20 %, whichever is less, or the images of DIR/val. 0: none, as the published studies."""

    train_size: Annotated[int | float | None, Limit(1e-9, math.inf, "at least 1, or a share above 0")] = None
    """Train on this many of the training images, or on a share of them, stratified: the small-data regime."""

    image_size: str | None = None
    """Of own images: the size to which all are brought, 64 or HEIGHTxWIDTH. None: they have one size."""

    resize: Resize = "stretch"
    """Of own images whose sides have another ratio: stretch, crop the middle, or pad with black."""

    color: Color | None = None
    """Of own images: rgb or grayscale. None: grayscale if all of them are."""

    test_size: Annotated[float, Limit(1e-6, 0.9, "a share above 0 and at most 0.9")] = 0.2
    """Of own images in DIR/CLASS: about this share is the test split, by a hash of each file's content."""

    seed: Annotated[int, Limit(0, 2**31 - 1, "from 0 to 2147483647")] = 0
    """Seed of initialization, order, augmentation and dropout."""

    threads: Annotated[int | None, Limit(1, 1024, "from 1 to 1024")] = None
    """CPU threads of TensorFlow; None is one a core. The same number gives bit-identical weights."""

    reports_dir: Path = Path("reports")
    """Where runs/<run id>/ is written."""

    saved_models_dir: Path = Path("saved_models")
    """Where <run id>/<version>/ is written."""

    export: bool = True
    """Export the trained model as a SavedModel candidate."""

    format: tuple[FormatName, ...] = ()
    """Also write the exported model as onnx, openvino or litert next to it, checked against it. See kernorm.convert for
    what each needs."""

    push: bool = False
    """Then evaluate it against the thresholds that come with its set (there are some for mnist) and the newest blessed
    version, validate it in the runtimes of this machine, and publish it as saved_models/kernorm/<version>/. Exit code 1
    if it is refused."""

    report: bool = True
    """Write report.html and its pictures; the same command again adds them to a run that was trained without."""

    pictures: bool = True
    """Show misclassified images in reports. --no-pictures: no image of the set on a page or in the reports folder."""

    track: Tracker = "none"
    """Also log to Weights & Biases or MLflow, offline unless they are configured otherwise (pip install wandb or
    mlflow)."""

    stop_after: Annotated[int | None, Limit(1, math.inf, "at least 1")] = None
    """Pause after this epoch, before anything is measured and with the test split sealed; run the same command without
    it to resume."""

    retrain: bool = False
    """Train a finished run once more, next to the first, in <run id>-r2, -r3, …"""

    def __post_init__(self) -> None:
        """Refuses values outside their limits with a UsageError that names the rule, the value and the fix."""
        _form_data(self)
        check_settings(self)
        if self.patience is not None and self.select == "last":
            object.__setattr__(self, "select", "validation")
        check_contradictions(self)
        check_net(self.net, self.net_source, get_args(NetName))
        check_data(self, READING)
        for name in ("norm_at", "penalty_at"):
            check_layer_settings(name, getattr(self, name), get_args(NormName))

    @property
    def peak_rate(self) -> float:
        """The learning rate as a number."""
        if self.learning_rate == "auto" and self.optimizer == "adamw":
            return _RATE_OF_ADAMW
        if self.learning_rate == "auto":
            return _RATE_OF_BATCH_NORMS if self.norm in _BATCH_NORMS else _RATE
        return self.learning_rate

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the weights, JSON-ready; two configs with equal identities are the same run."""
        values = to_json(self) | {"learning_rate": self.peak_rate}
        return without_auto({name: value for name, value in values.items() if name not in NOT_IDENTITY})

    @property
    def run_id(self) -> str:
        """Readable name of the run and its folders, for example `eva6-ln-l2_0.0066-bs128-s0-3f2a90c1`.

        Eight digits of the digest: a search holds thousands of runs that share what can be read. A setting of ADDED
        is part of the digest only where it differs from its value there.
        """
        parts: list[str] = [self.net.rpartition(":")[2], self.norm]
        if self.dataset != "mnist":
            parts.insert(0, self.dataset.replace("/", "_"))
        if self.groups != "auto":
            parts.append(f"g{self.groups}")
        parts += [f"{name}_{getattr(self, name):g}" for name in ("l1", "l2") if getattr(self, name)]
        decisive = {name: value for name, value in self.identity.items() if name not in ADDED or value != ADDED[name]}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return "-".join([*parts, f"bs{self.batch_size}", f"s{self.seed}", digest[:8]])


def _form_data(config: TrainConfig) -> None:
    """Brings a path that is given for `dataset`, and a whole number for `image_size`, to text.

    Raises:
        UsageError: the data set is given by arrays.
    """
    dataset: Any = config.dataset
    if isinstance(dataset, os.PathLike):
        text = os.fsdecode(dataset)
        object.__setattr__(config, "dataset", text if is_path(text) else f"./{text}")
    elif isinstance(dataset, Sized) and not isinstance(dataset, str):
        raise UsageError(
            "A data set is given by its name, or by the path of own images.",
            f"dataset of the type {type(dataset).__name__}",
            'Save arrays by numpy.savez("FILE.npz", x_train=…, y_train=…, x_test=…, y_test=…), and give its path.',
        )
    if (size := whole_number(config.image_size)) is not None:
        object.__setattr__(config, "image_size", str(size))


def with_added(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings that an older version wrote, completed by ADDED: an identity, or a whole config as JSON."""
    return ADDED | dict(settings)


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Returns the config as JSON-ready values, paths as text and tuples as lists."""
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }


def without_auto(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with the validation split of named sets as it was before there was auto.

    A set that is smaller could not be trained on then.
    """
    if values["validation_size"] == "auto" and not is_path(values["dataset"]) and "@" not in values["dataset"]:
        return values | {"validation_size": 10_000}
    return values


def without_places(config: TrainConfig) -> TrainConfig:
    """Returns the config with the defaults of NOT_IDENTITY: the same run, without the folders of one machine.

    That pages are to show no picture stays.
    """
    defaults: dict[str, Any] = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.name in NOT_IDENTITY and field.name != "pictures"
    }
    return dataclasses.replace(config, **defaults)


_BATCH_NORMS = ("bn", "gbn", "brn")
_RATE_OF_BATCH_NORMS, _RATE, _RATE_OF_ADAMW = 0.07, 0.03, 0.01

if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
