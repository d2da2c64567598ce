"""The cache of prepared data sets: one checked file a set, read without TensorFlow.

It lies under $KERNORM_CACHE_DIR, else $XDG_CACHE_HOME/kernorm, else ~/.cache/kernorm, and may be deleted at any time.
"""

import contextlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from kernorm.datasets.arrays import DTYPES, Arrays, DamagedError, check_layout, content_sha256, pixels_sha256
from kernorm.datasets.duplicates import count_duplicates
from kernorm.datasets.origin import Origin
from kernorm.errors import UsageError
from kernorm.limits import expanded
from kernorm.records.data import Duplicates
from kernorm.system.files import sync_folder
from kernorm.system.machine import home

# 1: of before sets were checked against their archives and each other.
SCHEMA = 2
_NAME = re.compile(r"(?P<base>[A-Za-z_]\w*(/\w[\w.-]*|@[0-9a-f]{12})?)(:(?P<version>\d+\.\d+\.\d+))?", re.ASCII)

# Of MNIST, whose archives' names others use: also a set that is prepared before MNIST is compared with it.
_MNIST = "ca5ead3dd0c099708c5ba009c057a30997290b4f74a73a16d0dae0cf415ba97c"
_ORIGIN: TypeAdapter[Origin | None] = TypeAdapter(Origin | None)
_DUPLICATES: TypeAdapter[Duplicates | None] = TypeAdapter(Duplicates | None)
_LOG = logging.getLogger("kernorm")


