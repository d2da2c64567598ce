"""Both engines with real processes: outcomes, errors, killed workers, and that nothing is left behind."""

import os
import select
import signal
import socket
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.parallel.engine import JOBS_PER_WORKER, Outcome
from kernorm.parallel.factory import open_engine
from kernorm.parallel.settings import EngineConfig
from kernorm.system import processes
from kernorm.system.processes import cause_of_death
from kernorm.training.run import train
from tests.jobs import (
    crash,
    die,
    die_once,
    hold,
    hold_once,
    imported,
    leave,
    not_picklable,
    pid,
    refuse_odd,
    square,
    terminate,
)

ROOT = Path(__file__).parents[2]


class Fifo:
    """What jobs that hold it have written, and whether one still does."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = str(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = ""

    def read(self):
        select.select([self.reader], [], [])
        got = os.read(self.reader, 4096).decode()
        self.text += got
        return got

    def wait_for_holders(self, count):
        while self.text.count("\n") < count:
            # Readable, and empty, also before the first holder has come.
            poll = select.poll()
            poll.register(self.reader, select.POLLIN)
            poll.poll()
            self.text += os.read(self.reader, 4096).decode()

    def wait_until_free(self):
        while self.read():
            pass


def wait_until_ended(pidfds):
    for pidfd in pidfds:
        select.select([pidfd], [], [])
        os.close(pidfd)


@pytest.fixture
def fifo(tmp_path):
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    os.close(fifo.reader)


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of one node with two cores."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        yield cluster
        cluster.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request, tmp_path, monkeypatch):
    """Opens an engine of either kind with two slots, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    settings = {"name": request.param, "workers": 2, "log_dir": Path("logs")}
    if request.param == "ray":
        settings["address"] = request.getfixturevalue("cluster").address
    log_dir = settings.pop("log_dir")

    def opened(work, jobs_per_worker=JOBS_PER_WORKER, **more):
        return open_engine(work, EngineConfig(**{**settings, **more}), log_dir=log_dir, jobs_per_worker=jobs_per_worker)

    return opened


def outcomes_by_job(engine, jobs):
    with engine:
        for job in jobs:
            engine.submit(job)
        return {outcome.job: outcome for outcome in engine.outcomes()}


def log_text(tmp_path):
    return "".join(path.read_text() for path in sorted((tmp_path / "logs").iterdir()))


def test_every_job_has_its_outcome_and_more_may_come_in_between(engine, tmp_path, capfd):
    found = {}
    with engine(square) as opened:
        assert opened.slots == 2
        for job in range(4):
            opened.submit(job)
        for outcome in opened.outcomes():
            found[outcome.job] = outcome
            if outcome.job < 4:
                opened.submit(outcome.job + 10)
        assert list(opened.outcomes()) == []
        opened.submit(20)
        assert [outcome.result for outcome in opened.outcomes()] == [400]
    assert found == {job: Outcome(job, job**2, None, 1) for job in (0, 1, 2, 3, 10, 11, 12, 13)}
    lines = log_text(tmp_path).splitlines()
    assert sorted(lines) == ["natively"] * 9 + sorted(f"squaring {job}" for job in (*found, 20))
    assert capfd.readouterr() == ("", "")


def test_an_error_concerns_its_own_job_and_is_one_line(engine, tmp_path):
    found = outcomes_by_job(engine(refuse_odd), range(5))
    assert found[1] == Outcome(1, None, "ValueError: 1 is odd", 1)
    assert found[3] == Outcome(3, None, "SystemExit: three", 1)
    assert [found[job].result for job in (0, 2, 4)] == [0, 2, 4]
    assert "Traceback" in log_text(tmp_path)
    assert 'raise ValueError(f"{number} is\\nodd")' in log_text(tmp_path)


def test_a_result_that_cannot_be_sent_is_an_error(engine):
    (found,) = outcomes_by_job(engine(not_picklable), [1]).values()
    assert found.result is None
    assert "pickle" in found.error
    assert "\n" not in found.error


def test_a_worker_imports_keras_as_fast_as_a_command(engine):
    assert outcomes_by_job(engine(imported), [0])[0].result == (False, True)


def test_a_killed_worker_costs_its_job_one_more_start_and_the_others_none(engine, tmp_path, capfd):
    first, other = str(tmp_path / "marker"), str(tmp_path / "nowhere" / "marker")
    found = outcomes_by_job(engine(die_once), [first, other])
    assert found == {first: Outcome(first, first, None, 2), other: Outcome(other, other, None, 1)}
    assert capfd.readouterr() == ("", "")


