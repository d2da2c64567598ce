from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.stats import anytime
from kernorm.studies import choices, definition
from kernorm.studies.command import command
from kernorm.studies.definition import with_overrides
from kernorm.studies.design import (
    DESIGN,
    Design,
    Look,
    read_design,
    settled,
    with_looks_of_others,
    write_design,
)
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.loading import load_study
from kernorm.studies.metrics import METRICS
from kernorm.study import PROG, StudyConfig, main, plan
from kernorm.system import cli
from tests.builders import a_study

FIXED, UNTIL = Design(), Design(until_resolved=True)


def test_what_light_modules_repeat_is_the_same():
    """The command's module imports neither SciPy nor the metrics."""
    assert definition.LEAST == anytime.FIRST
    assert tuple(METRICS) == choices.PRIMARY


def test_a_design_is_kept_in_a_file(tmp_path):
    assert read_design(tmp_path) is None
    design = Design(
        metric="cross_entropy", until_resolved=True, cap=50, looks=(Look(time="2026-01-01", seeds={"a": 3}),)
    )
    write_design(design, tmp_path)
    assert read_design(tmp_path) == design
    assert (design.c, design.most) == (0.57, 50)
    assert (UNTIL.c, UNTIL.most, replace(UNTIL, cap=12).most, FIXED.c) == (1.0, 50, 12, 1.0)
    (tmp_path / DESIGN).write_text("{}")
    with pytest.raises(UsageError, match=r"A design\.json .*Remove it; then the looks so far are forgotten\."):
        read_design(tmp_path)


def test_a_look_is_one_at_verdicts_with_other_runs():
    once = FIXED.looked({"bn": 3, "ln": 3})
    assert [look.seeds for look in once.looks] == [{"bn": 3, "ln": 3}]
    assert once.looked({"bn": 3, "ln": 3}) == once  # the same page again
    assert FIXED.looked({"bn": 1, "ln": 1}) == FIXED  # a single seed has no verdict
    assert not once.looked_before({"bn": 3, "ln": 3})
    assert once.looked_before({"bn": 4, "ln": 3})
    assert not FIXED.looked({"bn": 1, "ln": 1}).looked_before({"bn": 5, "ln": 5})


def test_arms_that_were_left_out_after_a_look_still_share_alpha():
    arms = {name: TrainConfig(norm=name) for name in ("bn", "ln", "gn", "in")}
    study = a_study(arms)
    assert {base: (one.arms, one.left_out) for base, one in FIXED.families(study).items()} == {
        "bn": (["ln", "gn", "in"], [])
    }
    one = with_overrides(study, only=["ln"])
    assert len(FIXED.families(one)["bn"]) == 1  # chosen before anything was seen
    assert len(FIXED.looked(dict.fromkeys(arms, 1)).families(one)["bn"]) == 1  # one seed shows no verdict
    seen = FIXED.looked({"bn": 3, "ln": 3, "gn": 3, "in": 1})
    assert (seen.families(one)["bn"].arms, seen.families(one)["bn"].left_out) == (["ln"], ["gn"])
    # Each pair is a family of its own, and an arm alone has none.
    pairs = replace(study, baselines={"bn": "bn", "ln": "bn", "gn": "gn", "in": "gn"})
    assert {base: len(one) for base, one in seen.families(pairs).items()} == {"bn": 1, "gn": 1}
    assert {base: len(one) for base, one in seen.families(with_overrides(pairs, only=["ln"])).items()} == {"bn": 1}
    assert FIXED.families(a_study({"bn": TrainConfig()})) == {}


def kept_study(folder, study, design, arms=None):
    """A study that is in its folder: its design, and results of all its runs."""
    folder.mkdir()
    write_design(design, folder)
    ledger = Ledger(folder)
    for run in study.runs():
        if arms is None or run.arm in arms:
            result = Result(arm=run.arm, seed=run.seed, run_id=run.config.run_id, status="finished", file=study.file)
            ledger.add(result)
    return {run.config.run_id for run in study.runs()}


def looks_at(folder, study, held, taken=None):
    found = with_looks_of_others(FIXED, study, held, held if taken is None else taken, folder)
    assert with_looks_of_others(found, study, held, held if taken is None else taken, folder) == found
    return found


