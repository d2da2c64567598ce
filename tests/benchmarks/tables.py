"""Tables that benchmarks write; this module needs no backend."""

import csv
from pathlib import Path


def write(rows: list[dict], path: Path) -> None:
    """Writes a table, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
