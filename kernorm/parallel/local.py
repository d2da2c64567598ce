"""The engine whose workers are processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from kernorm.parallel.engine import Engine, JobT, ResultT, Returned, Workplace, do_job
from kernorm.system.processes import cause_of_death, out_of_memory_kills

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class _Worker:
    """A slot of the local engine: one process, replaced after some jobs or when it is killed.

    A pool of one, so that a killed process concerns its own job alone. ProcessPoolExecutor's max_tasks_per_child is
    not used, since it can wait for ever (python/cpython issue 115634, in every 3.11 and 3.12).
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        other, self.alive = context.Pipe()
        self.executor = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(other,))
        self.jobs = 0
        self.kills = out_of_memory_kills()
        self.process: BaseProcess | None = None

    def start(self, work: Callable[[JobT], ResultT], job: JobT, place: Workplace) -> "Future[Returned[ResultT]]":
        """Starts a job, and with the first one the process.

        Raises:
            BrokenProcessPool: the process was killed while it was idle.
        """
        # The process is born with these blocked, so that a Ctrl-C on the terminal finds it ready to ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        others = set(multiprocessing.active_children())
        try:
            with _main_hidden(work):
                future = self.executor.submit(do_job, work, job, place)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.jobs += 1
        self.process = self.process or next(iter({*multiprocessing.active_children()} - others), None)
        return future

    def cause_of_death(self) -> str:
        """Says how the process ended that broke the pool."""
        begun = self.alive.poll()
        self.end()
        code = self.process.exitcode if self.process else None
        return cause_of_death(code, begun=begun, out_of_memory=out_of_memory_kills() > self.kills)

    def end(self) -> None:
        """Ends the process, whatever it does, and what it has started."""
        self.alive.close()
        self.executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _main_hidden(work: Callable) -> Iterator[None]:
    """Keeps a process that is started in the body from importing the user's script, as a guard of its own would.

    Workers import what they need by its module; a script without `if __name__ == "__main__"` would run once more in
    each of them.
    """
    main = sys.modules["__main__"]
    if work.__module__ == "__main__":
        yield
        return
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        for name in kept:
            setattr(main, name, None)
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _begin(alive: Connection) -> None:
    """Makes a new process a worker: out of the terminal's reach, and dead as soon as `alive` has no other end."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    alive.send(True)
    threading.Thread(target=_die_with, args=(alive,), daemon=True).start()


def _die_with(alive: Connection) -> None:
    """Waits until the engine closes the other end or its process ends in any way, then kills the process group."""
    alive.poll(None)
    os.killpg(0, signal.SIGKILL)


class LocalEngine(Engine[JobT, ResultT]):
    """Processes on this machine, one a slot."""

    def __init__(
        self, work: Callable[[JobT], ResultT], *, workers: int, log_dir: Path | None, jobs_per_worker: int
    ) -> None:
        super().__init__()
        if log_dir:
            log_dir.mkdir(parents=True, exist_ok=True)
        self._work, self._jobs_per_worker = work, jobs_per_worker
        self._workers: list[_Worker | None] = [None] * workers
        self._places = [Workplace(log_dir and log_dir.absolute() / f"worker-{i + 1}.log") for i in range(workers)]
        self._free = list(reversed(range(workers)))
        self._slot_of: dict[Future[Returned[ResultT]], int] = {}

    @property
    def slots(self) -> int:
        """Jobs that run at once."""
        return len(self._workers)

    def _start(self, job: JobT) -> "Future[Returned[ResultT]]":
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

    def _ended(self, future: "Future[Returned[ResultT]]") -> str:
        slot = self._slot_of.pop(future)
        self._free.append(slot)
        worker = self._workers[slot]
        if isinstance(future.exception(), BrokenProcessPool):
            self._workers[slot] = None
            return worker.cause_of_death() if worker else "was lost"
        if worker and worker.jobs >= self._jobs_per_worker:
            self._workers[slot] = None
            worker.end()
        return ""

    def _close(self) -> None:
        workers = [worker for worker in self._workers if worker]
        for worker in workers:  # all at once, before the first is waited for
            worker.alive.close()
        for worker in workers:
            worker.end()
