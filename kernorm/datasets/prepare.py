"""Preparing a data set in a process of its own, which writes it to the cache.

So training inherits neither TensorFlow's threads nor its memory from it, and computes the same on its first run as on
every other.
"""

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from kernorm.datasets import cache, tfds
from kernorm.datasets.arrays import Arrays, DamagedError
from kernorm.datasets.folder import Reading, read_folder
from kernorm.datasets.npz import read_npz
from kernorm.errors import UsageError
from kernorm.system.processes import import_path, log_to_stderr

_USAGE_ERROR = 2
# The first argument of a child that prepares own images: no name of a set.
_OWN = "./"
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "NO_GCE_CHECK": "true",
    "PYTHONIOENCODING": "utf-8",
}

_LOG = logging.getLogger("kernorm")


def prepare_in_child(name: str, manual_dir: Path | None, data_dir: Path | None) -> None:
    """Prepares a set in a child process, which writes it to the cache.

    Raises:
        UsageError: what `tfds.prepare` and `cache.write` raise there, or the child was killed.
    """
    once = "once, about 30 s" if name.partition(":")[0] == "mnist" else "once"
    _LOG.info("Preparing %s with tensorflow-datasets (%s) ...", name, once)
    _run([name, *(str(folder.absolute()) if folder else "" for folder in (manual_dir, data_dir))], name)


def prepare_own_in_child(path: Path, stem: str, reading: Reading) -> str:
    """Prepares own images in a child process, which writes them to the cache; returns the name of the set.

    Raises:
        UsageError: what `folder.read_folder`, `folder.read_npz` and `cache.write` raise there, or the child was killed.
    """
    _LOG.info("Preparing %s (once) ...", path)
    return _run([_OWN, str(path), stem, json.dumps(asdict(reading))], str(path))


def _run(arguments: list[str], name: str) -> str:
    """Runs a child with these arguments; returns what it printed."""
    # Without a home, tensorflow-datasets would make a folder of the name ~.
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": import_path(), "TFDS_DATA_DIR": str(cache.tfds_dir())}
    child = subprocess.run(
        [sys.executable, "-m", "kernorm.datasets.prepare", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    if child.returncode == _USAGE_ERROR and child.stdout:
        raise UsageError(child.stdout.strip())
    if child.returncode:
        raise UsageError(
            "Preparing a data set must finish.",
            f"the process that prepares {name} ended with {child.returncode}",
            "Look at its message above; a negative number is a signal, -9 mostly for lack of memory.",
        )
    return (child.stdout or "").strip()


def write_own(path: Path, stem: str, reading: Reading) -> str:
    """Reads own images and writes them to the cache; returns the name of the set.

    Raises:
        UsageError: as `folder.read_folder`, `folder.read_npz` and `cache.write`.
    """
    if path.is_file():
        arrays = read_npz(path, stem)
    else:
        with _progress() as report:
            arrays = read_folder(path, stem, reading, report)
    arrays = replace(arrays, name=f"{stem}@{_identity(arrays)[:12]}")
    if not is_whole(arrays.name):
        cache.write(arrays)
    return arrays.name


def is_whole(name: str) -> bool:
    """Tells whether a set is prepared, and its file holds what was written, byte for byte.

    Raises:
        UsageError: the system cannot read it.
    """
    path = cache.cached_path(name)
    try:
        return path is not None and cache.read(path) is not None
    except DamagedError:
        return False


def _identity(arrays: Arrays) -> str:
    """Returns a digest of all that a set of own images is: its content, its own validation split, how it is resized."""
    more = {"given_validation": arrays.given_validation, "resize": arrays.resize}
    more = {name: value for name, value in more.items() if value not in (0, None, "stretch")}
    return hashlib.sha256(json.dumps([arrays.sha256, more]).encode()).hexdigest() if more else arrays.sha256


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Shows on a terminal how many files are read."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(file=sys.stderr)
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _child(arguments: list[str]) -> int:
    """Prepares and caches; keeps TensorFlow's own noise off the terminal, Python's messages on it."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.getLogger("absl").setLevel(logging.ERROR)
    log_to_stderr()
    logging.getLogger("kernorm").propagate = False  # to the handler that TensorFlow puts on the root
    try:
        if arguments[0] == _OWN:
            _, path, stem, reading = arguments
            print(write_own(Path(path), stem, Reading(**json.loads(reading))))
            return 0
        name, manual_dir, data_dir = arguments
        cache.write(tfds.prepare(name, Path(manual_dir) if manual_dir else None, Path(data_dir) if data_dir else None))
    except UsageError as error:
        print(error)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