def test_a_job_that_kills_every_worker_is_an_error(engine):
    found = outcomes_by_job(engine(die), range(4))
    assert (found[1].result, found[1].attempts) == (None, 2)
    assert found[1].error.startswith("its worker was killed ")
    assert found[1].error.endswith("; 2 attempts")
    assert [found[job] for job in (0, 2, 3)] == [Outcome(job, job, None, 1) for job in (0, 2, 3)]


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (die, "was killed by SIGKILL, by another process or for lack of memory"),
        (crash, "crashed with SIGSEGV in native code"),
        (leave, "ended with exit code 7; its message is above or in its log"),
        (terminate, "was ended by SIGTERM"),
    ],
)
def test_a_lost_worker_is_told_by_its_cause(work, told):
    (found,) = outcomes_by_job(open_engine(work, EngineConfig(workers=1)), [1]).values()
    assert found.error == f"its worker {told}; 2 attempts"


def test_a_worker_that_cannot_import_its_work_is_told(monkeypatch, capfd):
    # Of a module that the driver has and a new process cannot import, as one that a notebook makes.
    module = types.ModuleType("only_in_the_driver")
    work = types.FunctionType(square.__code__, module.__dict__, "work")
    module.work, work.__module__, work.__qualname__ = work, module.__name__, "work"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (found,) = outcomes_by_job(open_engine(work, EngineConfig(workers=1)), [1]).values()
    assert found.error == "its worker ended with exit code 1; its message is above or in its log; 2 attempts"
    assert "ModuleNotFoundError: No module named 'only_in_the_driver'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "begun", "out_of_memory", "told"),
    [
        (-9, True, True, "was killed by SIGKILL, for lack of memory"),
        (1, False, False, "ended with exit code 1 before its first job; its message is above or in its log"),
        (None, False, False, "was lost"),
        (-6, True, True, "crashed with SIGABRT in native code"),
    ],
)
def test_causes_of_death(code, begun, out_of_memory, told):
    assert cause_of_death(code, begun=begun, out_of_memory=out_of_memory).startswith(told)


def test_kills_for_lack_of_memory_are_counted(tmp_path, monkeypatch):
    vmstat, events = tmp_path / "vmstat", tmp_path / "memory.events"
    vmstat.write_text("pgfault 17\noom_kill 3\n")
    events.write_text("low 0\noom 5\noom_kill 4\n")
    monkeypatch.setattr(processes, "_COUNTS", (vmstat, events, tmp_path / "missing"))
    assert processes.out_of_memory_kills() == 7


def test_a_worker_killed_at_rest_is_replaced(engine):
    with engine(pid, workers=1) as opened:
        opened.submit(1)
        (first,) = opened.outcomes()
        end = os.pidfd_open(first.result)
        os.kill(first.result, signal.SIGKILL)
        wait_until_ended([end])
        opened.submit(2)
        (second,) = opened.outcomes()
    assert second.error is None
    assert second.result != first.result


def test_workers_are_replaced_after_some_jobs(engine):
    found = outcomes_by_job(engine(pid, workers=1, jobs_per_worker=2), range(5))
    of_job = [found[job].result for job in range(5)]
    assert of_job[0] == of_job[1] != of_job[2] == of_job[3] != of_job[4]
    assert JOBS_PER_WORKER > 1


@pytest.mark.slow
def test_a_run_computes_the_same_in_a_used_worker(boxes_cache, tmp_path):
    tiny = TrainConfig(
        net="eva6", dataset="boxes", validation_size=32, epochs=1, batch_size=40, threads=1, export=False, report=False
    )
    first, second = (replace(tiny, norm=norm, reports_dir=tmp_path / "reports") for norm in ("gn", "bn"))
    elsewhere = replace(second, reports_dir=tmp_path / "elsewhere")
    found = outcomes_by_job(open_engine(train, EngineConfig(workers=1), jobs_per_worker=2), [first, second, elsewhere])
    assert [outcome.error for outcome in found.values()] == [None] * 3
    used, fresh = found[second].result, found[elsewhere].result
    assert used.history[-1].loss == fresh.history[-1].loss
    assert used.layers == fresh.layers
    assert used.test == fresh.test


def test_leaving_ends_what_runs_and_what_is_queued(engine, fifo):
    with engine(hold) as opened:
        for _ in range(5):
            opened.submit(fifo.path)
        fifo.wait_for_holders(2)
    fifo.wait_until_free()
    assert fifo.text.count("\n") == 2


