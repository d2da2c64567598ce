"""kernorm.train --push: trained, held against thresholds, tried, published, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.cache import prepared_sha256
from kernorm.errors import Refused, UsageError
from kernorm.evaluation.result import read_evaluation
from kernorm.records.record import Environment, Record
from kernorm.saved_model.versions import versions
from kernorm.serving.publish import publish, require_thresholds
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.selection import validation_score
from kernorm.study import StudyConfig, plan
from kernorm.study import main as study_main
from kernorm.system.cli import run
from kernorm.train import main
from tests.builders import asked_here, candidate, easy_thresholds, make_record, of_another_run, only_runtimes
from tuner.config import SearchConfig
from tuner.search import search

pytestmark = pytest.mark.usefixtures("small_net")

TINY = TrainConfig(net="eva6", train_size=400, validation_size=200, epochs=1, batch_size=50, report=False, push=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Runtimes answer in this process, robustness is measured on few images, which the thresholds allow for."""
    monkeypatch.setattr("kernorm.evaluation.evaluator.ROBUSTNESS_IMAGES", 50)
    easy = easy_thresholds(tmp_path)
    monkeypatch.setattr(
        "kernorm.serving.publish.require_thresholds", lambda dataset: require_thresholds(dataset) and easy
    )
    only_runtimes(monkeypatch, "graph", "tensorflow")
    asked_here(monkeypatch)


@pytest.mark.slow
def test_a_good_model_is_published_and_is_the_next_ones_baseline(tmp_path, mnist_cache, capsys):
    models = candidate(tmp_path / "run" / "1"), of_another_run(tmp_path / "run" / "2")
    published = [publish(model, saved_models_dir=tmp_path / "saved_models") for model in models]
    assert [int(path.name) for path in published] == versions(tmp_path / "saved_models" / "kernorm")
    assert read_evaluation(tmp_path / "run" / "1").baseline is None
    (first, _) = versions(tmp_path / "saved_models" / "kernorm")
    assert read_evaluation(tmp_path / "run" / "2").baseline.version == first


@pytest.mark.slow
def test_a_poor_model_is_trained_and_refused(tmp_path, mnist_cache, capsys, caplog):
    config = replace(
        TINY, reports_dir=tmp_path / "reports", saved_models_dir=tmp_path / "saved_models", format=("openvino",)
    )
    caplog.set_level("INFO", "kernorm")
    with pytest.raises(Refused, match=r"eva6-bn.*: accuracy overall .* is not shown"):
        main(config)
    assert "NOT_BLESSED" in caplog.text
    assert "not passed: accuracy overall" in caplog.text
    told = capsys.readouterr().out
    (path,) = (Path(tmp_path) / "saved_models").glob("*/*/saved_model.pb")
    assert path.parent.parent.name.startswith("eva6-bn")
    assert path.parent.with_name(f"{path.parent.name}.xml").is_file()
    assert f"openvino {path.parent}.xml" in told
    assert versions(tmp_path / "saved_models" / "kernorm") == []


STUDY = """'Which one?'
from kernorm.config import TrainConfig

def tiny(**values):
    return TrainConfig(train_size=400, validation_size=200, batch_size=50, report=False, **values)

ARMS = {"short": tiny(epochs=1), "long": tiny(epochs=2)}
SEEDS = 2
"""


