"""Prepares data sets, and lists those that are prepared: `python -m kernorm.data fashion_mnist`.

tensorflow-datasets loads a set by its name; what it decodes is kept in kernorm's cache, from which a set comes in a
fraction of a second and without TensorFlow. The first use of MNIST takes about 30 s and no network. Own images are
given by their path.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kernorm.config import Color, Resize, TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings, expanded, is_path, size_of
from kernorm.system import cli

if TYPE_CHECKING:
    from kernorm.datasets.arrays import Arrays

PROG = "python -m kernorm.data"
# Classes that are listed.
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Lists the prepared data sets, or prepares those that are named.

    Without network, from the official files in a folder:
        python -m kernorm.data fashion_mnist --manual-dir ~/fashion-mnist

    A set that is no longer needed:
        python -m kernorm.data fashion_mnist --remove

    Own images, with their classes, counts and pixel moments, and a contact sheet:
        python -m kernorm.data ./photos --image-size 64
    - DIR/train/CLASS/* and DIR/test/CLASS/*, perhaps DIR/val/CLASS/*
    - DIR/CLASS/*, split by --test-size
    - a file.npz with x_train, y_train, x_test, y_test, or train_images, train_labels, …
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """tensorflow-datasets image classification sets to prepare, for example mnist emnist/balanced; or paths of own
    images, beginning with / ./ ../ or ~ or ending in .npz."""

    manual_dir: Path | None = None
    """Folder with a set's original files, for a machine without network."""

    data_dir: Path | None = None
    """tensorflow-datasets' own folder. None: its default, ~/tensorflow_datasets."""

    image_size: str | None = TrainConfig.image_size
    """Of own images: the size to which all are brought, 64 or HEIGHTxWIDTH. None: they have one size."""

    resize: Resize = TrainConfig.resize
    """Of own images whose sides have another ratio: stretch, crop the middle, or pad with black."""

    color: Color | None = TrainConfig.color
    """Of own images: rgb or grayscale. None: grayscale if all of them are."""

    test_size: Annotated[float, Limit(1e-6, 0.9, "a share above 0 and at most 0.9")] = TrainConfig.test_size
    """Of own images in DIR/CLASS: about this share is the test split, by a hash of each file's content."""

    remove: bool = False
    """Delete the named sets from the cache, after showing their files and bytes and asking. Their next use prepares
    them again."""

    yes: bool = False
    """With --remove: do not ask."""

    again: bool = False
    """Prepare the named sets anew, also those that are prepared."""

    reports_dir: Path = TrainConfig.reports_dir
    """Of own images: data/<name>.html is written here, a contact sheet with a few training images of each class."""

    pictures: bool = TrainConfig.pictures
    """--no-pictures: no image on the contact sheet."""

    def __post_init__(self) -> None:
        """Refuses values of another type, and --again without names."""
        check_settings(self)
        if self.again and not self.names:
            raise UsageError("--again prepares named sets.", "no name", "Give for example mnist --again.")
        if self.remove and (self.again or not self.names):
            raise UsageError(
                "--remove deletes named sets.",
                "--again" if self.again else "no name",
                "Give for example mnist --remove.",
            )
        if self.yes and not self.remove:
            raise UsageError("--yes goes with --remove.", "--yes alone", "Remove it.")
        if self.image_size is not None:
            size_of(self.image_size)


