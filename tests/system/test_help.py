"""The help of every command: grouped, wrapped, complete."""

import dataclasses
import os
import subprocess
import sys
from importlib import import_module

import pytest

from kernorm.config import TrainConfig
from kernorm.system.help import REST, grouped_help
from kernorm.system.words import flags_of

COMMANDS = {
    "kernorm.train": "TrainConfig",
    "kernorm.study": "StudyConfig",
    "kernorm.data": "DataConfig",
    "kernorm.export": "ExportConfig",
    "kernorm.convert": "ConvertConfig",
    "kernorm.evaluate": "EvaluateConfig",
    "kernorm.validate": "ValidateConfig",
    "kernorm.push": "PushConfig",
    "kernorm.predict": "PredictConfig",
    "kernorm.net": "NetConfig",
    "kernorm.runs": "RunsConfig",
    "tuner.search": "SearchConfig",
}

TYRO = """usage: p [-h] [OPTIONS] WHAT

A command.

 positional arguments
 ------------------------
  WHAT                What it is about. (required)

 options
 ------------------------
  -h, --help          show this help message and exit
  --rate {None}|FLOAT
                      How fast
                      it goes:
                      - slow: a walk
                      - fast: a run (default: None)
  --on, --no-on       Whether it is on. (default: )
"""


def test_options_come_in_groups_in_the_given_order():
    text = grouped_help(TYRO, {"speed": ("rate",), "this command": ("help", "quiet", "verbose")}, 60)
    assert text == (
        "usage: p [-h] [OPTIONS] WHAT\n\nA command.\n\n"
        "arguments:\n  WHAT                  What it is about. (required)\n\n"
        "speed:\n  --rate FLOAT          How fast it goes:\n"
        "                        - slow: a walk\n                        - fast: a run (default: None)\n\n"
        "this command:\n  -h, --help            show this help message and exit\n"
        "  -q, --quiet           Show warnings and errors alone.\n"
        "  -v, --verbose         Show every detail.\n\n"
        f"{REST}:\n  --on, --no-on         Whether it is on.\n"
    )


def test_without_groups_there_is_one():
    text = grouped_help(TYRO, {}, 200)
    assert [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "arguments:",
        "options:",
    ]


@pytest.mark.parametrize("module", COMMANDS)
def test_the_help_of_every_command_is_light_whole_and_within_the_width(module):
    environment = {**os.environ, "COLUMNS": "80"}
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    flags = flags_of(getattr(import_module(module), COMMANDS[module]))
    names = {word.strip(",") for word in shown.stdout.split()}
    positional = {"--path", "--names", "--images", "--run-folder", "--study"}
    assert set(flags) - names - positional == set()
    assert {"--quiet", "--verbose", "--help"} <= names
    assert max(map(len, shown.stdout.splitlines())) <= 80
    loaded = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert not loaded & {"numpy", "pandas", "pydantic", "keras", "tensorflow", "statsmodels", "matplotlib"}


@pytest.mark.parametrize("module", ["kernorm.train", "kernorm.study", "kernorm.runs", "tuner.search"])
def test_every_setting_is_in_one_group(module):
    settings = getattr(import_module(module), COMMANDS[module])
    grouped = [name for names in settings.GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    flags = {flag[2:].replace("-", "_") for flag in flags_of(settings)} - {"study"}
    assert flags <= set(grouped)
    assert set(grouped) - flags == {"quiet", "verbose", "help"}


def test_groups_are_no_setting():
    assert "GROUPS" not in {field.name for field in dataclasses.fields(TrainConfig)}
