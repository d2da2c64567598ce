"""A study without a file: every combination of values that `--vary` names, each arm a command line of kernorm.train."""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernorm.config import NOT_IDENTITY, TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import is_switch, is_word
from kernorm.recipes import recipe_of_words
from kernorm.studies.definition import SEEDS, Study, study_of
from kernorm.system import cli
from kernorm.system.files import write_atomically

MOST_ARMS = 500
# The file that a study of --vary stands for, in its folder.
FILE = "study.py"
PROG = "python -m kernorm.study"
# Settings of kernorm.train that a study sets itself, each with the flag that does.
HELD = {
    "seed": "--seeds",
    "export": "--push",
    "report": "--report-only",
    "stop_after": "--epochs",
    "retrain": "--name",
    "track": "the report",
    "format": "kernorm.convert",
    "push": "the study's --push",
}
_BY_LAYER = ("norm_at", "penalty_at")


@dataclasses.dataclass(frozen=True)
class Factor:
    """A setting and the values that it is varied over, as they were typed."""

    name: str
    values: tuple[str, ...]

    def words(self, value: str) -> list[str]:
        """Returns the words of kernorm.train that set one value."""
        flag = self.name.replace("_", "-")
        if is_switch(TrainConfig, self.name):
            if value.lower() not in ("true", "false"):
                raise UsageError(f"--vary {self.name} takes true and false.", f"{value!r}", "Give true,false.")
            return [f"--{flag}" if value.lower() == "true" else f"--no-{flag}"]
        return [f"--{flag}", value]

    def label(self, value: str) -> str:
        """Returns what stands for a value in an arm's name: a word by itself, a number after the setting."""
        return value if is_word(TrainConfig, self.name) else f"{self.name}_{value}"


def factors_of(varied: Sequence[str]) -> list[Factor]:
    """Reads the NAME=VALUE,VALUE,… of --vary.

    Raises:
        UsageError: one is not of that form, names no setting that decides a result, has one value, or a value twice.
    """
    known = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in NOT_IDENTITY]
    found: list[Factor] = []
    for text in varied:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        split = tuple(value.strip() for value in values.split(","))
        if not equals or not all(split):
            raise UsageError("--vary takes NAME=VALUE,VALUE.", f"{text!r}", "Give for example norm=bn,gn.")
        if name in NOT_IDENTITY:
            raise UsageError("--vary takes a setting that decides a result.", f"{name!r}, which does not", "Remove it.")
        if name in _BY_LAYER:
            raise UsageError(
                "--vary takes one value at a time.", f"{name!r}, which holds several", "Write a study file."
            )
        if name in HELD:
            raise UsageError(f"A study sets --{name.replace('_', '-')} itself.", f"{text!r}", f"See {HELD[name]}.")
        if name not in known:
            raise UsageError("--vary takes a setting of kernorm.train.", f"{name!r}", nearest(name, known))
        if name in [factor.name for factor in found]:
            raise UsageError("--vary takes a setting once.", f"{name!r} twice", "Give all its values in one --vary.")
        if len(split) < 2:
            raise UsageError(
                "--vary takes two or more values.", f"{text!r}", f"Give --{name.replace('_', '-')} {values} instead."
            )
        if repeated := next((value for value in split if split.count(value) > 1), None):
            raise UsageError("--vary takes each value once.", f"{repeated!r} twice in {text!r}", "Remove one of them.")
        found.append(Factor(name, split))
    return found


def varied_study(
    varied: Sequence[str], words: Sequence[str], *, name: str | None = None, seeds: int | None = None
) -> Study:
    """Returns the study of every combination of values, the first of each as baseline.

    Args:
        varied: the values of --vary.
        words: what else kernorm.train is given, for every arm.
        name: of the study; None: the settings that are varied.
        seeds: how many.

    Raises:
        UsageError: a value of --vary or a word is wrong, or there are more than MOST_ARMS arms.
    """
    factors = factors_of(varied)
    many = 1
    for factor in factors:
        many *= len(factor.values)
    if many > MOST_ARMS:
        raise UsageError(f"A study has at most {MOST_ARMS} arms.", f"{many:,} combinations of --vary", "Vary less.")
    arms: dict[str, TrainConfig] = {}
    for values in itertools.product(*(factor.values for factor in factors)):
        pairs = list(zip(factors, values, strict=True))
        argv = [*words, *(word for factor, value in pairs for word in factor.words(value))]
        config = cli.parse(TrainConfig, prog=PROG, argv=argv, default=recipe_of_words(argv))
        arms["-".join(factor.label(value) for factor, value in pairs)] = config
    asked = " and ".join(f"{factor.name} ({', '.join(factor.values)})" for factor in factors)
    command = shlex.join([*PROG.split(), *(word for text in varied for word in ("--vary", text)), *words])
    study = study_of(
        name or "-".join(factor.name for factor in factors),
        arms,
        text=f"Which {asked} is better?\n\n    {command}\n",
        seeds=SEEDS if seeds is None else seeds,
        source="--vary",
    )
    return replace(study, file=command)


def write_study_file(study: Study, path: Path) -> None:
    """Writes the study file that a study stands for; `python -m kernorm.study PATH` runs the same arms."""
    arms = "".join(
        f"    {json.dumps(arm, ensure_ascii=False)}: {_source(config)},\n" for arm, config in study.arms.items()
    )
    rates = f"\n\nBy --tune-rate {study.rates.asked} {study.rates.sentence}." if study.rates else ""
    lines = [
        f'"""{study.text.rstrip()}{rates}\n"""\n',
        "from kernorm import TrainConfig\n",
        f"ARMS = {{\n{arms}}}",
        f"SEEDS = {len(study.seeds)}",
    ]
    if study.metric != "accuracy":
        lines.append(f"PRIMARY = {study.metric!r}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _source(config: TrainConfig) -> str:
    """Returns a config as Python, without the folders of this machine and the threads, which a study sets."""
    left_out = (*NOT_IDENTITY, "threads")
    default: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config) if field.name not in left_out
    }
    values = {name: getattr(config, name) for name in default}
    given = ", ".join(f"{name}={_literal(value)}" for name, value in values.items() if value != default[name])
    return f"TrainConfig({given})"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
