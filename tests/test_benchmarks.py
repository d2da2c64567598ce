"""The tables that benchmarks write: of the same runs on two devices, and of recipes that were tried."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.recipes import recipe
from kernorm.studies.ledger import Ledger
from tests.benchmarks import devices, recipes
from tests.builders import COUNT, a_study, make_record, some_results

ARMS = {"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}


def a_ledger(folder, device, **errors):
    study = a_study(ARMS, seeds=3)
    environment = replace(make_record().environment, device=device)
    (folder / study.name).mkdir(parents=True)
    Ledger(folder / study.name).rewrite(some_results(study, errors, environment=environment).values())
    return str(folder)


@pytest.fixture
def printed(monkeypatch, capsys):
    def printed(*words):
        monkeypatch.setattr(sys, "argv", ["devices", *map(str, words)])
        return devices.main(), *capsys.readouterr()

    return printed


def test_devices_are_compared_by_the_runs_that_both_have_trained(tmp_path, printed):
    here = a_ledger(tmp_path / "here", "cpu", bn=(20, 22, 25), ln=(31, COUNT * 9 // 10))
    # The last seed is of one device alone; a net that has collapsed on both says nothing.
    there = a_ledger(tmp_path / "there", "gpu", bn=(24, 20), ln=(30, COUNT * 9 // 10))
    code, text, _ = printed(here, there, "--out", tmp_path / "devices.csv")
    by_seed = -np.array([np.mean([24 - 20, 30 - 31]), 20 - 22]) / COUNT
    low, high = stats.t.interval(0.95, 1, by_seed.mean(), stats.sem(by_seed))
    told = f"there − here: {by_seed.mean():+.6f} [{low:+.6f}, {high:+.6f}], 3 runs of 2 seeds"
    assert (code, text.splitlines()[0]) == (0, f"{'accuracy':14} {told}")
    table = pd.read_csv(tmp_path / "devices.csv")
    assert sorted(table.there_accuracy) == pytest.approx(sorted(1 - np.array([24, 20, 30]) / COUNT))
    assert set(table.here_device) == {"cpu"}
    assert set(table.there_device) == {"gpu"}


def test_runs_of_one_device_are_not_compared(tmp_path, printed):
    folders = [a_ledger(tmp_path / name, "cpu", bn=(20, 22, 25)) for name in ("here", "there")]
    assert printed(*folders) == (2, "", "Fewer than two seeds of a net that both devices have trained.\n")


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "tried.csv"
    with recipes.TABLE.open() as file:
        path.write_text(file.readline())
    monkeypatch.setattr(recipes, "TABLE", path)
    return path


SHORT = "--recipe best --epochs 2 --label-smoothing 0.1"


def test_a_recipe_is_tried_on_validation_images_alone():
    config = recipes.config_of(SHORT, 3)
    assert config.run_id == replace(recipe("best", epochs=2, label_smoothing=0.1), seed=3).run_id
    assert (config.stop_after, config.export, config.report) == (2, False, False)


def test_a_recipe_that_was_tried_is_not_tried_again(table):
    others = "--recipe best --epochs 3"
    config = recipes.config_of(SHORT, 0)
    record = make_record(epochs=2, config=config)
    recipes.enter(config, record)
    assert recipes.missing([SHORT, others], 2) == [(others, 0), (SHORT, 1), (others, 1)]
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    last = record.history[-1]
    assert float(row["validation_accuracy"]) == round(100 * last.val_accuracy, 2)
    assert float(row["validation_cross_entropy"]) == round(last.val_cross_entropy, 4)
    assert row["flags"] == (
        "--epochs 2 --optimizer muon --learning-rate 0.03 --momentum 0.95 --clip-ratio None --ema 0.999"
        " --label-smoothing 0.1 --rotation 15.0 --shift 0.1 --zoom 0.15 --shear 10.0"
    )
    assert {name: row[name] for name in ("net", "optimizer", "epochs", "clip", "schedule")} == {
        "net": "eva4",
        "optimizer": "muon",
        "epochs": "2",
        "clip": "none",
        "schedule": "onecycle cos 0.3",
    }
