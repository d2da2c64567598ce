import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernorm.errors import UsageError
from kernorm.parallel.settings import EngineConfig
from kernorm.records.record import REVISION
from kernorm.studies import runner
from kernorm.studies.command import command
from kernorm.studies.ledger import RECORDS, Ledger, Result
from kernorm.studies.report import page
from kernorm.study import PROG, StudyConfig, main, plan
from kernorm.system import cli
from tests.builders import Page, leave_undrawn, make_record
from tests.processes import ON_JAX, Processes

ARMS = """
from kernorm.config import TrainConfig


def tiny(**values):
    return TrainConfig(net="eva6", dataset="boxes", validation_size=32, epochs=2, batch_size=40, **values)

ARMS = {"bn": tiny(), "ln-l2": tiny(norm="ln", l2=1e-3)}
SEEDS = 2
"""
STUDY = '"""Is it better?"""' + ARMS
WILD = STUDY + 'ARMS["wild"] = tiny(norm="none", l2=1e3, learning_rate=1e3, clip_ratio=None, initializer="he_normal")\n'


def write(folder, text=STUDY):
    path = folder / "mine.py"
    path.write_text(text)
    return path


def run(path, *words):
    argv = [str(path), f"--reports-dir={path.parent / 'reports'}", *words]
    return cli.run(StudyConfig, main, prog=PROG, argv=argv)


def folder_of(path, name="mine"):
    return path.parent / "reports" / "studies" / name


@pytest.fixture(scope="module")
def done(tmp_path_factory, boxes):
    """A study of two arms and one that diverges, two seeds, that has run on two workers: its file and its process.

    Its page was read after the second run, and written once more then, by another process.
    """
    path = write(tmp_path_factory.mktemp("study"), WILD)
    words = [sys.executable, "-m", "kernorm.study", path, f"--reports-dir={path.parent / 'reports'}", "--workers=2"]
    told = []
    with Processes() as start, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        process = start(words)
        for line in process.stderr:
            told.append(line)
            if line.startswith("2/6"):  # the page that followed the first run is there
                process.live = Page((folder_of(path) / "report.html").read_text())
                process.written = run(path, "--report-only")
        process.stdout_text, process.stderr_text = process.communicate()[0], "".join(told)
    return path, process


@pytest.mark.slow
def test_a_study_runs_every_arm_and_seed_and_reports(done):
    path, ran = done
    assert ran.returncode == 0, ran.stderr_text
    folder = folder_of(path)
    results = Ledger(folder).results
    assert sorted((result.arm, result.seed, result.status) for result in results.values()) == [
        (arm, seed, "diverged" if arm == "wild" else "finished") for arm in ("bn", "ln-l2", "wild") for seed in (0, 1)
    ]
    for result in results.values():
        assert result.record.run_id == result.run_id
        assert result.record.config.seed == result.seed
        assert result.record.environment.threads == 1
        assert (path.parent / "reports" / "runs" / result.run_id / "record.json").exists()
    summary = json.loads((folder / "summary.json").read_text())
    means = {arm["name"]: arm["scores"].get("accuracy", {}).get("mean") for arm in summary["arms"]}
    for arm in ("bn", "ln-l2"):
        found = [result.record.test.accuracy for result in results.values() if result.arm == arm]
        assert means[arm] == pytest.approx(sum(found) / 2)
    assert means["wild"] is None
    assert {"report.html", "tables.csv", "summary.json", RECORDS} <= {file.name for file in folder.iterdir()}
    # Records are shared; where their runs lay on this machine is nobody's business.
    assert str(path.parent) not in (folder / RECORDS).read_text()
    assert "diverged at step" in (folder / "report.html").read_text()
    assert "2 diverged" in ran.stdout_text
    assert "6/6" in ran.stderr_text
    assert "report   " in ran.stdout_text
    assert "Traceback" not in ran.stderr_text


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(done, capfd, boxes_cache):
    path, _ = done
    before = (folder_of(path) / RECORDS).read_bytes()
    assert run(path) == 0
    assert (folder_of(path) / RECORDS).read_bytes() == before
    assert "All 6 runs of mine are done" in capfd.readouterr().err


@pytest.mark.slow
def test_the_report_is_written_again_from_the_records(done, boxes_cache):
    path, _ = done
    page, summary = (folder_of(path) / name for name in ("report.html", "summary.json"))
    was = summary.read_text()
    page.unlink()
    summary.unlink()
    assert run(path, "--report-only") == 0
    assert page.exists()
    assert summary.read_text() == was


