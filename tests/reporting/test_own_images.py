"""Pages, cards and plans about own images: no word of digits, of MNIST's licence, limits or times."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.arrays import Arrays, content_sha256
from kernorm.datasets.cache import write
from kernorm.evaluation.gate import measure, scored
from kernorm.evaluation.report import render
from kernorm.evaluation.result import ModelEvaluation, Robustness
from kernorm.reporting import run_report
from kernorm.reporting.run_report import write_report
from kernorm.saved_model.card import make_card
from kernorm.stats.scores import evaluate
from kernorm.studies.analysis import analyse
from kernorm.studies.ledger import Result
from kernorm.studies.report import mistakes, page
from kernorm.studies.report.page import write_study_report
from kernorm.studies.runner import visible
from kernorm.studies.terminal import show_plan, show_verdicts
from tests.builders import Page, a_study, leave_undrawn, make_mistakes, make_record

FOREIGN = re.compile(
    r"digit|mnist|lecun|cortes|cheque|handwrit|catalogue|99\.0 %|99\.4|0\.05 (pp|points)|28x28|28×28", re.IGNORECASE
)
LABELS, COUNTS = ("ash", "elm", "oak"), (60, 30, 10)
CLASSES = np.repeat(np.arange(3), COUNTS)
CONFIG = TrainConfig(dataset="leaves@0123456789ab", epochs=2, net="eva6", batch_size=16)


def logits(seed):
    """Answers of a net that never says `oak`."""
    generator = np.random.default_rng(seed)
    found = generator.normal(0, 1, (100, 3)).astype(np.float32)
    found[np.arange(100), CLASSES] += 2
    found[:, 2] = -9
    return found


@pytest.fixture
def record():
    base = make_record(config=CONFIG, run_id=CONFIG.run_id, epochs=2)
    data = replace(
        base.data,
        name=CONFIG.dataset,
        labels=LABELS,
        image_shape=(32, 48, 3),
        resize="stretch",
        train=300,
        validation=60,
        test=100,
    )
    test = evaluate(logits(0), CLASSES, "test")
    return replace(base, data=data, train=replace(test, split="train", mistakes=()), validation=None, test=test)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    for module in (run_report, page):
        leave_undrawn(monkeypatch, module)


def assert_own(text):
    found = FOREIGN.search(text)
    assert not found, text[max(0, found.start() - 80) : found.end() + 80]


def test_a_run_and_its_card(record, tmp_path):
    images = make_mistakes(record, channels=3, side=32)
    page = Page(write_report(record, tmp_path, images).read_text())
    assert_own(page.text)
    assert "1 of 3 classes was never predicted" in page.text
    assert "balanced accuracy" in page.text
    card = make_card(record, 17, {}, {})
    assert_own(" ".join([card.intended_use, card.data_licence, *card.limits]))


def test_a_study(record, tmp_path, monkeypatch, capsys):
    split = SimpleNamespace(open=lambda **_: SimpleNamespace(images=np.zeros((100, 32, 48, 3), np.uint8)))
    monkeypatch.setattr(mistakes, "load_test_split", lambda *_, **__: split)
    study = a_study({"bn": CONFIG, "ln": replace(CONFIG, norm="ln")}, seeds=3, metric="auto", margin="auto")
    results = {}
    for number, run in enumerate(study.runs()):
        test = evaluate(logits(number), CLASSES, "test")
        mine = replace(record, run_id=run.config.run_id, config=run.config, test=test)
        results[run.config.run_id] = Result(
            arm=run.arm, seed=run.seed, run_id=run.config.run_id, status="finished", record=mine
        )
    summary = analyse(study, results)
    assert summary.metric == "balanced_accuracy"
    ledger = SimpleNamespace(results=results, damaged=())
    page = Page(write_study_report(study, summary, ledger, tmp_path, "python -m kernorm.study leaves.py").read_text())
    assert_own(page.text)
    assert "Balanced accuracy, arm by arm" in page.text
    assert "2 arms with classes that were never predicted" in page.text
    show_verdicts(summary)
    told = capsys.readouterr().out
    assert_own(told)
    assert "caution  bn: 1 of 3 classes was never predicted: oak; in 3 of 3 runs" in told


def test_an_evaluation(record):
    measures, changes = measure(scored(logits(0), CLASSES), LABELS)
    common = {"run_id": record.run_id, "norm": "bn"}
    row = Robustness(**common, corruption="shear", count=100, clean=0.8, accuracies=(0.7,) * 5, intervals=((0, 1),) * 5)
    found = ModelEvaluation(
        **common,
        tree_sha256="ab" * 32,
        created=record.started,
        data=f"{record.data.name} 1.0.0",
        split="test",
        count=100,
        blessed=None,
        measures=measures,
        baseline=None,
        changes=changes,
        decisions=(),
        robustness=(row,),
    )
    text = Page(render(found, make_card(record, 17, {}, {}))).text
    assert_own(text)
    assert re.search(r"Balanced accuracy \d+ % \d+ % to \d+ %", text)
    assert "Worst recall 0 %" in text


def test_a_plan_counts_the_time_of_these_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path))
    labels = np.repeat(np.arange(3), (240, 120, 40)).astype(np.int32)
    values = {
        "train_images": np.random.default_rng(0).integers(0, 256, (400, 32, 48, 3), np.uint8),
        "train_labels": labels,
        "test_images": np.random.default_rng(1).integers(0, 256, (100, 32, 48, 3), np.uint8),
        "test_labels": CLASSES.astype(np.int32),
    }
    sha256 = content_sha256(LABELS, values)
    name = f"leaves@{sha256[:12]}"
    write(Arrays(name=name, version="1.0.0", labels=LABELS, sha256=sha256, **values))
    study = a_study({"bn": replace(CONFIG, dataset=name)}, seeds=2, metric="auto", margin="auto")
    study = replace(study, arms={**study.arms, "ln": replace(CONFIG, dataset=name, norm="ln")})
    study = replace(study, baselines=dict.fromkeys(study.arms, "bn"))
    show_plan(study, study.runs(), 2)
    print(visible(study, tmp_path / "studies" / "mine"))
    told = capsys.readouterr().out
    assert_own(told)
    assert "4 of 4 runs to do, about 0 minutes with 2 workers" in told
    # 5 of 60 images that would count alike, 9 / (1/60 + 1/30 + 1/10), are more than a point.
    assert "Verdicts are by balanced accuracy, equivalent within 1 pp." in told
    assert "Which difference these seeds can see is known once two runs of an arm have finished." in told
