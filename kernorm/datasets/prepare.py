"""Preparing a data set in a process of its own, which writes it to the cache.

So training inherits neither TensorFlow's threads nor its memory from it, and computes the same on its first run as on
every other.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

from kernorm.datasets import cache, tfds
from kernorm.errors import UsageError
from kernorm.system.processes import import_path, log_to_stderr

_USAGE_ERROR = 2
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "NO_GCE_CHECK": "true"}

_LOG = logging.getLogger("kernorm")


def prepare_in_child(name: str, manual_dir: Path | None, data_dir: Path | None) -> None:
    """Prepares a set in a child process, which writes it to the cache.

    Raises:
        UsageError: what `tfds.prepare` and `cache.write` raise there, or the child was killed.
    """
    once = "once, about 30 s" if name.partition(":")[0] == "mnist" else "once"
    _LOG.info("Preparing %s with tensorflow-datasets (%s) ...", name, once)
    arguments = [name, *(str(folder.absolute()) if folder else "" for folder in (manual_dir, data_dir))]
    # Without a home, tensorflow-datasets would make a folder of the name ~.
    environment = {**os.environ, **_QUIET, "PYTHONPATH": import_path(), "TFDS_DATA_DIR": str(cache.tfds_dir())}
    child = subprocess.run(
        [sys.executable, "-m", "kernorm.datasets.prepare", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if child.returncode == _USAGE_ERROR and child.stdout:
        raise UsageError(child.stdout.strip())
    if child.returncode:
        raise UsageError(
            "Preparing a data set must finish.",
            f"the process that prepares {name} ended with {child.returncode}",
            "Look at its message above; a negative number is a signal, -9 mostly for lack of memory.",
        )


def _child(arguments: list[str]) -> int:
    """Prepares and caches; keeps TensorFlow's own noise off the terminal, Python's messages on it."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.getLogger("absl").setLevel(logging.ERROR)
    log_to_stderr()
    logging.getLogger("kernorm").propagate = False  # to the handler that TensorFlow puts on the root
    name, manual_dir, data_dir = arguments
    try:
        cache.write(tfds.prepare(name, Path(manual_dir) if manual_dir else None, Path(data_dir) if data_dir else None))
    except UsageError as error:
        print(error)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
