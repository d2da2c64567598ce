"""Trains one model, reports on it and exports it: `python -m kernorm.train --norm ln --l2 0.0066`.

Three to four minutes on two CPU cores; at least 99.2 % on MNIST's test split. `train(config)` is the same for the
command, studies, searches and tests. It holds a run's folder, goes on where an interrupted run stopped, and never
trains a finished one twice.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm import cli, environment
from kernorm.config import TrainConfig, to_json
from kernorm.errors import UsageError
from kernorm.files import locked, make_folder, require_folder
from kernorm.recipes import recipe_of_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernorm.data import Dataset
    from kernorm.fit import Diverged, Run
    from kernorm.record import Export, Record

PROG = "python -m kernorm.train"
ENDED = ("finished", "diverged")


def train(config: TrainConfig) -> "Record":
    """Trains, measures, reports and exports one run, or what is left of it; returns its record.

    Raises:
        UsageError: the config does not fit the data, the net or what lies in the run's folder.
        RuntimeError: a penalty is not in the loss as configured.
    """
    check(config)
    with claimed(config) as folder:
        return finished(config, folder) or _train(config, folder)


def check(config: TrainConfig) -> None:
    """Refuses what can be told to be wrong before anything is written.

    Raises:
        UsageError: a folder cannot be used, or a package is not installed.
    """
    require_folder(config.reports_dir / "runs", "--reports-dir")
    if config.export:
        require_folder(config.saved_models_dir / config.run_id, "--saved-models-dir")
    environment.choose_backend()
    if config.format:
        from kernorm.formats import require_format

        for name in config.format:
            require_format(name)
    from kernorm.tracking import require_tracker

    require_tracker(config.track)


@contextlib.contextmanager
def claimed(config: TrainConfig) -> Iterator[Path]:
    """Holds a run's folder against other processes while the body works in it.

    Raises:
        UsageError: another process holds it, or it cannot be made.
    """
    folder = _run_folder(config)
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        make_folder(folder, "--reports-dir")
        with locked(folder / "lock", "train this run"):
            yield folder
    finally:
        _remove_empty(made)


def _run_folder(config: TrainConfig) -> Path:
    """Returns the run's folder: `<run id>`, or the first `<run id>-rN` that does not hold another result to be kept.

    That is one of an earlier revision of training or of other data, and with `retrain` any that has ended.
    """
    from kernorm.record import RECORD, read_record

    folder = config.reports_dir / "runs" / config.run_id
    number = 2
    while (folder / RECORD).exists():
        record = read_record(folder / RECORD)
        difference = _difference(record)
        if not difference and not (config.retrain and record.status in ENDED):
            break
        following = folder.with_name(f"{config.run_id}-r{number}")
        if difference:
            _say(f"{folder.name} {difference}; it is kept, and this run is {following.name}.")
        folder, number = following, number + 1
    return folder


def _difference(record: "Record") -> str:
    """Says why today's code would compute another result than a record of the same config; nothing if it would not."""
    from kernorm.cache import prepared_sha256
    from kernorm.record import REVISION

    if record.revision != REVISION:
        return f"was trained by revision {record.revision} of the training code, which is {REVISION} now"
    if record.data.sha256 != (prepared_sha256(record.config.dataset) or record.data.sha256):
        return f"was trained on other data of the name {record.config.dataset}"
    return ""


def finished(config: TrainConfig, folder: Path) -> "Record | None":
    """Returns the record of a run that came to its end, with what it lacks made up for; None if there is more to do."""
    from kernorm.record import CHECKPOINT, RECORD, read_record, write_record

    if not (folder / RECORD).exists():
        return None
    record = read_record(folder / RECORD)
    if record.config.identity != config.identity:
        raise UsageError(
            "A run folder belongs to one config.",
            f"{folder}, which holds another one's results",
            "Give another --reports-dir.",
        )
    if record.status not in ENDED or (folder / CHECKPOINT).exists():
        return None
    exported = record.export and record.export.path and Path(record.export.path).exists()
    if config.export and record.status == "finished" and not exported:
        record = replace(record, export=_export(config, folder))
        write_record(record, folder / RECORD)
    reported = (folder / "report.html").exists()
    if config.report and not reported:
        record = _report_again(record, folder)
    if exported or reported:  # else it was trained for its numbers alone, by a study or a search
        _say(f"{folder.name} is already trained; --retrain trains it once more.")
    return record


