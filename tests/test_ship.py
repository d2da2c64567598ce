"""kernorm.train --push: trained, held against thresholds, tried, published, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from kernorm.cli import run
from kernorm.config import TrainConfig, UsageError
from kernorm.evaluate import read_evaluation
from kernorm.ledger import Ledger
from kernorm.record import Environment, Record
from kernorm.ship import ship, validation_score
from kernorm.study import StudyConfig, study
from kernorm.train import main
from kernorm.versions import versions
from tests.builders import candidate

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
    config = replace(
        TINY, reports_dir=tmp_path / "reports", saved_models_dir=tmp_path / "saved_models", format=("openvino",)
    )
    assert main(config) == 1
    told = capsys.readouterr().out
    assert "NOT_BLESSED" in told
    assert "not passed: accuracy overall" in told
    (path,) = (Path(tmp_path) / "saved_models").glob("*/*/saved_model.pb")
    assert path.parent.parent.name.startswith("eva6-bn")
    assert path.parent.with_name(f"{path.parent.name}.xml").is_file()
    assert f"openvino {path.parent}.xml" in told
    assert versions(tmp_path / "saved_models" / "kernorm") == []


STUDY = """'Which one?'
from kernorm.cli import run
from kernorm.config import TrainConfig

def tiny(**values):
    return TrainConfig(train_size=400, validation_size=200, batch_size=50, **values)

ARMS = {"short": tiny(epochs=1), "long": tiny(epochs=2)}
SEEDS = 2
"""


def test_a_study_hands_over_the_best_run_of_its_best_arm(tmp_path, mnist_cache, monkeypatch, capsys):
    monkeypatch.setattr("kernorm.evaluate.ROBUSTNESS_IMAGES", 50)
    (tmp_path / "mine.py").write_text(STUDY)
    argv = [str(tmp_path / "mine.py"), "--push", "--workers=2", f"--reports-dir={tmp_path / 'reports'}",
            f"--saved-models-dir={tmp_path / 'saved_models'}"]  # fmt: skip
    assert run(StudyConfig, study, prog="study", argv=argv) == 1  # so little training is refused
    told = capsys.readouterr().out
    assert "not passed: accuracy overall" in told
    results = Ledger(tmp_path / "reports" / "studies" / "mine").results.values()
    score = {(one.arm, one.seed): one.record.validation.cross_entropy for one in results}
    arm = min(("short", "long"), key=lambda name: score[name, 0] + score[name, 1])
    wanted = min((one for one in results if one.arm == arm), key=lambda one: score[arm, one.seed])
    (path,) = (tmp_path / "saved_models").glob("*/*/saved_model.pb")
    assert path.parent.parent.name == wanted.run_id


def test_refuses_to_choose_without_a_validation_split(mnist_info):
    record = Record(
        run_id="eva4-bn", status="finished", started="", config=TrainConfig(), data=mnist_info, parameters=1,
        parameters_total=1, environment=Environment(backend="tensorflow", device="cpu", threads=1, versions={}),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"^A candidate is chosen by validation\. Received: eva4-bn, without a val"):
        validation_score(record)


def test_refuses_to_publish_what_is_not_exported():
    with pytest.raises(UsageError, match=r"^--push publishes what is exported\. Received: --push with --no-export\."):
        replace(TINY, export=False)
