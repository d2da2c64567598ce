"""Where and with what a run is computed, as its record states it."""

import platform
from pathlib import Path

import keras

from kernorm.config import TrainConfig
from kernorm.records.record import Elsewhere, Environment, read_record
from kernorm.system import machine

_JAX_PRECISION = "jax_default_matmul_precision"
_PACKAGES = ("kernorm", "keras", "tensorflow", "jax", "numpy", "tensorflow-datasets")


def describe_environment(config: TrainConfig) -> Environment:
    """Describes the backend, devices, threads, versions and commit that a run of this process has."""
    accelerators = _accelerators()
    return Environment(
        backend=keras.backend.backend(),
        device=", ".join([*accelerators, machine.processor()]),
        threads=config.threads or machine.cores(),
        versions={"python": platform.python_version(), **machine.installed_versions(_PACKAGES)},
        commit=machine.commit(),
        precision=_precision() if accelerators else "float32",
    )


def elsewhere(path: Path, now: Environment, last: int) -> tuple[Elsewhere, ...]:
    """Returns where a run that is resumed was computed before, as far as that was not as it is now.

    Args:
        path: of its record.json, which may be missing.
        now: what this process has.
        last: the epoch after which it is resumed.

    Raises:
        UsageError: the record is damaged.
    """
    if not path.exists():
        return ()
    before = read_record(path)
    same = _place(before.environment) == _place(now)
    return before.elsewhere if same else (*before.elsewhere, Elsewhere(last=last, environment=before.environment))


def _place(environment: Environment) -> tuple[str, str, str]:
    """Returns what decides how a run's numbers are rounded."""
    return environment.backend, environment.device, environment.precision


def _accelerators() -> list[str]:
    """Returns the models of the accelerators, such as NVIDIA H100 80GB HBM3."""
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [str(found.get("device_name", "GPU")) for found in details]


def _precision() -> str:
    """Says how an accelerator multiplies float32 by default: NVIDIA's may round the factors to TF32."""
    if keras.backend.backend() == "jax":
        import jax

        return str(getattr(jax.config, _JAX_PRECISION) or "default")
    import tensorflow as tf

    return "tensorfloat32" if tf.config.experimental.tensor_float_32_execution_enabled() else "float32"
