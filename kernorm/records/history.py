"""history.csv: a run's epochs as a table."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from kernorm.records.record import PERCENTILES, THRESHOLDS, Epoch
from kernorm.system.files import write_atomically


def write_history(history: list[Epoch], path: Path) -> None:
    """Writes history.csv, a row an epoch, empty where a value does not exist."""
    text = io.StringIO()
    rows = flat_rows(history)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def flat_rows(history: Sequence[Epoch]) -> list[dict[str, object]]:
    """Returns the rows of history.csv; without own losses and a weighted cross-entropy where there are none."""
    rows = [flat_row(row) for row in history]
    for name in ("own_losses", "weighted_cross_entropy"):
        if all(row[name] is None for row in rows):
            for row in rows:
                del row[name]
    return rows


def flat_row(row: Epoch) -> dict[str, object]:
    """Returns a row with what was watched in columns of its own."""
    flat = dataclasses.asdict(row)
    watched = flat.pop("watched") or dict.fromkeys(("kernel_norm", "near_zero", "activations"))
    flat["kernel_norm"] = watched["kernel_norm"]
    for name, source, marks in (("near_zero_", "near_zero", THRESHOLDS), ("activation_p", "activations", PERCENTILES)):
        values = watched[source] or [None] * len(marks)
        flat |= {f"{name}{mark:g}": value for mark, value in zip(marks, values, strict=True)}
    return flat
