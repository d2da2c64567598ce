"""Writes the committed pages again with today's code, from their records: `python -m tests.committed_pages [PART ...]`.

After a change of a page's templates, of its script or of what a study says. Without PART all; with it those whose path
contains one. Figures of runs stay what they are; pictures need MNIST.
"""

import html
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernorm.datasets.dataset import load
from kernorm.evaluation.evaluator import write_report as write_evaluation
from kernorm.evaluation.result import EVALUATION
from kernorm.records.record import RECORD, Record, read_record
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.run_report import write_report

ROOT = Path(__file__).parent.parent
PAGE = "report.html"


def pages() -> list[Path]:
    """Returns the pages that are committed: of studies, searches, runs, models; none without a git checkout."""
    shown = subprocess.run(
        ["git", "ls-files", "reports", "saved_models"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [ROOT / name for name in shown.stdout.splitlines() if Path(name).name == PAGE]


def command_of(page: Path) -> list[str]:
    """Returns the words of the command that a page of a study names as its own."""
    found = re.search(r"<code>(python -m kernorm\.study .*?)</code>", page.read_text(encoding="utf-8"))
    assert found, page
    return shlex.split(html.unescape(re.sub("<.*?>", "", found[1])))[1:]


def pictures_of(record: Record) -> NDArray[np.uint8]:
    """Returns the images of the mistakes that a page of a run shows, which its own openings of the test split cover."""
    assert record.test
    images, _ = load(record.config).test.open(purpose="pictures for the report", epoch=record.selected_epoch or 0)
    return images[[mistake.index for mistake in drawn_mistakes(record.test, record.config)]]


def write(page: Path) -> None:
    """Writes one page again, by its own command with --report-only."""
    folder = page.parent
    kind = folder.relative_to(ROOT).parts[1]
    if (folder / EVALUATION).exists():
        write_evaluation(folder.parents[1])
    elif kind == "examples":
        record = read_record(folder / RECORD)
        write_report(record, folder, pictures_of(record))
    else:
        words = ["-m", "tuner.search", "--name", folder.name] if kind == "searches" else command_of(page)
        subprocess.run([sys.executable, *words, "--report-only"], cwd=ROOT, check=True)


def main(parts: list[str]) -> int:
    """Writes the pages whose path contains one of these parts, or all."""
    for page in pages():
        name = page.relative_to(ROOT).parent
        # The studies of a search are written with it.
        if "searches" in name.parts[:-2] or not any(part in str(name) for part in parts or [""]):
            continue
        print(name, flush=True)
        write(page)
        if name.parts[1] == "studies":
            for picture in page.parent.glob("*.png"):  # the page holds its charts itself
                picture.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
