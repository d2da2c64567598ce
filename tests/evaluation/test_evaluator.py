"""python -m kernorm.evaluate on the model that comes with the repository, with real digits."""

from dataclasses import replace

import numpy as np
import pytest

from kernorm.datasets.dataset import load_arrays
from kernorm.evaluate import PROG, EvaluateConfig, main
from kernorm.evaluation import result
from kernorm.evaluation.latency import Latency, Timed, write_latency
from kernorm.evaluation.report import render
from kernorm.evaluation.result import blessing_problem, format_evaluation, latest_blessed, read_evaluation
from kernorm.records.data import Duplicates
from kernorm.saved_model.card import FOLDER, read_card
from kernorm.saved_model.inference import load_in_batches
from kernorm.saved_model.integrity import verify_integrity
from kernorm.stats.scores import evaluate
from kernorm.system.cli import run
from tests.builders import candidate, change_card, easy_thresholds, of_another_run, rehash

OTHERS = (
    (4000, "of other data"),
    (3000, "of other data"),
    (2000, "this model"),
    (1000, "this model"),
)
LATENCY = Latency(
    command="by hand",
    created="2026-01-01T00:00:00+00:00",
    processor="a processor",
    cores=2,
    rows=(Timed(runtime="OpenVINO", batch=1, requests=9, p50_ms=1.25, p99_ms=2.5, images_per_second=800.0),),
)


def evaluated(*words):
    return run(EvaluateConfig, main, prog=PROG, argv=[str(word) for word in words])


@pytest.fixture
def model(tmp_path):
    return candidate(tmp_path / "saved_models" / "kernorm" / "1000")


@pytest.fixture
def easy(tmp_path):
    return easy_thresholds(tmp_path)


def test_the_reloaded_model_is_measured_and_blessed(mnist_cache, model, easy, capsys):
    assert evaluated(model, "--thresholds", easy, "--no-robustness") == 0
    assert "BLESSED" in capsys.readouterr().out.splitlines()
    found = read_evaluation(model)
    arrays = load_arrays()
    reference = evaluate(load_in_batches(model)(arrays.test_images), arrays.test_labels, "test")
    assert found.measured("accuracy").value == pytest.approx(reference.accuracy)
    assert found.measured("cross_entropy").value == pytest.approx(reference.cross_entropy)
    assert found.measured("brier").value == pytest.approx(reference.brier)
    assert found.measured("ece").value == pytest.approx(reference.ece)
    assert found.measured("accuracy", "7").count == (arrays.test_labels == 7).sum()
    assert (found.blessed, found.baseline, found.count) == (True, None, 500)
    _, digest = verify_integrity(model)
    assert found.tree_sha256 == digest
    assert blessing_problem(model, digest) is None
    assert (model / FOLDER / "BLESSED").read_text() == f"{digest}\n"
    assert f"{100 * reference.accuracy:.2f}" in (model / FOLDER / "report.html").read_text()


def test_the_report_says_what_was_not_judged_and_which_images_stand_twice(mnist_cache, model, easy):
    assert evaluated(model, "--thresholds", easy, "--no-robustness") == 0
    found, card = read_evaluation(model), read_card(model)
    page = render(found, card)
    assert "Not judged" not in page
    assert "exact duplicates" not in page  # not counted when this model was exported
    found = replace(found, decisions=(*found.decisions, replace(found.decisions[0], slice="eleven")))
    card = replace(card, data=replace(card.data, duplicates=Duplicates(train=5, test=1, across=2)))
    page = render(found, card)
    assert "Not judged, for lack of test images: eleven." in page
    assert "exact duplicates: 2 test images also in training, 5 repeated in training, 1 in test" in page
    assert "not judged, for lack of test images: eleven" in format_evaluation(found, model)


@pytest.mark.slow
def test_the_repositorys_model_passes_mnists_thresholds(whole_mnist_cache, model):
    assert evaluated(model, "--thresholds", "mnist", "--no-robustness") == 0
    found = read_evaluation(model)
    assert (found.count, found.measured("accuracy").value, found.measured("accuracy", "7").count) == (
        10_000,
        pytest.approx(0.9942),
        1028,
    )
    assert "99.42" in (model / FOLDER / "report.html").read_text()


def test_without_thresholds_there_is_no_blessing(mnist_cache, model, capsys):
    assert evaluated(model, "--no-robustness") == 0
    assert not {"BLESSED", "NOT_BLESSED"} & {path.name for path in (model / FOLDER).iterdir()}
    assert blessing_problem(model, verify_integrity(model)[1]) == "it was evaluated without thresholds"


def test_a_blessing_is_not_lost_by_a_look_without_thresholds(mnist_cache, model, easy, capsys):
    assert evaluated(model, "--thresholds", easy, "--no-robustness") == 0
    before = {path.name: path.read_bytes() for path in (model / FOLDER).iterdir()}
    assert evaluated(model, "--no-robustness") == 2
    told = "A blessed model is evaluated with thresholds, since without them it would lose its blessing. Received: "
    assert f"{told}{model}" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (model / FOLDER).iterdir()} == before


def test_what_is_not_reached_is_not_blessed_and_takes_a_blessing_away(mnist_cache, model, tmp_path, capsys):
    (model / FOLDER / "BLESSED").write_text("")
    assert evaluated(model, "--thresholds", easy_thresholds(tmp_path, accuracy=0.995), "--no-robustness") == 1
    told = capsys.readouterr().out
    found = read_evaluation(model).measured("accuracy")
    low, high = found.interval
    shown = f"{found.value:.4f} [{low:.4f}, {high:.4f}]"
    assert f"not passed: accuracy overall {shown}: at least 0.995 is not shown" in told
    names = {path.name for path in (model / FOLDER).iterdir()}
    assert "NOT_BLESSED" in names
    assert "BLESSED" not in names
    assert blessing_problem(model, verify_integrity(model)[1]).startswith("it is not blessed; accuracy overall")


