"""What ten thousand runs cost: `python -m kernorm.runs` in CPU-seconds, and the sorting of its page in a browser.

    python -m tests.benchmarks.runs [--runs 10000]

Fabricates records in a temporary folder, makes the index once, and then measures the command three times; in Chromium,
if it and selenium are installed, the page's sorting by every column. About two minutes on two cores.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from kernorm.config import TrainConfig
from kernorm.records.record import write_record
from tests.builders import make_record

# Clicks on every column, and the milliseconds until the browser has laid out the result.
SORTS = """
return [...document.querySelectorAll("table.runs th .sort")].map((head) => {
  const began = performance.now();
  head.click();
  document.body.offsetHeight;
  return [head.textContent, performance.now() - began];
});
"""


def fabricate(reports: Path, number: int) -> None:
    """Writes the records of so many runs."""
    draw = random.Random(0)
    record = make_record(history=(), train=None, validation=None, layers=(), pruned=())
    if record.test is None:
        return
    for seed in range(number):
        config = TrainConfig(
            norm=draw.choice(["bn", "gn", "ln", "rms"]), l2=draw.choice([0.0, 1e-4, 0.01]), seed=seed, epochs=8
        )
        accuracy = 0.97 + 0.02 * draw.random()
        test = replace(record.test, accuracy=accuracy, interval=(accuracy - 0.003, accuracy + 0.003), mistakes=())
        folder = reports / "runs" / config.run_id
        folder.mkdir(parents=True)
        write_record(replace(record, config=config, run_id=config.run_id, test=test), folder / "record.json")
        (folder / "report.html").touch()


def listing_seconds(reports: Path) -> float:
    """Returns the CPU-seconds of the command, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "kernorm.runs", "--reports-dir", str(reports), "--sort", "accuracy"]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sorting(page: Path) -> dict[str, float]:
    """Returns the milliseconds that sorting by each column takes."""
    from tests.reporting.browser import open_browser

    with open_browser() as browser:
        return dict(browser.open(page).run(SORTS))


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reports = Path(name)
        fabricate(reports, given.runs)
        print(f"{given.runs:,} runs, index made: {listing_seconds(reports):.1f} CPU-s")
        seconds = [listing_seconds(reports) for _ in range(3)]
        print(f"{given.runs:,} runs, index there: {statistics.median(seconds):.2f} CPU-s")
        page = reports / "index.html"
        print(f"page: {page.stat().st_size / 1e6:.1f} MB")
        for column, milliseconds in sorting(page).items():
            print(f"  sorted by {column}: {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
