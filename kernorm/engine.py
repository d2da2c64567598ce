"""Runs many jobs at once for a study or a search: in processes of this machine, or as Ray tasks (ray_engine.py).

The job is `train(config)`, one run. This process only hands jobs out and takes results in: it imports neither Keras nor
TensorFlow. A job whose worker is killed, for lack of memory say, is started once more and goes on from its checkpoint.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Generic, Literal, Self, TextIO, TypeVar, get_args

from kernorm.errors import UsageError, nearest, one_line

Job = TypeVar("Job")
Result = TypeVar("Result")
EngineName = Literal["local", "ray"]
Answer = tuple[Result | None, str | None]

# A job is started so often; the first start may meet a machine that is short of memory, two say that the job is.
ATTEMPTS = 2
# TensorFlow keeps some 20 MB of every run, 2 % of what a worker holds, and a new process costs 6 CPU-seconds.
JOBS_PER_WORKER = 5
_SIGNALS = {signal.SIGINT, signal.SIGTERM}
# Workers share a GPU: each takes of its memory what it needs, not all of it at the start as is their default.
_SHARING = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclass(frozen=True)
class Outcome(Generic[Job, Result]):
    """What became of one job: a result, or in one line the error that its work raised or that ended its workers."""

    job: Job
    result: Result | None
    error: str | None
    attempts: int


@dataclass
class _Task(Generic[Job]):
    job: Job
    attempts: int = 0


class Engine(ABC, Generic[Job, Result]):
    """Does the same work on many jobs, as many at once as it has slots; leaving its context ends what still runs."""

    def __init__(self) -> None:
        self._queue: deque[_Task[Job]] = deque()
        self._running: dict[Future[Answer[Result]], _Task[Job]] = {}

    @property
    @abstractmethod
    def slots(self) -> int:
        """Jobs that run at once; of a cluster, at this moment."""

    @property
    def busy(self) -> int:
        """Jobs that run or wait for a slot."""
        return len(self._queue) + len(self._running)

    @abstractmethod
    def _start(self, job: Job) -> "Future[Answer[Result]]":
        """Starts a job in a free slot."""

    @abstractmethod
    def _ended(self, future: "Future[Answer[Result]]") -> bool:
        """Frees a job's slot; says whether its worker was lost, so that there is no answer."""

    @abstractmethod
    def _close(self) -> None:
        """Ends every worker, also those at work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.clear()
        self._close()
        self._running.clear()

    def submit(self, job: Job) -> None:
        """Queues a job; it begins at once if a slot is free."""
        self._queue.append(_Task(job))
        self._fill()

    def outcomes(self) -> Iterator[Outcome[Job, Result]]:
        """Yields outcomes as they come, until nothing is under way; more may be submitted in between."""
        while self._queue or self._running:
            self._fill()
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                task = self._running.pop(future)
                lost = self._ended(future)
                if lost and task.attempts < ATTEMPTS:
                    self._queue.appendleft(task)
                    continue
                self._fill()
                yield _outcome(task, future, lost)

    def _fill(self) -> None:
        while self._queue and len(self._running) < max(self.slots, 1):
            task = self._queue.popleft()
            task.attempts += 1
            self._running[self._start(task.job)] = task


def _outcome(task: _Task[Job], future: "Future[Answer[Result]]", lost: bool) -> Outcome[Job, Result]:
    if lost:
        how_often = f"its worker was killed or lost {task.attempts} times, mostly a lack of memory"
        return Outcome(task.job, None, f"{how_often}: {one_line(future.exception())}", task.attempts)
    failed = future.exception()
    # Ray wraps what stopped it before or after the work; `answer` has caught what the work itself raised.
    result, error = (None, one_line(getattr(failed, "cause", None) or failed)) if failed else future.result()
    return Outcome(task.job, result, error, task.attempts)


@dataclass(frozen=True)
class Place:
    """Where a worker does its jobs: the log that takes their output, the folder, and the environment it lacks."""

    log: Path | None
    folder: Path = field(default_factory=Path.cwd)
    environment: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Makes this process such a worker while the body runs."""
        os.chdir(self.folder)
        os.environ.update(self.environment)
        for name, value in _SHARING.items():
            os.environ.setdefault(name, value)
        with contextlib.ExitStack() as stack:
            if self.log:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                name = self.log.name.format(host=socket.gethostname(), pid=os.getpid())
                log = stack.enter_context(self.log.with_name(name).open("ab"))
                stack.enter_context(redirected(1, sys.stdout, log.fileno()))
                stack.enter_context(redirected(2, sys.stderr, log.fileno()))
            yield


@contextlib.contextmanager
def redirected(descriptor: int, stream: TextIO, target: int) -> Iterator[None]:
    """Sends an output stream elsewhere, also what native code and child processes write to its descriptor."""
    stream.flush()
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def answer(work: Callable[[Job], Result], job: Job, place: Place) -> Answer[Result]:
    """Does a job in the worker; an error comes back as a line, and its traceback goes into the log."""
    try:
        with place.entered():
            try:
                return work(job), None
            except BaseException:  # also SystemExit: it would take the worker with it
                traceback.print_exc()
                raise
    except BaseException as error:
        return None, one_line(error)


