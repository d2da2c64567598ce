"""python -m kernorm.push: what may be published, that it is published whole, and what is served."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from kernorm.evaluation.evaluator import evaluate_model
from kernorm.evaluation.result import read_evaluation
from kernorm.push import PROG, PushConfig, main
from kernorm.saved_model.card import FOLDER, read_card
from kernorm.saved_model.integrity import copy_model, tree_sha256
from kernorm.saved_model.versions import versions
from kernorm.serving import checks, config_file, registry
from kernorm.serving.registry import CONFIG, Registry
from kernorm.serving.server_files import BATCHING_FLAGS
from kernorm.serving.validation import validate_model
from kernorm.system.cli import run
from kernorm.system.files import locked
from tests.builders import asked_here, candidate, easy_thresholds, only_runtimes
from tests.serving_twin import Twin


def pushed(*words):
    return run(PushConfig, main, prog=PROG, argv=[str(word) for word in words])


@pytest.fixture(scope="module")
def blessed(tmp_path_factory, mnist):
    """A model that was really evaluated and blessed."""
    folder = tmp_path_factory.mktemp("candidates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(mnist))
        path = candidate(folder / "run" / "1000")
        assert evaluate_model(path, thresholds=easy_thresholds(folder), robustness=False).blessed
        asked_here(patch)
        only_runtimes(patch, "graph", "tensorflow")
        assert validate_model(path).blessed
    return path


def during_copy(monkeypatch, act):
    """Has something done whenever a model has been copied, before its copy is looked at."""

    def copy(source, target):
        copy_model(source, target)
        act(source, target)

    monkeypatch.setattr(checks, "copy_model", copy)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "saved_models"


def config_of(root):
    return text_format.Parse((root / CONFIG).read_text(), ModelServerConfig()).model_config_list.config


def test_a_blessed_model_becomes_a_version_with_the_same_files(blessed, root, capsys):
    before = int(time.time())
    assert pushed(blessed, "--saved-models-dir", root) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == root / "kernorm"
    assert int(path.name) >= before
    assert tree_sha256(path) == tree_sha256(blessed)
    assert (path / FOLDER / "BLESSED").exists()
    (entry,) = config_of(root)
    assert (entry.name, entry.base_path, entry.model_platform) == ("kernorm", "/models/kernorm", "tensorflow")
    assert not entry.HasField("model_version_policy")
    assert {path.name for path in (root / "kernorm").iterdir()} == {path.name}


def test_every_file_that_the_printed_command_names_is_there(blessed, root, capsys):
    """Also outside a checkout, where only what push writes is there; the twin starts with the flags."""
    assert pushed(blessed, "--saved-models-dir", root) == 0
    told = capsys.readouterr().err.splitlines()
    (travelling,) = [line for line in told if line.startswith("with the model travel")]
    assert travelling.endswith("as warm-up requests that everybody can read: some images of mnist")
    (line,) = [line for line in told if line.startswith("serve by: ")]
    words = shlex.split(line)
    assert f"{root}:/models" in words
    flags = [*words[words.index("tensorflow/serving") + 1 :], *BATCHING_FLAGS]
    named = re.findall(r"=/models/(\S+)", " ".join(flags))
    assert [path for path in named if not (root / path).is_file()] == []
    assert len(named) == 3
    with Twin.of_flags(flags, root) as twin:
        assert twin.models.resolve("kernorm") == versions(root / "kernorm")[-1]
    edited = root / "serving_config" / "batching.config"
    edited.write_text("mine")
    assert pushed(blessed, "--saved-models-dir", root) == 0
    assert edited.read_text() == "mine"


def test_versions_rise_and_published_ones_stay_as_they_are(blessed, root):
    (root / "kernorm" / "9999999999").mkdir(parents=True)
    for _ in range(2):
        assert pushed(blessed, "--saved-models-dir", root) == 0
    assert versions(root / "kernorm") == [9999999999, 10000000000, 10000000001]
    assert list((root / "kernorm" / "9999999999").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "evaluation.json").unlink(), "it was never evaluated"),
        (lambda folder: (folder / "BLESSED").unlink(), "it is not blessed"),
        (lambda folder: (folder / "INFRA_BLESSED").rename(folder / "INFRA_NOT_BLESSED"), "it failed in a runtime"),
    ],
)
def test_refuses_what_is_not_blessed_with_the_reason(blessed, root, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.setattr(registry, "validate_model", lambda path: None)  # as if it failed again
    path = Path(shutil.copytree(blessed, tmp_path / "run" / "1"))
    change(path / FOLDER)
    assert pushed(path, "--saved-models-dir", root) == 1
    assert f"refused: {path}: {message}" in capsys.readouterr().err
    assert versions(root / "kernorm") == []


def test_a_blessing_is_of_exactly_these_files(blessed, root, tmp_path, capsys):
    path = Path(shutil.copytree(blessed, tmp_path / "run" / "1"))
    (path / "assets.extra" / "more.txt").write_text("added")
    assert pushed(path, "--saved-models-dir", root) == 2
    assert "A model must be as it was exported. Received: " in capsys.readouterr().err
    (path / FOLDER / "tree.sha256").write_text(tree_sha256(path) + "\n")
    assert pushed(path, "--saved-models-dir", root) == 1
    assert "its evaluation is of other files" in capsys.readouterr().err
    assert versions(root / "kernorm") == []


def test_a_copy_that_differs_is_never_published(blessed, root, monkeypatch, capsys):
    during_copy(monkeypatch, lambda source, target: (target / "labels.txt").write_bytes(b""))
    assert pushed(blessed, "--saved-models-dir", root) == 2
    assert "A copy must be what was blessed. Received: " in capsys.readouterr().err
    assert not (root / "kernorm").exists()


def test_a_blessing_that_is_taken_away_meanwhile_publishes_nothing(blessed, root, monkeypatch, capsys):
    during_copy(monkeypatch, lambda source, target: (target / FOLDER / "BLESSED").unlink())
    assert pushed(blessed, "--saved-models-dir", root) == 1
    assert f"refused: {blessed}: it is not blessed" in capsys.readouterr().err
    assert not (root / "kernorm").exists()


def test_a_full_disk_publishes_nothing(blessed, root):
    """The system refuses files of more than 100 KiB, as a full disk or a quota does in the middle of a copy."""
    push = f"ulimit -f 100; exec {sys.executable} -m kernorm.push {blessed} --saved-models-dir {root}"
    told = subprocess.run(["bash", "-c", push], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "A version needs room on its disk. Received: " in told.stderr
    assert "Traceback" not in told.stderr
    assert not (root / "kernorm").exists()


def test_one_pushes_at_a_time(blessed, root, capsys):
    root.mkdir()
    with locked(root / ".kernorm.push.lock", "publish kernorm"):
        assert pushed(blessed, "--saved-models-dir", root) == 2
    assert "Only one process at a time may publish kernorm. Received: " in capsys.readouterr().err
    assert pushed(blessed, "--saved-models-dir", root) == 0


def test_models_that_are_pushed_at_once_are_all_in_the_one_models_config(blessed, root, monkeypatch, capsys):
    """The second begins and ends while the first one copies."""
    others = iter([lambda: pushed(blessed, "--saved-models-dir", root, "--model", "other")])
    during_copy(monkeypatch, lambda source, target: next(others, lambda: None)())
    assert pushed(blessed, "--saved-models-dir", root) == 0
    assert sorted(entry.name for entry in config_of(root)) == ["kernorm", "other"]
    assert set(config_file.ConfigFile(root).notes()) == {"kernorm", "other"}


def test_a_pin_while_a_push_copies_is_kept(blessed, root, monkeypatch, capsys):
    assert pushed(blessed, "--saved-models-dir", root) == 0
    (first,) = versions(root / "kernorm")
    during_copy(monkeypatch, lambda source, target: Registry(root).pin(first))
    assert pushed(blessed, "--saved-models-dir", root) == 0
    assert list(config_of(root)[0].model_version_policy.specific.versions) == [first]
    assert "is published and not served; --pin latest serves it" in capsys.readouterr().err


def test_models_config_is_waited_for_and_not_without_end(blessed, root, monkeypatch, capsys):
    assert pushed(blessed, "--saved-models-dir", root) == 0
    monkeypatch.setattr(config_file, "PATIENCE_SECONDS", 0.0)
    with locked(root / ".serving_config.lock", "hold it"):
        assert pushed("--pin", "latest", "--saved-models-dir", root) == 2
    assert "Only one process at a time may change models.config. Received: " in capsys.readouterr().err


def test_a_model_of_other_data_takes_no_ones_place_unless_it_is_said(blessed, root, capsys):
    card = Path(shutil.copytree(blessed, root / "kernorm" / "1000")) / FOLDER / "model_card.json"
    for change in ({"image_shape": [32, 32, 3]}, {"labels": ["a", "b", "c"]}):
        content = json.loads((blessed / FOLDER / "model_card.json").read_bytes())
        card.write_text(json.dumps({**content, "data": {**content["data"], **change}}))
        assert pushed(blessed, "--saved-models-dir", root) == 2
    told = capsys.readouterr().err
    assert "A model takes the place of one with the same labels and image shape. Received: " in told
    assert f"{blessed}, of mnist with 10 classes of 28x28x1, for {root / 'kernorm' / '1000'}, of mnist with " in told
    assert "mnist with 3 classes of 28x28x1. Give another --model, or --allow-other-data.\n" in told
    assert versions(root / "kernorm") == [1000]
    assert pushed(blessed, "--saved-models-dir", root, "--model", "other") == 0
    assert pushed(blessed, "--saved-models-dir", root, "--allow-other-data") == 0
    assert len(versions(root / "kernorm")) == 2


@pytest.mark.parametrize("words", [("PATH",), ("--pin", "latest"), ("--label", "stable=VERSION")])
def test_a_runs_own_folder_is_no_published_model(blessed, root, capsys, words):
    card = read_card(blessed)
    shutil.copytree(blessed, root / card.run_id / str(card.version))
    words = [word.replace("PATH", str(blessed)).replace("VERSION", str(card.version)) for word in words]
    assert pushed(*words, "--saved-models-dir", root, "--model", card.run_id) == 2
    told = capsys.readouterr().err
    assert "A model is published under a name of its own, not under that of a run. Received: --model " in told
    assert versions(root / card.run_id) == [card.version]
    assert not (root / CONFIG).exists()


def test_what_a_killed_evaluation_left_is_not_published_and_removed(blessed, root, tmp_path, capsys):
    path = Path(shutil.copytree(blessed, tmp_path / "run" / "1"))
    left = path / FOLDER / ".evaluation.json.99999999.tmp"
    living = path / FOLDER / f".validation.json.{os.getppid()}.tmp"
    for file in (left, living):
        file.write_text("half")
    assert pushed(path, "--saved-models-dir", root) == 0
    published = root / "kernorm" / str(versions(root / "kernorm")[0])
    assert not [file for file in published.rglob(".*")]
    assert (left.exists(), living.exists()) == (False, True)


@pytest.mark.parametrize("words", [("--pin", "5"), ("--rollback",), ("--label", "stable=5"), ("--unlabel", "stable")])
def test_what_cannot_be_done_makes_no_folders(tmp_path, capsys, words):
    assert pushed(*words, "--saved-models-dir", tmp_path / "a" / "b") == 2
    assert list(tmp_path.iterdir()) == []


def test_rollback_pin_and_labels_are_what_tf_serving_reads(blessed, root, capsys):
    for _ in range(3):
        assert pushed(blessed, "--saved-models-dir", root) == 0
    one, two, three = versions(root / "kernorm")
    where = ("--saved-models-dir", root)

    def specific():
        (entry,) = config_of(root)
        return list(entry.model_version_policy.specific.versions)

    assert pushed("--rollback", *where) == 0
    assert specific() == [two]
    assert pushed("--rollback", *where) == 0
    assert specific() == [one]
    capsys.readouterr()
    assert pushed("--rollback", *where) == 2
    assert "A rollback needs a version before the one that is served. Received: " in capsys.readouterr().err
    assert pushed("--pin", three, *where) == 0
    assert specific() == [three]
    assert pushed("--label", f"stable={two}", *where) == 1  # tests/serving/test_labels.py
    assert specific() == [two, three]
    assert pushed("--pin", "latest", *where) == 0
    assert specific() == []
    (root / "kernorm" / str(one) / "saved_model.pb").write_bytes(b"edited")
    capsys.readouterr()
    assert pushed("--list", *where) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*(str(number) for number in (three, two, one)), "requests"]
    assert "blessed" in lines[0]
    assert f"{100 * read_evaluation(blessed).measured('accuracy').value:.2f} %" in lines[0]
    assert lines[0].endswith("served")
    assert lines[3] == f"requests without a version go to {three}, the newest"
    assert "UNUSABLE: A model must be as it was exported." in lines[2]
    assert pushed("--pin", one, *where) == 2


def test_versions_by_date_are_listed_and_odd_numbers_are_ignored_and_named(blessed, root, capsys):
    for name in ("20261126045022", "20261126", "7" + 18 * "0", "0123", "9" * 19):
        shutil.copytree(blessed, root / "kernorm" / name)
    assert pushed("--list", "--saved-models-dir", root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines[:3]] == [
        ["7" + 18 * "0", "no time"],
        ["20261126045022", "2026-11-26 04:50:22"],
        ["20261126", "2026-11-26 00:00:00"],
    ]
    assert lines[4].startswith("0123  ignored: a version has no leading zeros, but a server may take it for one;")
    assert (
        lines[5] == f"{'9' * 19}  ignored: a version is at most 2^63 - 1, as TF Serving takes it; rename or remove it"
    )
    assert pushed(blessed, "--saved-models-dir", root) == 0
    told = capsys.readouterr()
    assert Path(told.out.strip()).name == "7" + 17 * "0" + "1"
    for name in ("0123", "9" * 19):
        assert f"{root / 'kernorm' / name}: ignored: a version " in told.err
    assert pushed("--pin", "9" * 19, "--saved-models-dir", root) == 2
    assert "A version must be a published one. Received: 9999" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "One thing at a time: a model to push, --rollback, --pin, --label, --unlabel or --list. Received: none."),
        (["--list", "--rollback"], "Received: rollback, list."),
        (["--pin", "newest"], "--pin takes a version, or latest. Received: 'newest'."),
        (["--pin", "7"], "A version must be a published one. Received: 7. Known: none."),
        (["--label", "stable"], "--label takes LABEL=VERSION. Received: 'stable'."),
        (["--list", "--model", "a/b"], "--model takes a name of A-Z, a-z, 0-9, '.', '_' and '-' that begin"),
        (["--list", "--model", "photos@1"], "that begins with no '.'. Received: 'photos@1'. Give for example kernorm."),
        (["--list", "--model", "..x"], "that begins with no '.'. Received: '..x'."),
        (["--list", "--model", "serving_config"], "--model is not the folder of a server's files. Received: serving_c"),
        (["nowhere"], "An exported model is a folder with a saved_model.pb. Received: nowhere"),
    ],
)
def test_refuses_in_one_line(root, capsys, words, message):
    root.mkdir()
    assert pushed(*words, "--saved-models-dir", root) == 2
    assert message in capsys.readouterr().err


def test_refuses_a_models_config_that_tf_serving_could_not_read(root, capsys):
    (root / CONFIG).parent.mkdir(parents=True)
    (root / CONFIG).write_text("model_config_list {")
    assert pushed("--list", "--saved-models-dir", root) == 2
    assert "models.config is what TF Serving reads. Received: " in capsys.readouterr().err


# Forks a push for each operation on files that a push does, which ends itself by SIGKILL right before that operation.
KILLED = """
import os, signal, sys
from pathlib import Path
from kernorm.saved_model.integrity import tree_sha256
from kernorm.serving.registry import Registry

