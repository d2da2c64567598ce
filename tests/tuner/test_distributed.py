"""KerasTuner's chief and workers: the three variables, and a real search over processes with one of them killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from tests.builders import a_trial, end_trial, open_oracle, search_folder, search_words
from tuner import distributed, runner
from tuner.config import TRIAL, SearchConfig
from tuner.distributed import ID, IP, PORT, ask_chief, role, serve
from tuner.search import main
from tuner.trials import Trials


@pytest.fixture
def port(monkeypatch):
    """A free port, and the variables of a chief at it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number = str(found.getsockname()[1])
    for name, value in ((IP, "127.0.0.1"), (PORT, number), (ID, "chief")):
        monkeypatch.setenv(name, value)
    return number


def test_the_variables_say_what_a_process_is(port, monkeypatch):
    assert role() == "chief"
    monkeypatch.setenv(ID, "worker0")
    assert role() == "worker"
    for name in (IP, PORT, ID):
        monkeypatch.delenv(name)
    assert role() is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (ID, "", f"A search over many processes needs {IP}, {PORT}, {ID}. Received: {IP} without {ID}. Set all"),
        (IP, "", f"Received: {PORT} without {IP}."),
        (PORT, "http", f"{PORT} is a port. Received: 'http'. Give for example 8790."),
    ],
)
def test_refuses_variables_that_do_not_fit(port, monkeypatch, tmp_path, capsys, name, value, message):
    monkeypatch.setenv(name, value)
    assert main(search_words(tmp_path)) == 2
    assert message in capsys.readouterr().err
    assert not search_folder(tmp_path).exists()


def test_a_chief_whose_trials_have_ended_waits_for_nobody(port, tmp_path, boxes_cache, monkeypatch):
    monkeypatch.setattr(runner, "_finish", lambda *_: None)
    config = SearchConfig(
        train=TrainConfig(dataset="boxes", validation_size=32, batch_size=40, **TRIAL | {"train_size": 160}),
        oracle="random",
        batch_sizes="40,80",
        max_trials=2,
        reports_dir=tmp_path,
    )
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_run", lambda *_, **__: None)
        runner.find(config)
    oracle = open_oracle(config.folder, batch_sizes="40,80", max_trials=2)
    trials = Trials(config.folder)
    for number in range(2):
        trial = oracle.create_trial("worker.0")
        end_trial(oracle, trial)
        trials.add(replace(a_trial(number, 0.05, {}), trial_id=trial.trial_id))
    runner.find(replace(config, resume=True))


def test_a_worker_without_a_chief_says_so(port, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(ID, "worker0")
    monkeypatch.setattr(distributed, "REACH_SECONDS", 0.1)
    assert main(search_words(tmp_path)) == 2
    assert f"A worker needs its chief. Received: nothing at 127.0.0.1:{port} for 0.1 s." in capsys.readouterr().err


def test_a_chief_refuses_an_address_that_is_taken(port, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        with pytest.raises(UsageError, match=rf"^A chief listens at .* Received: 127\.0\.0\.1:{port}, which is taken"):
            serve(open_oracle(tmp_path / "s"))


def test_workers_share_the_trials_of_a_chief_and_it_ends_with_them(port, tmp_path):
    oracle = open_oracle(tmp_path / "s")
    chief = threading.Thread(target=serve, args=(oracle,))
    chief.start()
    found: dict[str, list[str]] = {"a": [], "b": []}

    def work(name, client):
        while (trial := client.create_trial(name)).status == "RUNNING":
            found[name].append(trial.trial_id)
            end_trial(client, trial)

    workers = [
        threading.Thread(target=ask_chief, args=(lambda client, name=name: work(name, client),)) for name in found
    ]
    for worker in workers:
        worker.start()
    for thread in (*workers, chief):
        thread.join()
    assert sorted(found["a"] + found["b"]) == oracle.start_order == sorted(oracle.end_order)
    assert len(oracle.end_order) == 12


def test_a_worker_whose_chief_is_lost_says_so(port, tmp_path):
    oracle = open_oracle(tmp_path / "s")
    oracle.populate_space = lambda trial_id: 1 / 0  # what KerasTuner's chief answers any error with
    chief = threading.Thread(target=serve, args=(oracle,))
    chief.start()
    with pytest.raises(UsageError, match=r"^A worker needs its chief\. Received: .* was lost: .*division by zero"):
        ask_chief(lambda client: client.create_trial("a"))
    del oracle.populate_space
    oracle.deadline = 0
    ask_chief(lambda client: client.create_trial("a"))
    chief.join()


@pytest.mark.slow
def test_a_search_over_processes_survives_the_loss_of_a_worker(port, tmp_path, boxes, start):
    words = search_words(tmp_path, "--max-trials=3", "--top-k=0", "--workers=1")

    def started(name):
        command = [sys.executable, "-m", "tuner.search", *words]
        return start(command, stderr=subprocess.STDOUT, KERNORM_CACHE_DIR=str(boxes), **{ID: name})

    chief = started("chief")
    lost = started("worker0")
    for line in lost.stdout:
        if line.startswith("trial 1 "):
            break
    os.killpg(lost.pid, signal.SIGKILL)
    lost.communicate()
    again = started("worker0")
    told, _ = again.communicate()
    assert again.returncode == 0, told
    assert "worker0: the chief has no more trials" in told
    text, _ = chief.communicate()
    assert chief.returncode == 0, text
    assert "chief at 127.0.0.1:" in text
    trials = Trials(search_folder(tmp_path)).ended
    assert sorted(trial.number for trial in trials) == [0, 1, 2]
    assert [trial.status for trial in trials] == ["completed"] * 3
    oracle = json.loads((search_folder(tmp_path) / "oracle.json").read_text())
    assert sorted(oracle["end_order"]) == ["0", "1", "2"]
    assert (search_folder(tmp_path) / "report.html").exists()
