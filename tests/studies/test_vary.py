"""Studies that a command line spells out: their arms, the file that they stand for, and what is refused."""

import re
import sys
from dataclasses import replace

import pytest

from kernorm import study as command
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.recipes import recipe
from kernorm.studies.command import command as command_line
from kernorm.studies.definition import with_overrides
from kernorm.studies.loading import load_study
from kernorm.studies.vary import FILE, varied_study, write_study_file
from kernorm.system import cli

GRID = ["norm=bn,gn", "l2=0,1e-4"]


def test_every_combination_is_an_arm_and_the_first_the_baseline():
    study = varied_study(GRID, ["--net", "eva6", "--epochs", "2", "--recipe=eva6"], seeds=4)
    assert study.arms == {
        "bn-l2_0": recipe("eva6", epochs=2),
        "bn-l2_1e-4": recipe("eva6", epochs=2, l2=1e-4),
        "gn-l2_0": recipe("eva6", epochs=2, norm="gn"),
        "gn-l2_1e-4": recipe("eva6", epochs=2, norm="gn", l2=1e-4),
    }
    assert set(study.baselines.values()) == {"bn-l2_0"}
    assert (study.name, study.question, len(study.seeds)) == (
        "norm-l2",
        "Which norm (bn, gn) and l2 (0, 1e-4) is better?",
        4,
    )


def test_recipes_switches_and_none_can_be_varied():
    study = varied_study(["recipe=default,best", "nesterov=true,false", "clip-ratio=None,0.1"], [])
    assert len(study.arms) == 8
    assert study.arms["best-nesterov_false-clip_ratio_None"] == recipe("best", nesterov=False, clip_ratio=None)
    assert study.arms["default-nesterov_true-clip_ratio_0.1"] == TrainConfig(clip_ratio=0.1)


def test_the_file_that_it_stands_for_has_the_same_arms(tmp_path):
    study = varied_study([*GRID, "dataset=mnist,kmnist"], ["--norm-at", "conv1=none"])
    write_study_file(study, tmp_path / FILE)
    again = load_study(str(tmp_path / FILE))
    assert again.arms == study.arms
    assert (again.seeds, again.baselines, again.question) == (study.seeds, study.baselines, study.question)
    assert "python -m kernorm.study --vary norm=bn,gn --vary l2=0,1e-4" in again.text


