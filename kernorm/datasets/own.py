"""Own images by the path of a folder or an .npz file: prepared once, then a set of the cache, named by its content.

`--dataset ./photos` becomes `photos@3f2a90c1d2e4`, twelve digits of the sha256 of classes, pixels and split. That name
is what a run keeps, so that no path decides its identity and a machine without the folder agrees.
"""

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

from kernorm.config import READING, TrainConfig
from kernorm.datasets import cache, prepare
from kernorm.datasets.folder import Reading
from kernorm.datasets.layout import class_folders, scan
from kernorm.errors import UsageError
from kernorm.limits import expanded, is_path, size_of
from kernorm.system.files import write_atomically

_INDEX = "own"


def with_prepared(config: TrainConfig, reports_dir: Path | None = None) -> TrainConfig:
    """Returns the config of a run on own images with the prepared set's name; any other config as it is.

    Args:
        config: of a run.
        reports_dir: where its results go, if that is another folder than its own.

    Raises:
        UsageError: the images cannot be read, see `folder.read_folder` and `npz.read_npz`, or results would lie among
            them.
    """
    if not is_path(config.dataset):
        return config
    require_apart(config.dataset, "--reports-dir", reports_dir or config.reports_dir)
    if config.export:
        require_apart(config.dataset, "--saved-models-dir", config.saved_models_dir)
    size = size_of(config.image_size) if config.image_size else None
    reading = Reading(image_size=size, resize=config.resize, color=config.color, test_size=config.test_size)
    return replace(config, dataset=prepared_name(config.dataset, reading), **READING)


def require_apart(dataset: str, flag: str, folder: Path) -> None:
    """Refuses a folder for results that would be a class of own images, or lie in one.

    Raises:
        UsageError: so; `flag` gave the folder.
    """
    root = expanded(dataset).resolve()
    if root.is_dir() and any(folder.resolve().is_relative_to(parent.resolve()) for parent in class_folders(root)):
        raise UsageError(
            f"{flag} does not lie among own images, where its pictures would be a class.",
            f"{folder}, in {root}",
            f"Give another folder, such as {Path('..') / folder.name}.",
        )


def prepared_name(dataset: str, reading: Reading, *, again: bool = False) -> str:
    """Returns the name of a prepared set of own images, preparing it if its files are not those of before.

    Raises:
        UsageError: the images cannot be read.
    """
    path = expanded(dataset)
    if not path.exists():
        raise UsageError("--dataset takes a folder or an .npz file.", f"{dataset}, which is not there", "Give another.")
    if path.is_file() and path.suffix != ".npz":
        raise UsageError(
            "--dataset takes a folder or an .npz file.", f"{dataset}, which is another file", "Give another."
        )
    path = path.resolve()
    state = _state(path)
    note = cache.cache_dir() / _INDEX / f"{_digest(str(path), asdict(reading))[:16]}.json"
    if not again and (name := _noted(note, state)):
        return name
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    stem = stem if re.match(r"[A-Za-z_]", stem) else f"_{stem}"
    with cache.exclusive(stem):
        if not again and (name := _noted(note, state)):  # another process may have prepared it meanwhile
            return name
        name = prepare.prepare_own_in_child(path, stem, reading)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps({"state": state, "name": name, "path": str(path)}).encode())
    return name


def _noted(note: Path, state: str) -> str | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        return known["name"] if known["state"] == state and cache.cached_path(known["name"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(path: Path) -> str:
    """Returns a digest of the names, sizes and times of what would be read."""
    if path.is_dir():
        return _digest(*scan(path).state(path))
    return _digest(path.stat().st_size, path.stat().st_mtime_ns)


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