@pytest.mark.slow
def test_more_seeds_extend_a_study_and_a_damaged_line_is_done_again(done, capfd, boxes_cache, tmp_path):
    whole, _ = done
    path = write(tmp_path, WILD)
    folder_of(path).mkdir(parents=True)
    lines = (folder_of(whole) / RECORDS).read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"arm":"wild"' not in line]
    (folder_of(path) / RECORDS).write_text("".join(kept[:3]) + kept[3][:100])
    assert run(path, "--seeds=3", "--only=ln-l2", "--workers=1") == 0
    told = capfd.readouterr().err
    assert "1 damaged lines" in told
    assert "line 4" in told
    assert (folder_of(path) / "records.damaged.jsonl").read_text() == kept[3][:100] + "\n"
    results = Ledger(folder_of(path)).results
    assert {(result.arm, result.seed) for result in results.values()} == {
        (arm, seed) for arm in ("bn", "ln-l2") for seed in range(3)
    }
    # What was there has not been trained once more; what was damaged gave the same scores as in its first life.
    first = Ledger(folder_of(whole)).results
    trained = {path.parent.name for path in (tmp_path / "reports" / "runs").glob("*/record.json")}
    assert len(trained) == 3
    for run_id in set(first) & set(results):
        assert results[run_id].record.test == first[run_id].record.test


@pytest.mark.slow
def test_the_page_is_live_while_runs_are_under_way(done):
    path, ran = done
    assert re.search(r"[1-6] of 6 runs, ends about", ran.live.text)
    assert ("meta", {"http-equiv": "refresh", "content": "60"}) in ran.live.tags
    assert "Means so far." in ran.live.text
    assert ran.written == 0  # however far it was by then
    text = (folder_of(path) / "report.html").read_text()
    assert "Means so far." not in Page(text).text
    assert "http-equiv" not in text
    assert [len(look["seeds"]) for look in json.loads((folder_of(path) / "design.json").read_text())["looks"]] == [3]


@pytest.mark.slow
def test_killed_and_started_again_it_loses_nothing(boxes_cache, tmp_path, start):
    path = write(tmp_path, STUDY.replace("epochs=2,", "epochs=2, report=False,"))
    words = [sys.executable, "-m", "kernorm.study", path, f"--reports-dir={tmp_path / 'reports'}", "--workers=1"]
    process = start(words)
    for line in process.stderr:
        if line.startswith("1/4"):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first = Ledger(folder_of(path)).results
    assert 1 <= len(first) <= 2
    again = start(words)
    _, told = again.communicate()
    assert again.returncode == 0
    assert "4/4" in told
    assert "1/4" not in told
    lines = [json.loads(line) for line in (folder_of(path) / RECORDS).read_text().splitlines()]
    assert len({line["run_id"] for line in lines}) == len(lines) == 4


def fabricate(path, study="other", data=None, **changes):
    """Writes a record for every run of the study file at `path` into another study's records."""
    from kernorm.datasets.cache import prepared_sha256

    ledger = Ledger(folder_of(path, study))
    ledger.path.parent.mkdir(parents=True, exist_ok=True)
    for planned in plan(StudyConfig(study=str(path), reports_dir=path.parent / "reports")).runs():
        record = make_record(config=planned.config, run_id=planned.config.run_id, count=64, errors=planned.seed + 5)
        own = replace(record.data, name="boxes", sha256=data or prepared_sha256("boxes"))
        record = replace(record, data=own, **changes)
        ledger.add(Result(arm="theirs", seed=9, run_id=record.run_id, status="finished", record=record))
    return ledger


def test_a_run_that_another_study_has_trained_is_taken(tmp_path, boxes_cache, capsys, monkeypatch):
    leave_undrawn(monkeypatch, page)
    path = write(tmp_path)
    theirs = fabricate(path).results
    assert run(path, "--dry-run") == 0
    assert "0 of 4 runs to do" in capsys.readouterr().out
    assert run(path) == 0
    told = capsys.readouterr().err
    assert "4 runs were trained by other studies: 4 from other." in told
    assert "All 4 runs of mine are done" in told
    results = Ledger(folder_of(path)).results
    assert sorted((result.arm, result.seed, result.taken_from) for result in results.values()) == [
        (arm, seed, "other") for arm in ("bn", "ln-l2") for seed in (0, 1)
    ]
    assert {name: result.record for name, result in results.items()} == {
        name: result.record for name, result in theirs.items()
    }
    assert not (tmp_path / "reports" / "runs").exists()
    assert "4 runs were trained by other studies: 4 from other." in (folder_of(path) / "report.html").read_text()
    # It has its own copy: nothing is taken again, and the other study may go.
    before = (folder_of(path) / RECORDS).read_bytes()
    shutil.rmtree(folder_of(path, "other"))
    assert run(path) == 0
    assert (folder_of(path) / RECORDS).read_bytes() == before
    assert "trained by other studies: 4 from other" in (folder_of(path) / "report.html").read_text()