def test_a_look_goes_with_the_runs_that_are_taken(tmp_path):
    """Another name is no way out of a look: runs whose verdicts were seen have been seen."""
    arms = {"first": TrainConfig(), "second": TrainConfig(norm="ln"), "third": TrainConfig(norm="gn")}
    looked = FIXED.looked(dict.fromkeys(arms, 3)).looked(dict.fromkeys(arms, 5))
    held = kept_study(tmp_path / "seen", a_study(arms, seeds=5), looked)
    other = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=5)
    found = looks_at(tmp_path / "other", other, held)
    both = [("seen", {"bn": 3, "ln": 3}), ("seen", {"bn": 5, "ln": 5})]
    assert [(look.study, look.seeds) for look in found.looks] == both
    assert found.looks[0].time == looked.looks[0].time
    assert found.anytime({"bn": 5, "ln": 5})  # two of these seeds were added after the look at three
    # Also where the baseline's runs are there already.
    of_arm = {run.config.run_id for run in other.runs() if run.arm == "ln"}
    assert [(look.study, look.seeds) for look in looks_at(tmp_path / "other", other, held, of_arm).looks] == both
    # Fewer runs than were looked at.
    two = {run.config.run_id for run in other.runs() if run.seed < 2}
    assert [look.seeds for look in looks_at(tmp_path / "other", other, two).looks] == [{"bn": 2, "ln": 2}]


