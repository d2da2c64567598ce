"""Shows the layers of a net and the time of a training step: `python -m kernorm.net FILE.py:FUNCTION`.

About 15 seconds. The net is built, and does its steps on random images, in a process of its own; what is wrong with a
user's own net is one line.
"""

import dataclasses
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings
from kernorm.recipes import recipe_of_words
from kernorm.system import cli
from kernorm.system.words import settings_of, split_words
from kernorm.unused import require_used

if TYPE_CHECKING:
    from kernorm.records.data import Data
    from kernorm.training.first_step import Tried

PROG = "python -m kernorm.net"
# Steps that are timed.
_TIMED = 10
# Training images without a data set, as of MNIST.
_IMAGES = 50_000


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Shows the layers of a net, their norms and penalties, and the time of a training step.

    Of kernorm's nets or of your own, for images of any shape:
        python -m kernorm.net nets.py:net --image-shape 64x64x3 --classes 5 --norm gn --l2 1e-4 --batch-size 32

    Other flags are those of kernorm.train. With --dataset, shape and classes are those of the set.
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "images": ("image_shape", "classes"),
        "this command": ("quiet", "verbose", "help"),
    }

    net: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE.py:FUNCTION")] = TrainConfig.net
    """Which one; see --net of kernorm.train."""

    image_shape: str = "28x28x1"
    """Height, width and channels of the images."""

    classes: Annotated[int, Limit(2, 100_000, "at least 2")] = 10
    """How many."""

    train_words: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """What kernorm.train would be given."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits."""
        check_settings(self)
        _shape_of(self.image_shape)


def _shape_of(text: str) -> tuple[int, int, int]:
    sizes = [int(part) for part in text.lower().split("x") if part.isdecimal()]
    if len(sizes) != 3 or text.count("x") + text.count("X") != 2 or not all(1 <= size <= 4096 for size in sizes):
        raise UsageError("--image-shape is HEIGHTxWIDTHxCHANNELS.", f"{text!r}", "Give for example 32x32x3.")
    return sizes[0], sizes[1], sizes[2]


def main(config: NetConfig) -> None:
    """Prints the layers, the number of parameters and the time of a step."""
    from kernorm.datasets.dataset import load
    from kernorm.datasets.own import with_prepared
    from kernorm.nets.source import with_net
    from kernorm.training.first_step import try_nets

    words = ["--net", config.net, *config.train_words]
    train = cli.parse(TrainConfig, prog=PROG, argv=words, default=recipe_of_words(words))
    require_used([train])
    train = with_prepared(with_net(train))
    named = any(word.partition("=")[0] == "--dataset" for word in words)
    data = load(train).info if named else _images(config)
    (found,) = try_nets([(train, data)], timed=_TIMED)
    print(describe(found, train, data))


def _images(config: NetConfig) -> "Data":
    """Describes images that are not there."""
    from kernorm.records.data import Data

    shape = _shape_of(config.image_shape)
    labels = tuple(map(str, range(config.classes)))
    moments = (128.0,) * shape[2]
    return Data(
        name="random",
        version="",
        sha256="",
        labels=labels,
        image_shape=shape,
        mean=moments,
        std=moments,
        train=_IMAGES,
        validation=0,
        test=0,
    )


def describe(found: "Tried", config: TrainConfig, data: "Data") -> str:
    """Returns the table of layers, and below it the parameters and the time of a step."""
    head = ("layer", "kind", "output", "parameters", "norm", "λ1", "λ2")
    rows: list[tuple[str, ...]] = [head]
    for layer in found.layers:
        groups = f", {layer.groups} groups" if layer.groups else ""
        kind = f"{layer.kind} ({layer.note})" if layer.note else layer.kind
        norm = f"{layer.norm} over {layer.axes}{groups}" if layer.norm else ""
        lambdas = ("" if value is None else f"{value:g}" for value in (layer.l1, layer.l2))
        shape = "x".join(map(str, ("N", *layer.output_shape)))
        rows.append((layer.name, kind, shape, f"{layer.parameters:,}", norm, *lambdas))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    numbers = {head.index(name) for name in ("parameters", "λ1", "λ2")}
    lines = [
        "  ".join(
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    images = f"{config.batch_size} images of {'x'.join(map(str, data.image_shape))}"
    untrained = found.parameters_total - found.parameters
    moving = f", {untrained:,} more that are not trained" if untrained else ""
    step = f"a training step of {images}: {1e3 * (found.seconds or 0):.1f} ms here, median of {_TIMED}"
    return "\n".join([*lines, "", f"{found.parameters:,} parameters{moving}; {step}"])


def default(words: list[str]) -> tuple[NetConfig | None, list[str]]:
    """Returns the settings that this command leaves to kernorm.train, and its own words."""
    own = settings_of(NetConfig) - {"net"}
    theirs = settings_of(TrainConfig) - {"net"}
    held = {"net": "the first word"}
    mine, left = split_words(words, own=own, theirs=theirs, held=held, holder="This command", prog=PROG)
    return dataclasses.replace(NetConfig(), train_words=tuple(left)), mine


if __name__ == "__main__":
    sys.exit(cli.run(NetConfig, main, prog=PROG, default=default))
