"""The model card that travels inside an exported model: where it comes from, how good it is, what it is for.

Typed and versioned like the record it is drawn from. Written by export; read by whatever takes an exported model.
"""

import contextlib
import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.records.record import Evaluation, Opening, Record
from kernorm.records.schema import Schema, strict
from kernorm.system.files import write_atomically

SCHEMA = 1
FOLDER = Path("assets.extra/kernorm")

_LICENCES = {"mnist": "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"}
_RULES = {
    "last": "the weights of the last epoch",
    "validation": "the epoch with the best validation accuracy",
    "test": "the epoch with the best test accuracy",
}


@strict
@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one split of `count` images; the interval of the accuracy is Wilson's, 95 %."""

    count: int
    accuracy: float
    interval: tuple[float, float]
    cross_entropy: float
    brier: float
    ece: float


@strict
@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which epoch's weights these are, and every look at the test split until then."""

    rule: str
    epoch: int | None
    test_openings: int
    openings: tuple[Opening, ...]


@strict
@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of a signature; the first axis, None, is the batch."""

    dtype: str
    shape: tuple[int | None, ...]


@strict
@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a signature takes and gives, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@strict
@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything a user of an exported model should know of it.

    `exported_with` are the versions that exported it; `warmup` says which images travel with it, empty in cards of
    before that was said.
    """

    schema_version: int = SCHEMA
    name: str
    run_id: str
    version: int
    created: str
    intended_use: str
    limits: tuple[str, ...]
    config: dict[str, Any]
    data: Data
    data_licence: str
    validation: Scores | None
    test: Scores | None
    selection: Selection
    parameters: int
    parameters_total: int
    signatures: dict[str, Signature]
    trained_with: dict[str, str]
    exported_with: dict[str, str]
    warmup: str = ""


_SCHEMA = Schema("A model card", Card, version=SCHEMA, fix="Export the run again.")


def make_card(
    record: Record, version: int, signatures: Mapping[str, Signature], versions: dict[str, str], warmup: str = ""
) -> Card:
    """Draws the card of a version from the run's record.

    `versions` are those of the exporting packages, `warmup` says which images travel with the model.
    """
    config, data = record.config, record.data
    return Card(
        name=f"kernorm {config.net}, norm {config.norm}, on {data.name}",
        run_id=record.run_id,
        version=version,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        intended_use=_intended_use(data),
        limits=_limits(record),
        config=config_values(record),
        data=data,
        data_licence=_licence(data),
        validation=_scores(record.validation),
        test=_scores(record.test),
        selection=Selection(
            rule=_RULES[config.select],
            epoch=record.selected_epoch,
            test_openings=len(record.openings),
            openings=record.openings,
        ),
        parameters=record.parameters,
        parameters_total=record.parameters_total,
        signatures=dict(signatures),
        trained_with={"backend": record.environment.backend, **record.environment.versions},
        exported_with=versions,
        warmup=warmup,
    )


def config_values(record: Record) -> dict[str, Any]:
    """Returns what decided the weights, setting by setting; folders of the machine stay out of what is published."""
    return record.config.identity


def write_card(card: Card, folder: Path) -> None:
    """Writes model_card.json and labels.txt into the SavedModel in `folder`."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    _SCHEMA.write(card, folder / FOLDER / "model_card.json")
    labels = "".join(f"{label}\n" for label in card.data.labels)
    write_atomically(folder / FOLDER / "labels.txt", labels.encode())


def read_labels(folder: Path) -> list[str]:
    """Returns the names of the classes of the SavedModel in `folder`; none if it has no labels.txt."""
    try:
        return (folder / FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def read_card(folder: Path) -> Card:
    """Reads the card of the SavedModel in `folder`.

    Raises:
        UsageError: there is no SavedModel, or none of kernorm's, or its card is damaged or of another schema.
    """
    if not (folder / "saved_model.pb").is_file():
        raise UsageError(
            "An exported model is a folder with a saved_model.pb.",
            f"{folder}, which has none",
            "Give saved_models/<run id>/<version>.",
        )
    if card := _SCHEMA.read(folder / FOLDER / "model_card.json"):
        return card
    raise UsageError(
        "A SavedModel must be one that kernorm exported.",
        f"{folder}, without {FOLDER}/model_card.json",
        "Export it by python -m kernorm.export.",
    )


def models_of(run_ids: Iterable[str], saved_models_dir: Path) -> dict[str, list[Path]]:
    """Returns the exported and published versions that came from runs, by the runs' ids; damaged ones are left out."""
    found: dict[str, list[Path]] = {run: [] for run in run_ids}
    for path in sorted(saved_models_dir.glob(f"*/*/{FOLDER}/model_card.json")):
        folder = path.parents[len(FOLDER.parts)]
        with contextlib.suppress(UsageError):
            found.get(read_card(folder).run_id, []).append(folder)
    return found


def _scores(evaluation: Evaluation | None) -> Scores | None:
    if evaluation is None:
        return None
    return Scores(**{name: getattr(evaluation, name) for name in Scores.__dataclass_fields__})


def _licence(data: Data) -> str:
    if data.own:
        return "not known: own images"
    return _LICENCES.get(data.name, f"see {data.name} in the catalogue of tensorflow-datasets")


def _intended_use(data: Data) -> str:
    height, width, channels = data.image_shape
    return (
        f"Says which of {len(data.labels)} classes ({', '.join(data.labels)}) an image of {height}x{width} pixels and "
        f"{channels} channels, prepared like those of {data.name}, shows. Made to compare normalizations and kernel "
        "penalties in small nets, and to try serving."
    )


def _limits(record: Record) -> tuple[str, ...]:
    name, examples = record.data.name, ", such as on cheques, votes or exams" if record.data.name == "mnist" else ""
    limits = [
        f"Measured on images of {name} only; other sources, sizes, positions or inverted colours may score far lower.",
        "Names a class for every image, also for one that shows none of them.",
        "The intervals cover the choice of the images, not of the seed; one run is no proof of a better method.",
        f"Not made for decisions about people{examples}, without a check of their own.",
        "OpenVINO computes in bfloat16 on processors that have it, and probabilities move by up to 0.01; load it "
        "with INFERENCE_PRECISION_HINT=f32 there.",
    ]
    if record.data.own:
        limits.append(
            "serving_image does not look at EXIF: a client must turn photos upright, as their EXIF orientation says, "
            "before it sends them; kernorm.predict does."
        )
    if record.config.select == "test":
        limits.append("The epoch was chosen by test accuracy, so its test scores are biased upward.")
    if record.test is None:
        limits.append("Never measured on the test split.")
    return tuple(limits)
