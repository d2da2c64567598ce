import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys

import pytest

from kernorm import environment
from kernorm.config import TrainConfig
from kernorm.errors import UsageError


def test_tensorflow_is_the_backend_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    assert environment.choose_backend() == "tensorflow"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize("name", ["torch", "tensorfow", "", "TensorFlow"])
def test_another_backend_is_refused(monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(UsageError, match=rf"must be tensorflow or jax\. Received: KERAS_BACKEND={name}\. Set one"):
        environment.choose_backend()


def test_a_backend_that_is_not_installed_is_refused():
    code = (
        "import sys; from kernorm import config, environment; sys.path.clear()\n"
        "try: environment.choose_backend()\n"
        "except config.UsageError as error: print(error)"
    )
    settings = {"env": {**os.environ, "KERAS_BACKEND": "jax"}, "capture_output": True, "text": True, "check": True}
    told = subprocess.run([sys.executable, "-c", code], **settings).stdout
    assert told.startswith("The backend must be installed. Received: KERAS_BACKEND=jax, which is not. pip install jax")


def test_the_environment_names_what_computes():
    found = environment.describe(TrainConfig(threads=3))
    assert (found.backend, found.threads) == ("tensorflow", 3)
    assert found.versions["python"] == platform.python_version()
    for package in ("keras", "tensorflow", "numpy"):
        assert found.versions[package] == importlib.metadata.version(package)
    assert found.device.endswith(f"{os.cpu_count()} cores")
    assert environment.describe(TrainConfig()).threads == len(os.sched_getaffinity(0))
    # No test process runs in less, and none of this project in more.
    assert 2e7 < environment.peak_memory() < 64e9


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "kernorm"
    package.mkdir()
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment._commit() is None
    if shutil.which("git") is None:
        pytest.skip("needs git")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert environment._commit() is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert environment._commit() == head
    monkeypatch.setenv("PATH", str(package))
    assert environment._commit() is None
