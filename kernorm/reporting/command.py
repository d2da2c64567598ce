"""The command, or the call, that trains a run once more, as its page shows it."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from kernorm.config import TrainConfig
from kernorm.nets.source import net_file
from kernorm.recipes import recipe
from kernorm.unused import of_recipe, unused_settings


def command(config: TrainConfig, backend: str = "tensorflow", run_id: str | None = None) -> str:
    """Returns the command line that trains this config: its recipe, and each flag that differs from the recipe's.

    An own net is named by the file that its run keeps; for a model that was brought from Python it is the call.
    """
    if config.net_weights is not None:
        given = {"recipe": config.recipe} if config.recipe != TrainConfig.recipe else {}
        differing = _differing(dataclasses.replace(config, net="eva4", net_source=None, net_weights=None))
        differing = {name: value for name, value in differing.items() if name != "net"} | {"norm": config.norm}
        shown = {name: str(value) if isinstance(value, Path) else value for name, value in differing.items()}
        values = "".join(f", {name}={value!r}" for name, value in (given | shown).items())
        return f"kernorm.train_model(model={config.net}{values})"
    config = with_kept_net(config, config.reports_dir, run_id or config.run_id)
    words = ["python", "-m", "kernorm.train", *recipe_words(config)]
    words += [word for name, value in _differing(config).items() for word in flag_words(name, value)]
    prefix = "" if backend == "tensorflow" else f"KERAS_BACKEND={backend} "
    return prefix + shlex.join(words)


def with_kept_net(config: TrainConfig, reports_dir: Path, run_id: str) -> TrainConfig:
    """Returns the config with an own net named by the file that a run under `reports_dir` keeps."""
    if config.net_source is None:
        return config
    file = reports_dir / "runs" / run_id / net_file(config)
    return dataclasses.replace(config, net=f"{file}:{config.net}", net_source=None)


def recipe_words(config: TrainConfig) -> list[str]:
    """Returns the words that name a config's recipe; none for the default one."""
    return ["--recipe", config.recipe] if config.recipe != TrainConfig.recipe else []


def _differing(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings that differ from those of the config's recipe; those that do nothing are refused there."""
    base = recipe(config.recipe)
    config = of_recipe(config, unused_settings(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value != getattr(base, name)}


def flag_words(name: str, value: object) -> list[str]:
    """Returns the words of a command line that set a field to a value."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
