"""The command line that makes a study's page again, as the page shows it."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernorm.study import StudyConfig


def command(config: "StudyConfig") -> str:
    """Returns the command line of this config, without the flags that do not change the result."""
    words = ["python", "-m", "kernorm.study"]
    words += [shlex.quote(config.study)] if config.study else []
    words += [word for text in config.vary for word in ("--vary", shlex.quote(text))]
    for name in ("runs", "where"):
        if values := getattr(config, name):
            words += [f"--{name}", *map(shlex.quote, values)]
    if config.until_resolved:
        words.append("--until-resolved")
    for name in ("seeds", "time_budget", "max_seeds", "metric", "margin", "targets", "epochs", "tune_rate", "name"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    if not config.pictures:
        words.append("--no-pictures")
    if config.only:
        words += ["--only", *map(shlex.quote, config.only)]
    return " ".join([*words, *map(shlex.quote, config.train_words)])
