import importlib.metadata
import os
import platform

from kernorm.config import TrainConfig
from kernorm.system.machine import cores
from kernorm.training.environment import describe_environment


def test_the_environment_names_what_computes():
    found = describe_environment(TrainConfig(threads=3))
    assert (found.backend, found.threads) == ("tensorflow", 3)
    assert found.versions["python"] == platform.python_version()
    for package in ("keras", "tensorflow", "numpy"):
        assert found.versions[package] == importlib.metadata.version(package)
    assert found.device.endswith(f"{os.cpu_count()} cores")
    assert describe_environment(TrainConfig()).threads == cores()
