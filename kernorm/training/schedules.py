"""Learning rate and momentum over the steps of a run, as PyTorch or Keras computes them, in one table each.

A table is a plain array with a value a step, so it can be plotted, compared with PyTorch's digits, and read on the
device by a single gather.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig

Table = NDArray[np.float32]


def schedule_tables(config: TrainConfig, steps_per_epoch: int) -> tuple[Table, Table]:
    """Returns the learning rate and the momentum of every step, (epochs · steps_per_epoch,) each."""
    steps = config.epochs * steps_per_epoch
    return tuple(np.asarray(table, np.float32) for table in SCHEDULES[config.schedule](config, steps, steps_per_epoch))  # type: ignore[return-value]


def _constant(config: TrainConfig, steps: int, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(steps, config.peak_rate), np.full(steps, config.momentum)


def _onecycle(config: TrainConfig, steps: int, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Follows torch.optim.lr_scheduler.OneCycleLR; momentum mirrors the rate if `base_momentum` is set."""
    first = config.peak_rate / config.div_factor
    last = first / config.final_div_factor
    base = config.momentum if config.base_momentum is None else config.base_momentum
    # Not before the first nor behind the last step, where PyTorch would divide by zero.
    peak = min(max(config.pct_start * steps - 1, 0.0), float(steps - 1))
    step = np.arange(steps, dtype=np.float64)
    rise = step / peak if peak > 0 else np.ones(steps)
    fall = (step - peak) / max(steps - 1 - peak, 1e-12)
    ease = _EASE[config.anneal]

    def cycle(begin: float, top: float, end: float) -> np.ndarray:
        return np.where(step <= peak, ease(begin, top, rise), ease(top, end, fall))

    return cycle(first, config.peak_rate, last), cycle(config.momentum, base, config.momentum)


def _step(config: TrainConfig, steps: int, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Follows torch.optim.lr_scheduler.StepLR, stepped once an epoch, only after `step_after` epochs."""
    epoch = np.arange(steps) // steps_per_epoch
    drops = np.maximum(epoch - config.step_after, 0) // config.step_size
    return config.peak_rate * config.step_gamma**drops, np.full(steps, config.momentum)


def _cosine(config: TrainConfig, steps: int, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Follows keras.optimizers.schedules.CosineDecay with a warm-up from 0 (Loshchilov & Hutter 2017, equation 5)."""
    warmup = round(config.warmup * (steps if config.warmup < 1 else steps_per_epoch))
    step = np.arange(steps, dtype=np.float64)
    fall = np.maximum(step - warmup, 0) / max(steps - warmup, 1)
    rates = np.where(step < warmup, step / max(warmup, 1), _EASE["cos"](1.0, 0.0, fall))
    return config.peak_rate * rates, np.full(steps, config.momentum)


_EASE: dict[str, Callable[[float, float, np.ndarray], np.ndarray]] = {
    "cos": lambda begin, end, part: end + (begin - end) / 2 * (1 + np.cos(np.pi * part)),
    "linear": lambda begin, end, part: begin + (end - begin) * part,
}
SCHEDULES = {"onecycle": _onecycle, "step": _step, "cosine": _cosine, "constant": _constant}
