"""kernorm.train --push: trained, held against thresholds, tried, published, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from kernorm.config import TrainConfig, UsageError
from kernorm.evaluate import read_evaluation
from kernorm.ship import ship
from kernorm.train import main
from kernorm.versions import versions
from tests.test_evaluate import candidate

TINY = TrainConfig(net="eva6", train_size=400, validation_size=200, epochs=1, batch_size=50, report=False, push=True)


def test_a_good_model_is_published_and_is_the_next_ones_baseline(tmp_path, mnist_cache, monkeypatch, capsys):
    monkeypatch.setattr("kernorm.evaluate.ROBUSTNESS_IMAGES", 50)
    config = replace(TINY, saved_models_dir=tmp_path / "saved_models")
    assert ship(candidate(tmp_path / "run" / "1"), config) == 0
    assert ship(candidate(tmp_path / "run" / "2"), config) == 0
    assert len(versions(tmp_path / "saved_models" / "kernorm")) == 2
    assert read_evaluation(tmp_path / "run" / "1").baseline is None
    (first, _) = versions(tmp_path / "saved_models" / "kernorm")
    assert read_evaluation(tmp_path / "run" / "2").baseline.version == first


def test_a_poor_model_is_trained_and_refused(tmp_path, mnist_cache, monkeypatch, capsys):
    monkeypatch.setattr("kernorm.evaluate.ROBUSTNESS_IMAGES", 50)
    config = replace(TINY, reports_dir=tmp_path / "reports", saved_models_dir=tmp_path / "saved_models")
    assert main(config) == 1
    told = capsys.readouterr().out
    assert "NOT_BLESSED" in told
    assert "not passed: accuracy overall" in told
    (path,) = (Path(tmp_path) / "saved_models").glob("*/*/saved_model.pb")
    assert path.parent.parent.name.startswith("eva6-bn")
    assert versions(tmp_path / "saved_models" / "kernorm") == []


def test_refuses_to_publish_what_is_not_exported():
    with pytest.raises(UsageError, match=r"^--push publishes what is exported\. Received: --push with --no-export\."):
        replace(TINY, export=False)