def cache_dir() -> Path:
    """Returns the folder of the cache, which need not exist.

    Raises:
        UsageError: no variable names it, and there is no home folder.
    """
    if chosen := os.environ.get("KERNORM_CACHE_DIR"):
        return expanded(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "kernorm"
    if there := home():
        return there / ".cache" / "kernorm"
    raise UsageError("Prepared sets need a folder.", "a user without a home", "Set KERNORM_CACHE_DIR to a folder.")


def tfds_dir() -> Path:
    """Returns tensorflow-datasets' own folder: its default, or one in the cache where there is no home folder.

    Raises:
        UsageError: as `cache_dir`.
    """
    if chosen := os.environ.get("TFDS_DATA_DIR"):
        return expanded(chosen)
    return (home() or cache_dir()) / "tensorflow_datasets"


def parse_name(name: str) -> tuple[str, str | None]:
    """Splits a tensorflow-datasets name into NAME[/CONFIG] and the version, if it gives one.

    Raises:
        UsageError: it has another form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            "--dataset takes a tensorflow-datasets name, NAME, NAME/CONFIG or NAME:1.2.3.",
            f"dataset={name!r}",
            "Give for example mnist or emnist/balanced.",
        )
    return match["base"], match["version"]


def cached_path(name: str) -> Path | None:
    """Returns the file of the set, the newest version unless the name gives one; None if there is none."""
    paths = paths_of(name)
    return max(paths, key=lambda path: tuple(map(int, identity_of(path)[1].split("."))), default=None)


def paths_of(name: str) -> list[Path]:
    """Returns the files of all prepared versions of a set, or of the one that the name gives."""
    base, version = parse_name(name)
    known = {path: identity_of(path) for path in cached_paths()}
    return [path for path, found in known.items() if found[0] == base and version in (None, found[1])]


def cached_paths() -> list[Path]:
    """Returns the files of all prepared sets, sorted by name."""
    names = {path: _NAME.fullmatch(":".join(identity_of(path))) for path in cache_dir().glob("[!.]*-*.npz")}
    return sorted(path for path, match in names.items() if match and match["version"])


def read_metadata(path: Path | None) -> dict[str, Any] | None:
    """Returns what a set's file says about itself, without reading the arrays; None if it is not of today's schema."""
    try:
        with np.load(path, allow_pickle=False) as archive:  # type: ignore[arg-type]
            metadata = json.loads(archive["metadata"].tobytes())
    except Exception:  # of a dozen types on damaged bytes; its next use prepares it again
        return None
    return metadata if metadata.get("schema") == SCHEMA else None


def prepared_sha256(name: str) -> str | None:
    """Returns the sha256 of a set's arrays as its file states it, without reading them; None if it is not prepared."""
    metadata = read_metadata(cached_path(name))
    return metadata["sha256"] if metadata else None


def origin(path: Path | None) -> Origin | None:
    """Returns where a prepared set came from; None if its file does not say."""
    metadata = read_metadata(path)
    return _ORIGIN.validate_python(metadata["origin"]) if metadata else None


def read(path: Path) -> Arrays:
    """Reads a prepared set and checks every byte of it.

    Raises:
        DamagedError: the file is not what was written under its name.
        UsageError: the system cannot read it.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(
            "The cache of prepared sets must be readable.",
            f"{path}: {error.strerror}",
            "Set KERNORM_CACHE_DIR to another folder.",
        ) from None
    with file:
        try:
            return _parse(file, path)
        except DamagedError:
            raise
        except Exception as error:  # zipfile and NumPy raise a dozen types on damaged bytes
            raise DamagedError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None


def write(arrays: Arrays) -> Path:
    """Writes a prepared set atomically and returns its path.

    Raises:
        UsageError: a set of another name has the same images and labels, the disk is full or the folder cannot be
            written; nothing half-written stays.
    """
    pixels = pixels_sha256(arrays.values)
    _compare_with_others(arrays, pixels)
    arrays = replace(arrays, duplicates=count_duplicates(arrays.train_images, arrays.test_images))
    if arrays.duplicates != Duplicates(train=0, test=0, across=0):
        _LOG.warning("%s holds images more than once: %s.", arrays.name, arrays.duplicates)
    path = cache_dir() / f"{arrays.name.replace('/', '+')}-{arrays.version}.npz"
    metadata = {
        "schema": SCHEMA,
        "name": arrays.name,
        "version": arrays.version,
        "labels": list(arrays.labels),
        "sha256": arrays.sha256,
        "pixels_sha256": pixels,
        "duplicates": _DUPLICATES.dump_python(arrays.duplicates, mode="json"),
        "origin": _ORIGIN.dump_python(arrays.origin, mode="json"),
        "resize": arrays.resize,
        "given_validation": arrays.given_validation,
    }
    content: dict[str, Any] = {"metadata": np.frombuffer(json.dumps(metadata).encode(), np.uint8), **arrays.values}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritable(path.parent, error) from None
    return path


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Lets one process at a time prepare a set; the others wait.

    Raises:
        UsageError: the cache cannot be written.
    """
    folder, stem = cache_dir(), parse_name(name)[0].replace("/", "+")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{stem}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _LOG.info("Waiting for the process that prepares %s ...", name)
            lock.acquire()
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        for left in folder.glob(f".{stem}-*.tmp"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _compare_with_others(arrays: Arrays, pixels: str) -> None:
    """Refuses a set whose examples are another one's; two versions of one set may hold the same.

    Where this set was compared with its archives and the other one was not, the other one is removed.
    """
    if pixels == _MNIST and arrays.name != "mnist" and "@" not in arrays.name:
        raise UsageError(
            "Data sets of different names hold different images.",
            f"{arrays.name}, whose images and labels are those of mnist",
            f"Delete {arrays.origin.folder if arrays.origin else 'its source'}; then prepare it from its own files.",
        )
    for path in cached_paths():
        metadata = read_metadata(path)
        name, version = identity_of(path)
        if "@" in name or "@" in arrays.name:
            continue  # own images are named by their content
        if not metadata or metadata["pixels_sha256"] != pixels or (name, version) == (arrays.name, arrays.version):
            continue
        if name == arrays.name:
            _LOG.info("%s %s and %s hold the same images and labels.", name, version, arrays.version)
            continue
        theirs, own = _ORIGIN.validate_python(metadata["origin"]), arrays.origin
        there, here = (origin.folder if origin else "its source" for origin in (theirs, own))
        if own and own.verified and not (theirs and theirs.verified):
            path.unlink()
            _LOG.warning(
                "%s held the images of %s. It is removed; delete %s too, and prepare %s from its own files.",
                path,
                arrays.name,
                there,
                name,
            )
            continue
        raise UsageError(
            "Data sets of different names hold different images.",
            f"{arrays.name}, whose images and labels are those of {name} ({path})",
            f"One was prepared from the files of the other. Delete {here} if it is {arrays.name}, {there} if it is "
            f"{name}; then prepare it from its own files with --again.",
        )


def _parse(file: Any, path: Path) -> Arrays:
    if not zipfile.is_zipfile(file):
        raise DamagedError("it is not a whole .npz file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        metadata = json.loads(archive["metadata"].tobytes())
        values = {key: archive[key] for key in DTYPES}
    base, version = identity_of(path)
    if metadata["schema"] != SCHEMA:
        raise DamagedError(f"it is of schema {metadata['schema']}, which is {SCHEMA} now")
    if (metadata["name"], metadata["version"]) != (base, version):
        raise DamagedError(f"it holds {metadata['name']} {metadata['version']}")
    labels = tuple(metadata["labels"])
    check_layout(labels, values)
    if content_sha256(labels, values) != metadata["sha256"]:
        raise DamagedError("its sha256 is wrong")
    return Arrays(
        name=base,
        version=version,
        sha256=metadata["sha256"],
        labels=labels,
        origin=_ORIGIN.validate_python(metadata["origin"]),
        duplicates=_DUPLICATES.validate_python(metadata["duplicates"]),
        resize=metadata.get("resize"),
        given_validation=metadata.get("given_validation", 0),
        **values,
    )


def identity_of(path: Path) -> tuple[str, str]:
    """Returns the name and the version of a set by its file's name."""
    stem, _, version = path.name.removesuffix(".npz").rpartition("-")
    return stem.replace("+", "/"), version


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        "The cache of prepared sets must be writable and have room.",
        f"{folder}: {error.strerror or error}",
        "Make room, or set KERNORM_CACHE_DIR to another folder.",
    )
