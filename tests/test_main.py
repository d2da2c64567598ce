"""python -m kernorm and python -m tuner: the list of commands, and running one by its name."""

import subprocess
import sys

import pytest


def ran(*words, **settings):
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, **settings)


def test_the_commands_are_listed_with_a_line_each():
    shown = ran("kernorm")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [
        *("train", "study", "search", "evaluate", "export", "convert", "validate", "push", "predict"),
        *("data", "net", "runs"),
    ]
    assert dict(lines)["predict"] == "Asks a served model, or a SavedModel here, which class each image shows"
    assert ran("kernorm", "--help").stdout == shown.stdout
    assert "search" in ran("tuner").stdout


@pytest.mark.parametrize(("module", "command"), [("kernorm", "train"), ("kernorm", "search"), ("tuner", "search")])
def test_a_command_runs_by_its_name(module, command):
    by_name = ran(module, command, "--nrom=ln")
    assert by_name.returncode == 2
    assert "An option must be a known one. Received: --nrom" in by_name.stderr


def test_an_unknown_command_is_one_line():
    refused = ran("kernorm", "trian")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: A command must be a known one. Received: 'trian'. Did you mean 'train'?")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_users_own_tuner_is_told(kind, tmp_path):
    own = tmp_path / "tuner.py" if kind == "file" else tmp_path / "tuner" / "__init__.py"
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    refused = ran("kernorm", "search", "--help", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"error: tuner.search must be kernorm's own. Received: {own}, which has the same name. "
        "Rename that file, or start in another folder.\n"
    )
    shown = ran("kernorm", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"search    hidden by {own}, which has the same name" in shown.stdout


@pytest.mark.parametrize("module", ["kernorm.config", "kernorm.recipes", "kernorm.errors", "kernorm.limits"])
def test_a_module_that_is_no_command_says_so(module):
    told = ran(module)
    assert told.returncode == 1
    assert told.stderr == "This module is no command. See python -m kernorm for those that are.\n"