def test_own_nets_are_arms_and_the_file_holds_their_texts(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(f'def net(image_shape, num_classes):\n    """Of {name}."""\n')
    monkeypatch.chdir(tmp_path)
    study = with_overrides(varied_study(["net=a.py:net,b.py:net,eva6", "l2=0,1e-3"], ["--norm", "none"]))
    assert list(study.arms)[::2] == ["a.py:net-l2_0", "b.py:net-l2_0", "eva6-l2_0"]
    assert len({config.run_id for config in study.arms.values()}) == 6
    write_study_file(study, tmp_path / FILE)
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").unlink()
    monkeypatch.setattr("kernorm.nets.source._TRUSTED", set())
    again = with_overrides(load_study(str(tmp_path / FILE)))
    assert {arm: config.identity for arm, config in again.arms.items()} == {
        arm: config.identity for arm, config in study.arms.items()
    }
    assert (tmp_path / FILE).read_text().count("Of a.") == 1


def test_flags_go_to_the_study_or_to_every_arm():
    words = [
        "--vary",
        "norm=bn,gn",
        "--seeds",
        "2",
        "--epochs",
        "3",
        "--vary=l2=0,1",
        "--reports-dir",
        "there",
        "--shift=0",
    ]
    first, left = command.default(words)
    config = cli.parse(command.StudyConfig, prog=command.PROG, argv=left, default=first)
    assert (config.vary, config.seeds, config.epochs) == (("norm=bn,gn", "l2=0,1"), 2, None)
    assert config.train_words == ("--epochs", "3", "--shift=0")
    assert str(config.folder) == "there/studies/norm-l2"
    study = command.plan(config)
    assert {(arm.epochs, arm.shift) for arm in study.arms.values()} == {(3, 0.0)}
    assert command_line(config) == (
        "python -m kernorm.study --vary norm=bn,gn --vary l2=0,1 --seeds 2 --epochs 3 --shift=0"
    )


def test_a_tracker_of_the_study_is_that_of_every_run_and_must_be_installed(monkeypatch, tmp_path):
    config = command.StudyConfig(vary=("norm=bn,gn",), track="mlflow", reports_dir=tmp_path)
    study = command.plan(config)
    assert {run.config.track for run in study.runs()} == {"mlflow"}
    plain = command.plan(replace(config, track="none"))
    assert [run.config.run_id for run in study.runs()] == [run.config.run_id for run in plain.runs()]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"^--track needs its package\. Received: --track mlflow"):
        command.main(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--vary", "nrm=bn,gn"],
            r"^--vary takes a setting of kernorm\.train\. Received: 'nrm'\. Did you mean 'norm'\?",
        ),
        (["--vary", "norm=bn"], r"^--vary takes two or more values\. Received: 'norm=bn'\. Give --norm bn instead\."),
        (["--vary", "norm"], r"^--vary takes NAME=VALUE,VALUE\. Received: 'norm'\."),
        (["--vary", "norm=bn,"], r"^--vary takes NAME=VALUE,VALUE\. Received: 'norm=bn,'\."),
        (["--vary", "norm=bn,bn"], r"^--vary takes each value once\. Received: 'bn' twice in 'norm=bn,bn'\."),
        (["--vary", "norm=bn,gn", "--vary", "norm=ln,in"], r"^--vary takes a setting once\. Received: 'norm' twice\."),
        (["--vary", "norm=bn,bm"], r"^--norm takes a known name\. Received: 'bm'\. Did you mean 'bn'\?"),
        (["--vary", "l2=0,-1"], r"^--l2 must be a finite number of at least 0 and at most 1000\. Received: l2=-1"),
        (["--vary", "nesterov=yes,no"], r"^--vary nesterov takes true and false\. Received: 'yes'\."),
        (["--vary", "data_dir=a,b"], r"^--vary takes a setting that decides a result\. Received: 'data_dir'"),
        (["--vary", "norm_at=a,b"], r"^--vary takes one value at a time\. Received: 'norm_at', which holds several\."),
        (["--vary", "penalty_at=a,b"], r"^--vary takes one value at a time\."),
        (["--vary", "net_source=a,b"], r"^--vary takes a setting of kernorm\.train\. Received: 'net_source'\."),
        (["--vary", "net=eva4,eva5"], r"^--net takes a known name, or FILE\.py:FUNCTION\. Received: 'eva5'\."),
        (["--vary", "net=eva4,no.py:net"], r"^--net takes FILE\.py:FUNCTION\. Received: no\.py, which is not there\."),
        (["--vary", "seed=1,2"], r"^A study sets --seed itself\. Received: 'seed=1,2'\. See --seeds\."),
        (["--vary"], r"^--vary takes NAME=VALUE,VALUE\. Received: no value\."),
        (["--vary", "norm=bn,gn", "--seed", "3"], r"^A study sets --seed itself\. Received: --seed\. See --seeds\."),
        (
            ["--vary", "norm=bn,gn", "--epoch", "3"],
            r"^An option must be a known one\. Received: --epoch\. Did you mean --epochs\?",
        ),
        (
            ["smoke", "--vary", "norm=bn,gn"],
            r"^A study is named, or given by --vary, or of runs that exist, .*\. Received: 'smoke' and --vary\. Give",
        ),
        ([], r"^A study is named, or given by --vary, or of .*\. Received: none of them\."),
    ],
)
def test_refuses_what_cannot_be_varied(words, message, tmp_path, capfd):
    code = cli.run(
        command.StudyConfig,
        command.main,
        prog=command.PROG,
        argv=[*words, "--reports-dir", str(tmp_path)],
        default=command.default,
    )
    assert code == 2
    (line,) = capfd.readouterr().err.splitlines()

    assert re.search(message, line.removeprefix("error: ")), line
    assert not list(tmp_path.iterdir())


def test_what_the_images_refuse_leaves_nothing(tmp_path, capfd, boxes_cache):
    words = ["--vary", "norm=bn,gn", "--dataset", "boxes", "--net", "eva6", "--train-size", "100000"]
    code = cli.run(
        command.StudyConfig,
        command.main,
        prog=command.PROG,
        argv=[*words, "--reports-dir", str(tmp_path / "reports")],
        default=command.default,
    )
    assert code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: --train-size "), line
    assert not list(tmp_path.iterdir())


def test_refuses_more_arms_than_anybody_can_compare():
    numbers = ",".join(map(str, range(1, 24)))
    with pytest.raises(UsageError, match=r"^A study has at most 500 arms\. Received: 529 combinations of --vary\."):
        varied_study([f"epochs={numbers}", f"batch_size={numbers}"], [])