def main(config: DataConfig) -> int:
    """Prepares the named sets, then lists them; without names lists all, each checked byte by byte.

    With --remove it deletes them, and returns 1 if the answer was no.

    Raises:
        UsageError: a set cannot be prepared.
    """
    if config.remove:
        from kernorm.datasets.removal import remove_sets

        return 0 if remove_sets(config.names, yes=config.yes) else 1
    from kernorm.datasets import cache
    from kernorm.datasets.dataset import load_arrays
    from kernorm.datasets.folder import Reading
    from kernorm.datasets.own import prepared_name, require_apart
    from kernorm.datasets.prepare import is_whole
    from kernorm.system.files import require_folder

    size = size_of(config.image_size) if config.image_size else None
    reading = Reading(image_size=size, resize=config.resize, color=config.color, test_size=config.test_size)
    if any(map(is_path, config.names)):
        require_folder(config.reports_dir / "data", "--reports-dir")
    names: dict[str, Path | None] = {}
    for name in config.names:
        if is_path(name):
            require_apart(name, "--reports-dir", config.reports_dir)
            prepared = prepared_name(name, reading, again=config.again)
            if not is_whole(prepared):
                prepared = prepared_name(name, reading, again=True)
            names[prepared] = expanded(name)
        else:
            load_arrays(name, manual_dir=config.manual_dir, data_dir=config.data_dir, again=config.again)
            names[name] = None
    asked = {cache.cached_path(name): own for name, own in names.items()}
    paths = asked or dict.fromkeys(cache.cached_paths())
    for path, own in paths.items():
        if path is None:
            continue
        print(describe(path, in_full=bool(names)))
        if own:
            print(f"  sheet    {_write_sheet(path, own, config)}")
    if not config.names:
        print(
            f"{'Others are' if paths else 'No set is prepared yet. Sets are'} prepared by "
            "python -m kernorm.data NAME: mnist (without network), fashion_mnist, kmnist, emnist/balanced, cifar10 "
            "and more (from the net, or with --manual-dir from a folder)."
        )
    return 0


def _write_sheet(path: Path, own: Path, config: DataConfig) -> Path:
    """Writes the contact sheet of own images, prepared in `path` from the folder or file `own`."""
    from kernorm.datasets import cache
    from kernorm.datasets.counts import file_sizes
    from kernorm.reporting.contact_sheet import write_contact_sheet

    return write_contact_sheet(cache.read(path), config.reports_dir / "data", file_sizes(own), pictures=config.pictures)


def describe(path: Path, *, in_full: bool = False) -> str:
    """Returns two lines on a cached set: sizes, shape, classes, whether it is whole; duplicates, where it came from.

    `in_full` adds images by class and split, and the moments of the training pixels.
    """
    from kernorm.datasets import cache
    from kernorm.datasets.arrays import DamagedError

    size = f"{path.stat().st_size / 1e6:.1f} MB"
    try:
        arrays = cache.read(path)
    except DamagedError as error:
        return f"{path.stem}: not usable, {error}; its next use prepares it again; {size}, {path}"
    source = f"; prepared on {arrays.origin.day} from {arrays.origin.folder}" if arrays.origin else ""
    shape = "x".join(map(str, arrays.train_images.shape[1:]))
    return (
        f"{arrays.name} {arrays.version}: {len(arrays.train_labels):,} training and {len(arrays.test_labels):,} "
        f"test images of {shape}, {len(arrays.labels)} classes; checked, sha256 {arrays.sha256[:12]}…; "
        f"{size}, {path}\n  duplicates: {arrays.duplicates}{source}{_counts(arrays) if in_full else ''}"
    )


def _counts(arrays: "Arrays") -> str:
    """Returns a line a class, up to _SHOWN of them, with its images and share of each split, and the pixel moments."""
    import numpy as np

    from kernorm.datasets.dataset import pixel_moments
    from kernorm.stats.scores import is_uneven

    parts = {"training": arrays.train_labels, "test": arrays.test_labels}
    counts = {part: np.bincount(labels, minlength=len(arrays.labels)) for part, labels in parts.items()}
    lines = []
    for place, label in enumerate(arrays.labels[:_SHOWN]):
        shares = (f"{values[place]:,} {part} ({values[place] / values.sum():.1%})" for part, values in counts.items())
        lines.append(f"  {label}: {', '.join(shares)}")
    if len(arrays.labels) > _SHOWN:
        lines.append(f"  and {len(arrays.labels) - _SHOWN} more classes")
    if is_uneven(counts["test"]):
        lines.append("  uneven classes: accuracy is mostly that of the largest; studies judge by balanced accuracy")
    if arrays.given_validation:
        lines.append(
            f"  the last {arrays.given_validation:,} training images are a validation split that came with the set"
        )
    mean, std = pixel_moments(arrays.train_images)
    means, deviations = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
    lines.append(f"  training pixels, a channel: mean {means}, sd {deviations}")
    return "\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(cli.run(DataConfig, main, prog=PROG))
