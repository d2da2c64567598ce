"""Runs for Python users: train one, load one, list them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernorm.api.display import Chart, page
from kernorm.api.exported import Exported
from kernorm.api.settings import config_of
from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load, load_test_split
from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded
from kernorm.nets.source import allow_code
from kernorm.records.history import flat_rows
from kernorm.records.index import list_lines
from kernorm.records.record import RECORD, WEIGHTS, Evaluation, Record, read_record, write_record
from kernorm.reporting.charts import charts
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.saved_model.export import export_run
from kernorm.stats.scores import BY_CLASS
from kernorm.system.backend import choose_backend
from kernorm.system.files import locked
from kernorm.training.run import complete_if_trained, train
from kernorm.unused import require_used

if TYPE_CHECKING:
    import keras

_SETTINGS = ("net", "norm", "l1", "l2", "batch_size", "epochs", "seed")
_LISTED = ("status", "accuracy", "low", "high", "cross_entropy", "studies")


class Run:
    """A run and what it left.

    Attributes:
        folder: reports/runs/<run id>.
        record: everything that was measured; see `kernorm.records.record.Record`.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self.record.run_id

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        return self.record.config

    @property
    def status(self) -> str:
        """`finished`, `diverged`, `failed`, or `running` for a run that is not finished."""
        return self.record.status

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch, from 0, the state before the first step; columns as in history.csv."""
        return pd.DataFrame(flat_rows(self.record.history)).set_index("epoch")

    @property
    def scores(self) -> pd.DataFrame:
        """A row a split.

        Accuracy with Wilson's 95 % interval (low, high), scores by class, cross-entropy in nats, Brier score, ECE.
        """
        found = {name: getattr(self.record, name) for name in ("train", "validation", "test", "test_last")}
        rows = {name: _scores(evaluation) for name, evaluation in found.items() if evaluation}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")

    @property
    def layers(self) -> pd.DataFrame:
        """A row a layer with weights: shape, parameters, norm, its λ's, the kernel's norm."""
        return pd.DataFrame([asdict(layer) for layer in self.record.layers]).set_index("name")

    @property
    def penalty_proof(self) -> tuple[float, float] | None:
        """The penalty that was found in the loss of the first step, and the formula's for the same weights."""
        return self.record.penalty_proof

    @property
    def report_path(self) -> Path:
        """Where the run's page is; a run of a study or a search has none before `write_report`."""
        return self.folder / "report.html"

    def write_report(self) -> Path:
        """Writes the run's page, if it has none; returns its path.

        Its pictures of mistakes are one more look at the test split, which the record logs.

        Raises:
            UsageError: the run has not ended, another process trains it, or the data set cannot be had.
        """
        if not self.report_path.exists():
            with locked(self.folder / "lock", "train this run"):
                record = complete_if_trained(replace(self.config, report=True, export=False), self.folder)
            if record is None:
                raise UsageError("A run that has ended has a report.", f"{self.run_id}, which has not", "Train it on.")
            self.record = record
        return self.report_path

    def load_model(self, *, net: str | None = None, trust_code: bool = False) -> "keras.Model":
        """Builds the net with the selected epoch's weights, on the backend that Keras runs on.

        Args:
            net: of a run on an own net from elsewhere, the file that it was trained with, "FILE.py:FUNCTION".
            trust_code: or let the Python run that lies in the run's folder, net.py.

        Returns:
            A functional model from uint8 images (N, H, W, C) to logits (N, K).

        Raises:
            UsageError: the weights are missing, damaged or of another net, or the net's Python may not run.
        """
        allow_code(self.config, net, trust_code=trust_code)
        choose_backend()
        from kernorm.nets.weights import load_model  # Keras, after its backend is chosen

        return load_model(self.record, self.folder / WEIGHTS)

    def plot(self, name: str = "curves") -> Chart:
        """Returns a chart by name: curves, confusion, reliability, classes, weights, or misclassified.

        misclassified shows test images: it opens the test split once more, which the record logs.

        Raises:
            UsageError: the run has no such chart.
        """
        test = self.record.test if name == "misclassified" else None
        drawn = charts(self.record, self._mistakes(test) if test else self._no_images())
        if name not in drawn:
            raise UsageError("A chart is one that the run has.", f"{name!r}", nearest(name, drawn))
        return Chart(drawn[name], self.run_id)

    def load_validation(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Loads the validation split: images (N, H, W, C) and labels (N,).

        Raises:
            UsageError: the run has none, or the data set cannot be had.
        """
        split = load(self.config).validation
        if split is None:
            raise UsageError("A run has a validation split.", f"{self.run_id} without", "Train with validation_size.")
        return split.images, split.labels

    def export(
        self, saved_models_dir: str | Path | None = None, *, net: str | None = None, trust_code: bool = False
    ) -> Exported:
        """Exports the run as a SavedModel for TF Serving, or returns its export, if it is there.

        Args:
            saved_models_dir: where <run id>/<version>/ is written; None: where the run's settings say.
            net: as in `load_model`.
            trust_code: as in `load_model`.

        Raises:
            UsageError: the run is not finished, has no weights, the net's Python may not run, or TensorFlow is missing.
            RuntimeError: the SavedModel does not answer as the model does.
        """
        there = self.record.export and self.record.export.path
        if saved_models_dir is None and there and Path(there).exists():
            return Exported(Path(there))
        allow_code(self.config, net, trust_code=trust_code)
        choose_backend()
        export = export_run(self.folder, expanded(saved_models_dir) if saved_models_dir else None)
        self.record = read_record(self.folder / RECORD)
        if export.path is None:
            raise UsageError("A run is exported by TensorFlow.", export.reason)
        return Exported(Path(export.path))

    def _no_images(self) -> NDArray[np.uint8]:
        return np.empty((0, *self.record.data.image_shape), np.uint8)

    def _mistakes(self, evaluation: Evaluation) -> NDArray[np.uint8]:
        """Opens the test split for the pictures of the drawn mistakes, (M, H, W, C)."""
        record = self.record
        sealed = load_test_split(
            replace(record.data, name=record.config.dataset),
            manual_dir=record.config.manual_dir,
            data_dir=record.config.data_dir,
        )
        test = sealed.open(purpose="pictures in a notebook", epoch=record.selected_epoch or 0)
        self.record = replace(record, openings=(*record.openings, *sealed.openings))
        write_record(self.record, self.folder / RECORD)
        return test.images[[mistake.index for mistake in drawn_mistakes(evaluation)]]

    def __repr__(self) -> str:
        return f"Run({self._headline()})"

    def _repr_html_(self) -> str:
        shown = [self.plot("curves")] if len(self.record.history) > 1 else []
        return page(self._headline(), self.scores, *shown)

    def _headline(self) -> str:
        test = self.record.test
        if test is None:
            return f"{self.run_id}: {self.record.message or self.status}"
        low, high = test.interval
        return (
            f"{self.run_id}: {100 * test.accuracy:.2f} % of {test.count:,} test images "
            f"(95 % {100 * low:.2f} to {100 * high:.2f})"
        )


def train_model(config: TrainConfig | None = None, *, model: "keras.Model | None" = None, **settings: Any) -> Run:
    """Trains, measures, reports and exports one run, or what is left of it; never trains a finished one twice.

    Args:
        config: all settings at once; else those of the recipe that is named, or the default one.
        model: a Keras model of your own in the place of a net, of the functional or the sequential API, from pixels (0
            to 255) to logits, of layers of Keras alone. It stays as it is: what is trained begins with its weights.
            Without `norm` and a config its norms are kept, if all are one that kernorm knows; with either they are
            swapped to that norm where they are another one, and "none" removes them. The run is known by its
            get_config() and its weights; names of layers that Keras gave, such as dense_7, are numbered anew.
        settings: fields of TrainConfig, which override the config's or the recipe's.

    Every epoch is logged: `logging.basicConfig(level=logging.INFO)` in a script shows them as they end.

    Returns:
        The run.

    Raises:
        UsageError: a setting, the model, or what lies in the run's folder, is wrong.
        RuntimeError: a penalty is not in the loss as configured.
    """
    own_norms = model is not None and config is None and "norm" not in settings
    given = config_of(config, settings, own_norms=own_norms)
    if model is not None:
        if "net" in settings:
            raise UsageError("A run is on a net or on a model.", f"net={given.net!r} and model", "Give one of them.")
        choose_backend()
        from kernorm.nets.brought import with_model  # Keras, after its backend is chosen

        given = with_model(given, model, keep_norms=own_norms)
        require_used([given], settings)
    record = train(given)
    return Run(given.reports_dir / "runs" / record.run_id, record)


def load_run(path: str | Path) -> Run:
    """Loads a run from its folder, reports/runs/<run id>.

    Raises:
        UsageError: there is no record, or it is damaged.
    """
    folder = expanded(path)
    return Run(folder, read_record(folder / RECORD))


def list_runs(reports_dir: str | Path = "reports") -> pd.DataFrame:
    """Returns a row a run under `reports_dir`, the newest first: settings, status, test scores, studies, folder.

    The folder of a run that has none of its own is that of a study that holds its record.
    """
    folder = expanded(reports_dir)
    lines = list_lines(folder)
    rows = [
        {
            **{name: line.settings.get(name) for name in _SETTINGS},
            **{name: getattr(line, name) for name in _LISTED},
            "folder": str(folder / line.path),
        }
        for line in lines
    ]
    index = pd.Index([line.run for line in lines], name="run_id")
    return pd.DataFrame(rows, index=index, columns=[*_SETTINGS, *_LISTED, "folder"])


def _scores(evaluation: Evaluation) -> dict[str, float]:
    low, high = evaluation.interval
    return {
        "images": evaluation.count,
        "errors": evaluation.errors,
        "accuracy": evaluation.accuracy,
        "low": low,
        "high": high,
        **{name: float(of(evaluation.confusion)) for name, of in BY_CLASS.items()},
        "cross_entropy": evaluation.cross_entropy,
        "brier": evaluation.brier,
        "ece": evaluation.ece,
    }
