"""What must hold before push publishes, serves or labels a version."""

import contextlib
import re
from pathlib import Path

from kernorm.errors import Refused, UsageError
from kernorm.evaluation.result import blessing_problem
from kernorm.records.data import Data
from kernorm.saved_model.card import Card, read_card
from kernorm.saved_model.integrity import copy_model, tree_sha256, verify_integrity
from kernorm.saved_model.versions import PUBLISHED, versions
from kernorm.serving.models_config import Served
from kernorm.serving.validation import validation_problem

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def require_name(name: str, flag: str, example: str) -> None:
    """Refuses a name of a model or a label that a client's address could not hold.

    Raises:
        UsageError: it is one; `flag` gave it.
    """
    if not _NAME.fullmatch(name):
        rule = f"{flag} takes a name of A-Z, a-z, 0-9, '.', '_' and '-' that begins with no '.'."
        raise UsageError(rule, f"{name!r}", f"Give for example {example}.")


def require_version(base: Path, number: int | None) -> None:
    """Refuses what is no published version of a model, or one that was changed; None stands for the newest.

    Raises:
        UsageError: it is one.
    """
    known = versions(base)
    if number not in known:
        raise UsageError(
            "A version must be a published one.",
            "latest" if number is None else number,
            f"Known: {', '.join(map(str, known)) or 'none'}.",
        )
    verify_integrity(base / str(number))
    require_pushed(base, number)


def require_pushed(base: Path, number: int) -> None:
    """Refuses a version where its run was exported to: it needs no blessing, and nor do those that will follow it.

    Raises:
        UsageError: it is one; a copy that was published has another number, or is in another folder.
    """
    card = _card_of(base, number)
    if card and (card.run_id, card.version) == (base.name, number):
        raise UsageError(
            "A model is published under a name of its own, not under that of a run.",
            f"--model {base.name}, which has {base / str(number)} as it was exported",
            f"Give another --model, for example {PUBLISHED}.",
        )


def require_same_data(path: Path, card: Card, base: Path, top: int | None) -> None:
    """Refuses a model of other labels or another image shape than the version that is served.

    Raises:
        UsageError: it is one, and clients would get answers that they do not know.
    """
    served = _card_of(base, top)
    if served and (served.data.labels, served.data.image_shape) != (card.data.labels, card.data.image_shape):
        raise UsageError(
            "A model takes the place of one with the same labels and image shape.",
            f"{path}, of {_described(card.data)}, for {base / str(top)}, of {_described(served.data)}",
            "Give another --model, or --allow-other-data.",
        )


def require_not_above_pin(served: Served, name: str, number: int) -> None:
    """Refuses a label on a version above the one that is pinned: it would be loaded, and the default then.

    Raises:
        UsageError: it is on one.
    """
    if not served.follows and served.base is not None and number > served.base and number not in served.listed:
        raise UsageError(
            "Requests without a version go to the highest that is loaded, so none above the pinned one has a label.",
            f"{name}={number}, with {served.base} pinned",
            f"Pin {number} or latest, or label a version below.",
        )


def copy_blessed(source: Path, target: Path, digest: str) -> None:
    """Copies a model into an empty folder.

    Raises:
        UsageError: the copy has not the hash of what was blessed.
        Refused: its blessing was taken away meanwhile.
    """
    copy_model(source, target)
    copied = tree_sha256(target)
    if copied != digest:
        raise UsageError(
            "A copy must be what was blessed.",
            f"{target} with the hash {copied[:12]}… instead of {digest[:12]}…",
            f"Was {source} changed meanwhile? Evaluate it and push again.",
        )
    if reason := blessing_problem(target, digest) or validation_problem(target, digest):
        raise Refused(f"{source}: {reason}")


def _card_of(base: Path, number: int | None) -> Card | None:
    """Returns a version's card; None if there is none, or it is damaged or of another program."""
    with contextlib.suppress(UsageError):
        return read_card(base / str(number))
    return None


def _described(data: Data) -> str:
    return f"{data.name} with {len(data.labels)} classes of {'x'.join(map(str, data.image_shape))}"