def test_what_a_study_hands_over_is_the_best_run_of_its_best_arm(tmp_path, mnist_cache, monkeypatch):
    """Of records whose scores are known; the arm of the lowest mean wins, not that of the lowest run."""
    (tmp_path / "mine.py").write_text(STUDY)
    config = StudyConfig(study=str(tmp_path / "mine.py"), push=True, reports_dir=tmp_path / "reports")
    scores = {("short", 0): 0.10, ("short", 1): 0.90, ("long", 0): 0.30, ("long", 1): 0.20}
    ledger, digest = Ledger(config.folder), prepared_sha256("mnist")
    config.folder.mkdir(parents=True)
    for planned in plan(config).runs():
        record = make_record(config=planned.config, run_id=planned.config.run_id, count=500)
        validation = replace(record.validation, cross_entropy=scores[planned.arm, planned.seed])
        record = replace(record, validation=validation, data=replace(record.data, sha256=digest))
        ledger.add(Result(arm=planned.arm, seed=planned.seed, run_id=record.run_id, status="finished", record=record))
    monkeypatch.setattr("kernorm.studies.report.page.charts", lambda *_: {})  # which others look at
    monkeypatch.setattr("kernorm.studies.report.page.grids_of", lambda arms: [])
    handed = []
    monkeypatch.setattr(
        "kernorm.studies.selection.train", lambda given: handed.append(given) or replace(record, export=None)
    )
    assert study_main(config) == 1
    assert [(given.epochs, given.seed, given.export, given.report) for given in handed] == [(2, 1, True, True)]


@pytest.mark.slow
def test_a_study_hands_over_the_best_run_of_its_best_arm(tmp_path, mnist_cache, capsys):
    (tmp_path / "mine.py").write_text(STUDY)
    argv = [
        str(tmp_path / "mine.py"),
        "--push",
        "--workers=1",
        f"--reports-dir={tmp_path / 'reports'}",
        f"--saved-models-dir={tmp_path / 'saved_models'}",
    ]
    assert run(StudyConfig, study_main, prog="study", argv=argv) == 1  # so little training is refused
    told = capsys.readouterr().err
    assert "not passed: accuracy overall" in told
    assert "refused: " in told
    results = Ledger(tmp_path / "reports" / "studies" / "mine").results.values()
    score = {(one.arm, one.seed): one.record.validation.cross_entropy for one in results}
    arm = min(("short", "long"), key=lambda name: score[name, 0] + score[name, 1])
    wanted = min((one for one in results if one.arm == arm), key=lambda one: score[arm, one.seed])
    (path,) = (tmp_path / "saved_models").glob("*/*/saved_model.pb")
    assert path.parent.parent.name == wanted.run_id


def test_refuses_to_choose_without_a_validation_split(mnist_info):
    record = Record(
        run_id="eva4-bn",
        status="finished",
        started="",
        config=TrainConfig(),
        data=mnist_info,
        parameters=1,
        parameters_total=1,
        environment=Environment(backend="tensorflow", device="cpu", threads=1, versions={}),
    )
    with pytest.raises(UsageError, match=r"^A candidate is chosen by validation\. Received: eva4-bn, without a val"):
        validation_score(record)


def test_refuses_to_publish_what_is_not_exported():
    with pytest.raises(UsageError, match=r"^--push publishes what is exported\. Received: --push with --no-export\."):
        replace(TINY, export=False)


@pytest.mark.parametrize("dataset", ["photos@0123456789ab", "./photos", "fashion_mnist"])
def test_a_set_without_thresholds_is_not_pushed_by_mnists(dataset, tmp_path, monkeypatch):
    """Said before anything is trained."""
    monkeypatch.setattr("kernorm.training.run.train", lambda config: pytest.fail("it trained"))
    places = {"reports_dir": tmp_path / "reports", "saved_models_dir": tmp_path / "saved_models"}
    rule = r"^--push compares with the thresholds that come with a set\. "
    message = rf"{rule}Received: {dataset}, which has none\. Remove it; then python -m kernorm\.evaluate PATH --thres"
    with pytest.raises(UsageError, match=message):
        main(replace(TINY, dataset=dataset, **places))
    with pytest.raises(UsageError, match=message):
        search(SearchConfig(train=TrainConfig(dataset=dataset), push=True, **places))
    path = tmp_path / "mine.py"
    path.write_text(f"from kernorm import TrainConfig\nARMS = {{'bn': TrainConfig(dataset={dataset!r})}}\n")
    if dataset != "./photos":  # which a study prepares first
        with pytest.raises(UsageError, match=message):
            study_main(StudyConfig(study=str(path), push=True, **places))
    assert require_thresholds("mnist:3.0.1") == "mnist"
    assert not (tmp_path / "reports").exists()