def test_a_study_takes_the_folder_of_its_own_file_only(tmp_path, boxes_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    mine = plan(StudyConfig(study=path.name))
    results = list(fabricate(path).results.values())
    for file, refused in (("mine.py", False), ("", False), ("elsewhere/mine.py", True)):
        folder = tmp_path / "studies" / f"of {file.replace('/', ' ')}"
        folder.mkdir(parents=True)
        # A run of another config, as if the study had none of its own in common.
        Ledger(folder).add(replace(results[0], file=file, run_id="another"))
        if refused:
            with pytest.raises(
                UsageError, match=r"belongs to one study file\. Received: mine\.py, and in .* of elsewhere/mine\.py\. G"
            ):
                runner._check_file(mine, Ledger(folder))
            Ledger(folder).add(replace(results[0], file=file))  # edited or moved, it shares a run
        runner._check_file(mine, Ledger(folder))


@pytest.mark.slow
def test_two_study_files_of_one_name_do_not_share_a_folder(tmp_path, boxes_cache, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    fabricate(path)
    assert run(path) == 0  # taken, with the file's own name
    assert {result.file for result in Ledger(folder_of(path)).results.values()} == {path.name}
    report = (folder_of(path) / "report.html").read_bytes()
    other = tmp_path / "elsewhere" / path.name
    other.parent.mkdir()
    other.write_text(path.read_text().replace("epochs=2", "epochs=3"))
    words = [f"--reports-dir={path.parent / 'reports'}"]
    capsys.readouterr()
    assert run(other, *words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: A study's folder belongs to one study file. Received: elsewhere/mine.py, and in ")
    assert told.endswith("studies/mine the runs of mine.py. Give --name another name.\n")
    assert (folder_of(path) / "report.html").read_bytes() == report
    # An edited or moved study shares a run with what is there.
    moved = tmp_path / "moved" / path.name
    moved.parent.mkdir()
    moved.write_text(path.read_text())
    assert run(moved, *words) == 0


LIGHT = """
import sys
from kernorm.study import PROG, StudyConfig, main
from kernorm.system import cli

code = cli.run(StudyConfig, main, prog=PROG)
print("heavy", sorted({"keras", "tensorflow", "jax"} & set(sys.modules)))
sys.exit(code)
"""


def ran_light(path, *words, **environment):
    command = [sys.executable, "-c", LIGHT, path, f"--reports-dir={path.parent / 'reports'}", *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_driver_of_a_study_imports_neither_keras_nor_tensorflow(tmp_path, boxes_cache):
    path = write(tmp_path)
    fabricate(path)
    ran = ran_light(path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "heavy []"
    assert (folder_of(path) / "report.html").exists()


# No process that inherits this finds TensorFlow.
HIDDEN = """
import importlib.util
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "tensorflow" else found(name, package)
"""


@pytest.mark.slow
def test_a_study_runs_and_reports_without_tensorflow(tmp_path, boxes_cache):
    pytest.importorskip("jax")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    path = write(tmp_path)
    paths = f"{tmp_path / 'hidden'}{os.pathsep}{os.environ['PYTHONPATH']}"
    ran = ran_light(path, "--workers=1", "--seeds=1", **ON_JAX, PYTHONPATH=paths)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "heavy []"
    assert {result.status for result in Ledger(folder_of(path)).results.values()} == {"finished"}
    assert (folder_of(path) / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revision": 1}, "4 of another revision of the training code"),
        ({"data": "9f" * 32}, "4 of other data"),
    ],
)
@pytest.mark.slow
def test_a_run_that_todays_code_and_data_would_not_give_is_not_taken(tmp_path, boxes_cache, capsys, changes, reason):
    path = write(tmp_path)
    for name in ("other", "mine"):
        fabricate(path, name, **changes)
    assert run(path, "--dry-run") == 0
    assert "4 of 4 runs to do" in capsys.readouterr().out
    assert run(path, "--only=bn", "--seeds=1", "--workers=1") == 0
    told = capsys.readouterr().err
    assert f"1 run has a result not used here: {reason.replace('4', '1')}." in told
    assert "1/1" in told
    (result,) = Ledger(folder_of(path)).results.values()
    assert (result.arm, result.seed, result.taken_from, result.record.revision) == ("bn", 0, "", REVISION)
    assert (
        f"1 run has a result not used here: {reason.replace('4', '1')}."
        in (folder_of(path) / "report.html").read_text()
    )


@pytest.mark.parametrize("data", [None, pytest.param("9f" * 32, marks=pytest.mark.slow)])
def test_an_old_page_is_written_again_from_its_old_records(tmp_path, boxes_cache, data):
    path = write(tmp_path)
    fabricate(path, "mine", data, revision=1)
    assert run(path, "--report-only") == 0
    # Pictures of other images than those that were mistaken would be wrong.
    assert (folder_of(path) / "misclassified.png").exists() == (data is None)
    summary = json.loads((folder_of(path) / "summary.json").read_text())
    assert summary["revisions"] == [1]
    assert summary["arms"][0]["scores"]["accuracy"]["mean"] == pytest.approx(1 - 5.5 / 64)
    page = (folder_of(path) / "report.html").read_text()
    assert "Trained by an earlier revision of the training code" in page
    assert f"4 runs of revision 1; today it is {REVISION}" in page


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, capsys, boxes_cache):
    path = write(tmp_path)
    assert run(path, "--seeds=5", "--dry-run", "--workers=2") == 0
    told = capsys.readouterr().out
    assert "Is it better?" in told
    assert "0/5" in told
    assert "10 of 10 runs to do, about" in told
    assert not (tmp_path / "reports").exists()


def test_another_number_of_epochs_has_a_folder_of_its_own(tmp_path):
    assert StudyConfig(study="eva6").folder == Path("reports/studies/eva6")
    assert StudyConfig(study="eva6", epochs=5).folder == Path("reports/studies/eva6-e5")
    assert StudyConfig(study=str(tmp_path / "mine.py"), name="short").folder == Path("reports/studies/short")


def test_the_command_is_what_was_typed():
    config = StudyConfig(study="my study.py", seeds=3, epochs=5, only=("ln-*",), engine=EngineConfig(workers=2))
    assert command(config) == "python -m kernorm.study 'my study.py' --seeds 3 --epochs 5 --only 'ln-*'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eva7"], "A study is a known name or a Python file. Received: 'eva7'. Did you mean 'eva6'?"),
        (["gone.py"], "A study file must be there. Received: gone.py, which is not."),
        (["smoke", "--seeds=0"], "--seeds must be at least 1. Received: seeds=0."),
        (["smoke", "--epochs=0"], "--epochs must be from 1 to 100000. Received: epochs=0."),
        (["smoke", "--only=lm"], "--only takes names of arms. Received: 'lm'. Known: bn, ln-l2."),
        (["smoke", "--workers=0"], "--workers must be at least 1. Received: workers=0."),
        (["smoke", "--threads=0"], "--threads must be from 1 to 1024. Received: threads=0."),
        (["smoke", "--engine=rai"], "--engine takes a known name. Received: 'rai'. Did you mean 'ray'?"),
        (["smoke", "--address=somewhere:1"], "Addresses and shares of a GPU belong to --engine ray."),
        (["smoke", "--gpus-per-job=-1"], "--gpus-per-job must be a share from 0 to 1"),
        (["smoke", "--name=a/b"], "--name is one folder's name. Received: 'a/b'."),
        (["smoke", "--name=.."], "--name is one folder's name. Received: '..'."),
        (["smoke", "--sedes=3"], "An option must be a known one. Received: --sedes=3. Did you mean --seeds?"),
        (["smoke", "--seeds=three"], "--seeds could not be read. Received: 'three'."),
        ([], "by --runs or --where. Received: none of them. Give one of them, for example smoke."),
    ],
)
def test_refuses_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli.run(StudyConfig, main, prog=PROG, argv=words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_does_not_fit_is_refused_before_anything_runs(tmp_path, capsys, boxes_cache):
    path = write(tmp_path, STUDY.replace("batch_size=40", "batch_size=700"))
    assert run(path) == 2
    assert "--batch-size must not be larger than the training split" in capsys.readouterr().err
