"""Which run of a study or a search is exported: the best by validation."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.records.record import Epoch, Record
from kernorm.serving.publish import publish
from kernorm.studies.analysis import finished, results_by_arm
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger
from kernorm.training.run import train


def validation_score(record: Record) -> float:
    """Returns what candidates are chosen by: the cross-entropy on the validation split, never a test score.

    Raises:
        UsageError: the run had no validation split.
    """
    if record.validation is None:
        raise UsageError(
            "A candidate is chosen by validation.",
            f"{record.run_id}, without a validation split",
            "Train with --validation-size auto, or export a run by python -m kernorm.export.",
        )
    return record.validation.cross_entropy


def scored_row(record: Record, epochs: int) -> Epoch:
    """Returns the row by which a run is scored that was paused after so many epochs, its test split sealed.

    It is the last one; with patience, by which a run may have fewer, that of the epoch that is kept.
    """
    return record.history[(record.selected_epoch or epochs) if record.config.patience else epochs]


def export_best(records: Iterable[Record], places: TrainConfig) -> Record:
    """Exports the run of the lowest validation cross-entropy, with a report of its own; returns its record.

    Args:
        records: of finished runs in `places.reports_dir`.
        places: names the folders to read and write.

    Raises:
        UsageError: a run had no validation split, or as `train`.
    """
    best = min(records, key=validation_score)
    return train(
        replace(
            best.config,
            reports_dir=places.reports_dir,
            saved_models_dir=places.saved_models_dir,
            manual_dir=places.manual_dir,
            data_dir=places.data_dir,
            export=True,
            report=True,
        )
    )


def export_best_arm(study: Study, folder: Path, *, reports_dir: Path, saved_models_dir: Path) -> Record:
    """Exports the best run of the best arm of a study, both by validation cross-entropy; returns its record.

    An arm with fewer failed runs goes before one with more.

    Args:
        study: as it was run.
        folder: the study's, with its records.
        reports_dir: where its runs are.
        saved_models_dir: where to export.

    Raises:
        UsageError: no run has finished, a run had no validation split, or as `train`.
    """
    found = results_by_arm(study, Ledger(folder).results)
    arms = [
        (len(results) - len(records), records)
        for results in found.values()
        if (records := list(finished(results).values()))
    ]
    if not arms:
        raise UsageError("A study is exported from its finished runs.", f"{folder} without any", "Run the study.")
    # The runs that an arm has besides failed ones say nothing for it.
    _, best = min(arms, key=lambda arm: (arm[0], mean(map(validation_score, arm[1]))))
    return export_best(best, replace(best[0].config, reports_dir=reports_dir, saved_models_dir=saved_models_dir))


def publish_best_arm(study: Study, folder: Path, *, reports_dir: Path, saved_models_dir: Path) -> Path | None:
    """Exports and publishes the best run of the best arm; returns where it is, or None if it could not be exported.

    The arguments are those of `export_best_arm`.

    Raises:
        UsageError: as `export_best_arm`, or as `publish`.
        Refused: it may not be published.
    """
    record = export_best_arm(study, folder, reports_dir=reports_dir, saved_models_dir=saved_models_dir)
    if not (record.export and record.export.path):
        return None
    return publish(
        Path(record.export.path),
        saved_models_dir=saved_models_dir,
        manual_dir=record.config.manual_dir,
        data_dir=record.config.data_dir,
    )
