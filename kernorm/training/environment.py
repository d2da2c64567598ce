"""Where and with what a run is computed, as its record states it."""

import platform

import keras

from kernorm.config import TrainConfig
from kernorm.records.record import Environment
from kernorm.system import machine

_PACKAGES = ("kernorm", "keras", "tensorflow", "jax", "numpy", "tensorflow-datasets")


def describe_environment(config: TrainConfig) -> Environment:
    """Describes the backend, devices, threads, versions and commit that a run of this process has."""
    accelerators = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    return Environment(
        backend=keras.backend.backend(),
        device=", ".join([*accelerators, machine.processor()]),
        threads=config.threads or machine.cores(),
        versions={"python": platform.python_version(), **machine.installed_versions(_PACKAGES)},
        commit=machine.commit(),
    )
