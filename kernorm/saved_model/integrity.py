"""The hash that an exported model is known by, and the check that its files are those of its export."""

import hashlib
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.saved_model.card import FOLDER, Card, read_card

# What is said of a model after its export, and the hash itself.
UNHASHED = tuple(
    f"assets.extra/kernorm/{name}"
    for name in (
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
)


def tree_sha256(folder: Path) -> str:
    """Returns the sha256 over the relative names and contents of all files of a folder, sorted by name.

    Leaves out UNHASHED: the hash itself, and what evaluation and validation add later.
    """
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in UNHASHED:
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


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
