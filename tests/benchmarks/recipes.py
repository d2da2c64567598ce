"""Tries recipes on validation images, the test split shut; appends a row a run to reports/recipes_tried.csv.

    python -m tests.benchmarks.recipes "--recipe best --epochs 40" "--recipe best --ema 0.999" --seeds 3

Each quoted text holds flags of kernorm.train. The table has all that differ from the defaults, so that a row says the
same when a recipe has changed. A run of settings and a seed that it has is not trained again.
About 13 CPU-minutes a run of 20 epochs; with KERAS_BACKEND=jax and --population on an accelerator, seconds. CPU-seconds
are then a run's share of the processor's.
"""

import argparse
import csv
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from kernorm.config import TrainConfig
from kernorm.recipes import recipe_of_words
from kernorm.records.record import Record
from kernorm.reporting.command import command
from kernorm.system import cli
from kernorm.train import PROG
from kernorm.training.run import train

TABLE = Path(__file__).parents[2] / "reports" / "recipes_tried.csv"
# Settings that a row holds by themselves; those that are missing here are in its flags.
PLAIN = (
    *("net", "norm", "l2", "epochs", "batch_size", "optimizer", "learning_rate", "momentum", "initializer"),
    *("rotation", "shift", "zoom", "shear", "dropout", "seed"),
)


def config_of(flags: str, seed: int) -> TrainConfig:
    """Returns the config of a run that is stopped after its last epoch, before anything but validation is measured."""
    words = shlex.split(flags)
    config = cli.parse(TrainConfig, prog=PROG, argv=words, default=recipe_of_words(words))
    return replace(config, seed=seed, stop_after=config.epochs, export=False, report=False)


def flags_of(config: TrainConfig) -> str:
    """Returns the flags of a config that differ from the defaults, its seed and what a trial switches off apart."""
    default = TrainConfig()
    free = {name: getattr(default, name) for name in ("seed", "stop_after", "export", "report", "reports_dir")}
    return command(replace(config, recipe="default", **free)).removeprefix(PROG).strip()


def row_of(config: TrainConfig, record: Record) -> dict[str, object]:
    """Returns what the table holds of a run: percent, and nats."""
    last = record.history[-1]
    clip = f"ratio {config.clip_ratio:g}" if config.clip_ratio else "none"
    anneal = f" {config.anneal} {config.pct_start:g}" if config.schedule == "onecycle" else ""
    return {
        **{name: getattr(config, name) for name in PLAIN},
        "clip": clip,
        "schedule": config.schedule + anneal,
        "epochs_without_augmentation": 0,
        "validation_accuracy": round(100 * (last.val_accuracy or 0.0), 2),
        "validation_cross_entropy": round(last.val_cross_entropy or 0.0, 4),
        "training_cross_entropy": round(last.cross_entropy or 0.0, 4),
        "cpu_seconds": round(record.cpu_seconds),
        "flags": flags_of(config),
    }


def missing(flags: list[str], seeds: int) -> list[tuple[str, int]]:
    """Returns the runs that the table lacks, seed by seed."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        there = {(row["flags"], row["seed"]) for row in csv.DictReader(file)}
    asked = [(text, seed) for seed in range(seeds) for text in flags]
    return [(text, seed) for text, seed in asked if (flags_of(config_of(text, seed)), str(seed)) not in there]


def enter(config: TrainConfig, record: Record) -> None:
    """Appends a run to the table."""
    row = row_of(config, record)
    with TABLE.open(newline="", encoding="utf-8") as file:
        columns = list(csv.DictReader(file).fieldnames or ())
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
    print(row, flush=True)


def tell(config: TrainConfig, error: Exception) -> None:
    """Says why a lead failed, which costs the others nothing."""
    print(f"{config.run_id}: {error}", file=sys.stderr, flush=True)


def main() -> int:
    """Trains what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flags", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--population", action="store_true", help="side by side on an accelerator, by JAX")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            replace(config_of(flags, seed), reports_dir=Path(folder) / str(place))
            for place, (flags, seed) in enumerate(missing(asked.flags, asked.seeds))
        ]
        if asked.population:
            from kernorm.parallel.groups import train_population  # JAX

            by_run = {record.run_id: record for record in train_population(runs, failed=tell)}
            for config in runs:
                if config.run_id in by_run:
                    enter(config, by_run[config.run_id])
        else:
            for config in runs:
                enter(config, train(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
