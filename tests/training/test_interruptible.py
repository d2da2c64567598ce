import logging
import signal

import keras
import numpy as np
import pytest

from kernorm import train as command
from kernorm.config import TrainConfig
from kernorm.records.record import read_record
from kernorm.reporting.progress import RunProgress
from kernorm.system import cli
from kernorm.training.interruptible import predict
from kernorm.training.run import train
from kernorm.training.trainer import Trainer
from tests.builders import TINY_RUN, Deleted

pytestmark = pytest.mark.usefixtures("small_net", "boxes_cache")


@pytest.fixture
def tiny(tmp_path):
    return TrainConfig(**{**TINY_RUN, "reports_dir": tmp_path / "reports"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_is_obeyed_wherever_it_comes(tiny, monkeypatch, number, code):
    step = RunProgress.step

    def interrupted_step(self, epoch, batch, text):
        step(self, epoch, batch, text)
        if (epoch, batch) == (1, 0):
            Deleted(number)

    monkeypatch.setattr(RunProgress, "step", interrupted_step)
    words = ["--batch-size", "40"]
    assert cli.run(TrainConfig, lambda _: train(tiny) and 0, prog=command.PROG, argv=words) == code
    record = read_record(tiny.reports_dir / "runs" / tiny.run_id / "record.json")
    assert (record.status, record.history[-1].epoch) == ("running", 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_prediction_is_interrupted_between_two_steps(tiny, tmp_path, monkeypatch):
    trainer = Trainer(tiny, tmp_path)
    images = trainer.data.train.images
    whole = trainer._predict(images)
    made, steps = trainer.model.predict_function, []

    def interrupted_step(iterator):
        steps.append(len(steps))
        Deleted(signal.SIGINT)
        return made(iterator)

    monkeypatch.setattr(trainer.model, "predict_function", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        trainer._predict(np.concatenate([images] * 4))
    assert steps == [0]
    monkeypatch.undo()
    np.testing.assert_array_equal(trainer._predict(images), whole)


def test_many_models_in_one_process_are_traced_without_a_warning_of_tensorflow(caplog):
    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addHandler(caplog.handler)
    try:
        for size in range(1, 9):
            predict(keras.Sequential([keras.Input((size,)), keras.layers.Dense(1)]), np.zeros((3, size)), 2)
        assert not caplog.records
        tensorflow.warning("5 out of the last 5 calls to f triggered tf.function retracing.")  # a user's own
        assert caplog.records
    finally:
        tensorflow.removeHandler(caplog.handler)
