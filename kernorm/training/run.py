"""The life of a run in its folder: locked, started or resumed, trained, measured, reported, exported.

`train(config)` is the same for the command, studies, searches, the API and tests. Keras is imported when there is
something to train: a finished run is answered without it.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig, to_json
from kernorm.datasets.dataset import Dataset, load, prepared_sha256
from kernorm.datasets.own import with_prepared
from kernorm.errors import UsageError
from kernorm.nets.source import net_file, with_net
from kernorm.records.index import append_run
from kernorm.records.record import CHECKPOINT, RECORD, REVISION, Export, Record, read_record, write_record
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.saved_model.export import export_in_subprocess, export_run
from kernorm.saved_model.formats import require_format
from kernorm.system.backend import choose_backend, keras_settings
from kernorm.system.files import locked, make_folder, require_folder, write_atomically, write_json
from kernorm.training.first_step import try_nets
from kernorm.training.tracking import Membership, require_tracker

if TYPE_CHECKING:
    from kernorm.training.trainer import Diverged, Trainer

ENDED = ("finished", "diverged")

_LOG = logging.getLogger("kernorm")


def train(config: TrainConfig, *, tried: bool = False, member: Membership | None = None) -> Record:
    """Trains, measures, reports and exports one run, or what is left of it; returns its record.

    Args:
        config: of the run.
        tried: whether its own net, if it is one, has done a first step before, in a process of its own.
        member: of which study it is, for trackers.

    Raises:
        UsageError: the config does not fit the data, the net or what lies in the run's folder.
        RuntimeError: a penalty is not in the loss as configured.
    """
    config = with_net(config)
    check_config(config)
    config = with_prepared(config)
    with locked_run_folder(config) as folder:
        if record := complete_if_trained(config, folder):
            return record
        data = None
        if config.net_source is not None and not tried and not (folder / CHECKPOINT).exists():
            data = load(config)
            try_nets([(config, data.info)])
        return _train(config, folder, data, member)


def check_config(config: TrainConfig) -> None:
    """Refuses what is known to be wrong before anything is written.

    Raises:
        UsageError: a folder cannot be used, or a package is not installed.
    """
    require_folder(config.reports_dir / "runs", "--reports-dir")
    if config.export:
        require_folder(config.saved_models_dir / config.run_id, "--saved-models-dir")
    choose_backend()
    for name in config.format:
        require_format(name)
    require_tracker(config.track)


@contextlib.contextmanager
def locked_run_folder(config: TrainConfig) -> Iterator[Path]:
    """Locks the run folder inside the context.

    Raises:
        UsageError: another process has locked it, or it cannot be made.
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
    folder = config.reports_dir / "runs" / config.run_id
    number = 2
    while (folder / RECORD).exists():
        record = read_record(folder / RECORD)
        difference = _difference(record, config)
        if not difference and not (config.retrain and record.status in ENDED):
            break
        following = folder.with_name(f"{config.run_id}-r{number}")
        if difference:
            _LOG.info("%s %s; it is kept, and this run is %s.", folder.name, difference, following.name)
        folder, number = following, number + 1
    return folder


def _difference(record: Record, config: TrainConfig) -> str:
    """Says why today's code would compute another result than a record of the same config; nothing if it would not."""
    if record.revision != REVISION:
        return f"was trained by revision {record.revision} of the training code, which is {REVISION} now"
    today = prepared_sha256(config.dataset, manual_dir=config.manual_dir, data_dir=config.data_dir)
    if record.data.sha256 != (today or record.data.sha256):
        return f"was trained on other data of the name {record.config.dataset}"
    return ""


def complete_if_trained(config: TrainConfig, folder: Path) -> Record | None:
    """Returns the record of a finished run, after writing a missing export or report; None if it is not finished."""
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
        record = _write_missing_report(record, folder)
    if exported or reported:  # else it was trained for its numbers alone, by a study or a search
        _LOG.info("%s is already trained; --retrain trains it once more.", folder.name)
    return record


def _write_missing_report(record: Record, folder: Path) -> Record:
    """Writes a report that was deleted; the pictures of its mistakes are one more look at the test split."""
    from kernorm.reporting.run_report import write_report  # Matplotlib, Jinja

    data = load(record.config)
    images = data.train.images[:0]
    if record.test and record.config.pictures:
        test, _ = data.test.open(purpose="pictures for the report", epoch=record.selected_epoch or 0)
        images = test[[mistake.index for mistake in drawn_mistakes(record.test, record.config)]]
        record = replace(record, openings=(*record.openings, *data.test.openings))
        write_record(record, folder / RECORD)
    write_report(record, folder, images)
    return record


@keras_settings()
def _train(config: TrainConfig, folder: Path, data: Dataset | None, member: Membership | None) -> Record:
    from kernorm.training.trainer import Diverged  # Keras

    trainer, done = start_or_resume(config, folder, data)
    try:
        trainer.fit(done, member)
    except Diverged as error:
        return fail(trainer, error)
    if config.stop_after is not None:
        return trainer.so_far()
    return finish(trainer, *trainer.measure())


def start_or_resume(config: TrainConfig, folder: Path, data: Dataset | None = None) -> "tuple[Trainer, int]":
    """Returns the trainer of a run, at the state of its checkpoint if there is one, and the epochs that are done.

    Args:
        config: of the run.
        folder: the run's, locked.
        data: of the config, where it is loaded already.

    Raises:
        UsageError: as `Trainer`.
        RuntimeError: as `Trainer`.
    """
    from kernorm.training.trainer import Trainer  # Keras

    for left in folder.glob(".*.tmp"):  # by a process that was killed while it wrote
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    trainer = Trainer(config, folder, data)
    done = trainer.resume()
    write_json(folder / "config.json", to_json(config))
    if config.net_source is not None:
        write_atomically(folder / net_file(config), config.net_source.encode())
    return trainer, done


def fail(trainer: "Trainer", error: "Diverged") -> Record:
    """Ends a run whose loss is no longer finite: record and report."""
    record = trainer.diverged(error)
    (trainer.folder / CHECKPOINT).unlink(missing_ok=True)
    if trainer.config.report:
        from kernorm.reporting.run_report import write_report  # Matplotlib, Jinja

        write_report(record, trainer.folder, trainer.batches.images[:0])
    append_run(record, trainer.folder)
    return record


def finish(trainer: "Trainer", record: Record, mistakes: NDArray[np.uint8]) -> Record:
    """Ends a run that has been measured: record, export, report."""
    config, folder = trainer.config, trainer.folder
    record = replace(record, status="finished")
    write_record(record, folder / RECORD)
    if config.export:
        record = replace(record, export=_export(config, folder))
        write_record(record, folder / RECORD)
    if config.report:
        from kernorm.reporting.run_report import write_report  # Matplotlib, Jinja

        write_report(record, folder, mistakes)
    # While it is there, the run is not complete: the same command repeats what comes after the last epoch.
    (folder / CHECKPOINT).unlink()
    append_run(record, folder)
    return record


def _export(config: TrainConfig, folder: Path) -> Export:
    """Exports from the folder, in this process if it runs TensorFlow, else in one of its own."""
    export = export_run if choose_backend() == "tensorflow" else export_in_subprocess
    return export(folder, config.saved_models_dir)


def _remove_empty(folders: list[Path]) -> None:
    """Removes the folders that a refused command made, the innermost first, unless something was written in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
