"""What an oracle is worth: epochs until it has what random search finds in 30 trials; and what it costs itself.

    python -m tests.benchmarks.searches [--seeds 5] [--skip-searches]

Each oracle searches the same space, SPACE, with the same seeds, one trial at a time, so that a number comes out the
same again. The target is the median, over the seeds, of the best score of random's 30 trials; a seed that does not
reach it counts as all of random's epochs. Costs are those of asking, telling and writing, without any training. About
an hour on two cores.
"""

import argparse
import csv
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernorm.config import TrainConfig
from tuner.config import OracleName, SearchConfig
from tuner.oracles import ORACLES
from tuner.trials import OBJECTIVE, Trial, Trials

TRIALS, TRIAL_SECONDS, EPOCHS = 30, 20, 9
# Wide, as of somebody who knows nothing yet: much of it is bad.
SPACE = [
    "--net=eva6",
    "--norms=bn,ln,gn",
    "--l1=1e-6:1e-1",
    "--l2=1e-6:1e-1",
    "--learning-rate=1e-3:0.3",
    "--batch-sizes=16,32,64,128",
    f"--epochs={EPOCHS}",
    "--train-size=1000",
    "--validation-size=2000",
]
SEARCHES: tuple[OracleName, ...] = ("random", "optuna", "hyperband")
COSTS: tuple[OracleName, ...] = ("random", "grid", "optuna", "hyperband", "bayesian")


def searched(oracle: OracleName, seed: int, folder: Path) -> list[Trial]:
    """Runs one search; returns its trials in the order in which they ended."""
    name = f"{oracle}-{seed}"
    command = [
        sys.executable,
        "-m",
        "tuner.search",
        *SPACE,
        f"--oracle={oracle}",
        f"--seed={seed}",
        f"--name={name}",
        f"--max-trials={TRIALS}",
        "--workers=1",
        "--top-k=0",
        "--no-final",
        f"--reports-dir={folder}",
    ]
    if (folder / "searches" / name).exists():
        command.append("--resume")
    subprocess.run(command, check=True, capture_output=True)
    return Trials(folder / "searches" / name).ended


def best_so_far(trials: Sequence[Trial]) -> Iterator[tuple[int, float]]:
    """Yields the epochs trained and the best score, after each trial."""
    epochs = itertools.accumulate(trial.new_epochs for trial in trials)
    scores = [trial.score if trial.score is not None else float("inf") for trial in trials]
    yield from zip(epochs, itertools.accumulate(scores, min), strict=True)


def epochs_until(target: float, trials: Sequence[Trial]) -> tuple[int, bool]:
    """Returns the epochs until the best score reaches the target, or as many as random has and that it did not."""
    for epochs, score in best_so_far(trials):
        if score <= target:
            return epochs, True
    return TRIALS * EPOCHS, False


def compare(seeds: int, folder: Path) -> None:
    """Prints a row a search and the medians an oracle, and writes the rows as CSV."""
    pairs = list(itertools.product(SEARCHES, range(seeds)))
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(pairs, pool.map(lambda pair: searched(pair[0], pair[1], folder), pairs), strict=True))
    target = statistics.median(min(score for _, score in best_so_far(found["random", seed])) for seed in range(seeds))
    rows = []
    for (oracle, seed), trials in found.items():
        (*_, (epochs, best)), (until, reached) = best_so_far(trials), epochs_until(target, trials)
        rows.append([oracle, seed, len(trials), epochs, f"{best:.4f}", until, "yes" if reached else "no"])
    with (folder / "oracles.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["oracle", "seed", "trials", "epochs", "best score", "epochs to target", "reached"])
        writer.writerows(rows)
    print((folder / "oracles.csv").read_text())
    print(f"target {target:.4f}: the median of random's best cross-entropies")
    for oracle in SEARCHES:
        mine = [row for row in rows if row[0] == oracle]
        needed = [int(row[5]) for row in mine]
        middle = statistics.median(float(row[4]) for row in mine)
        count = sum(row[6] == "yes" for row in mine)
        print(
            f"{oracle:10} {statistics.median(needed):5.0f} epochs until then ({min(needed)} to {max(needed)}; "
            f"{count} of {seeds} got there), median best {middle:.4f}"
        )


def cost(oracle: OracleName) -> float:
    """Returns the seconds a trial that asking, telling and writing take, over TRIALS trials of the default space."""
    with tempfile.TemporaryDirectory() as root:
        config = SearchConfig(
            oracle=oracle, max_trials=TRIALS, reports_dir=Path(root), train=TrainConfig(epochs=EPOCHS)
        )
        opened = ORACLES[oracle](config)
        opened._set_project_dir(str(config.folder.parent), config.name)
        trials = Trials(config.folder)
        begun = time.perf_counter()
        for number in range(TRIALS):
            trial = opened.create_trial("slot0")
            if trial.status != "RUNNING":  # Hyperband ends by itself
                break
            values = trial.hyperparameters.values
            score = 0.05 + 0.01 * values["l1_on"] + 0.0001 * values["batch_size"]
            ended = Trial(
                number=number,
                trial_id=trial.trial_id,
                values=dict(values),
                settings={},
                status="completed",
                epochs=EPOCHS,
                new_epochs=EPOCHS,
                score=score,
            )
            trials.add(ended)
            opened.update_trial(trial.trial_id, {OBJECTIVE: score})
            trial.status = "COMPLETED"
            opened.end_trial(trial)
        return (time.perf_counter() - begun) / len(trials.ended)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("reports"), help="takes searches/ and oracles.csv")
    parser.add_argument("--skip-searches", action="store_true")
    words = parser.parse_args()
    for oracle in COSTS:
        seconds = cost(oracle)
        share = 100 * seconds / TRIAL_SECONDS
        print(f"{oracle:10} {1000 * seconds:7.1f} ms a trial, {share:.2f} % of {TRIAL_SECONDS} s", flush=True)
    if not words.skip_searches:
        words.folder.mkdir(parents=True, exist_ok=True)
        compare(words.seeds, words.folder)


if __name__ == "__main__":
    main()