def test_the_latest_blessed_version_is_the_baseline(mnist_cache, model, easy, capsys):
    base = model.parent
    root = ["--saved-models-dir", base.parent, "--no-robustness"]
    assert latest_blessed(base, model) == (None, [])
    assert evaluated(model, "--baseline", "latest", "--thresholds", easy, *root) == 0
    told = capsys.readouterr()
    assert f"baseline: none; no version under {base} is blessed and of the same data" in told.err
    # Eleven of MNIST's thresholds are of changes: they pass, and that nothing was compared is said.
    assert "not compared: no baseline (11 thresholds)" in told.out.splitlines()
    page = (model / FOLDER / "report.html").read_text()
    assert "Not compared: no baseline (11 thresholds)." in page
    assert "<h3>Not compared</h3><p>accuracy overall: no baseline to compare with</p>" in page
    other = of_another_run(base / "2000")
    assert latest_blessed(base, other) == (model, [])
    assert evaluated(other, "--baseline", "latest", "--thresholds", easy, *root) == 0
    told = capsys.readouterr()
    assert f"baseline: {model}\n" in told.err
    assert "not compared" not in told.out + (other / FOLDER / "report.html").read_text()
    found = read_evaluation(base / "2000")
    assert (found.baseline.version, found.baseline.mcnemar.p) == (1000, 1.0)
    assert {change.value for change in found.changes} == {0.0}
    assert "Baseline: eva4-bn" in (base / "2000" / FOLDER / "report.html").read_text()


def test_a_model_and_models_of_other_data_are_no_latest_baseline(model, monkeypatch):
    """Blessings are of evaluations that others made: here every version counts as blessed."""
    monkeypatch.setattr(result, "blessing_problem", lambda path, digest: None)
    base = model.parent
    copy = candidate(base / "2000")
    assert latest_blessed(base, model) == (None, ["2000, which is this model", "1000, which is this model"])
    older = of_another_run(base / "900")
    assert latest_blessed(base, copy)[0] == older
    for number, before, after in ((3000, '"name": "mnist"', '"name": "digits"'), (4000, '"7"', '"seven"')):
        change_card(candidate(base / str(number)), before, after)
    left_out = [f"{number}, which is {what}" for number, what in OTHERS]
    assert latest_blessed(base, model) == (older, left_out)
    (older / "saved_model.pb").unlink()
    assert latest_blessed(base, model) == (None, left_out)


def test_a_baseline_may_be_a_models_folder(mnist_cache, model, easy, monkeypatch):
    before = of_another_run(model.parent.parent / "other" / "7")
    words = ["--thresholds", easy, "--no-robustness"]
    assert evaluated(model, "--baseline", before.parent, *words) == 0
    assert read_evaluation(model).baseline.version == 7
    monkeypatch.chdir(before)
    assert evaluated(model, "--baseline", ".", *words) == 0
    assert read_evaluation(model).baseline.version == 7


@pytest.mark.slow
def test_robustness_has_every_corruption_and_the_models_beside(mnist_cache, model, monkeypatch, capsys):
    monkeypatch.setattr("kernorm.evaluation.evaluator.ROBUSTNESS_IMAGES", 100)
    other = candidate(model.parent / "2000")
    path = other / FOLDER / "model_card.json"
    path.write_text(
        path.read_text().replace('"norm": "bn"', '"norm": "ln"').replace('"run_id": "eva4-bn', '"run_id": "x')
    )
    rehash(other)
    write_latency(LATENCY, model)
    again = candidate(model.parent / "900")  # another export of the same run is no other model
    assert evaluated(model, "--beside", other, again) == 0
    rows = read_evaluation(model).robustness
    mine, theirs = ([row for row in rows if row.norm == norm] for norm in ("bn", "ln"))
    assert [(row.corruption, row.accuracies) for row in mine] == [(row.corruption, row.accuracies) for row in theirs]
    assert len(mine) == 12
    assert {row.count for row in rows} == {100}
    assert np.mean([row.accuracies[0] - row.accuracies[-1] for row in mine]) > 0.2
    report = (model / FOLDER / "report.html").read_text()
    loss = f"{100 * (mine[0].clean - np.mean(mine[0].accuracies)):.1f}"
    assert f"gaussian_noise</th><td><strong>{loss}</strong></td><td><strong>{loss}</strong></td>" in report
    assert "<td>1.25</td><td>2.50</td><td>800</td>" in report
    # What is measured beside the model does not change its hash.
    assert verify_integrity(model)


def test_refuses_a_model_that_was_changed(mnist_cache, model, capsys):
    path = model / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert evaluated(model) == 2
    assert "A model must be as it was exported. Received: " in capsys.readouterr().err


def test_refuses_what_is_no_model_of_kernorms(mnist_cache, tmp_path, capsys, model):
    assert evaluated(tmp_path) == 2
    assert "An exported model is a folder with a saved_model.pb. Received: " in capsys.readouterr().err
    assert evaluated(model, "--baseline", tmp_path / "other") == 2
    assert "An exported model is a folder with a saved_model.pb. Received: " in capsys.readouterr().err
    (model / FOLDER / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"^An evaluation must be whole and of schema 2\. Received: "):
        read_evaluation(model)
