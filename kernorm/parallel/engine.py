"""Runs many jobs at once for a study or a search: in processes of this machine, or as Ray tasks (ray_engine.py).

The job is `train(config)`, one run. This process schedules jobs and collects results: it imports neither Keras nor
TensorFlow. A job whose worker is killed, for lack of memory say, is started once more and resumes from its checkpoint.
"""

import contextlib
import os
import socket
import sys
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from kernorm.errors import LOST, one_line
from kernorm.system.backend import claim_process
from kernorm.system.processes import SHARING, log_to_stderr, redirected

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
Returned = tuple[ResultT | None, str | None]

# A job is started so often; the first start may meet a machine that is short of memory, two say that the job is.
ATTEMPTS = 2
# TensorFlow keeps some 20 MB of every run, 2 % of what a worker holds, and a new process costs 3 CPU-seconds.
JOBS_PER_WORKER = 5


@dataclass(frozen=True)
class Outcome(Generic[JobT, ResultT]):
    """How one job ended: a result, or in one line the error that its work raised or that ended its workers."""

    job: JobT
    result: ResultT | None
    error: str | None
    attempts: int


@dataclass
class _Task(Generic[JobT]):
    job: JobT
    attempts: int = 0


class Engine(ABC, Generic[JobT, ResultT]):
    """Does the same work on many jobs, as many at once as it has slots; leaving its context ends what still runs."""

    def __init__(self) -> None:
        self._queue: deque[_Task[JobT]] = deque()
        self._running: dict[Future[Returned[ResultT]], _Task[JobT]] = {}

    @property
    @abstractmethod
    def slots(self) -> int:
        """Jobs that run at once; of a cluster, at this moment."""

    @property
    def busy(self) -> int:
        """Jobs that run or wait for a slot."""
        return len(self._queue) + len(self._running)

    @abstractmethod
    def _start(self, job: JobT) -> "Future[Returned[ResultT]]":
        """Starts a job in a free slot."""

    @abstractmethod
    def _ended(self, future: "Future[Returned[ResultT]]") -> str:
        """Frees a job's slot; says how its worker was lost, so that there is no answer; nothing if it was not."""

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

    def submit(self, job: JobT) -> None:
        """Queues a job; it begins at once if a slot is free."""
        self._queue.append(_Task(job))
        self._fill()

    def outcomes(self) -> Iterator[Outcome[JobT, ResultT]]:
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


def _outcome(task: _Task[JobT], future: "Future[Returned[ResultT]]", lost: str) -> Outcome[JobT, ResultT]:
    if lost:
        return Outcome(task.job, None, f"{LOST} {lost}; {task.attempts} attempts", task.attempts)
    failed = future.exception()
    # Ray wraps what stopped it before or after the work; `answer` has caught what the work itself raised.
    result, error = (None, one_line(getattr(failed, "cause", None) or failed)) if failed else future.result()
    return Outcome(task.job, result, error, task.attempts)


@dataclass(frozen=True)
class Workplace:
    """Where a worker does its jobs: the log that takes their output, the folder, and the environment it lacks."""

    log: Path | None
    folder: Path = field(default_factory=Path.cwd)
    environment: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Makes this process such a worker while the body runs."""
        os.chdir(self.folder)
        os.environ.update(self.environment)
        for name, value in SHARING.items():
            os.environ.setdefault(name, value)
        with contextlib.ExitStack() as stack:
            if self.log:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                name = self.log.name.format(host=socket.gethostname(), pid=os.getpid())
                log = stack.enter_context(self.log.with_name(name).open("ab"))
                stack.enter_context(redirected(1, sys.stdout, log.fileno()))
                stack.enter_context(redirected(2, sys.stderr, log.fileno()))
            log_to_stderr()
            yield


def do_job(work: Callable[[JobT], ResultT], job: JobT, place: Workplace) -> Returned[ResultT]:
    """Does a job in the worker; an error comes back as a line, and its traceback goes into the log."""
    claim_process()
    try:
        with place.entered():
            try:
                return work(job), None
            except BaseException:  # also SystemExit: it would take the worker with it
                traceback.print_exc()
                raise
    except BaseException as error:
        return None, one_line(error)
