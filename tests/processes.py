"""Child processes of tests: started with the test run's mark, and ended with all that they started."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator

import psutil

# Every process that descends from this test run carries the first, and what one `Processes` started the second.
RUN, GROUP = "KERNORM_TEST_RUN", "KERNORM_TEST_GROUP"
# The environment of a process whose Keras runs on JAX: programs are compiled without optimization and by the emitters
# that take least time, a third of what the others take, and kept for other tests.
ON_JAX = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


class Processes:
    """Starts child processes; at its end kills what is left of them, whatever session their own children are in."""

    def __init__(self) -> None:
        self.group = uuid.uuid4().hex
        self.started: list[subprocess.Popen] = []

    def __call__(self, command, *, stderr=subprocess.PIPE, **environment) -> subprocess.Popen:
        """Starts a command in a session of its own, with more environment variables; its output comes by pipes."""
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **environment, GROUP: self.group},
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in living(GROUP, self.group):
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in self.started:
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def living(name: str, value: str) -> Iterator[psutil.Process]:
    """Yields the processes but this one in whose environment the variable has that value."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                yield process
