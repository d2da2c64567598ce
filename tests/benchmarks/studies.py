"""What a study costs: two workers of one thread against one of two, and what a worker's memory does over 20 runs.

    python -m tests.benchmarks.studies [--rounds 2] [--skip-memory]

Each way of working runs the same study in a process of its own, in turn. Memory is that of a worker after each of 20
small runs, in each engine (Ray's if the extra `ray` is installed). About 15 minutes on two cores.
"""

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from kernorm.config import TrainConfig
from kernorm.parallel.factory import open_engine
from kernorm.parallel.settings import EngineConfig, EngineName
from kernorm.training.run import train

STUDY = '''"""Does it take long?"""
from kernorm.config import TrainConfig
ARMS = {norm: TrainConfig(net="eva6", norm=norm, epochs=2, train_size=20_000, batch_size=128) for norm in ("bn", "ln")}
SEEDS = 4
'''
WAYS = {"2 workers of 1 thread": ("2", "1"), "1 worker of 2 threads": ("1", "2")}
RUNS, SHOWN = 20, (3, 10, 20)


def study_seconds(workers: str, threads: str) -> tuple[float, float]:
    """Runs the study from nothing; returns its wall time and its CPU time, both in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eight_runs.py"
        path.write_text(STUDY)
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "kernorm.study", str(path), "--workers", workers, "--threads", threads]
        subprocess.run([*command, "--reports-dir", f"{folder}/reports"], check=True, capture_output=True)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def train_and_weigh(config: TrainConfig) -> int:
    """Trains a run; returns the resident memory of this process afterwards, in bytes."""
    train(config)
    return psutil.Process().memory_info().rss


def memory(engine: EngineName) -> list[int]:
    """Returns the resident memory of the one worker after each of RUNS small runs."""
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engine(train_and_weigh, EngineConfig(name=engine, workers=1)) as opened,
    ):
        for seed in range(RUNS):
            opened.submit(
                TrainConfig(
                    net="eva6",
                    norm="ln",
                    seed=seed,
                    epochs=1,
                    train_size=600,
                    validation_size=300,
                    batch_size=50,
                    threads=1,
                    export=False,
                    report=False,
                    reports_dir=Path(folder),
                )
            )
        for outcome in opened.outcomes():
            if outcome.result is None:
                raise RuntimeError(outcome.error)
            found.append(outcome.result)
    return found


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--skip-memory", action="store_true")
    asked = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        for way, (workers, threads) in WAYS.items():
            taken[way].append(study_seconds(workers, threads))
    print("eight runs of eva6, seconds: median (lowest to highest)")
    for way, pairs in taken.items():
        for kind, values in zip(("wall", "CPU"), zip(*pairs, strict=True), strict=True):
            print(f"{way}  {kind:4}  {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    if asked.skip_memory:
        return
    print(f"memory of a worker in MB after run {', '.join(map(str, SHOWN))}; the last against the first of these")
    engines: list[EngineName] = ["local", *(["ray"] if importlib.util.find_spec("ray") else [])]  # type: ignore[list-item]
    for engine in engines:
        found = memory(engine)
        cells = "  ".join(f"{found[run - 1] / 1e6:.0f}" for run in SHOWN)
        print(f"{engine:5}  {cells}  {100 * (found[SHOWN[-1] - 1] / found[SHOWN[0] - 1] - 1):+.1f} %")


if __name__ == "__main__":
    main()
