"""CPU time of a training step, kernorm against a plain PyTorch loop, and the memory of the main job.

    python -m tests.benchmarks.training [--rounds 3] [--steps 150] [--threads 1]

Each figure comes from a process of its own; kernorm and PyTorch take turns, and medians over the rounds are printed.
kernorm's side is `fit` as the command runs it: input pipeline, augmentation, penalties' metrics and all. PyTorch's is a
plain eager loop over batches that already lie in memory, without augmentation. Needs the extra `bench`; takes about
ten minutes on two cores.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

from kernorm.config import NetName, NormName, TrainConfig

BATCH = 128
WARM_UP = 30
CASES = [("eva4", "bn", 0.08), ("eva6", "bn", 0.069), ("eva4", "ln", 0.08), ("eva6", "gn", 0.069), ("eva6", "bn", 0.0)]


def cpu_seconds() -> float:
    """Returns user and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def kernorm_step(net: NetName, norm: NormName, dropout: float, steps: int, threads: int | None) -> float:
    """Returns the CPU-seconds a training step takes in `fit`, after WARM_UP steps."""
    from kernorm.system.backend import choose_backend, prepare_backend

    choose_backend()
    import keras

    from kernorm.datasets.batches import Batches
    from kernorm.datasets.dataset import load
    from kernorm.nets.model import build_model_for
    from kernorm.training.answers import fusing_pays
    from kernorm.training.optimizers import build_optimizer
    from kernorm.training.schedules import schedule_tables

    config = TrainConfig(
        net=net,
        norm=norm,
        dropout=dropout,
        batch_size=BATCH,
        threads=threads,
        train_size=(WARM_UP + steps) * BATCH,
        l2=1e-4,
    )
    prepare_backend(config)
    data = load(config)
    batches = Batches(data.train.images, data.train.labels, config)
    model = build_model_for(config, data.info, fused=fusing_pays(config, data.info.train))
    model.compile(
        optimizer=build_optimizer(config, *schedule_tables(config, batches.num_batches)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True), "accuracy"],
        jit_compile=False,
    )
    marks = {}

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            if batch in (WARM_UP - 1, WARM_UP + steps - 1):
                marks[batch] = cpu_seconds()

    model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[Clock()])
    begun, ended = marks.values()
    return (ended - begun) / steps


def torch_step(net: NetName, norm: NormName, dropout: float, steps: int, threads: int | None) -> float:
    """Returns the CPU-seconds a training step takes in an eager PyTorch loop, after WARM_UP steps."""
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    model = torch_net(torch.nn, net, norm, dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=2e-4)
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    begun = 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            begun = cpu_seconds()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return (cpu_seconds() - begun) / steps


def torch_net(nn, net: NetName, norm: NormName, dropout: float):  # noqa: ANN001, ANN201
    """Builds the published module."""

    def normed(channels: int):  # noqa: ANN202
        if norm == "bn":
            return nn.BatchNorm2d(channels)
        return nn.GroupNorm(1 if norm == "ln" else 4, channels)

    def drop() -> list:
        return [nn.Dropout(dropout)] if dropout else []

    def first(i: int, o: int) -> list:
        return [nn.Conv2d(i, o, 3, bias=False), normed(o), nn.ReLU(), *drop()]

    def second(i: int, o: int) -> list:
        return [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.ReLU(), normed(o)]

    def point(i: int, o: int):  # noqa: ANN202
        return nn.Conv2d(i, o, 1, bias=False)

    if net == "eva4":
        blocks = [*first(1, 14), *first(14, 30), point(30, 10), nn.MaxPool2d(2), *first(10, 14), *first(14, 15)]
        blocks += [*first(15, 15), nn.AvgPool2d(6), point(15, 15), nn.ReLU(), normed(15), *drop(), point(15, 10)]
    else:
        blocks = [*second(1, 8), *drop(), *second(8, 8), *drop(), nn.MaxPool2d(2), *second(8, 8), *drop()]
        blocks += [*second(8, 16), *drop(), nn.MaxPool2d(2), *second(16, 16), *drop(), *second(16, 16)]
        blocks += [nn.MaxPool2d(2), *drop(), nn.AdaptiveAvgPool2d(1), point(16, 10)]
    return nn.Sequential(*blocks, nn.Flatten())


SIDES: dict[str, Callable[..., float]] = {"kernorm": kernorm_step, "torch": torch_step}


def measured(side: str, case: tuple, steps: int, threads: int | None) -> float:
    """Runs one side of a case in a process of its own; returns CPU-seconds per 1,000 images."""
    command = [sys.executable, "-m", "tests.benchmarks.training", "--side", side, "--case", json.dumps(case)]
    command += ["--steps", str(steps), *(["--threads", str(threads)] if threads else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) / BATCH * 1000


def main_job_memory() -> float:
    """Runs one epoch of the main job and returns its peak memory in GB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kernorm.train", "--norm", "ln", "--l2", "0.0066", "--epochs", "1"]
        subprocess.run(
            [*command, "--reports-dir", folder, "--saved-models-dir", f"{folder}/models"],
            check=True,
            capture_output=True,
        )
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(SIDES[asked.side](*asked.case, asked.steps, asked.threads))
        return
    print(f"peak memory of the main job (one epoch of it): {main_job_memory():.2f} GB")
    print("CPU-seconds (user+sys) per 1,000 images, median (lowest to highest)")
    print(f"{'net':5} {'norm':4} {'dropout':>7}  {'kernorm':>22}  {'PyTorch eager':>22}  ratio")
    for case in CASES:
        found: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(asked.rounds):
            for side, values in found.items():
                values.append(measured(side, case, asked.steps, asked.threads))
        cells = [f"{statistics.median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in found.values()]
        ratio = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
        print(f"{case[0]:5} {case[1]:4} {case[2]:7g}  {cells[0]:>22}  {cells[1]:>22}  {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
