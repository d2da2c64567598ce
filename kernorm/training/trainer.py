"""Computes one run in its folder: builds, proves the penalty, fits or resumes, measures. train.py calls it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from kernorm.config import TrainConfig
from kernorm.datasets.batches import EVALUATION_BATCH, Batches
from kernorm.datasets.dataset import Dataset, Split, load
from kernorm.nets.penalties import measure, prove
from kernorm.nets.weights import save_weights
from kernorm.records.history import write_history
from kernorm.records.jsonl import JsonLines
from kernorm.records.record import CHECKPOINT, RECORD, REVISION, WEIGHTS, Epoch, Opening, Record, write_record
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.progress import RunProgress
from kernorm.stats.scores import evaluate
from kernorm.system.backend import prepare_backend
from kernorm.system.machine import peak_memory
from kernorm.training import checkpoint
from kernorm.training.answers import Logits, compiled_model, count_parameters
from kernorm.training.averages import require_forgetting, use_averages
from kernorm.training.callbacks import Diverged, RunLog, TrainingState
from kernorm.training.diagnostics import Watch, layer_table, prune_table, pruned_logits
from kernorm.training.environment import describe_environment, elsewhere
from kernorm.training.interruptible import fit, predict
from kernorm.training.losses import class_weights, rest_of
from kernorm.training.schedules import schedule_tables
from kernorm.training.trackers import trackers
from kernorm.training.tracking import Membership

_HISTORY = TypeAdapter(list[Epoch])
_OPENINGS = TypeAdapter(list[Opening])
# Accesses to the test split since the checkpoint, where an epoch ends without one: of populations.
LOOKS = "looks.jsonl"
_LOOKS = JsonLines(Opening)


class Trainer:
    """One run in its folder, from data to the measured record.

    Args:
        config: of the run.
        folder: the run's.
        data: of the config, where it is loaded already.

    Raises:
        UsageError: the config does not fit the data or the net, or the checkpoint is damaged or another run's.
        RuntimeError: a penalty is not in the loss as configured.
    """

    def __init__(self, config: TrainConfig, folder: Path, data: Dataset | None = None) -> None:
        prepare_backend(config)
        self.config, self.folder = config, folder
        self.data = data or load(config)
        self.batches = Batches(self.data.train.images, self.data.train.labels, config)
        self.tables = schedule_tables(config, self.batches.num_batches)
        require_forgetting(config, len(self.tables[0]))
        self.class_weights = class_weights(config, self.data.train.labels, len(self.data.info.labels))
        self.model = compiled_model(config, self.data.info, self.tables, self.class_weights)
        self.monitored = "test" if config.select == "test" else "validation" if self.data.validation else "none"
        self.watch = Watch(self.model, config, self.data.train.images)
        penalty = measure(self.model, config)
        own, watched = self.watch.own.measure(), self.watch.measure()
        first = Epoch(epoch=0, l1_penalty=penalty.l1, l2_penalty=penalty.l2, own_losses=own, watched=watched)
        self.reached = TrainingState(history=[first])
        self._noted = 0
        self.record = Record(
            run_id=folder.name,
            revision=REVISION,
            status="running",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            data=self.data.info,
            environment=describe_environment(config),
            parameters=count_parameters(self.model.trainable_variables),
            parameters_total=count_parameters(self.model.weights),
            penalty_proof=self._prove(),
            monitored=self.monitored,
        )

    def _prove(self) -> tuple[float, float]:
        """Compares the penalty in the loss of one batch with the formula."""
        images, labels = self.batches[0]
        return prove(self.model, self.config, images, labels, self.watch.own.of(images), self.class_weights)

    @property
    def last(self) -> int:
        """The epoch after which this command ends."""
        end = min(self.config.epochs, self.config.stop_after or self.config.epochs)
        return self.reached.history[-1].epoch if self.stopped else end

    @property
    def stopped(self) -> bool:
        """Tells whether no further epoch is trained, since the last ones were no better."""
        return self.reached.stalled(self.config)

    def announce(self) -> str:
        """Says what is about to be trained, with the penalty measured at step 0."""
        first, info = self.reached.history[0], self.data.info
        found, expected = self.record.penalty_proof or (0.0, 0.0)
        return (
            f"{self.folder.name}: {self.config.net} with {self.config.norm}, {self.record.parameters:,} parameters, "
            f"{info.train:,} training and {info.validation:,} validation images of {info.name}\n"
            f"step 0: l1 penalty {first.l1_penalty:.6f}, l2 penalty {first.l2_penalty:.6f}; "
            f"in the loss {found:.6f}, by formula {expected:.6f}"
            + ("" if first.own_losses is None else f"; the net's own losses {first.own_losses:.6f}")
        )

    def resume(self) -> int:
        """Restores the checkpoint, if there is one; returns the epochs that are done."""
        path = self.folder / CHECKPOINT
        noted = [look for _, look in _LOOKS.read(self.folder / LOOKS) if look]
        if not path.exists():
            self.data.test.openings.extend(noted)
            return 0
        state = checkpoint.load(path)
        checkpoint.require_same(state, path, self.config, self.data.info)
        checkpoint.restore(state, self.model)
        history = _HISTORY.validate_python(state.notes["history"])
        self.reached = TrainingState(history=history, selected=state.notes["selected"], kept=state.kept)
        openings = _OPENINGS.validate_python(state.notes["openings"])
        self.data.test.openings.extend([*openings, *(look for look in noted if look not in openings)])
        done, now = history[-1].epoch, self.record.environment
        before = elsewhere(self.folder / RECORD, now, done)
        self.record = replace(self.record, started=state.notes["started"], elsewhere=before)
        return done

    def fit(self, done: int, member: Membership | None = None) -> None:
        """Trains the epochs that are left, up to `stop_after`; a diverged loss raises Diverged. `member` is shown."""
        counts = {"epochs": self.config.epochs, "steps_per_epoch": self.batches.num_batches, "done": done}
        with RunProgress(**counts, rest=rest_of(self.config)) as progress:
            progress.line(self.announce() + (f"\nresumed after epoch {done}" if done else ""))
            if done >= self.last:
                return
            write_history(self.reached.history, self.folder / "history.csv")
            log = RunLog(
                config=self.config,
                reached=self.reached,
                batches=self.batches,
                tables=self.tables,
                folder=self.folder,
                monitored=self.monitored,
                watch=self.watch,
                save=self._after_epoch,
                progress=progress,
            )
            # TensorFlow traces a step twice if the first time makes variables, such as momenta.
            self.model.optimizer.build(self.model.trainable_variables)
            with trackers(self.config, self.folder.name, self.folder, member) as others:
                fit(
                    self.model,
                    self.batches,
                    initial_epoch=done,
                    epochs=self.last,
                    shuffle=False,
                    callbacks=[*others, log],
                    validation_data=self.open_monitored_split(),
                    validation_batch_size=EVALUATION_BATCH,
                )

    def open_monitored_split(self) -> tuple[NDArray, NDArray] | None:
        """Returns images and labels of the split that every epoch ends with, or None; of test, the access is logged."""
        if self.monitored == "test":
            return self._open_test("selection", self.reached.history[-1].epoch + 1)
        return tuple(self.data.validation) if self.data.validation else None  # type: ignore[return-value]

    def _open_test(self, purpose: str, epoch: int) -> Split:
        return self.data.test.open(purpose=purpose, epoch=epoch)

    def save(self, model: keras.Model) -> None:
        """Writes the checkpoint and the record so far."""
        notes = {
            "identity": self.config.identity,
            "data": self.data.info.sha256,
            "started": self.record.started,
            "history": _HISTORY.dump_python(self.reached.history, mode="json"),
            "selected": self.reached.selected,
            "openings": _OPENINGS.dump_python(self.data.test.openings, mode="json"),
        }
        checkpoint.save(self.folder / CHECKPOINT, model, self.reached.kept, notes)
        write_record(self.so_far(), self.folder / RECORD)
        (self.folder / LOOKS).unlink(missing_ok=True)
        self._noted = len(self.data.test.openings)

    def note_looks(self) -> None:
        """Appends the accesses to the test split since the last save to a file, which outlives a killed process."""
        new = self.data.test.openings[self._noted :]
        if new:
            with (self.folder / LOOKS).open("ab") as file:
                file.write(b"".join(map(_LOOKS.line, new)))
        self._noted += len(new)

    def _after_epoch(self, model: keras.Model) -> None:
        """Saves the state, then logs the next epoch's test evaluation in advance, if there is one."""
        self.save(model)
        self.announce_look()

    def announce_look(self) -> None:
        """Logs the next epoch's test evaluation in advance, if there is one."""
        epoch = self.reached.history[-1].epoch
        if self.monitored == "test" and epoch < self.last:
            self._open_test("selection", epoch + 1)

    def so_far(self) -> Record:
        """Returns the record with what has been reached."""
        history = tuple(self.reached.history)
        return replace(
            self.record,
            environment=replace(self.record.environment, peak_memory=peak_memory()),
            history=history,
            selected_epoch=self.reached.selected or None,
            stopped_epoch=history[-1].epoch if self.stopped else None,
            openings=tuple(self.data.test.openings),
            seconds=sum(row.seconds for row in history),
            cpu_seconds=sum(row.cpu_seconds for row in history),
        )

    def diverged(self, error: Diverged) -> Record:
        """Returns and writes the record of a run that diverged."""
        self.record = replace(self.so_far(), status="diverged", message=str(error))
        write_record(self.record, self.folder / RECORD)
        (self.folder / LOOKS).unlink(missing_ok=True)
        return self.record

    def measure(self) -> tuple[Record, NDArray[np.uint8]]:
        """Measures the selected weights on every split; see `scored`."""
        test = self.final_look()
        test_last = self._predict(test.images) if self.selects_on_test else None
        self.keep_selected()
        validation = self.data.validation
        return self.scored(
            Logits(
                train=self._predict(self.data.train.images),
                validation=self._predict(validation.images) if validation else None,
                test=self._predict(test.images),
                test_last=test_last,
                pruned=pruned_logits(self.model, self.probe[1].images, EVALUATION_BATCH),
            ),
            test,
        )

    def _predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return predict(self.model, images, EVALUATION_BATCH)

    @property
    def probe(self) -> tuple[str, Split]:
        """The split that pruning is measured on, and its name."""
        return ("validation", self.data.validation) if self.data.validation else ("train", self.data.train)

    @property
    def selects_on_test(self) -> bool:
        """Tells whether the selected epoch is the best on the test split, so that the last one is evaluated too."""
        return self.config.select == "test"

    def final_look(self) -> Split:
        """Opens the test split for the selected epoch and, if test selects, the last; checks the penalty before that.

        From here on the model has the averages of its weights, where there are any.
        """
        self.record = replace(self.record, penalty_proof_last=self._prove())
        if self.selects_on_test:
            self._open_test("evaluation of the last epoch", self.reached.history[-1].epoch)
        test = self._open_test("final evaluation", self.reached.selected)
        # Logged before it is used, so that a run killed from here on shows this opening as well.
        self.save(self.model)
        use_averages(self.model)
        return test

    def keep_selected(self) -> None:
        """Puts the selected weights into the model and on disk."""
        if self.reached.kept:
            checkpoint.set_variables(self.model, self.reached.kept)
        save_weights(self.model, self.folder / WEIGHTS)

    def scored(self, logits: Logits, test: Split) -> tuple[Record, NDArray[np.uint8]]:
        """Scores what the selected weights answer.

        Returns:
            The record, not yet finished, and the images (M, H, W, C) of the drawn mistakes that its page shows.
        """
        validation, (split, probe) = self.data.validation, self.probe
        measured = evaluate(logits.test, test.labels, "test")
        self.record = replace(
            self.so_far(),
            train=evaluate(logits.train, self.data.train.labels, "train", keep_mistakes=False),
            validation=evaluate(logits.validation, validation.labels, "validation")
            if validation and logits.validation is not None
            else None,
            test=measured,
            test_last=None if logits.test_last is None else evaluate(logits.test_last, test.labels, "test"),
            layers=layer_table(self.model, self.config),
            pruned=prune_table(self.model, logits.pruned, probe.labels, split),
        )
        return self.record, test.images[[mistake.index for mistake in drawn_mistakes(measured, self.config)]]
