"""Tries distillation for a recipe (Hinton et al. 2015, arXiv:1503.02531): a net learns from several like itself.

    python -m tests.benchmarks.distillation reports/runs/eva4-bn-bs64-s?-* --recipe best

The teachers are finished runs of the same training images. The student learns from the mean of their logits on the
same augmented images. There are COPIES of each image, which come again later, so that teachers are asked less often.
Every epoch is judged on validation images by the averaged weights; the test split stays shut.
About 24 CPU-minutes for `best` with five teachers.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets.batches import EVALUATION_BATCH, Batches
from kernorm.datasets.dataset import load
from kernorm.nets.weights import load_model
from kernorm.recipes import recipe
from kernorm.records.record import RECORD, WEIGHTS, read_record
from kernorm.stats.scores import evaluate
from kernorm.training.answers import compiled_model
from kernorm.training.averages import averaged
from kernorm.training.schedules import schedule_tables

# Softens what the teachers and the student answer; how much of the loss it is; augmented copies of each image.
TEMPERATURE, SHARE, COPIES = 3.0, 0.9, 20
# Images (N, H, W, C), labels (N,) and the teachers' mean logits (N, K) of a batch.
Batch = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]


def taught(batches: Batches, teachers: Sequence[keras.Model], epochs: int) -> Iterator[list[Batch]]:
    """Yields the batches of every epoch, shuffled; from epoch COPIES on they are of images that came before."""
    answer = tf.function(lambda images: tf.add_n([net(images, training=False) for net in teachers]) / len(teachers))
    kept: list[Batch] = []
    for epoch in range(epochs):
        if epoch < COPIES:
            batches.epoch = epoch
            pairs = [batches[index] for index in range(batches.num_batches)]
            made = [(images, labels.astype(np.int32), answer(images).numpy()) for images, labels in pairs]
            kept.append(tuple(np.concatenate(part) for part in zip(*made, strict=True)))  # type: ignore[arg-type]
            yield made
        else:
            whole = kept[epoch % COPIES]
            order = np.random.default_rng((batches.seed, epoch)).permutation(len(whole[1]))
            parts = np.array_split(order, np.arange(batches.batch_size, len(order), batches.batch_size))
            yield [(whole[0][part], whole[1][part], whole[2][part]) for part in parts]


def distil(config: TrainConfig, folders: Sequence[Path]) -> None:
    """Trains a student of the runs in some folders, and prints what it reaches after each epoch."""
    keras.utils.set_random_seed(config.seed)
    data = load(config)
    batches = Batches(data.train.images, data.train.labels, config)
    model = compiled_model(config, data.info, schedule_tables(config, batches.num_batches))
    model.optimizer.build(model.trainable_variables)
    teachers = [load_model(read_record(folder / RECORD), folder / WEIGHTS) for folder in folders]

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, labels: tf.Tensor, wanted: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            found = model(images, training=True)
            hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, found)
            soft = tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(wanted / TEMPERATURE), found / TEMPERATURE)
            loss = tf.reduce_mean((1 - SHARE) * hard + SHARE * TEMPERATURE**2 * soft)
        model.optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    images, labels = data.validation or data.train
    for epoch, fed in enumerate(taught(batches, teachers, config.epochs), 1):
        for batch in fed:
            step(*map(tf.constant, batch))
        with averaged(model):
            found = evaluate(model.predict(images, EVALUATION_BATCH, verbose=0), labels, "validation")
        print(
            f"{epoch}/{config.epochs}  validation: {100 * found.accuracy:.2f} %, cross-entropy "
            f"{found.cross_entropy:.4f}  {time.process_time():.0f} CPU-seconds",
            flush=True,
        )


def main() -> int:
    """Distils runs into a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    config = replace(recipe(asked.recipe), seed=asked.seed)
    distil(replace(config, epochs=asked.epochs or config.epochs), asked.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