class _Worker:
    """A slot of the local engine: one process, replaced after some jobs or when it is killed.

    A pool of one, so that a killed process concerns its own job alone. ProcessPoolExecutor's max_tasks_per_child is
    not used, since it can wait for ever (python/cpython issue 115634, in every 3.11 and 3.12).
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        reader, self.alive = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(reader,))
        self.jobs = 0

    def start(self, work: Callable[[Job], Result], job: Job, place: Place) -> "Future[Answer[Result]]":
        """Starts a job, and with the first one the process.

        Raises:
            BrokenProcessPool: the process was killed while it was idle.
        """
        # The process is born with these blocked, so that a Ctrl-C on the terminal finds it ready to ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            future = self.executor.submit(answer, work, job, place)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.jobs += 1
        return future

    def end(self) -> None:
        """Ends the process, whatever it does, and what it has started."""
        self.alive.close()
        self.executor.shutdown(wait=True, cancel_futures=True)


def _begin(alive: Connection) -> None:
    """Makes a new process a worker: out of the terminal's reach, and dead as soon as `alive` has no other end."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_die_with, args=(alive,), daemon=True).start()


def _die_with(alive: Connection) -> None:
    """Waits until the engine closes the other end or its process ends in any way, then kills the process group."""
    alive.poll(None)
    os.killpg(0, signal.SIGKILL)


class LocalEngine(Engine[Job, Result]):
    """Processes on this machine, one a slot."""

    def __init__(
        self, work: Callable[[Job], Result], *, workers: int, log_dir: Path | None, jobs_per_worker: int
    ) -> None:
        super().__init__()
        if log_dir:
            log_dir.mkdir(parents=True, exist_ok=True)
        self._work, self._jobs_per_worker = work, jobs_per_worker
        self._workers: list[_Worker | None] = [None] * workers
        self._places = [Place(log_dir and log_dir.absolute() / f"worker-{i + 1}.log") for i in range(workers)]
        self._free = list(reversed(range(workers)))
        self._slot_of: dict[Future[Answer[Result]], int] = {}

    @property
    def slots(self) -> int:
        """Jobs that run at once."""
        return len(self._workers)

    def _start(self, job: Job) -> "Future[Answer[Result]]":
        slot = self._free.pop()
        while True:
            worker = self._workers[slot] = self._workers[slot] or _Worker()
            try:
                future = worker.start(self._work, job, self._places[slot])
            except BrokenProcessPool:
                self._workers[slot] = None
                worker.end()
            else:
                self._slot_of[future] = slot
                return future

    def _ended(self, future: "Future[Answer[Result]]") -> bool:
        slot = self._slot_of.pop(future)
        self._free.append(slot)
        lost = isinstance(future.exception(), BrokenProcessPool)
        worker = self._workers[slot]
        if worker and (lost or worker.jobs >= self._jobs_per_worker):
            self._workers[slot] = None
            worker.end()
        return lost

    def _close(self) -> None:
        workers = [worker for worker in self._workers if worker]
        for worker in workers:  # all at once, before the first is waited for
            worker.alive.close()
        for worker in workers:
            worker.end()


def open_engine(
    work: Callable[[Job], Result],
    name: EngineName = "local",
    *,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_job: int = 1,
    gpus_per_job: float = 0,
    log_dir: Path | None = None,
    jobs_per_worker: int = JOBS_PER_WORKER,
) -> Engine[Job, Result]:
    """Opens the engine of that name, to be used as a context manager.

    Args:
        work: a module's function; it, its jobs and its results are pickled.
        name: local or ray.
        workers: jobs at once at most; by default as many as the cores (and GPUs) allow.
        address: of the Ray cluster, host:port or ray://host:port; by default RAY_ADDRESS, else a Ray of its own.
        cpus_per_job: cores that a job is to use.
        gpus_per_job: GPUs that a Ray task reserves, 0.25 for a quarter of one.
        log_dir: takes a file a worker, with what its jobs print and the tracebacks of those that fail.
        jobs_per_worker: after so many a process is replaced by a new one, which keeps its memory flat.

    Raises:
        UsageError: a number out of its range, Ray not installed, no cluster at the address, or one without such slots.
    """
    check_engine(name, workers=workers, address=address, cpus_per_job=cpus_per_job, gpus_per_job=gpus_per_job)
    if name == "ray":
        from kernorm.ray_engine import RayEngine

        return RayEngine(
            work,
            workers=workers,
            address=address,
            cpus_per_job=cpus_per_job,
            gpus_per_job=gpus_per_job,
            log_dir=log_dir,
            jobs_per_worker=jobs_per_worker,
        )
    workers = workers or max(cores() // cpus_per_job, 1)
    return LocalEngine(work, workers=workers, log_dir=log_dir, jobs_per_worker=jobs_per_worker)


def check_engine(
    name: str, *, workers: int | None, address: str | None, cpus_per_job: int, gpus_per_job: float
) -> None:
    """Refuses settings of `open_engine` that can be told to be wrong without opening one.

    Raises:
        UsageError: an unknown name, a number out of its range, or what another engine takes.
    """
    names = get_args(EngineName)
    if name not in names:
        raise UsageError("--engine takes a known name.", f"{name!r}", nearest(name, names))
    if workers is not None and workers < 1:
        raise UsageError("--workers must be at least 1.", f"workers={workers}", "Leave it away for one a core.")
    if cpus_per_job < 1:
        raise UsageError("A job needs at least one core.", f"cpus_per_job={cpus_per_job}", "Give 1.")
    if not (0 <= gpus_per_job < math.inf and (gpus_per_job <= 1 or gpus_per_job == int(gpus_per_job))):
        raise UsageError(
            "--gpus-per-job takes a share from 0 to 1, or a whole number of GPUs.",
            f"gpus_per_job={gpus_per_job}",
            "Give for example 0.25.",
        )
    if name == "local" and (address is not None or gpus_per_job):
        received = f"address={address!r}" if address is not None else f"gpus_per_job={gpus_per_job}"
        raise UsageError(
            "Addresses and shares of a GPU belong to --engine ray.",
            f"{received} with engine='local'",
            "Leave it away, or give --engine ray.",
        )


def cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
