"""The hash that an exported model is known by, and the check that its files are those of its export."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.saved_model.card import FOLDER, Card, read_card
from kernorm.system.files import file_in_the_making, remove_stale

_NAMES = (
    "tree.sha256",
    "evaluation.json",
    "report.html",
    "BLESSED",
    "NOT_BLESSED",
    "validation.json",
    "INFRA_BLESSED",
    "INFRA_NOT_BLESSED",
    "latency.json",
)
# What is said of a model after its export, and the hash itself.
UNHASHED = tuple(f"{FOLDER}/{name}" for name in _NAMES)


def tree_sha256(folder: Path) -> str:
    """Returns the sha256 over the relative names and contents of all files of a folder, sorted by name.

    Leaves out UNHASHED, also in the making: the hash itself, and what evaluation and validation add later.
    """
    total = hashlib.sha256()
    for path, name in _entries(folder):
        if name not in UNHASHED and path.is_file():
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def copy_model(source: Path, target: Path) -> None:
    """Copies a model's files into an empty folder, also while another process evaluates or validates the model.

    Unlike shutil.copytree it stops at the first error, and with its number.
    """
    for path, name in _entries(source):
        if path.is_dir():
            (target / name).mkdir()
        else:
            try:
                shutil.copyfile(path, target / name)
            except FileNotFoundError:
                if name not in UNHASHED:  # else it is being replaced
                    raise


def remove_leftovers_of_writing(folder: Path) -> None:
    """Removes what killed processes left when they evaluated or validated the model in a folder."""
    remove_stale(folder / FOLDER, _NAMES)


def _entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields what lies in a model's folder with its relative name, by name; not UNHASHED files in the making."""
    for path in sorted(folder.rglob("*")):
        final = file_in_the_making(path.name)
        if final is None or path.with_name(final).relative_to(folder).as_posix() not in UNHASHED:
            yield path, path.relative_to(folder).as_posix()


def verify_integrity(path: Path) -> tuple[Card, str]:
    """Returns a model's card and the hash of its files, which must be the one of its export.

    Raises:
        UsageError: it is no model of kernorm's, or was changed.
    """
    card = read_card(path)
    try:
        exported = (path / FOLDER / "tree.sha256").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        exported = "none"
    digest = tree_sha256(path)
    if digest != exported:
        raise UsageError(
            "A model must be as it was exported.",
            f"{path} with the hash {digest[:12]}…, exported with {exported[:12]}…",
            "Export the run again.",
        )
    return card, digest
