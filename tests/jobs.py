"""What workers do in the tests of engines; imports neither Keras nor pytest, so that a child process begins at once."""

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


def square(number):
    print("squaring", number)
    os.write(2, b"natively\n")
    return number**2


def refuse_odd(number):
    if number == 3:
        sys.exit("three")
    if number % 2:
        raise ValueError(f"{number} is\nodd")
    return number


def not_picklable(_):
    return threading.Lock()


def imported(_):
    """Imports Keras; returns whether it brought pandas along, and whether the collector leaves what it made alone."""
    from kernorm.system.backend import choose_backend

    choose_backend()
    return "pandas" in sys.modules, gc.get_freeze_count() > 100_000


def pid(_):
    return os.getpid()


def die_once(path):
    """Kills its worker the first time, if the marker's folder is there."""
    marker = Path(path)
    if marker.parent.exists() and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(_):
    os._exit(7)


def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)


def hold(fifo):
    """Says in the FIFO who it is, with its child, then holds it open until both are killed."""
    descriptor = os.open(fifo, os.O_WRONLY)
    child = subprocess.Popen(["sleep", "1000"], pass_fds=[descriptor])
    os.write(descriptor, f"{os.getpid()} {child.pid}\n".encode())
    signal.pause()


def hold_once(path):
    """Holds the FIFO `path` the first time; returns its worker's node the second."""
    import ray

    marker = Path(f"{path}.begun")
    if not marker.exists():
        marker.touch()
        hold(path)
    return ray.get_runtime_context().get_node_id()
