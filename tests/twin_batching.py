"""Batching of the twin of TF Serving, as its batching session does: one queue, requests merged, one error for all.

Which requests are merged is the test's choice: while `gate` is not set, they queue up.
"""

import queue
import re
import threading
from concurrent.futures import Future

import numpy as np

from tests.twin_models import Failed


def read_parameters(text):
    """Reads a file of --batching_parameters_file; its message is in no Python package.

    Raises:
        Failed: the server would not start with it.
    """
    text = re.sub(r"#.*", "", text)
    found = {name: value for name, value in re.findall(r"(\w+) \{ value: (\w+) \}", text)}
    numbers = {name: value == "true" if value in ("true", "false") else int(value) for name, value in found.items()}
    sizes = [int(size) for size in re.findall(r"allowed_batch_sizes: (\d+)", text)]
    splitting = numbers.setdefault("enable_large_batch_splitting", False)
    largest = numbers["max_batch_size"]
    if sizes != sorted(set(sizes)) or sizes[-1:] != [largest]:
        raise Failed("INVALID_ARGUMENT", "final entry in allowed_batch_sizes must equal max_batch_size")
    if numbers.setdefault("max_execution_batch_size", largest) > largest or (
        not splitting and numbers["max_execution_batch_size"] != largest
    ):
        raise Failed("INVALID_ARGUMENT", "max_execution_batch_size must be at most max_batch_size")
    return numbers


class Batching:
    """Merges requests for the same version and signature."""

    def __init__(self, run, parameters):
        self.execute, self.parameters, self.waiting = run, parameters, queue.Queue()
        self.gate, self.changed, self.count, self.lost = threading.Event(), threading.Condition(), 0, []
        self.gate.set()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def run(self, version, name, values):
        """Queues a request and waits for its answer; that of an empty one never comes."""
        answer = Future()
        if len(values) > self.parameters["max_batch_size"]:
            size = self.parameters["max_batch_size"]
            raise Failed("INVALID_ARGUMENT", f"Task size {len(values)} is larger than maximum input batch size {size}")
        if len(values):
            self.waiting.put((version, name, values, answer))
        else:
            self.lost.append(answer)
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        return answer.result()

    def wait_for(self, count):
        """Waits until so many requests have been queued since the start."""
        with self.changed:
            self.changed.wait_for(lambda: self.count >= count)

    def close(self):
        """Ends the thread, and the requests that nobody answers."""
        self.gate.set()
        self.waiting.put(None)
        self.thread.join()
        for answer in self.lost:
            answer.set_exception(Failed("UNAVAILABLE", "the server ends"))

    def _work(self):
        while (task := self.waiting.get()) is not None:
            self.gate.wait()
            batch = [task]
            while not self.waiting.empty() and len(batch) < self.parameters["max_execution_batch_size"]:
                if (more := self.waiting.get()) is None:
                    self.waiting.put(None)
                    break
                batch.append(more)
            for version, name in {task[:2] for task in batch}:
                self._answer(version, name, [task for task in batch if task[:2] == (version, name)])

    def _answer(self, version, name, tasks):
        limit = self.parameters["max_execution_batch_size"]
        try:
            merged = np.concatenate([values for _, _, values, _ in tasks])
            parts = [self.execute(version, name, merged[at : at + limit]) for at in range(0, len(merged), limit)]
            answers = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        except Failed as error:
            for *_, answer in tasks:
                answer.set_exception(error)
            return
        start = 0
        for _, _, values, answer in tasks:
            answer.set_result({key: array[start : start + len(values)] for key, array in answers.items()})
            start += len(values)
