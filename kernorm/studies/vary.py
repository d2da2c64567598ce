"""A study without a file: every combination of values that `--vary` names, each arm a command line of kernorm.train."""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernorm.config import NOT_IDENTITY, TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import is_switch, is_word
from kernorm.recipes import recipe_of_words
from kernorm.studies.choices import AUTO
from kernorm.studies.definition import SEEDS, Study, study_of
from kernorm.system import cli
from kernorm.system.files import write_atomically
from kernorm.system.words import settings_of
from kernorm.unused import of_recipe, require_used, unused_settings

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
    known = sorted(settings_of(TrainConfig) - {*NOT_IDENTITY})
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
    given: list[TrainConfig] = []
    for values in itertools.product(*(factor.values for factor in factors)):
        pairs = list(zip(factors, values, strict=True))
        argv = [*words, *(word for factor, value in pairs for word in factor.words(value))]
        config = cli.parse(TrainConfig, prog=PROG, argv=argv, default=recipe_of_words(argv))
        given.append(config)
        # Of bn and gn by groups, bn is one arm.
        left_out = unused_settings(config)
        label = "-".join(factor.label(value) for factor, value in pairs if factor.name not in left_out)
        arms.setdefault(label, of_recipe(config, left_out))
    require_used(given)
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
    texts = dict.fromkeys(config.net_source for config in study.arms.values() if config.net_source is not None)
    names = {text: f"NET_{number}" for number, text in enumerate(texts, 1)}
    arms = "".join(
        f"    {json.dumps(arm, ensure_ascii=False)}: {_source(config, names)},\n" for arm, config in study.arms.items()
    )
    nets = [f"{name} = {json.dumps(text, ensure_ascii=False)}\n" for text, name in names.items()]
    rates = f"\n\nBy --tune-rate {study.rates.asked} {study.rates.sentence}." if study.rates else ""
    lines = [
        f'"""{study.text.rstrip()}{rates}\n"""\n',
        "from kernorm import TrainConfig\n",
        *nets,
        f"ARMS = {{\n{arms}}}",
        f"SEEDS = {len(study.seeds)}",
    ]
    if study.metric != AUTO:
        lines.append(f"PRIMARY = {study.metric!r}")
    if study.margin != AUTO:
        lines.append(f"MARGIN = {study.margin!r}")
    if study.targets:
        told = study.targets if study.targets == AUTO else ",".join(f"{100 * float(one):g}" for one in study.targets)
        lines.append(f"TARGETS = {told!r}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _source(config: TrainConfig, names: Mapping[str, str]) -> str:
    """Returns a config as Python, without the folders of this machine and the threads, which a study sets.

    The text of an own net's file is written by its name in `names`.
    """
    left_out = {*NOT_IDENTITY, "threads"} - {"pictures"}
    default: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config) if field.name not in left_out
    }
    values = {name: getattr(config, name) for name in default}
    written = {name: _literal(value) for name, value in values.items() if value != default[name]}
    if config.net_source is not None:
        written["net_source"] = names[config.net_source]
    given = ", ".join(f"{name}={value}" for name, value in written.items())
    return f"TrainConfig({given})"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def varied_words(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Takes what --vary is given out of a command's words."""
    varied, others, waiting = [], [], False
    for word in words:
        flag, equals, value = word.partition("=")
        if waiting and not word.startswith("--"):
            varied.append(word)
        elif flag == "--vary" and equals:
            varied.append(value)
        elif flag != "--vary":
            others.append(word)
        waiting = flag == "--vary" and not equals
    if waiting or not varied:
        raise UsageError("--vary takes NAME=VALUE,VALUE.", "no value", "Give for example --vary norm=bn,gn.")
    return tuple(varied), others
