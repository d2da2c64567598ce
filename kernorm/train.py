"""Trains one model, reports on it and exports it: `python -m kernorm.train --norm ln --l2 0.0066`.

Three to four minutes on two CPU cores; at least 99.2 % on MNIST's test split. The same command again resumes an
interrupted run, and never trains a finished one twice.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm.config import TrainConfig
from kernorm.recipes import recipe_of_words
from kernorm.system import cli
from kernorm.unused import require_used

if TYPE_CHECKING:
    from kernorm.records.record import Evaluation, Export, Record

PROG = "python -m kernorm.train"


def summary(record: "Record", config: TrainConfig) -> str:
    """Puts a run's result into a few lines for the terminal."""
    folder = config.reports_dir / "runs" / record.run_id
    if record.status == "running":
        return f"paused   after epoch {record.history[-1].epoch}; run the same command without --stop-after to resume"
    if record.status != "finished" or record.test is None:
        return f"{record.run_id} {record.message or record.status}\nreport   {_reported(config, folder)}"
    test, (low, high) = record.test, record.test.interval
    lines = [
        f"test     {100 * test.accuracy:.2f} % of {test.count:,} (95 % {100 * low:.2f} to {100 * high:.2f}), "
        f"{test.errors} errors, cross-entropy {test.cross_entropy:.4f}, ECE {test.ece:.4f}",
        *_by_class(test, record.data.labels),
        f"time     {record.seconds:.0f} s, {record.cpu_seconds:.0f} CPU-seconds of training",
        f"report   {_reported(config, folder)}",
        f"model    {_exported(record.export)}",
    ]
    return "\n".join(lines)


def _by_class(test: "Evaluation", labels: tuple[str, ...]) -> list[str]:
    """Says how the classes fare, and which were never predicted."""
    from kernorm.reporting.format import unpredicted, worst_class
    from kernorm.stats.scores import BY_CLASS

    balanced, f1, worst = (f"{100 * of(test.confusion):.2f} %" for of in BY_CLASS.values())
    name = worst_class(test.confusion, labels)
    lines = [f"classes  balanced accuracy {balanced}, macro F1 {f1}, worst recall {worst} ({name})"]
    if never := unpredicted(test.confusion, labels):
        lines.append(f"caution  {': '.join(never)}")
    return lines


def _reported(config: TrainConfig, folder: Path) -> str:
    return str(folder / "report.html") if config.report else "not written (--no-report)"


def _exported(export: "Export | None") -> str:
    if export is None:
        return "not exported (--no-export)"
    return export.path or f"not exported: {export.reason}"


def default(words: list[str]) -> tuple[TrainConfig, list[str]]:
    """Returns the recipe that a command line names, whose values its flags override, and all its words."""
    return recipe_of_words(words), words


def main(config: TrainConfig) -> int:
    """Trains, prints the result, and returns 1 if the run diverged, or was not published though it was to be."""
    from kernorm.training.run import train

    require_used([config])
    if config.push:
        from kernorm.serving.publish import require_thresholds

        require_thresholds(config.dataset)
    record = train(config)
    print(summary(record, config))
    exported = Path(record.export.path) if record.export and record.export.path else None
    if config.format and exported:
        from kernorm.saved_model.formats import convert_all

        for name, path in convert_all(exported, config.format).items():
            print(f"{name:8} {path}")
    if config.push and exported:
        from kernorm.serving.publish import publish

        print(
            publish(
                exported,
                saved_models_dir=config.saved_models_dir,
                manual_dir=config.manual_dir,
                data_dir=config.data_dir,
            )
        )
        return 0
    return 1 if record.status == "diverged" or (config.push and record.status == "finished") else 0


if __name__ == "__main__":
    sys.exit(cli.run(TrainConfig, main, prog=PROG, default=default, interrupted=cli.EPOCHS_KEPT))
