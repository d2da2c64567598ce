import importlib.metadata
import os
import platform

import pytest
import tensorflow as tf

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
    assert found.precision == "float32"
    assert describe_environment(TrainConfig()).threads == cores()


@pytest.mark.parametrize(("allowed", "precision"), [(True, "tensorfloat32"), (False, "float32")])
def test_an_accelerator_is_named_with_the_precision_of_its_products(monkeypatch, allowed, precision):
    """What TensorFlow would tell of a card; there need be none here."""
    card = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [card])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: {"device_name": "NVIDIA H100"})
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        found = describe_environment(TrainConfig())
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
    assert found.device.startswith("NVIDIA H100, ")
    assert found.precision == precision
