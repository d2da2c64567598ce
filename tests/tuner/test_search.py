"""A whole search on real digits: what it leaves, that it resumes, keeps the test split shut, and fails well."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from keras_tuner import HyperParameters
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from kernorm import config as config_module
from kernorm.config import TrainConfig
from kernorm.errors import LOST, UsageError
from kernorm.evaluation.thresholds import packaged_thresholds
from kernorm.parallel.factory import open_engine
from kernorm.parallel.settings import EngineConfig
from kernorm.records.record import REVISION, read_record
from kernorm.system.files import locked
from kernorm.training.run import train
from tests.builders import a_trial, end_trial, open_oracle, own_net, search_folder, search_words
from tests.processes import Processes
from tuner import runner
from tuner.config import SearchConfig
from tuner.plots import expected_best
from tuner.search import main
from tuner.trials import Trials

# How a search tells that a trial has ended.
ENDED = re.compile(r"\d+/\d+  trial \d+ ")
LIMITS = packaged_thresholds()["mnist"]


def started(start, folder, boxes, *more):
    command = [sys.executable, "-m", "tuner.search", *search_words(folder, *more)]
    return start(command, stderr=subprocess.STDOUT, KERNORM_CACHE_DIR=str(boxes))


@pytest.fixture(scope="module")
def done(tmp_path_factory, boxes):
    """A search that has ended: its root folder and what it printed."""
    root, told = tmp_path_factory.mktemp("search"), []
    with Processes() as start, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        process = started(start, root, boxes)
        for line in process.stdout:
            told.append(line)
            if line.startswith("2/4"):  # the page that followed the first trial is there
                shutil.copy(search_folder(root) / "report.html", root / "live.html")
                assert main(search_words(root, "--report-only")) == 0
        process.wait()
    text = "".join(told)
    assert process.returncode == 0, text
    return root, text


@pytest.mark.slow
def test_a_search_scores_its_trials_on_validation_with_the_test_split_shut(done):
    root, text = done
    trials = Trials(search_folder(root)).ended
    assert sorted(trial.number for trial in trials) == [0, 1, 2, 3]
    for trial in trials:
        (repeat,) = trial.repeats
        record = read_record(search_folder(root) / "runs" / repeat.run_id / "record.json")
        assert trial.score == repeat.cross_entropy == record.history[1].val_cross_entropy
        assert (record.test, record.openings, record.config.seed) == (None, (), 0)
        assert {name: getattr(record.config, name) for name in ("l1", "l2", "batch_size")} == trial.settings
        assert f"trial {trial.number + 1}  l1 " in text


@pytest.mark.slow
def test_the_page_is_live_while_trials_are_under_way(done):
    root, _ = done
    live, ended = (root / "live.html").read_text(), (search_folder(root) / "report.html").read_text()
    assert re.search("[1-4] of 4 trials[,;] ", re.sub(r"<[^>]+>", "", live))
    assert 'http-equiv="refresh"' in live
    assert 'http-equiv="refresh"' not in ended
    assert "Confirmed on fresh seeds" in ended


@pytest.mark.slow
def test_only_the_best_keep_their_checkpoints(done):
    folder = search_folder(done[0])
    kept = {path.parent.name for path in (folder / "runs").glob("*/checkpoint.npz")}
    assert kept == {trial.repeats[0].run_id for trial in Trials(folder).best()[:2]}


@pytest.mark.slow
def test_the_best_is_confirmed_on_fresh_seeds_and_exported(done):
    root, _ = done
    folder, (best, *_) = search_folder(root), Trials(search_folder(root)).best()
    lines = [json.loads(line) for line in (folder / "studies" / "confirm" / "records.jsonl").read_text().splitlines()]
    arms = {(line["arm"], line["record"]["config"]["seed"]) for line in lines}
    expected = {(f"trial {best.number + 1}", 1000), (f"trial {best.number + 1}", 1001)}
    (baseline,) = {arm for arm, _ in arms - expected}
    assert baseline == ("no penalty" if best.settings["l1"] or best.settings["l2"] else "not searched")
    assert arms == expected | {(baseline, 1000), (baseline, 1001)}
    (exported,) = (root / "saved_models").glob("*/*/saved_model.pb")
    mine = [line for line in lines if line["arm"] != baseline]
    lowest = min(mine, key=lambda line: line["record"]["validation"]["cross_entropy"])
    assert exported.parent.parent.name == lowest["run_id"]
    assert (folder / "report.html").exists()


@pytest.mark.slow
def test_the_exported_one_is_handed_over_to_be_published(done, boxes_cache, monkeypatch, capsys):
    root, _ = done
    monkeypatch.setattr("kernorm.evaluation.evaluator.ROBUSTNESS_IMAGES", 50)
    assert main(search_words(root, "--report-only", "--push")) == 2
    assert "--push compares with the thresholds that come with a set. Received: boxes" in capsys.readouterr().err
    for module in ("kernorm.serving.publish", "kernorm.evaluation.thresholds"):
        monkeypatch.setattr(f"{module}.packaged_thresholds", lambda: {"boxes": LIMITS})
    assert main(search_words(root, "--report-only", "--push")) == 1
    told = capsys.readouterr().err
    assert "not passed: accuracy overall" in told  # of one epoch on 600 images
    assert "NOT_BLESSED" in told
    (exported,) = (root / "saved_models").glob("*/*/saved_model.pb")
    assert (exported.parent / "assets.extra" / "kernorm" / "NOT_BLESSED").exists()


@pytest.mark.slow
def test_the_results_have_the_form_of_tfx(done):
    folder = search_folder(done[0])
    rows = json.loads((folder / "tuner_results.json").read_text())
    best = Trials(folder).best()
    assert [(row["trial_id"], row["score"]) for row in rows] == [(trial.trial_id, trial.score) for trial in best]
    assert rows[0]["batch_size"] == best[0].values["batch_size"]
    read = HyperParameters.from_config(json.loads((folder / "best_hyperparameters.txt").read_text()))
    assert read.values == best[0].values


@pytest.mark.slow
def test_the_report_shows_every_trial_and_the_command(done):
    folder = search_folder(done[0])
    page = (folder / "report.html").read_text()
    for trial in Trials(folder).ended:
        assert f"{trial.score:.4f}" in page
    assert "--oracle random" in page
    assert re.search("no penalty|not searched", page)
    assert {"progress.png", "space.png", "penalties.png"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_tensorboard_finds_every_trial_with_its_settings(done):
    folder = search_folder(done[0])
    for trial in Trials(folder).best():
        events = EventAccumulator(str(folder / "tensorboard" / trial.trial_id))
        events.Reload()
        started = HParamsPluginData.FromString(
            events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        ).session_start_info
        assert started.hparams["batch_size"].number_value == trial.settings["batch_size"]
        assert started.hparams["l2"].number_value == trial.settings["l2"]
        (found,) = events.Tensors("validation cross-entropy")
        assert (found.step, tensor_util.make_ndarray(found.tensor_proto)) == (1, pytest.approx(trial.score))


@pytest.mark.slow
def test_hyperband_goes_on_with_the_optimizers_state(tmp_path, boxes_cache):
    """A promoted trial has trained as if it had never been stopped."""
    assert main(search_words(tmp_path, "--oracle=hyperband", "--epochs=3", "--top-k=0", "--workers=1")) == 0
    trials = Trials(search_folder(tmp_path)).ended
    assert {trial.epochs for trial in trials} == {1, 3}
    promoted = next(trial for trial in trials if trial.values["tuner/initial_epoch"])
    assert promoted.new_epochs == 2
    (repeat,) = promoted.repeats
    record = read_record(search_folder(tmp_path) / "runs" / repeat.run_id / "record.json")
    with open_engine(train, EngineConfig(workers=1)) as engine:  # a process that has as many threads
        engine.submit(replace(record.config, stop_after=None, reports_dir=tmp_path / "at_once"))
        (outcome,) = engine.outcomes()
    at_once = outcome.result
    assert [(row.loss, row.val_cross_entropy) for row in record.history] == [
        (row.loss, row.val_cross_entropy) for row in at_once.history
    ]


@pytest.mark.slow
def test_a_worker_killed_under_ray_costs_no_trial(tmp_path, boxes, start):
    pytest.importorskip("ray")
    process = started(start, tmp_path, boxes, "--engine=ray", "--workers=1", "--top-k=0", "--max-trials=3")
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "trial 1 " in line:
            break
    (log,) = (search_folder(tmp_path) / "logs").glob("ray-*.log")
    os.kill(int(log.stem.rpartition("-")[2]), signal.SIGKILL)
    text = process.stdout.read()
    assert process.wait() == 0, [*seen, text]
    trials = Trials(search_folder(tmp_path)).ended
    assert [(trial.number, trial.status) for trial in trials] == [(number, "completed") for number in range(3)]
    assert len(list((search_folder(tmp_path) / "logs").glob("ray-*.log"))) == 2


@pytest.mark.slow
def test_a_search_is_begun_once_and_goes_on_with_the_same_settings(done, boxes_cache, capsys):
    root, _ = done
    assert main(search_words(root)) == 2
    assert "A search of this name exists. Received: " in capsys.readouterr().err
    assert main(search_words(root, "--resume", "--l1=1e-5:1e-4")) == 2
    assert "A resumed search keeps its settings. Received: space=" in capsys.readouterr().err
    before = (search_folder(root) / "trials.jsonl").read_bytes()
    assert main(search_words(root, "--resume", "--top-k=0", "--max-trials=5", "--workers=1")) == 0
    after = (search_folder(root) / "trials.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5


@pytest.fixture
def begun(tmp_path, boxes_cache, monkeypatch):
    """A search that has a trial, and is neither run nor reported again; its folder and what was in it."""
    monkeypatch.setattr(runner, "_run", lambda *_, **__: None)
    monkeypatch.setattr(runner, "_finish", lambda *_: None)
    assert main(search_words(tmp_path)) == 1
    folder = search_folder(tmp_path)
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "trials.jsonl").write_text("a trial\n")
    return folder


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_trial_that_was_lost_with_its_worker_is_run_again_until_the_best_are_confirmed(
    tmp_path, monkeypatch, confirmed
):
    class Ran:
        """A driver that runs no trial, and tells which are handed out."""

        def __init__(self, config, oracle, *_):
            self.oracle = oracle

        def run(self):
            trial = self.oracle.create_trial("slot0")
            handed.extend([trial.trial_id] if trial.status == "RUNNING" else [])

    handed = []
    monkeypatch.setattr(runner, "Driver", Ran)
    oracle = open_oracle(search_folder(tmp_path), batch_sizes="16,64", max_trials=3)
    trials = Trials(search_folder(tmp_path))
    for number in range(3):
        trial = oracle.create_trial("slot0")
        end_trial(oracle, trial, "FAILED" if number == 1 else "COMPLETED")
        lost = {"status": "failed", "score": None, "message": f"{LOST} was killed by SIGKILL; 2 attempts"}
        ended = replace(a_trial(number, 0.05, {}), trial_id=trial.trial_id)
        trials.add(replace(ended, **lost) if number == 1 else ended)
    if confirmed:
        (search_folder(tmp_path) / "studies").mkdir()
    resumed = open_oracle(search_folder(tmp_path), batch_sizes="16,64", max_trials=3)
    runner._run(SearchConfig(oracle="random", reports_dir=tmp_path / "reports", max_trials=3), resumed, serving=False)
    assert handed == ([] if confirmed else [trials.ended[1].trial_id])


def test_a_search_that_another_process_began_meanwhile_is_not_overwritten(begun, tmp_path, monkeypatch, capsys):
    before = (begun / "search.json").read_bytes()
    (begun / "search.json").rename(tmp_path / "aside")
    loaded = runner.load

    def load(config):
        (tmp_path / "aside").rename(begun / "search.json")  # it begins while this one loads its data
        return loaded(config)

    monkeypatch.setattr(runner, "load", load)
    assert main(search_words(tmp_path, "--l1=off")) == 2
    assert "A search of this name exists." in capsys.readouterr().err
    assert (begun / "search.json").read_bytes() == before


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--report-only"], "--overwrite deletes what --report-only shows. Received: both. Give one."),
        (["--oracle=grid", "--enqueue=published"], "A grid has its own order."),
        (["--train-size=100000"], "--train-size"),
    ],
)
def test_a_refused_command_deletes_no_search(begun, tmp_path, capsys, more, message):
    assert main(search_words(tmp_path, "--overwrite", *more)) == 2
    assert message in capsys.readouterr().err
    assert names_in(begun) == {"search.json", "trials.jsonl", "runs"}


def test_a_search_that_another_process_runs_is_not_deleted(begun, tmp_path, capsys):
    with locked(begun / "lock", "hold"):
        assert main(search_words(tmp_path, "--overwrite")) == 2
        assert names_in(begun) == {"search.json", "trials.jsonl", "runs", "lock"}
    assert "Only one process at a time may run this search." in capsys.readouterr().err


@pytest.mark.parametrize("cut", [False, True])
def test_a_deleted_search_leaves_nothing_also_if_that_was_cut_off(begun, tmp_path, cut):
    if cut:
        (begun / ".deleting").touch()
    assert main(search_words(tmp_path, *([] if cut else ["--overwrite"]))) == 1
    assert names_in(begun) == {"search.json"}


@pytest.mark.slow
def test_killed_after_every_trial_a_search_loses_nothing_and_repeats_nothing(tmp_path, boxes, start, done):
    """Kills before and after each single write are in test_oracles.py; this kills whole searches with their workers."""
    ended = Trials(search_folder(done[0])).ended
    whole = {json.dumps(trial.values, sort_keys=True) for trial in ended if trial.number < 3}
    seen, killed = 0, 0
    while seen < 3:
        process = started(start, tmp_path, boxes, "--top-k=0", "--max-trials=3", *(["--resume"] if killed else []))
        text = []
        for line in process.stdout:
            text.append(line)
            if ENDED.match(line) and (seen := seen + 1) < 3:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                break
        process.stdout.read()
        assert process.wait() == (-signal.SIGKILL if seen < 3 else 0), text
    assert killed == 2
    trials = Trials(search_folder(tmp_path)).ended
    assert sorted(trial.number for trial in trials) == [0, 1, 2]
    assert {json.dumps(trial.values, sort_keys=True) for trial in trials} == whole
    oracle = json.loads((search_folder(tmp_path) / "oracle.json").read_text())
    assert sorted(oracle["end_order"]) == ["0", "1", "2"]


@pytest.mark.slow
def test_an_interrupted_search_says_how_to_go_on(tmp_path, boxes, start):
    process = started(start, tmp_path, boxes)
    for line in process.stdout:
        if ENDED.match(line):
            break
    process.send_signal(signal.SIGTERM)
    text = process.stdout.read()
    assert process.wait() == 143
    assert "Interrupted. Ended trials and finished epochs are kept; run the same command with --resume" in text
    assert "Traceback" not in text
    assert Trials(search_folder(tmp_path)).ended


@pytest.mark.slow
def test_trials_that_all_fail_end_the_search_with_their_message(tmp_path, boxes_cache, capsys):
    assert main(search_words(tmp_path, "--norms=gn", "--groups=7", "--max-trials=9")) == 1
    told = capsys.readouterr().err
    assert "No trial completed." in told
    assert "groups" in told
    assert 3 <= len(Trials(search_folder(tmp_path)).ended) <= 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epoch=3"], "An option must be a known one. Received: --epoch=3. Did you mean --epochs?"),
        (["--batch-size=64"], "A search sets --batch-size itself. Received: --batch-size=64. See --batch-sizes."),
        (["--net=eva7"], "--net takes a known name, or FILE.py:FUNCTION. Received: 'eva7'. Did you mean 'eva6"),
        (["--oracle=tpe"], "--oracle takes a known name. Received: 'tpe'."),
        (["--enqueue=nothing.json"], "--enqueue takes 'published' or a file. Received: nothing.json: No such file"),
        (["--report-only"], "--report-only needs a search. Received: "),
        (["--train-size=50"], "A batch is at most the training split. Received: 80 of --batch-sizes"),
    ],
)
def test_refuses_in_one_line(tmp_path, boxes_cache, capsys, more, message):
    assert main(search_words(tmp_path, *more)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not search_folder(tmp_path).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "--enqueue takes JSON. Received: "),
        ('{"l2": 1}', "--enqueue takes a list of objects. Received: "),
        ('[{"l3": 1}]', "A point names what is searched. Received: 'l3'."),
    ],
)
def test_refuses_points_that_are_none(tmp_path, capsys, content, message):
    (tmp_path / "points.json").write_text(content)
    assert main(search_words(tmp_path, f"--enqueue={tmp_path / 'points.json'}")) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_says_what_is_searched_and_its_cost(tmp_path, capsys, boxes_cache):
    assert main(search_words(tmp_path, "--dry-run", "--enqueue=published")) == 0
    told = capsys.readouterr().out
    assert "l1             off, or 1e-6 to 0.001, log scale" in told
    assert "random: up to 4 trials, " in told
    for oracle, trials in (
        ("grid", 60),
        ("hyperband", 23),
    ):  # 5 · 6 values of λ, off among them, by 2 batch sizes; brackets of 9 epochs
        assert main(search_words(tmp_path, "--dry-run", f"--oracle={oracle}", "--epochs=9", "--max-trials=99")) == 0
        assert f"{oracle}: up to {trials} trials, " in capsys.readouterr().out
    assert not Path(tmp_path / "reports").exists()


def test_the_expected_best_is_the_mean_over_all_draws(rng):
    scores = rng.random(5)
    for budget, found in enumerate(expected_best(scores), 1):
        draws = rng.choice(scores, size=(40_000, budget))
        assert found == pytest.approx(np.mean(draws.min(axis=1)), abs=0.006)
    assert expected_best([3.0, 3.0]) == pytest.approx([3.0, 3.0])


def test_a_search_begun_before_a_setting_existed_goes_on_and_one_of_another_revision_is_only_reported(
    tmp_path, monkeypatch
):
    config = SearchConfig(train=TrainConfig(), reports_dir=tmp_path)
    settings = runner._settings(config, "0" * 64)
    config.folder.mkdir(parents=True)

    def begun_with(**changes):
        (config.folder / runner.SETTINGS).write_text(json.dumps(settings | changes))

    begun_with(train={name: value for name, value in settings["train"].items() if name != "shear"})
    with pytest.raises(UsageError, match=r"^A resumed search keeps its settings\. Received: train="):
        runner._check_same(config, "0" * 64)
    monkeypatch.setattr(config_module, "ADDED", {"shear": 0.0})
    runner._check_same(config, "0" * 64)
    own = replace(config, train=own_net("x = 1\n", "net"))
    with pytest.raises(
        UsageError, match=r"^A resumed search keeps its net\. Received: --net net, of another text than"
    ):
        runner._check_same(own, "0" * 64)
    begun_with()
    with pytest.raises(UsageError, match=r"Received: data=f+, begun with 0+ in "):  # the set has changed
        runner._check_same(config, "f" * 64)
    written = json.loads((config.folder / runner.SETTINGS).read_text())
    del written["revision"]
    (config.folder / runner.SETTINGS).write_text(json.dumps(written))
    with pytest.raises(UsageError, match=rf"Received: revision={REVISION}, begun with 1 in "):
        runner._check_same(config, "0" * 64)
    runner._check_same(replace(config, report_only=True), None)
    begun_with()
    runner._check_same(replace(config, report_only=True), None)
    written = {name: value for name, value in settings.items() if name != "data"}  # of an older kernorm
    (config.folder / runner.SETTINGS).write_text(json.dumps(written))
    runner._check_same(config, "f" * 64)
