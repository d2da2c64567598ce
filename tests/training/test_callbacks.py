from types import SimpleNamespace

import keras
import pytest

from kernorm.config import TrainConfig
from kernorm.records.record import Epoch
from kernorm.training.callbacks import TrainingState


def stop_of_keras(accuracies, config):
    """The epoch, from 1, after which Keras' own callback stops; None if it does not."""
    theirs = keras.callbacks.EarlyStopping(
        monitor="val_accuracy", mode="max", patience=config.patience, min_delta=config.min_delta
    )
    theirs.set_model(SimpleNamespace(stop_training=False))
    theirs.on_train_begin()
    for epoch, accuracy in enumerate(accuracies):
        theirs.on_epoch_end(epoch, {"val_accuracy": accuracy})
        if theirs.model.stop_training:
            return epoch + 1
    return None


@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("min_delta", [0.0, 0.02])
def test_training_stops_where_keras_would_and_keeps_the_best_epoch(rng, patience, min_delta):
    config = TrainConfig(patience=patience, min_delta=min_delta, schedule="constant")
    stops = set()
    for _ in range(30):
        # Whole hundredths, so that there are ties.
        accuracies = [round(0.5 + 0.01 * epoch + 0.01 * int(rng.integers(-4, 5)), 2) for epoch in range(15)]
        state, stopped = TrainingState(history=[Epoch(epoch=0, l1_penalty=0.0, l2_penalty=0.0)]), None
        for epoch, accuracy in enumerate(accuracies, 1):
            state.add(Epoch(epoch=epoch, l1_penalty=0.0, l2_penalty=0.0, val_accuracy=accuracy), config.select)
            if state.stalled(config):
                stopped = epoch
                break
        assert stopped == stop_of_keras(accuracies, config)
        assert state.selected == 1 + accuracies.index(max(accuracies[:stopped]))
        stops.add(stopped)
    assert len(stops) > 2


def test_without_patience_nothing_stops():
    state = TrainingState(history=[Epoch(epoch=n, l1_penalty=0.0, l2_penalty=0.0, val_accuracy=0.1) for n in range(9)])
    assert not state.stalled(TrainConfig(select="validation"))
