import errno
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.system import cli
from kernorm.train import default

PROG = "python -m kernorm.train"


def run(words, main=lambda config: None):
    return cli.run(TrainConfig, main, prog=PROG, argv=words.split(), default=default)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nrom ln", "An option must be a known one. Received: --nrom. Did you mean --norm?"),
        ("ln", "An option must be a known one. Received: ln."),
        ("--l2 much", "--l2 could not be read. Received: 'much'."),
        ("--epochs 1.5", "--epochs could not be read. Received: '1.5'."),
        ("--l2", "Missing value for argument '--l2'."),
        ("--net eva7", "--net takes a known name, or FILE.py:FUNCTION. Received: 'eva7'. Did you mean 'eva6'?"),
        ("--select first", "--select takes a known name. Received: 'first'."),
        ("--norm lnn", "--norm takes a known name. Received: 'lnn'. Did you mean 'ln'?"),
        ("--groups some", "--groups could not be read. Received: 'some'."),
        ("--recipe evaa", "--recipe takes a known name. Received: 'evaa'."),
        ("--norm-at conv1", "--norm-at takes LAYER=VALUE. Received: 'conv1'."),
        ("--l1 -1", "--l1 must be a finite number of at least 0"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, words, message):
    assert run(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_flags_reach_main_over_the_recipe():
    seen = []
    assert (
        run("--recipe eva4 --epochs 3 --norm gn --groups 2 --no-nesterov --norm-at conv1=ln conv2=none", seen.append)
        == 0
    )
    config = seen[0]
    assert (config.recipe, config.net, config.epochs, config.norm, config.groups) == ("eva4", "eva4", 3, "gn", 2)
    assert (config.momentum, config.norm_at) == (0.95, ("conv1=ln", "conv2=none"))


def test_return_codes(capsys):
    assert run("", lambda config: 1) == 1

    def refuse(config):
        raise UsageError("A rule. Received: x=1. Do y.")

    assert run("", refuse) == 2
    assert capsys.readouterr().err == "error: A rule. Received: x=1. Do y.\n"

    def interrupt(config):
        raise KeyboardInterrupt

    assert run("", interrupt) == 130
    assert "Interrupted. Run the same command again." in capsys.readouterr().err


def test_a_full_disk_is_one_line(capsys):
    def fill(config):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "reports/x")

    assert run("", fill) == 2
    assert capsys.readouterr().err == (
        "error: Writing needs room and permission. Received: No space left on device at reports/x. "
        "Free some space or choose another folder; what was finished is kept.\n"
    )


def test_other_errors_are_not_hidden():
    def fail(config):
        raise OSError(errno.EIO, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        run("", fail)


def test_a_config_without_flags_of_its_own():
    @dataclass(frozen=True, kw_only=True)
    class Small:
        """Does little."""

        count: int = 1
        """How many."""

    assert cli.parse(Small, prog="x", argv=["--count", "3"]).count == 3


def test_help_reads_like_documentation_and_needs_no_keras():
    code = (
        "import sys, runpy; sys.argv = ['kernorm.train', '--help']\n"
        "try: runpy.run_module('kernorm.train', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "sys.exit(3 if {'keras', 'numpy', 'tensorflow'} & set(sys.modules) else 0)"
    )
    wide = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=wide, check=False)
    assert asked.returncode == 0, asked.stderr
    for words in ("python -m kernorm.train --norm ln --l2 0.0066", "weight_decay", "--norm-at", "l1·Σ|w| + l2·Σw²"):
        assert words in asked.stdout