def test_a_look_at_all_of_the_runs_is_none_at_some_of_them(tmp_path):
    """A study is interrupted, another one finishes its runs and is looked at, and the first one takes them."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=10)
    held = kept_study(tmp_path / "seen", study, FIXED.looked({"bn": 10, "ln": 10}))
    taken = {run.config.run_id for run in study.runs() if run.seed >= 3}
    found = looks_at(tmp_path / "own", study, held, taken)
    assert [look.seeds for look in found.looks] == [{"bn": 10, "ln": 10}]
    assert not found.anytime({"bn": 10, "ln": 10})


@pytest.mark.parametrize(("file", "left_out"), [("mine.py", ["gn"]), ("another.py", [])])
def test_arms_of_the_same_file_that_were_seen_under_another_name_share_alpha(tmp_path, file, left_out):
    study = a_study({name: TrainConfig(norm=name) for name in ("bn", "ln", "gn")}, seeds=5, file="mine.py")
    held = kept_study(tmp_path / "seen", replace(study, file=file), FIXED.looked(dict.fromkeys(study.arms, 5)))
    less = with_overrides(study, only=["ln"])
    assert looks_at(tmp_path / "other", less, held).families(less)["bn"].left_out == left_out


@pytest.mark.parametrize(
    ("design", "arms", "own"),
    [
        (FIXED, None, False),  # nobody has looked
        (FIXED.looked({"bn": 1, "ln": 1}), None, False),  # at a single seed there is no verdict
        (FIXED.looked({"bn": 3, "ln": 3}), ("bn",), False),  # of the arm nothing was seen
        (FIXED.looked({"bn": 3, "ln": 3}), None, True),  # these are the study's own looks
    ],
)
def test_a_look_that_was_at_nothing_of_this_study_does_not_count(tmp_path, design, arms, own):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=5)
    held = kept_study(tmp_path / "seen", study, design, arms)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DESIGN).write_text("{")
    assert looks_at(tmp_path / ("seen" if own else "other"), study, held) == FIXED
    assert looks_at(tmp_path / "other", study, held, set()) == FIXED


def test_an_arm_whose_baseline_was_left_out_is_compared_with_nothing():
    arms = {name: TrainConfig(norm=name) for name in ("bn", "ln", "gn")}
    study = a_study(arms, baselines={"bn": "bn", "ln": "bn", "gn": "ln"})
    less = with_overrides(study, only=["gn"])
    assert list(less.arms) == ["ln", "gn"]
    assert {base: one.arms for base, one in FIXED.families(less).items()} == {"ln": ["gn"]}


@pytest.mark.parametrize(
    ("kept", "asked", "message"),
    [
        (
            None,
            UNTIL,
            r"--until-resolved is decided before the first run\. Received: a study that was begun without it",
        ),
        (
            FIXED,
            replace(FIXED, metric="ece"),
            r"keeps its primary metric\. Received: ece, and accuracy when it was",
        ),
        (FIXED, UNTIL, r"decided before its first run\. Received: --until-resolved, and a fixed number of seeds when"),
        (
            UNTIL,
            FIXED,
            r"Received: a fixed number of seeds, and --until-resolved when it was begun\. Give --un",
        ),
        (
            replace(UNTIL, cap=20),
            replace(UNTIL, cap=30),
            r"A cap of 20, 30, 50 seeds is kept.* --max-seeds 30, and 20 when",
        ),
        (replace(UNTIL, cap=20), UNTIL, r"A cap of 20, 30, 50 seeds is kept.* --max-seeds not given, and 20 when"),
        (
            UNTIL,
            replace(UNTIL, cap=50),
            r"is declared before the first run\. Received: --max-seeds 50, and no cap w",
        ),
    ],
)
def test_what_was_fixed_before_the_first_run_stays(kept, asked, message):
    with pytest.raises(UsageError, match=message):
        settled(kept, asked, begun=True, train=True)
    assert settled(kept, asked, begun=False, train=True) == asked


def test_what_may_change():
    # A cap without a constant may be raised, and a report is written by what the study began with.
    assert settled(replace(UNTIL, cap=12), replace(UNTIL, cap=40), begun=True, train=True).cap == 40
    assert settled(UNTIL, FIXED, begun=True, train=False) == UNTIL
    looked = FIXED.looked({"bn": 2})
    assert settled(looked, FIXED, begun=True, train=True) == looked
    assert settled(None, FIXED, begun=True, train=True) == FIXED  # begun by an older kernorm


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--time-budget 2h",
            "--time-budget goes with --until-resolved. Received: --time-budget 2h alone. Add that f",
        ),
        ("--max-seeds 20", "--max-seeds goes with --until-resolved. Received: --max-seeds 20 alone. Add that flag."),
        ("--until-resolved --time-budget soon", "--time-budget takes a time. Received: 'soon'. Give for example 30m."),
        ("--until-resolved --time-budget 0", "--time-budget takes a time. Received: '0'. Give for example 30m."),
        (
            "--until-resolved --max-seeds 2",
            "--max-seeds must be at least 3, the first number that may decide. Received",
        ),
        (
            "--until-resolved --seeds 5",
            "A number of seeds is fixed, or found by rounds. Received: --seeds 5 and --unt",
        ),
        ("--margin 2", "--margin is a difference above 0 and below 1, or in points, or auto. Received: '2'. Give for"),
        ("--targets all", "--targets takes accuracies in percent, or auto. Received: 'all'. Give for example 90,95."),
        ("--metric loss", "A primary metric is a known one. Received: 'loss' as --metric. "),
    ],
)
def test_refuses_in_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(StudyConfig, main, prog=PROG, argv=["smoke", *words.split()]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_study_files_primary_metric(tmp_path):
    path = tmp_path / "mine.py"
    text = '"""Which?"""\nfrom kernorm.config import TrainConfig\nARMS = {"bn": TrainConfig()}\n'
    path.write_text(text + 'PRIMARY = "cross_entropy"\nMARGIN = 0.01\nTARGETS = "90"\n')
    found = load_study(str(path))
    assert (found.metric, found.margin, found.targets) == ("cross_entropy", 0.01, (0.9,))
    path.write_text(text + "PRIMARY = 3\n")
    with pytest.raises(
        UsageError, match=r"A primary metric is a known one\. Received: 3 as PRIMARY of .*mine\.py\. Known"
    ):
        load_study(str(path))


def test_the_command_line_that_goes_on():
    config = StudyConfig(
        study="eva6", until_resolved=True, time_budget="2h", max_seeds=50, metric="ece", margin="1pp", targets="90,95"
    )
    assert command(config) == (
        "python -m kernorm.study eva6 --until-resolved --time-budget 2h --max-seeds 50 --metric ece --margin 1pp "
        "--targets 90,95"
    )
    hidden = StudyConfig(study="eva6", pictures=False)
    assert command(hidden) == "python -m kernorm.study eva6 --no-pictures"
    assert {arm.pictures for arm in plan(hidden).arms.values()} == {False}
    assert {arm.pictures for arm in plan(StudyConfig(study="eva6")).arms.values()} == {True}
    until = config.until()
    assert (until.seconds, until.most) == (7200, 50)
    assert StudyConfig(study="eva6").until() is None
