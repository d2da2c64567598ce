"""Recipes by name: sets of values for TrainConfig, and nothing else. Its own defaults are the recipe `default`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from kernorm.config import INTERNAL, TrainConfig
from kernorm.errors import UsageError, nearest

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The highest accuracy of those tried on validation images; see reports/recipes_tried.csv.
    "best": {
        "net": "eva4",
        "epochs": 40,
        "batch_size": 64,
        "optimizer": "muon",
        "learning_rate": 0.03,
        "momentum": 0.95,
        "clip_ratio": None,
        "ema": 0.999,
        "rotation": 15.0,
        "shift": 0.1,
        "zoom": 0.15,
        "shear": 10.0,
    },
    # Fewer epochs: a higher rate that rises early, averaged weights, and images that vary less.
    "quick": {
        "net": "eva4",
        "epochs": 5,
        "batch_size": 64,
        "optimizer": "muon",
        "learning_rate": 0.03,
        "momentum": 0.95,
        "clip_ratio": None,
        "pct_start": 0.15,
        "ema": 0.99,
        "rotation": 5.0,
        "shift": 0.05,
    },
    # He et al. 2016 (arXiv:1512.03385), section 4.2: batch 128, a rate of 0.1 divided by 10 after 32,000 and 48,000 of
    # 64,000 steps, momentum 0.9, weight decay 1e-4 (PyTorch's, hence l2 5e-5), shifts by up to 4 of 32 pixels and
    # mirrored halves, 45,000 training and 5,000 validation images. That is 352 steps an epoch: drops after 91 and 136
    # of 181. What is shifted in is black; theirs was the mean. They drew whole pixels evenly; here the outermost two
    # come half as often. Theirs decays scales and offsets too, as --penalize all does.
    "cifar": {
        "net": "resnet20",
        "epochs": 181,
        "batch_size": 128,
        "l2": 5e-5,
        "learning_rate": 0.1,
        "nesterov": False,
        "clip_ratio": None,
        "schedule": "step",
        "step_size": 45,
        "step_gamma": 0.1,
        "step_after": 46,
        "initializer": "he_normal",
        "rotation": 0.0,
        "shift": 0.125,
        "flip": "horizontal",
        "interpolation": "nearest",
        "validation_size": 5000,
    },
    # Small sets of photos: mirrored, with light that varies and edges mirrored outward, and a net with shortcuts.
    "photos": {
        "net": "resnet8",
        "epochs": 60,
        "batch_size": 32,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.05,
        "clip_ratio": None,
        "schedule": "cosine",
        "warmup": 0.1,
        "label_smoothing": 0.1,
        "initializer": "he_normal",
        "rotation": 10.0,
        "shift": 0.1,
        "zoom": 0.2,
        "flip": "horizontal",
        "fill": "reflect",
        "brightness": 0.2,
        "contrast": 0.2,
    },
    # TSAI EVA4 session 6, as claimed; facts of each value: notebook "Modularized_FINAL".
    "eva4": {
        "net": "eva4",
        "epochs": 40,
        "batch_size": 128,
        "learning_rate": 0.01,
        "momentum": 0.95,
        "base_momentum": 0.85,
        "nesterov": False,
        "clip_ratio": None,
        "dropout": 0.08,
        "rotation": 10.0,
        "shift": 0.0,
        "interpolation": "nearest",
        "validation_size": 0,
        "select": "test",
    },
    # EVA6 session 6, as claimed; facts of each value: notebook "MultipleNorms".
    "eva6": {
        "net": "eva6",
        "epochs": 25,
        "batch_size": 128,
        "learning_rate": 0.04104,
        "nesterov": False,
        "clip_ratio": None,
        "schedule": "step",
        "step_size": 2,
        "step_gamma": 0.09,
        "step_after": 12,
        "dropout": 0.069,
        "shift": 0.0,
        "interpolation": "nearest",
        "validation_size": 0,
        "select": "test",
    },
}


def recipe(name: str, **values: Any) -> TrainConfig:
    """Returns the config of a recipe, with single values overridden.

    Raises:
        UsageError: there is no such recipe or setting, or a value is refused.
    """
    require_settings(values)
    return TrainConfig(**{**recipe_values(name), "recipe": name, **values})


def require_settings(names: Iterable[str]) -> None:
    """Refuses a name that is no setting of a run.

    Raises:
        UsageError: there is one.
    """
    known = [field.name for field in fields(TrainConfig)]
    if unknown := next((name for name in names if name not in known), None):
        shown = [name for name in known if name not in INTERNAL]
        raise UsageError("A setting is a field of TrainConfig.", f"{unknown!r}", nearest(unknown, shown))


def recipe_values(name: str) -> dict[str, Any]:
    """Returns the values of a recipe.

    Raises:
        UsageError: there is no such recipe.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise UsageError("--recipe takes a known name.", f"{name!r}", nearest(name, RECIPES))
    return RECIPES[name]


def recipe_of_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """Returns the config of these fields of TrainConfig: of the recipe among them, which the others override.

    Raises:
        UsageError: as `recipe`.
    """
    values = dict(settings)
    return recipe(values.pop("recipe", TrainConfig.recipe), **values)


def recipe_of_words(words: list[str]) -> TrainConfig:
    """Returns the config of the recipe that a command line names last, which its other flags then override."""
    return recipe(recipe_named(words))


def recipe_named(words: list[str]) -> str:
    """Returns the recipe that a command line names last."""
    named = TrainConfig.recipe
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag == "--recipe":
            named = value if equals else following
    return named


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
