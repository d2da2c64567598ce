"""Do runs reach the same on two devices? Compares the runs that two folders of studies have in common.

    python -m tests.benchmarks.devices HERE/reports/studies THERE/reports/studies --out reports/populations/devices.csv

A run is the same config and seed in both. Backends draw other first weights and dropout masks from one seed, so the two
are replicates, not twins. It prints the mean of the differences in test accuracy and cross-entropy, by the last epoch,
with a 95 % interval by Student's t over the seeds of each net, whose runs begin alike, and writes a row a run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from kernorm.records.record import Evaluation, Record
from kernorm.studies.ledger import Ledger, Result
from tests.benchmarks.tables import write

# Below this, in accuracy, a net has collapsed: on both devices it says nothing of them.
LEARNED = 0.5


def read(folder: Path) -> dict[str, Record]:
    """Returns the finished runs of studies, by run id."""
    results = [result for path in folder.glob("*/records.jsonl") for result in results_of(path.parent)]
    return {result.run_id: result.record for result in results if result.record and result.record.test}


def results_of(study: Path) -> list[Result]:
    """Returns what the runs of a study left."""
    return list(Ledger(study, mend=False).results.values())


def last(record: Record) -> Evaluation:
    """Returns what the last epoch reached on the test split."""
    found = record.test_last or record.test
    assert found is not None
    return found


def accuracy(record: Record) -> float:
    """Returns the accuracy of the last epoch."""
    return last(record).accuracy


def main() -> int:
    """Prints the comparison and writes its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("here", type=Path)
    parser.add_argument("there", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    here, there = read(asked.here), read(asked.there)
    rows = []
    for run in sorted(here.keys() & there.keys()):
        pair = here[run], there[run]
        if pair[0].environment.device == pair[1].environment.device or max(map(accuracy, pair)) < LEARNED:
            continue
        row: dict[str, Any] = {"run": run, "net": pair[0].config.net, "seed": pair[0].config.seed}
        for side, record in zip(("here", "there"), pair, strict=True):
            row |= {
                f"{side}_device": record.environment.device,
                f"{side}_population": record.environment.population,
                f"{side}_accuracy": accuracy(record),
                f"{side}_cross_entropy": last(record).cross_entropy,
                f"{side}_seconds": record.seconds,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    if table.empty or table.groupby(["net", "seed"]).ngroups < 2:
        print("Fewer than two seeds of a net that both devices have trained.", file=sys.stderr)
        return 2
    for name in ("accuracy", "cross_entropy"):
        by_seed = (table[f"there_{name}"] - table[f"here_{name}"]).groupby([table.net, table.seed]).mean()
        low, high = DescrStatsW(by_seed).tconfint_mean()
        print(
            f"{name:14} there − here: {by_seed.mean():+.6f} [{low:+.6f}, {high:+.6f}], {len(table)} runs of "
            f"{len(by_seed)} seeds"
        )
    if asked.out:
        write(rows, asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
