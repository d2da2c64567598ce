import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernorm.__main__ import COMMANDS
from kernorm.parallel.settings import EngineConfig
from kernorm.system import machine


def test_cores_and_memory_of_this_process():
    assert machine.visible_cores() == len(os.sched_getaffinity(0))
    assert 1 <= machine.cores() <= machine.visible_cores()
    assert machine.memory() > 2e7
    assert machine.processor().endswith(f", {os.cpu_count()} cores")
    # No test process runs in less, and none of this project in more.
    assert 2e7 < machine.peak_memory() < 64e9


def test_as_many_workers_as_cores_and_memory_hold(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 6)
    for held, threads, count in ((None, 1, 6), (None, 4, 1), (3e9, 1, 2), (1e9, 1, 1), (1e12, 2, 3), (1e12, 9, 1)):
        monkeypatch.setattr(machine, "memory", lambda held=held: held and int(held))
        assert machine.default_workers(threads) == count
        assert EngineConfig(threads=threads).local_workers == count
    assert EngineConfig(workers=7).local_workers == 7


def test_no_more_cores_than_the_quota_of_the_container(monkeypatch):
    for quota, count in ((None, 8), (0.5, 1), (1.5, 2), (4.0, 4), (99.0, 8)):
        monkeypatch.setattr(machine, "visible_cores", lambda: 8)
        monkeypatch.setattr(machine.container, "cpu_quota", lambda quota=quota: quota)
        assert machine.cores() == count


# What macOS and Windows lack of what Python has on Linux; "module." stands for the whole module.
MACOS = ("os.sched_getaffinity", "os.pidfd_open", "os.memfd_create", "os.posix_fadvise", "select.epoll")
WINDOWS = (*MACOS, "fcntl.", "resource.", "os.setpgid", "os.killpg", "select.poll", "signal.pthread_sigmask")
WITHOUT = """
import importlib, runpy, sys
import filelock  # which has a way of its own for Windows
from pathlib import Path
names, root, module, *words = sys.argv[1:]
for name in names.split(","):
    place, _, what = name.partition(".")
    if not what:
        sys.modules[place] = None
    elif hasattr(importlib.import_module(place), what):
        delattr(importlib.import_module(place), what)
from kernorm.system import container
container.ROOT = Path(root)
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def without(names, folder, *words, **settings):
    command = [sys.executable, "-c", WITHOUT, ",".join(names), str(folder / "no-proc"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def test_a_study_is_planned_where_the_names_of_linux_are_missing(tmp_path, mnist_cache):
    words = ["kernorm.study", "smoke", "--dry-run", f"--reports-dir={tmp_path}"]
    found = without(MACOS, tmp_path, *words)
    assert found.returncode == 0, found.stderr
    assert f" with {min(os.cpu_count(), machine.memory() // machine.WORKER_BYTES)} workers" in found.stdout


@pytest.mark.slow
def test_a_plan_counts_the_workers_that_are_asked_for_there(tmp_path, mnist_cache):
    words = ["kernorm.study", "smoke", "--dry-run", f"--reports-dir={tmp_path}", "--workers=3"]
    assert " with 3 workers" in without(MACOS, tmp_path, *words).stdout


@pytest.mark.slow
def test_a_run_is_trained_where_the_names_of_linux_are_missing(tmp_path, boxes_cache):
    small = ["--net=eva6", "--dataset=boxes", "--validation-size=32", "--epochs=1", "--batch-size=40"]
    places = [f"--reports-dir={tmp_path}", f"--saved-models-dir={tmp_path}"]
    found = without(MACOS, tmp_path, "kernorm.train", *small, *places)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_in_one_line_that_it_does_not_run_on_windows(tmp_path, name):
    found = without(WINDOWS, tmp_path, COMMANDS[name], "x", cwd=Path(__file__).parents[2])
    assert (found.returncode, found.stdout) == (2, "")
    said = r"error: kernorm runs on Linux, macOS or WSL\. Received: \w+\. On Windows, install WSL and use it\.\n"
    assert re.fullmatch(said, found.stderr), found.stderr


def test_versions_are_of_what_is_installed():
    found = machine.installed_versions(("pytest", "no-such-package"))
    assert found == {"pytest": pytest.__version__}


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "kernorm"
    package.mkdir()
    monkeypatch.setattr(machine, "__file__", str(package / "system" / "machine.py"))
    assert machine.commit() is None
    packed = tmp_path / ".accelerator" / "commit"
    packed.parent.mkdir()
    packed.write_text("abc\n")
    assert machine.commit() == "abc"  # of a copy without .git
    monkeypatch.setenv("KERNORM_COMMIT", "def")
    assert machine.commit() == "def"
    if shutil.which("git") is None:
        pytest.skip("needs git")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert machine.commit() is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert machine.commit() == head
    monkeypatch.setenv("PATH", str(package))
    assert machine.commit() is None
