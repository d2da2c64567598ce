"""Whole runs with the nets as they are: killed, on JAX without TensorFlow, with other norms."""

import math
import os
import re
import signal
import subprocess
import sys

import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
from kernorm.records.record import read_record
from kernorm.training.run import train
from tests.builders import TINY_RUN, assert_equal_weights
from tests.processes import ON_JAX


@pytest.fixture
def tiny(tmp_path, boxes_cache):
    def config(**settings):
        places = {"reports_dir": tmp_path / "reports", "saved_models_dir": tmp_path / "saved_models"}
        return TrainConfig(**{**TINY_RUN, **places, **settings})

    return config


@pytest.mark.slow
def test_kill_9_and_the_same_command_end_with_the_same_weights(boxes_cache, tmp_path):
    """With two threads, whatever the other tests have."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TINY_RUN.items() if name != "export"]
    words += ["--l1=1e-5", "--no-export", "--threads=2"]
    whole = ["-X", "importtime", "-m", "kernorm.train", *words, f"--reports-dir={tmp_path / 'whole'}"]
    told = subprocess.run([sys.executable, *whole], capture_output=True, text=True, check=True).stderr
    # A run needs no statistical tests and models, whose modules would add a sixth to its start.
    assert set(re.findall(r"scipy\.special|scipy\.stats|statsmodels", told)) == {"scipy.special"}
    command = [sys.executable, "-m", "kernorm.train", *words, "--no-report", f"--reports-dir={tmp_path / 'killed'}"]
    (expected,) = (tmp_path / "whole" / "runs").glob("*/")
    folder = tmp_path / "killed" / "runs" / expected.name
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("epoch 2/3"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert read_record(folder / "record.json").status == "running"
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resumed after epoch 2" in again.stderr
    assert "epoch 1/3" not in again.stderr
    assert "accuracy" in again.stderr
    assert read_record(folder / "record.json").environment.threads == 2
    assert_equal_weights(folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "gn", "net": "eva4", "recipe": "eva4"},
        {"norm": "gbn", "ghost_batch_size": 20},
        {"norm": "brn"},
        {"norm": "frn", "penalize": "all", "l2": 1e-3},
        {"norm": "rms", "standardize_kernels": True, "schedule": "step"},
        {"norm": "cln", "norm_at": ("conv2=in",), "penalty_at": ("conv1=0,0.1",)},
    ],
)
def test_other_norms_train_and_report(tiny, mnist_cache, small_eva6, settings):
    digits = {"dataset": "mnist", "train_size": 600, "validation_size": 300}
    record = train(tiny(**digits, **settings, epochs=2, learning_rate=0.03, initializer="torch"))
    assert record.status == "finished"
    first, last = record.history[1], record.history[2]
    assert last.cross_entropy < first.cross_entropy
    assert {layer.norm for layer in record.layers} >= {settings["norm"]}


JAX = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "tensorflow" else found(name, package)
from kernorm import train
from kernorm.system import cli
sys.exit(cli.run(train.TrainConfig, train.main, prog=train.PROG, default=train.default))
"""


@pytest.mark.slow
def test_jax_trains_without_tensorflow_and_says_that_it_could_not_export(tiny, tmp_path):
    pytest.importorskip("jax")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TINY_RUN.items() if name != "export"]
    command = [sys.executable, "-c", JAX, *words, "--norm=ln", f"--reports-dir={tmp_path / 'jax'}"]
    environment = os.environ | ON_JAX
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    record = read_record(next((tmp_path / "jax" / "runs").glob("*/record.json")))
    assert record.environment.backend == "jax"
    assert "not exported" in ran.stdout
    assert "pip install tensorflow" in record.export.reason
    # Each backend draws initial kernels by its own generator, so weights differ; the data do not.
    assert record.data == load(tiny()).info
    assert record.history[3].cross_entropy < record.history[1].cross_entropy < 1.5 * math.log(10)
