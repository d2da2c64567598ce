"""The settings of a run, as the functions for Python users take them: all at once, by name, or both."""

from dataclasses import replace
from typing import Any

from kernorm.config import TrainConfig
from kernorm.errors import UsageError, with_type
from kernorm.recipes import recipe_of_settings, require_settings
from kernorm.unused import require_recipe, require_used


def config_of(config: TrainConfig | None, settings: dict[str, Any], *, own_norms: bool = False) -> TrainConfig:
    """Returns a config with single fields replaced, or the named recipe's.

    Args:
        config: all settings at once.
        settings: single ones.
        own_norms: a model's own norms are not known yet, so that whether a setting is used is left to the caller.

    Raises:
        UsageError: a name or a value is wrong.
    """
    require_settings(settings)
    if not isinstance(config, TrainConfig | None):
        raise UsageError(
            "All settings at once are a TrainConfig.",
            with_type(config),
            'Give single ones by name, such as norm="ln", or kernorm.TrainConfig(norm="ln").',
        )
    if config is None:
        given = recipe_of_settings(settings)
    elif "recipe" in settings:
        raise UsageError(
            "A recipe is a set of values, which a config has already.",
            f"recipe={settings['recipe']!r} and a config",
            "Give kernorm.recipe(…) as the config.",
        )
    else:
        given = replace(config, **settings)
    require_recipe(given)
    # What a config has besides may belong to what it was before.
    require_used([given], () if own_norms else settings)
    return given
