"""The report of one run: report.html, which opens offline, and its charts as PNG files.

Everything shown is read or recomputed from the record; the page's words are in
report.html.j2, its looks in report.css.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernorm.config import INTERNAL
from kernorm.records.record import THRESHOLDS, Evaluation, Record
from kernorm.reporting.charts import FEW, TINY, charts
from kernorm.reporting.command import command
from kernorm.reporting.curves import series, tables
from kernorm.reporting.figures import to_png
from kernorm.reporting.format import name_of, worst_class
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.notices import notices
from kernorm.reporting.page import drawn, mistakes_as_uris, page_data, page_renderer
from kernorm.stats.scores import BY_CLASS, class_accuracies, frequent_confusions, is_uneven
from kernorm.system.files import write_atomically


def write_report(record: Record, folder: Path, mistakes: NDArray[np.uint8]) -> Path:
    """Writes report.html and the PNG files of its charts into `folder`, each atomically, and returns the page's path.

    `mistakes` (M, H, W, C) are the images of `drawn_mistakes` of the test evaluation, in their order; none where the
    config wants no pictures.

    Raises:
        ValueError: there are more or fewer images than that.
        OSError: the disk is full or the folder cannot be written.
    """
    expected = len(drawn_mistakes(record.test, record.config))
    if len(mistakes) != expected:
        raise ValueError(
            "A report takes an image for each mistake that is drawn from the test split. Received: "
            f"{len(mistakes)} images for {expected} mistakes. Give those of drawn_mistakes(record.test)."
        )
    found = charts(record, mistakes)
    for name, group in found.items():
        write_atomically(folder / f"{name}.png", to_png(group, record.run_id))
    # The page shows the misclassified images as pixels of their own, which stay sharp and follow the theme.
    shown = drawn(panel for name, group in found.items() if name != "misclassified" for panel in group)
    parts = zip(series(record), ("blue", "orange", "green"), strict=False)
    data = page_data(arms=parts if record.history else (), measures=tables(record), charts=shown)
    template = page_renderer().get_template("report.html.j2")
    page = template.render(panels=shown.panels, svgs=shown.svgs, data=data, **_context(record, mistakes))
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _context(record: Record, mistakes: NDArray[np.uint8]) -> dict[str, Any]:
    evaluation = record.test or record.validation
    splits = [split for split in (record.train, record.validation, record.test) if split]
    settings = [
        (field.name, getattr(record.config, field.name), field.default)
        for field in dataclasses.fields(record.config)
        if field.name not in INTERNAL
    ]
    return {
        "record": record,
        "evaluation": evaluation,
        "verdicts": notices(record),
        "splits": splits,
        "accuracies": {split.split: split for split in splits},
        "strips": _strips(splits),
        "by_class": {split.split: {key: of(split.confusion) for key, of in BY_CLASS.items()} for split in splits},
        "uneven": record.test is not None and is_uneven(map(sum, record.test.confusion)),
        "worst_class": partial(worst_class, labels=record.data.labels),
        "places": {"train": 0, "test": 2} | {record.monitored: 1},
        "name": partial(name_of, labels=record.data.labels),
        "tiles": list(zip(mistakes_as_uris(mistakes), drawn_mistakes(record.test), strict=False)),
        "class_accuracies": class_accuracies(evaluation.confusion) if evaluation else (),
        "confusions": frequent_confusions(record.test.confusion, 16) if record.test else [],
        "sure_mistakes": sum(mistake.confidence > 0.9 for mistake in record.test.mistakes) if record.test else 0,
        "taken_for": partial(_taken_for, evaluation.confusion if evaluation else ()),
        "many_classes": evaluation is not None and len(evaluation.confusion) > FEW,
        "thresholds": THRESHOLDS,
        "tiny": TINY,
        "grouped": any(layer.groups is not None for layer in record.layers),
        "settings": settings,
        "changed": [setting for setting in settings if setting[1] != setting[2] and setting[0] != "dataset"],
        "command": command(record.config, record.environment.backend, record.run_id),
        **_serving(record),
        "sizes": {"train": record.data.train, "validation": record.data.validation, "test": record.data.test},
    }


def _strips(splits: Iterable[Evaluation]) -> dict[str, tuple[float, float, float]]:
    """Places each split's interval on one scale from 0 to 100: its start, its width and the accuracy."""
    splits = list(splits)
    low = min((split.interval[0] for split in splits), default=0.0)
    high = max((split.interval[1] for split in splits), default=1.0)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        split.split: (
            place(split.interval[0]),
            round(place(split.interval[1]) - place(split.interval[0]), 2),
            place(split.accuracy),
        )
        for split in splits
    }


def _taken_for(confusion: Sequence[Sequence[int]], target: int) -> list[tuple[int, int]]:
    """Returns the wrong predictions for a class with their counts, the most frequent first."""
    wrong = [
        (prediction, count) for prediction, count in enumerate(confusion[target]) if count and prediction != target
    ]
    return sorted(wrong, key=lambda pair: -pair[1])


def _serving(record: Record) -> dict[str, str]:
    if not (record.export and record.export.path):
        return {}
    path = Path(record.export.path)
    return {
        "serve": "tensorflow_model_server --rest_api_port=8501 --model_name=kernorm "
        f'--model_base_path="$(realpath {shlex.quote(str(path.parent))})"',
    }
