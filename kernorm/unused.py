"""Settings that a config does not use: those of another norm, schedule, optimizer or augmentation than it has.

They change a run's id, not its result. Whoever gives one expects something of it, so commands and calls refuse it;
what an arm of a study does not use does not make it another arm.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from kernorm.by_layer import layer_settings
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import flag_of
from kernorm.recipes import RECIPES, recipe_values


def _norms(config: TrainConfig) -> set[str]:
    return {config.norm, *layer_settings("norm_at", config.norm_at).values()}


def _moves_pixels(config: TrainConfig) -> bool:
    return any((config.rotation, config.shift, config.zoom, config.shear, config.elastic))


# What each belongs to, in words, and whether a config has that.
_USED: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    "groups": ("--norm gn", lambda config: "gn" in _norms(config)),
    "ghost_batch_size": ("--norm gbn", lambda config: "gbn" in _norms(config)),
    "standardize_kernels": ("a convolution before a norm", lambda config: _norms(config) != {"none"}),
    "nesterov": ("--optimizer sgd and muon", lambda config: config.optimizer != "adamw"),
    **dict.fromkeys(
        ("pct_start", "div_factor", "final_div_factor", "anneal"),
        ("--schedule onecycle", lambda config: config.schedule == "onecycle"),
    ),
    **dict.fromkeys(
        ("step_size", "step_gamma", "step_after"), ("--schedule step", lambda config: config.schedule == "step")
    ),
    "elastic_sigma": ("--elastic", lambda config: config.elastic > 0),
    **dict.fromkeys(("fill", "interpolation"), ("images that are moved, such as by --shift", _moves_pixels)),
}


def unused_settings(config: TrainConfig) -> tuple[str, ...]:
    """Returns the names of settings that do nothing in this config, whatever their value."""
    return tuple(name for name, (_, used) in _USED.items() if not used(config))


def without_unused(config: TrainConfig) -> TrainConfig:
    """Returns the config with the defaults of what it does not use: the same computation."""
    changes: dict[str, Any] = {name: getattr(TrainConfig, name) for name in unused_settings(config)}
    return replace(config, **changes)


def of_recipe(config: TrainConfig, names: Iterable[str]) -> TrainConfig:
    """Returns the config with its recipe's values of these settings."""
    changes: dict[str, Any] = {name: _recipes(config, name) for name in names}
    return replace(config, **changes)


def require_used(configs: Sequence[TrainConfig], names: Collection[str] | None = None) -> None:
    """Refuses a setting that none of these configs uses, unless it has its recipe's value.

    Args:
        configs: of which one is enough.
        names: of the settings that were given; None: any may have been.

    Raises:
        UsageError: there is one.
    """
    for name in dict.fromkeys(name for config in configs for name in unused_settings(config)):
        if any(_USED[name][1](config) for config in configs) or (names is not None and name not in names):
            continue
        for config in configs:
            given = getattr(config, name)
            if given != _recipes(config, name):
                raise UsageError(f"{flag_of(name)} belongs to {_USED[name][0]}.", f"{name}={given!r}", "Remove it.")


def _recipes(config: TrainConfig, name: str) -> Any:
    return RECIPES.get(config.recipe, {}).get(name, getattr(TrainConfig, name))


def require_recipe(config: TrainConfig) -> None:
    """Refuses a config that names no known recipe, or one of whose values it has none.

    Raises:
        UsageError: so.
    """
    values = recipe_values(config.recipe)
    if values and all(getattr(config, name) == getattr(TrainConfig, name) for name in values):
        raise UsageError(
            "A recipe is a set of values, which TrainConfig by itself does not take.",
            f"recipe={config.recipe!r} with none of them",
            f'Write kernorm.recipe("{config.recipe}", …).',
        )


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
