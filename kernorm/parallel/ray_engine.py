"""The engine whose workers are Ray's, on this machine or on a cluster; engine.py opens it, with the extra `ray`."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from kernorm.errors import UsageError, one_line
from kernorm.parallel.engine import Engine, JobT, ResultT, Returned, Workplace, do_job
from kernorm.system.machine import default_workers
from kernorm.system.processes import import_path, silenced_stderr

# Read by Ray when it is imported or started. It would try for 14 minutes to reach what is not a cluster.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    "RAY_py_gcs_connect_timeout_s": "10",
}
_REACH_SECONDS = 10
# A cluster's workers have the environment of `ray start`, not this process's.
_PASSED_ON = ("KERAS_BACKEND", "KERNORM_CACHE_DIR")
# Records are small, and Ray's default is a third of the machine's memory.
_STORE_BYTES = 100 << 20


class RayEngine(Engine[JobT, ResultT]):
    """Ray tasks with their cores and GPUs declared; every node must see the same folders, as one machine does.

    The queue and the second start stay with the engine, so that a job counts its starts as in the local one; Ray finds
    the node for each, another one if the first was lost.

    Raises:
        UsageError: Ray is not installed, there is no cluster at the address, or no job has room in it.
    """

    def __init__(
        self,
        work: Callable[[JobT], ResultT],
        *,
        workers: int | None,
        address: str | None,
        cpus_per_job: int,
        gpus_per_job: float,
        log_dir: Path | None,
        jobs_per_worker: int,
    ) -> None:
        super().__init__()
        self._ray = _import_ray()
        self._needs = {"CPU": float(cpus_per_job), "GPU": float(gpus_per_job)}
        self._workers = workers
        self._work = work
        # A worker at rest holds on to its GPU's memory while Ray takes that for free.
        calls = 1 if gpus_per_job else jobs_per_worker
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._place = Workplace(log_dir and log_dir.absolute() / "ray-{host}-{pid}.log", environment=environment)
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._own = address == "local"
        _connect(self._ray, address, workers, cpus_per_job)
        try:
            self._require_room()
            options = {"num_cpus": cpus_per_job, "num_gpus": gpus_per_job, "max_retries": 0, "max_calls": calls}
            self._remote = self._ray.remote(**options)(do_job)
        except BaseException:
            self._close()
            raise

    def _room(self) -> int:
        """Returns how many jobs the nodes that are there now have room for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(int(min(node.get(name, 0) / need for name, need in self._needs.items() if need)) for node in nodes)

    def _require_room(self) -> None:
        if self._room() < 1:
            held = self._ray.cluster_resources()
            raise UsageError(
                "A job must fit one node of the cluster.",
                f"{', '.join(f'{need:g} {name} a job' for name, need in self._needs.items() if need)} "
                f"with {held.get('CPU', 0):g} CPU and {held.get('GPU', 0):g} GPU in all",
                "Ask for less a job.",
            )

    @property
    def slots(self) -> int:
        """Jobs that run at once on the nodes that are there now."""
        room = self._room()
        return min(room, self._workers) if self._workers else room

    def _start(self, job: JobT) -> "Future[Returned[ResultT]]":
        return self._remote.remote(self._work, job, self._place).future()

    def _ended(self, future: "Future[Returned[ResultT]]") -> str:
        errors, failed = self._ray.exceptions, future.exception()
        causes = {
            errors.OutOfMemoryError: "was killed for lack of memory",
            errors.NodeDiedError: "was lost with its node",
            errors.WorkerCrashedError: "was killed or crashed",
            errors.ObjectLostError: "lost its result with a node",
        }
        cause = next((text for kind, text in causes.items() if isinstance(failed, kind)), "")
        return cause and f"{cause}: {one_line(failed)}"

    def _close(self) -> None:
        for future in self._running:
            self._ray.cancel(future.object_ref, force=True)  # type: ignore[attr-defined]
        self._ray.shutdown(**({"wait_for_processes": True} if self._own else {}))


def _import_ray() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError(
            "An engine must be installed.",
            "--engine ray, which is not",
            "pip install ray, or give --engine local.",
        ) from None
    return ray


def _connect(ray: Any, address: str, workers: int | None, cpus_per_job: int) -> None:
    own = {}
    if address == "local":
        count = workers or default_workers(cpus_per_job)
        own = {"num_cpus": count * cpus_per_job, "object_store_memory": _STORE_BYTES}
    else:
        _require_listener(address)
    with _handler_kept(), _found_by_workers() if own else silenced_stderr():
        try:
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL", **own)
        except Exception as error:
            if own:
                raise
            raise _unreachable(address, one_line(error)) from None
    # Else it prints a paragraph on this process's standard output for every worker that dies, log_to_driver or not.
    ray._private.worker._worker_logs_enabled = False


def _require_listener(address: str) -> None:
    """Refuses an address at which nothing listens, in seconds; Ray by itself takes minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, one_line(error)) from None


def _unreachable(address: str, reason: str) -> UsageError:
    return UsageError(
        "--address takes a Ray cluster that can be reached.",
        f"address={address!r}, {reason.rstrip('.')}",
        (
            "Give the host:port that `ray start --head` printed, with RAY_AUTH_MODE=token where the "
            "cluster wants a token, or remove it for this machine."
        ),
    )


@contextlib.contextmanager
def _handler_kept() -> Iterator[None]:
    """Puts SIGTERM's handler back, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _found_by_workers() -> Iterator[None]:
    """Lets a Ray that is started import what this process can."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = import_path()
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