def _report_again(record: "Record", folder: Path) -> "Record":
    """Writes a report that was deleted; the pictures of its mistakes are one more look at the test split."""
    from kernorm.data import load
    from kernorm.record import RECORD, SHOWN, write_record
    from kernorm.report import write_report

    data = load(record.config)
    images = data.train.images[:0]
    if record.test:
        test, _ = data.test.open(purpose="pictures for the report", epoch=record.selected_epoch or 0)
        images = test[[mistake.index for mistake in record.test.mistakes[:SHOWN]]]
        record = replace(record, openings=(*record.openings, *data.test.openings))
        write_record(record, folder / RECORD)
    write_report(record, folder, images)
    return record


def _train(config: TrainConfig, folder: Path) -> "Record":
    from kernorm.fit import Diverged

    run, done = begun(config, folder)
    try:
        run.fit(done)
    except Diverged as error:
        return diverged(run, error)
    if config.stop_after is not None:
        return run.so_far()
    return concluded(run, *run.measure())


def begun(config: TrainConfig, folder: Path, data: "Dataset | None" = None) -> "tuple[Run, int]":
    """Returns a run at the state that its folder holds, and the epochs that are done; `data`, if it is loaded."""
    from kernorm.files import write_json
    from kernorm.fit import Run

    for left in folder.glob(".*.tmp"):  # by a process that was killed while it wrote
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    run = Run(config, folder, data)
    done = run.resume()
    write_json(folder / "config.json", to_json(config))
    return run, done


def diverged(run: "Run", error: "Diverged") -> "Record":
    """Ends a run whose loss is no longer finite."""
    from kernorm.record import CHECKPOINT

    record = run.diverged(error)
    (run.folder / CHECKPOINT).unlink(missing_ok=True)
    if run.config.report:
        from kernorm.report import write_report

        write_report(record, run.folder, run.batches.images[:0])
    return record


def concluded(run: "Run", record: "Record", mistakes: "NDArray[np.uint8]") -> "Record":
    """Ends a run that has been measured: record, export, report."""
    from kernorm.record import CHECKPOINT, RECORD, write_record

    config, folder = run.config, run.folder
    record = replace(record, status="finished")
    write_record(record, folder / RECORD)
    if config.export:
        record = replace(record, export=_export(config, folder))
        write_record(record, folder / RECORD)
    if config.report:  # its libraries take a second to import
        from kernorm.report import write_report

        write_report(record, folder, mistakes)
    # While it is there, the run is not complete: the same command does once more what comes after the last epoch.
    (folder / CHECKPOINT).unlink()
    return record


def _export(config: TrainConfig, folder: Path) -> "Export":
    """Exports from the folder, in this process if it runs TensorFlow, else in one of its own."""
    from kernorm.export import export_in_subprocess, export_run

    export = export_run if environment.choose_backend() == "tensorflow" else export_in_subprocess
    return export(folder, config.saved_models_dir)


def _remove_empty(folders: list[Path]) -> None:
    """Removes the folders that a refused command made, the innermost first, as far as nothing was written in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def summary(record: "Record", config: TrainConfig) -> str:
    """Puts a run's result into a few lines for the terminal."""
    folder = config.reports_dir / "runs" / record.run_id
    if record.status == "running":
        return f"paused   after epoch {record.history[-1].epoch}; the same command without --stop-after goes on"
    if record.status != "finished" or record.test is None:
        return f"{record.run_id} {record.message or record.status}\nreport   {_reported(config, folder)}"
    test, (low, high) = record.test, record.test.interval
    lines = [
        f"test     {100 * test.accuracy:.2f} % of {test.count:,} (95 % {100 * low:.2f} to {100 * high:.2f}), "
        f"{test.errors} errors, cross-entropy {test.cross_entropy:.4f}, ECE {test.ece:.4f}",
        f"time     {record.seconds:.0f} s, {record.cpu_seconds:.0f} CPU-seconds of training",
        f"report   {_reported(config, folder)}",
        f"model    {_exported(record.export)}",
    ]
    return "\n".join(lines)


def _reported(config: TrainConfig, folder: Path) -> str:
    return str(folder / "report.html") if config.report else "not written (--no-report)"


def _exported(export: "Export | None") -> str:
    if export is None:
        return "not exported (--no-export)"
    return export.path or f"not exported: {export.reason}"


def main(config: TrainConfig) -> int:
    """Trains, prints the result, and returns 1 if the run diverged, or was not published though it was to be."""
    record = train(config)
    print(summary(record, config))
    if config.format and record.export and record.export.path:
        from kernorm.formats import convert_all

        convert_all(Path(record.export.path), config.format)
    if config.push and record.export and record.export.path:
        from kernorm.ship import ship

        return ship(Path(record.export.path), config)
    return 1 if record.status == "diverged" or (config.push and record.status == "finished") else 0


if __name__ == "__main__":
    sys.exit(cli.run(TrainConfig, main, prog=PROG, default=recipe_of_words))
