"""Which runs go together, and how they are handed to workers; and whole studies and searches of populations."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.parallel.batches import Populations
from kernorm.parallel.engine import Engine
from kernorm.parallel.factory import accelerators, open_training
from kernorm.parallel.grouping import DYNAMIC, grouped, padded, static_key
from kernorm.parallel.jobs import Members
from kernorm.parallel.settings import EngineConfig
from kernorm.records.record import read_record
from kernorm.studies.ledger import Ledger
from kernorm.study import StudyConfig
from tests.processes import ON_JAX
from tuner.config import SearchConfig
from tuner.trials import Trials


def test_what_is_a_value_of_the_program_may_differ_and_the_rest_may_not():
    base = TrainConfig()
    same = {
        "seed": 3,
        "l1": 0.1,
        "l2": 0.2,
        "learning_rate": 0.5,
        "rotation": 3.0,
        "flip": "horizontal",
        "schedule": "constant",
        "momentum": 0.5,
        "penalize": "all",
        "threads": 2,
        "penalty_at": ("conv1=1,1",),
    }
    other = {
        "norm": "ln",
        "batch_size": 32,
        "epochs": 3,
        "net": "eva6",
        "dropout": 0.1,
        "clip_ratio": None,
        "train_size": 100,
        "nesterov": False,
        "interpolation": "nearest",
        "fill": "reflect",
        "ema": 0.9,
        "label_smoothing": 0.1,
        "optimizer": "adamw",
        "elastic": 30.0,
        "contrast": 0.2,
        "groups": 2,
        "class_weight": "balanced",
    }
    for name, value in same.items():
        assert static_key(TrainConfig(**{name: value})) == static_key(base), name
    for name, value in other.items():
        assert static_key(TrainConfig(**{name: value})) != static_key(base), name
    assert set(same) <= set(DYNAMIC)
    assert static_key(TrainConfig(schedule="cosine", warmup=1)) == static_key(base)
    # Other programs: one without any map, one without momentum.
    assert static_key(TrainConfig(rotation=0.0, shift=0.0)) != static_key(base)
    assert static_key(TrainConfig(rotation=0.0, shift=0.0, flip="both")) == static_key(base)
    assert static_key(TrainConfig(brightness=0.1)) == static_key(TrainConfig(contrast=0.1))
    assert static_key(TrainConfig(momentum=0.0, nesterov=False)) != static_key(TrainConfig(nesterov=False))


def test_groups_keep_the_order_in_which_runs_came():
    configs = [TrainConfig(norm=norm, seed=seed) for seed in range(2) for norm in ("bn", "ln")]
    groups = grouped(configs)
    assert [[(config.norm, config.seed) for config in group] for group in groups] == [
        [("bn", 0), ("bn", 1)],
        [("ln", 0), ("ln", 1)],
    ]


@pytest.mark.parametrize(
    ("count", "limit", "devices", "width"),
    [
        (1, 128, 1, 1),
        (2, 128, 1, 2),
        (5, 128, 1, 8),
        (10, 128, 1, 10),
        (11, 128, 1, 12),
        (20, 128, 1, 20),
        (33, 128, 1, 40),
        (41, 128, 1, 48),
        (3, 4, 1, 4),
        (3, 3, 2, 4),
        (1, 128, 4, 4),
        (9, 128, 5, 10),
        (11, 128, 5, 15),
        (200, 200, 1, 200),
    ],
)
def test_widths_are_few_and_a_multiple_of_the_devices(count, limit, devices, width):
    assert padded(count, limit, devices) == width


@dataclass(frozen=True)
class Job:
    config: TrainConfig


class Recorder(Engine):
    """Does its jobs at once, in this process, and keeps what it was given."""

    def __init__(self, slots, work):
        super().__init__()
        self.given, self._slots, self._work = [], slots, work

    @property
    def slots(self):
        return self._slots

    def _start(self, job):
        self.given.append(job)
        future = Future()
        future.set_result(self._work(job))
        return future

    def _ended(self, future):
        return False

    def _close(self):
        pass


def seeds(members):
    return [(f"record of {job.config.seed}", None) for job in members.jobs], None


def shape(recorder):
    return [(job.jobs[0].config.norm, len(job.jobs)) for job in recorder.given]


def jobs(**counts):
    return [Job(TrainConfig(norm=norm, seed=seed)) for norm, count in counts.items() for seed in range(count)]


def test_the_fullest_group_goes_first_and_every_job_has_its_outcome():
    recorder = Recorder(1, seeds)
    with Populations(recorder, width=4, asked=4) as populations:
        assert populations.slots == 4
        for job in jobs(bn=2, ln=6, gn=3):
            populations.submit(job)
        outcomes = list(populations.outcomes())
    assert shape(recorder) == [("ln", 4), ("gn", 3), ("bn", 2), ("ln", 2)]
    assert sorted((o.job.config.norm, o.result) for o in outcomes) == sorted(
        (job.config.norm, f"record of {job.config.seed}") for job in jobs(bn=2, ln=6, gn=3)
    )
    assert all((o.error, o.attempts) == (None, 1) for o in outcomes)


def test_a_group_is_shared_out_over_the_workers_that_are_free():
    recorder = Recorder(4, seeds)
    with Populations(recorder, width=None, asked=128) as populations:
        for job in jobs(bn=10):
            populations.submit(job)
        assert len(list(populations.outcomes())) == 10
    assert shape(recorder) == [("bn", 4), ("bn", 2), ("bn", 2), ("bn", 2)]  # three are padded to four


def test_what_outcomes_make_their_reader_submit_is_trained_together():
    recorder = Recorder(1, seeds)
    more = jobs(gn=3)
    with Populations(recorder, width=8, asked=8) as populations:
        for job in jobs(bn=3):
            populations.submit(job)
        seen = []
        for outcome in populations.outcomes():
            seen.append(outcome.job.config.norm)
            if more:
                populations.submit(more.pop())
    assert seen == ["bn"] * 3 + ["gn"] * 3
    assert shape(recorder) == [("bn", 3), ("gn", 3)]


def test_a_population_that_fails_as_a_whole_fails_each_of_its_runs():
    def work(members):
        return (None, "RuntimeError: out of memory") if members.jobs[0].config.norm == "ln" else seeds(members)

    recorder = Recorder(1, work)
    with Populations(recorder, width=8, asked=8) as populations:
        for job in jobs(ln=2, bn=1):
            populations.submit(job)
        found = {(o.job.config.norm, o.job.config.seed): (o.result, o.error) for o in populations.outcomes()}
    assert found == {
        ("ln", 0): (None, "RuntimeError: out of memory"),
        ("ln", 1): (None, "RuntimeError: out of memory"),
        ("bn", 0): ("record of 0", None),
    }


@pytest.mark.parametrize("value", [0, -1])
def test_refuses_a_population_without_members(monkeypatch, value):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    message = rf"--population must be auto or at least 1\. Received: population={value}\. Give"
    with pytest.raises(UsageError, match=message):
        EngineConfig(population=value)


@pytest.mark.parametrize("command", [lambda **words: StudyConfig(study="smoke", **words), SearchConfig])
def test_refuses_a_population_without_jax(monkeypatch, command):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(UsageError, match=r"A population needs Keras on JAX\. Received: KERAS_BACKEND=tensorflow\. Set"):
        command(engine=EngineConfig(population="auto"))
    assert command(engine=EngineConfig(population=None)).engine.population is None


@pytest.mark.extra
def test_trials_that_are_suggested_at_once():
    pytest.importorskip("jax")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        asked = [
            SearchConfig(engine=EngineConfig(population=population), max_trials=trials).asked
            for population, trials in (("auto", 30), ("auto", 1000), (7, 30))
        ]
    assert asked == [8, 32, 7]


@pytest.fixture
def on_jax(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")


@pytest.mark.extra
def test_without_an_accelerator_auto_is_the_ordinary_engine(on_jax, caplog):
    if accelerators():
        pytest.skip("there is an accelerator")
    caplog.set_level("INFO", "kernorm")
    engine = open_training(EngineConfig(population="auto", workers=2))
    assert not isinstance(engine, Populations)
    assert engine.slots == 2
    assert "no accelerator, so runs go one after another" in caplog.text
    one = open_training(EngineConfig(population=3))
    assert isinstance(one, Populations)
    assert one.slots == 3


@pytest.mark.extra
def test_why_jax_finds_no_accelerator_is_said(on_jax, caplog, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    assert accelerators.__wrapped__() == 0
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match("JAX finds no accelerator: RuntimeError: Unable to initialize backend 'rocm'", told)


@pytest.mark.extra
@pytest.mark.parametrize(
    ("stats", "free"),
    [
        ({"bytes_limit": 100, "bytes_in_use": 30}, 70),
        ({"bytes_limit": 100}, 100),
        ({"bytes_in_use": 30}, None),
        (None, None),
    ],
)
def test_the_free_memory_of_a_device_that_may_not_tell_it(on_jax, stats, free):
    from kernorm.parallel.capacity import Placement

    device = SimpleNamespace(memory_stats=lambda: stats)
    assert Placement._free(SimpleNamespace(devices=[device])) == free


@pytest.mark.extra
def test_auto_on_ray_needs_a_share_of_a_gpu(on_jax, caplog, monkeypatch):
    caplog.set_level("INFO", "kernorm")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="An engine must be installed"):  # so that no Ray is started
        open_training(EngineConfig(name="ray", population="auto"))
    assert "population: no --gpus-per-job, so runs go one after another" in caplog.text


@pytest.mark.extra
def test_workers_that_share_an_accelerator_share_its_memory(on_jax):
    recorder = Recorder(1, seeds)
    with Populations(recorder, width=None, asked=8, memory=0.25) as populations:
        populations.submit(*jobs(bn=1))
        list(populations.outcomes())
    assert [members.memory for members in recorder.given] == [0.25]
    opened = open_training(EngineConfig(population=3, workers=4))
    assert isinstance(opened, Populations)
    assert (opened._memory, opened.slots) == (0.25, 3)


STUDY = '''"""Does a study train populations?"""
from kernorm.config import TrainConfig

def tiny(**values):
    return TrainConfig(dataset="boxes", net="eva6", validation_size=64, batch_size=32, epochs=1, clip_ratio=None, **values)

ARMS = {
    "none": tiny(norm="none"), "l2": tiny(norm="none", l2=1e-2), "refused": tiny(norm="none", penalty_at=("conv99=1,1",)),
    "wild": tiny(norm="none", l2=1e3, learning_rate=1e3, initializer="he_normal"),
}
SEEDS = 2
'''  # noqa: E501


def ran(boxes, *words, **variables):
    pytest.importorskip("jax")
    environment = {**os.environ, **ON_JAX, "KERNORM_CACHE_DIR": str(boxes), **variables}
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def roots(told):
    """Returns the packages of which a part was imported, by PYTHONPROFILEIMPORTTIME; one that was hidden has none."""
    return set(re.findall(r"\| +(\w+)\.", told))


def check_study(folder, done):
    results = {(result.arm, result.seed): result for result in Ledger(folder).results.values()}
    assert {name: result.status for name, result in results.items()} == {
        (arm, seed): {"wild": "diverged", "refused": "failed"}.get(arm, "finished")
        for arm in ("none", "l2", "refused", "wild")
        for seed in (0, 1)
    }, done.stderr
    assert results["l2", 1].record.environment.population == 6
    assert results["l2", 1].record.history[1].l2_penalty > 0 == results["none", 1].record.history[1].l2_penalty
    assert results["refused", 0].message.startswith("UsageError: --penalty-at takes a layer with a kernel.")
    assert "2 diverged" in done.stdout
    assert done.returncode == 1  # two runs failed


@pytest.mark.slow
def test_a_study_of_populations_in_jax(boxes, tmp_path):
    (tmp_path / "mine.py").write_text(STUDY)
    words = ["kernorm.study", tmp_path / "mine.py", "--population=8", f"--reports-dir={tmp_path / 'reports'}"]
    done = ran(boxes, *words, PYTHONPROFILEIMPORTTIME="1")
    folder = tmp_path / "reports" / "studies" / "mine"
    check_study(folder, done)
    assert "side by side" not in done.stderr
    log = (folder / "logs" / "worker-1.log").read_text()
    assert "6 members (8 wide)" in log
    assert roots(log) & {"jax", "keras", "tensorflow"} == {"jax", "keras"}
    # What has failed is tried again, and nothing else.
    lines = (folder / "records.jsonl").read_text().splitlines()
    ran(boxes, *words)
    again = (folder / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["arm"] for line in again[len(lines) :]] == ["refused", "refused"]


@pytest.mark.slow
def test_a_study_of_populations_in_jax_on_ray(boxes, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "mine.py").write_text(STUDY)
    done = ran(
        boxes,
        "kernorm.study",
        tmp_path / "mine.py",
        "--population=8",
        f"--reports-dir={tmp_path / 'reports'}",
        "--engine=ray",
        "--workers=1",
    )
    check_study(tmp_path / "reports" / "studies" / "mine", done)


@pytest.mark.slow
def test_a_search_of_populations_in_jax(boxes, tmp_path):
    """Hyperband: the survivors of a rung go on from their checkpoints, stacked anew."""
    places = [f"--reports-dir={tmp_path / 'reports'}", f"--saved-models-dir={tmp_path / 'models'}"]
    words = [
        "--dataset=boxes",
        "--net=eva6",
        "--norm=none",
        "--validation-size=64",
        "--train-size=96",
        "--epochs=4",
        "--batch-sizes=32",
        "--oracle=hyperband",
        "--population=4",
        "--top-k=0",
        "--no-final",
    ]
    done = ran(boxes, "tuner.search", *words, *places, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert roots(done.stderr) & {"keras", "tensorflow"} == {"keras"}
    folder = tmp_path / "reports" / "searches" / "search"
    trials = Trials(folder).ended
    assert {trial.status for trial in trials} == {"completed"}
    promoted = [trial for trial in trials if trial.values.get("tuner/initial_epoch")]
    assert promoted
    sides = set()
    for trial in trials:
        record = read_record(folder / "runs" / trial.repeats[0].run_id / "record.json")
        assert trial.score == record.history[trial.epochs].val_cross_entropy
        assert (record.test, record.openings) == (None, ())
        sides.add(record.environment.population)
    assert max(sides) == 4
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {trial.trial_id for trial in trials}


def test_members_are_pickled_to_their_worker():
    import pickle

    members = Members(tuple(jobs(bn=2)), None)
    assert pickle.loads(pickle.dumps(members)) == members