OPERATIONS = ("open", "os.", "shutil.")
path, registry = Path(sys.argv[1]), Registry(Path(sys.argv[2]))
base, digest = registry.base, tree_sha256(path)
registry.push(path)  # whatever is imported late is there now
whole, moment, status = set(), 0, signal.SIGKILL
while status == signal.SIGKILL:
    if not (child := os.fork()):
        left = [moment]
        def kill(event, arguments):
            if event.startswith(OPERATIONS):
                left[0] -= 1
                if left[0] == -1:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(kill)
        registry.push(path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    # As TF Serving looks at the base path: any name that is a number counts.
    for version in base.iterdir():
        if version.name.isdecimal() and version.name not in whole:
            assert tree_sha256(version) == digest, f"{version} of the push killed at {moment}"
            whole.add(version.name)
    moment += 1
print(moment, status, len(whole))
"""


def test_killed_before_any_operation_on_files_there_is_never_a_version_that_is_not_whole(blessed, root, start):
    process = start([sys.executable, "-c", KILLED, blessed, root])
    told, error = process.communicate()
    assert process.returncode == 0, error
    moments, status, whole = map(int, told.split())
    assert (moments > 50, status) == (True, 0), error
    # One before the kills, one that nothing killed, and those that were killed after their version was in place.
    assert 2 <= whole < moments
    assert len(versions(root / "kernorm")) == whole
    # What the killed ones left is cleaned up.
    assert pushed(blessed, "--saved-models-dir", root) == 0
    assert not [path.name for path in (root / "kernorm").iterdir() if not path.name.isdecimal()]


@pytest.mark.slow
def test_two_pushers_at_once_publish_one_after_the_other_or_are_told(blessed, root):
    """Two processes begin together: each publishes a whole version of its own, or says that the other is at it."""
    command = [sys.executable, "-m", "kernorm.push", str(blessed), "--saved-models-dir", str(root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate() for process in both]
    published = versions(root / "kernorm")
    assert len(published) == [process.returncode for process in both].count(0) >= 1
    for process, (_, error) in zip(both, told, strict=True):
        assert process.returncode == 0 or "publish kernorm" in error
    assert all(tree_sha256(root / "kernorm" / str(number)) == tree_sha256(blessed) for number in published)
    assert {path.name for path in (root / "kernorm").iterdir()} == set(map(str, published))
