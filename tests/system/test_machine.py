import os
import shutil
import subprocess

import pytest

from kernorm.system import machine


def test_cores_and_memory_of_this_process():
    assert machine.cores() == len(os.sched_getaffinity(0))
    assert machine.processor().endswith(f", {os.cpu_count()} cores")
    # No test process runs in less, and none of this project in more.
    assert 2e7 < machine.peak_memory() < 64e9


def test_versions_are_of_what_is_installed():
    found = machine.installed_versions(("pytest", "no-such-package"))
    assert found == {"pytest": pytest.__version__}


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "kernorm"
    package.mkdir()
    monkeypatch.setattr(machine, "__file__", str(package / "system" / "machine.py"))
    assert machine.commit() is None
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
