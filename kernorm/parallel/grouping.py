"""Which runs can be members of one population, and how wide it is; imports neither Keras nor JAX."""

import json
import math
from collections.abc import Sequence

from kernorm.config import TrainConfig

# Populations are padded to these, so that few programs are compiled and little padding is wasted.
WIDTHS = (1, 2, 4, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
# What may differ between the members of a population: values of its program, or of the data fed to it.
DYNAMIC = (
    "seed",
    "initializer",
    "l1",
    "l2",
    "penalize",
    "penalty_at",
    "learning_rate",
    "momentum",
    "base_momentum",
    "schedule",
    "pct_start",
    "div_factor",
    "final_div_factor",
    "anneal",
    "step_size",
    "step_gamma",
    "step_after",
    "warmup",
    "patience",
    "min_delta",
    "rotation",
    "shift",
    "zoom",
    "shear",
    "flip",
    "elastic",
    "elastic_sigma",
    "brightness",
    "contrast",
    "recipe",
    "threads",
)


def static_key(config: TrainConfig) -> str:
    """Returns what runs must have in common to be members of one population."""
    values = {name: value for name, value in config.identity.items() if name not in DYNAMIC}
    # Not the values themselves, but whether there are any: without, the program has another form.
    values["momentum"] = max(config.momentum, config.base_momentum or 0.0) > 0
    mapped = any((config.rotation, config.shift, config.zoom, config.shear)) or config.flip != "none"
    values["moved"], values["elastic"] = mapped or config.elastic > 0, config.elastic > 0
    values["toned"] = config.brightness > 0 or config.contrast > 0
    return json.dumps(values, sort_keys=True)


def grouped(configs: Sequence[TrainConfig]) -> list[list[TrainConfig]]:
    """Sorts configs into groups that can be one population, both in the order in which they came."""
    groups: dict[str, list[TrainConfig]] = {}
    for config in configs:
        groups.setdefault(static_key(config), []).append(config)
    return list(groups.values())


def padded(count: int, limit: int, devices: int = 1) -> int:
    """Returns the width of a population of `count` members, at most `limit`: one of WIDTHS, on every device as many."""
    fitting = next((width for width in WIDTHS if width >= count), count)
    return math.ceil(max(min(fitting, limit), count) / devices) * devices
