"""The first training step of a net in a process of its own, which a user's code or a crash of TensorFlow may end.

Before a run or a study on an own net, and behind `python -m kernorm.net`. The parent needs no Keras. Crashes are real:
in TensorFlow 2.21 with oneDNN the filter gradient of a 1x1 convolution of stride 2 from 3 to 8 channels at 64x64 ends
in "corrupted size vs. prev_size" or SIGSEGV on processors with AVX-512.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from kernorm.config import TrainConfig, to_json
from kernorm.errors import UsageError, one_line
from kernorm.nets.source import trust
from kernorm.records.data import Data
from kernorm.records.record import Layer
from kernorm.system.backend import choose_backend, keras_settings, prepare_backend
from kernorm.system.processes import SHARING, cause_of_death, import_path, out_of_memory_kills

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A net that has done a step: its layers, its parameters, and the seconds of a later step, if one was timed."""

    layers: tuple[Layer, ...]
    parameters: int
    parameters_total: int
    seconds: float | None = None


_DATA = TypeAdapter(Data)
_JOBS = TypeAdapter(list[tuple[TrainConfig, Data]])
_TRIED = TypeAdapter(Tried)


def try_nets(jobs: Sequence[tuple[TrainConfig, Data]], *, timed: int = 0) -> list[Tried]:
    """Builds each net and does its first training step, on random images, one after another in one child process.

    Args:
        jobs: configs with what describes their data.
        timed: steps that are timed after the first one.

    Raises:
        UsageError: a net cannot be built, its first step fails, or the process was ended by a signal.
        RuntimeError: the process failed otherwise; the message is the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="kernorm-") as folder:
        asked, answers = Path(folder, "asked.json"), Path(folder, "answers.jsonl")
        text = json.dumps([(to_json(config), _DATA.dump_python(data, mode="json")) for config, data in jobs])
        asked.write_text(text, encoding="utf-8")
        kills = out_of_memory_kills()
        child = subprocess.run(
            [sys.executable, "-m", __name__, str(asked), str(answers), str(timed)],
            env={**os.environ, **SHARING, "PYTHONPATH": import_path()},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = answers.read_text(encoding="utf-8").splitlines() if answers.exists() else []
    found = [json.loads(line) for line in lines]
    if found and "refused" in found[-1]:
        raise UsageError(*found[-1]["refused"])
    if child.returncode < 0:
        raise _ended(jobs[len(found)][0], jobs[len(found)][1], child.returncode, out_of_memory_kills() > kills)
    if child.returncode or len(found) < len(jobs):
        raise RuntimeError(f"A first step ended with {child.returncode}: " + "\n".join(child.stderr.splitlines()[-20:]))
    return [_TRIED.validate_python(one) for one in found]


def _ended(config: TrainConfig, data: Data, code: int, out_of_memory: bool) -> UsageError:
    """Says what ended a process in the first step of a net, and what helps."""
    cause = cause_of_death(code, begun=True, out_of_memory=out_of_memory)
    fix = "Give a smaller --batch-size."
    if "native code" in cause:
        fix = "Take layers out until it runs, to find the one that does it."
        if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            fix = (
                "That is a fault of TensorFlow, known of 1x1 convolutions of stride 2 from few channels: set "
                "TF_ENABLE_ONEDNN_OPTS=0, or write average pooling and a 1x1 convolution of stride 1."
            )
    shape = "x".join(map(str, data.image_shape))
    received = f"{config.net} with {config.batch_size} images of {shape}, whose process {cause}"
    return UsageError("A net must survive its first training step.", received, fix)


def _child(words: list[str]) -> int:
    """Tries nets and appends a line each; what they print goes to standard error."""
    os.dup2(2, 1)
    asked, answers, timed = Path(words[0]), Path(words[1]), int(words[2])
    jobs = _JOBS.validate_json(asked.read_bytes())
    choose_backend()
    with answers.open("a", encoding="utf-8") as file:
        for config, data in jobs:
            trust(config.net_source)
            try:
                answer = _TRIED.dump_python(_tried(config, data, timed), mode="json")
            except UsageError as error:
                answer = {"refused": (error.rule, error.received, error.fix)}
            except Exception as error:  # whatever a user's layers may raise
                rule, fix = "A net must do a training step.", "Fix it, or give a smaller --batch-size."
                answer = {"refused": (rule, f"{config.net}, {one_line(error)}", fix)}
            print(json.dumps(answer), file=file, flush=True)
            if "refused" in answer:
                break
    return 0


@keras_settings()
def _tried(config: TrainConfig, data: Data, timed: int) -> Tried:
    from kernorm.training.answers import compiled_model, count_parameters  # Keras
    from kernorm.training.diagnostics import layer_table
    from kernorm.training.schedules import schedule_tables

    prepare_backend(config)
    model = compiled_model(config, data, schedule_tables(config, max(1, data.train // config.batch_size)))
    model.optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (config.batch_size, *data.image_shape), np.uint8)
    labels = generator.integers(0, len(data.labels), config.batch_size, np.int32)
    _refuse_probabilities(config, model, images)
    layers = layer_table(model, config)
    model.train_on_batch(images, labels)
    seconds = []
    for _ in range(timed):
        begun = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - begun)
    return Tried(
        layers=layers,
        parameters=count_parameters(model.trainable_variables),
        parameters_total=count_parameters(model.weights),
        seconds=median(seconds) if seconds else None,
    )


def _refuse_probabilities(config: TrainConfig, model: "keras.Model", images: np.ndarray) -> None:
    """Refuses a net whose answers are probabilities, however it makes them."""
    answers = np.asarray(model(images[:8], training=False), np.float64)
    if (answers >= 0).all() and np.allclose(answers.sum(-1), 1, atol=1e-4):
        raise UsageError(
            "A net ends in logits: the loss and the exported model do the softmax.",
            f"{config.net}, whose answers are probabilities",
            "Remove its softmax.",
        )


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