DRIVER = """
import sys
from tests.jobs import hold
from kernorm.parallel.factory import open_engine
from kernorm.parallel.settings import EngineConfig
from kernorm.system import cli
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    fifo: str
    name: str

def main(config):
    with open_engine(hold, EngineConfig(name=config.name, workers=2)) as opened:
        for _ in range(3):
            opened.submit(config.fifo)
        list(opened.outcomes())

if __name__ == "__main__":
    sys.exit(cli.run(Config, main, prog="driver"))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_no_process_outlives_its_driver(name, number, fifo, tmp_path, start):
    if name == "ray":
        pytest.importorskip("ray")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = start([sys.executable, script, "--fifo", fifo.path, "--name", name])
    fifo.wait_for_holders(2)
    others = psutil.Process(driver.pid).children(recursive=True)
    assert len(others) >= 4
    # After SIGKILL two of Ray's agents, which hold no job, notice only after a minute; the fixture ends them.
    late = ("ray::DashboardAgent", "ray::RuntimeEnvAgent") if number == signal.SIGKILL else ()
    ends = [os.pidfd_open(other.pid) for other in others if other.name() not in late]
    # Ctrl-C reaches the terminal's whole foreground group.
    os.killpg(driver.pid, number) if number == signal.SIGINT else driver.send_signal(number)
    _, said = driver.communicate()
    fifo.wait_until_free()
    wait_until_ended(ends)
    if number == signal.SIGKILL:
        assert driver.returncode == -signal.SIGKILL
    else:
        assert driver.returncode == 128 + number
        assert said == "\nInterrupted. Run the same command again.\n"


@pytest.mark.slow
def test_the_jobs_of_a_lost_node_move(cluster, fifo):
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    try:
        first = nodes.add_node(**node)
        with open_engine(hold_once, EngineConfig(name="ray", address=nodes.address)) as opened:
            assert opened.slots == 1
            opened.submit(fifo.path)
            fifo.wait_for_holders(1)
            second = nodes.add_node(**node)
            nodes.remove_node(first, allow_graceful=False)
            (found,) = opened.outcomes()
    finally:
        nodes.shutdown()
    assert found == Outcome(fifo.path, second.node_id, None, 2)


def test_what_hands_out_the_jobs_stays_light():
    code = (
        "import sys; from tests.jobs import square; from kernorm.parallel.factory import open_engine\n"
        "if __name__ == '__main__':\n"
        "    with open_engine(square) as opened:\n"
        "        opened.submit(3); print(*(outcome.result for outcome in opened.outcomes()))\n"
        "    print({'tensorflow', 'keras', 'jax'} & set(sys.modules), 'ray' in sys.modules)"
    )
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    told = subprocess.run([sys.executable, "-c", code], **settings).stdout
    assert told == "squaring 3\n9\nset() False\n"


SCRIPT = """
import sys
from kernorm.parallel.factory import open_engine
from tests.jobs import square

print("begins")
with open_engine(square) as opened:
    opened.submit(3)
    print(*(outcome.result for outcome in opened.outcomes()))
print(__spec__, __file__ == sys.argv[0])
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    told = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True).stdout
    assert told == "begins\nsquaring 3\n9\nNone True\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "rya"}, r"--engine takes a known name\. Received: 'rya'\. Did you mean 'ray'\? Known: local, ray\."),
        ({"workers": 0}, r"--workers must be at least 1\. Received: workers=0\. Give"),
        ({"workers": -2}, r"Received: workers=-2\."),
        ({"threads": 0}, r"--threads must be from 1 to 1024\. Received: threads=0\. Give"),
        ({"name": "ray", "gpus_per_job": -0.5}, r"share from 0 to 1.* Received: gpus_per_job=-0\.5\. Give"),
        ({"name": "ray", "gpus_per_job": 1.5}, r"Received: gpus_per_job=1\.5\. Give"),
        ({"name": "ray", "gpus_per_job": float("nan")}, r"Received: gpus_per_job=nan\. Give"),
        ({"gpus_per_job": 0.5}, r"belong to --engine ray\. Received: gpus_per_job=0\.5 with engine='local'\. Remove"),
        ({"address": "here:6379"}, r"Received: address='here:6379' with engine='local'\. Remove it"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        EngineConfig(**settings)


def test_ray_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = r"must be installed\. Received: --engine ray, which is not\. pip install ray, or give"
    with pytest.raises(UsageError, match=message):
        open_engine(square, EngineConfig(name="ray"))


@pytest.mark.extra
@pytest.mark.parametrize("form", ["{}:{}", "ray://{}:{}"])
def test_a_cluster_that_cannot_be_reached_is_refused(form, capfd):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(*server.getsockname())
    with pytest.raises(UsageError, match=rf"can be reached\. Received: address='{address}', ConnectionRefusedError: "):
        open_engine(square, EngineConfig(name="ray", address=address))
    assert capfd.readouterr() == ("", "")


@pytest.mark.extra
@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:99999999", "no-such-host.invalid:6379"])
def test_what_is_no_address_is_refused(address):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=rf"Received: address='{address}', .*\. Give the host:port that"):
        open_engine(square, EngineConfig(name="ray", address=address))


@pytest.mark.slow
def test_jobs_that_no_node_has_room_for_are_refused(cluster):
    message = r"must fit one node.* Received: 1 CPU a job, 0\.5 GPU a job with 2 CPU and 0 GPU in all\. Ask for less"
    with pytest.raises(UsageError, match=message):
        open_engine(square, EngineConfig(name="ray", address=cluster.address, gpus_per_job=0.5))
    with pytest.raises(UsageError, match=r"Received: 3 CPU a job with 2 CPU"):
        open_engine(square, EngineConfig(name="ray", address=cluster.address, threads=3))
    with open_engine(square, EngineConfig(name="ray", address=cluster.address, threads=2)) as opened:
        assert opened.slots == 1
