"""Shows that two checkouts compute the same: weights bit for bit, scores, signatures and flags.

    python -m tests.benchmarks.commits OLD NEW

trains one seed of bn and of ln with each checkout on this machine, about ten CPU-minutes, and says what differs; exit
code 1 if something does. For a change that must not change results.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

COMMANDS = (
    "kernorm.train",
    "kernorm.study",
    "kernorm.data",
    "kernorm.export",
    "kernorm.evaluate",
    "kernorm.validate",
    "kernorm.push",
    "kernorm.predict",
    "tuner.search",
)
WORDS = (
    "--epochs=2",
    "--train-size=5000",
    "--validation-size=1000",
    "--l2=0.001",
    "--dropout=0.05",
    "--threads=1",
    "--no-report",
)
# What a record says of time and machine, and of the code itself.
OWN = {"started", "seconds", "cpu_seconds", "environment", "openings", "export", "revision"}


def found(checkout: Path, norm: str, folder: Path) -> dict[str, Any]:
    """Returns weights, scores and signatures of a run that the checkout trains and exports in `folder`."""
    run(checkout, folder, "kernorm.train", f"--norm={norm}", *WORDS)
    (path,) = (folder / "reports" / "runs").glob("*/record.json")
    run_folder = path.parent
    (card,) = (folder / "saved_models").glob("*/*/assets.extra/kernorm/model_card.json")
    record = {key: value for key, value in json.loads(path.read_text()).items() if key not in OWN}
    for row in record["history"]:
        row.pop("seconds"), row.pop("cpu_seconds")
    return {
        "weights": weights(run_folder / "model.weights.h5"),
        "record": record,
        "signatures": json.loads(card.read_text())["signatures"],
    }


def weights(path: Path) -> dict[str, bytes]:
    """Returns the bytes of every array in a weights file, by name."""
    arrays: dict[str, bytes] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item).tobytes()

    with h5py.File(path) as file:
        file.visititems(collect)
    return arrays


def flags(checkout: Path, folder: Path) -> dict[str, list[str]]:
    """Returns the flags in the help of every command of the checkout."""
    return {
        command: sorted(set(re.findall(r"--[a-z][a-z0-9-]*", run(checkout, folder, command, "--help"))))
        for command in COMMANDS
    }


def run(checkout: Path, folder: Path, module: str, *words: str) -> str:
    """Runs a command of the checkout in `folder`; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "COLUMNS": "200"}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(checkouts: list[Path]) -> int:
    """Compares the two checkouts and prints a line a thing."""
    same = True
    with tempfile.TemporaryDirectory() as text:
        for what in ("bn", "ln", "flags"):
            both = []
            for number, checkout in enumerate(checkouts):
                folder = Path(text) / f"{what}-{number}"
                folder.mkdir()
                both.append(flags(checkout, folder) if what == "flags" else found(checkout, what, folder))
            for name in both[0]:
                equal = both[0][name] == both[1][name]
                same = same and equal
                print(f"{what:5}  {name:18}  {'same' if equal else 'DIFFERENT'}")
                if not equal and what == "flags":
                    print(f"       {sorted(set(both[0][name]) ^ set(both[1][name]))}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main([Path(word) for word in sys.argv[1:3]]))
