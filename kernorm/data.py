"""Prepares data sets, and lists those that are prepared: `python -m kernorm.data fashion_mnist`.

tensorflow-datasets loads a set by its name; what it decodes is kept in kernorm's cache, from which a set comes in a
fraction of a second and without TensorFlow. The first use of MNIST takes about 30 s and no network.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from kernorm.errors import UsageError
from kernorm.limits import check_settings
from kernorm.system import cli

PROG = "python -m kernorm.data"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Lists the prepared data sets, or prepares those that are named.

    Without network, from the official files in a folder:
        python -m kernorm.data fashion_mnist --manual-dir ~/fashion-mnist
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """tensorflow-datasets image classification sets to prepare, for example mnist emnist/balanced."""

    manual_dir: Path | None = None
    """Folder with a set's original files, for a machine without network."""

    data_dir: Path | None = None
    """tensorflow-datasets' own folder. None: its default, ~/tensorflow_datasets."""

    again: bool = False
    """Prepare the named sets anew, also those that are prepared."""

    def __post_init__(self) -> None:
        """Refuses values of another type, and --again without names."""
        check_settings(self)
        if self.again and not self.names:
            raise UsageError("--again prepares named sets.", "no name", "Give for example mnist --again.")


def main(config: DataConfig) -> None:
    """Prepares the named sets, then lists them; without names lists all, each checked byte by byte.

    Raises:
        UsageError: a set cannot be prepared.
    """
    from kernorm.datasets import cache
    from kernorm.datasets.dataset import load_arrays

    for name in config.names:
        load_arrays(name, manual_dir=config.manual_dir, data_dir=config.data_dir, again=config.again)
    paths = [cache.cached_path(name) for name in config.names] if config.names else cache.cached_paths()
    for path in paths:
        if path is not None:
            print(describe(path))
    if not config.names:
        print(
            f"{'Others are' if paths else 'No set is prepared yet. Sets are'} prepared by "
            "python -m kernorm.data NAME: mnist (without network), fashion_mnist, kmnist, emnist/balanced, cifar10 "
            "and more (from the net, or with --manual-dir from a folder)."
        )


def describe(path: Path) -> str:
    """Returns two lines on a cached set: sizes, shape, classes, whether it is whole; duplicates, where it came from."""
    from kernorm.datasets import cache

    size = f"{path.stat().st_size / 1e6:.1f} MB"
    try:
        arrays = cache.read(path)
    except cache.DamagedError as error:
        return f"{path.stem}: not usable, {error}; its next use prepares it again; {size}, {path}"
    source = f"; prepared on {arrays.origin.day} from {arrays.origin.folder}" if arrays.origin else ""
    shape = "x".join(map(str, arrays.train_images.shape[1:]))
    return (
        f"{arrays.name} {arrays.version}: {len(arrays.train_labels):,} training and {len(arrays.test_labels):,} "
        f"test images of {shape}, {len(arrays.labels)} classes; checked, sha256 {arrays.sha256[:12]}…; "
        f"{size}, {path}\n  duplicates: {arrays.duplicates}{source}"
    )


if __name__ == "__main__":
    sys.exit(cli.run(DataConfig, main, prog=PROG))
