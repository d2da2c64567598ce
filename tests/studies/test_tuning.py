"""Learning rates that are found for the arms of a study before its first run."""

import json
import math
import re
import sys
from concurrent.futures import Future
from dataclasses import replace

import pytest

from kernorm import study as command
from kernorm.config import TrainConfig
from kernorm.datasets.dataset import prepared_sha256
from kernorm.errors import UsageError
from kernorm.parallel.engine import Engine
from kernorm.studies import tuning
from kernorm.studies.factors import factors_of
from kernorm.studies.judged import Judged
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.loading import load_study
from kernorm.studies.rates import SEEDS, ArmRate, Rates, best_rate, read_rates, tried_rates
from kernorm.studies.report.rates import rate_notices
from kernorm.studies.tuning import RUNS, TRIALS, missing_trials, with_found_rates, with_rates
from kernorm.studies.vary import FILE, write_study_file
from kernorm.system import cli
from tests.builders import Page, a_study, make_history, make_record

TINY = {"dataset": "boxes", "validation_size": 32, "batch_size": 40, "epochs": 2}
ARMS = {norm: TrainConfig(norm=norm, **TINY) for norm in ("bn", "ln")}
ASKED = "0.01:0.1"
BEST = {"bn": 0.0464, "ln": 0.01}


def loss(config):
    """A cross-entropy with its minimum at BEST, a little apart between seeds; none at the highest rate of ln."""
    if config.norm == "ln" and config.learning_rate == 0.1:
        return math.nan
    return 0.1 + math.log10(config.learning_rate / BEST[config.norm]) ** 2 + 1e-3 * (config.seed - SEEDS[0])


class InPlace(Engine):
    """Answers each job by a paused run whose last epoch has this loss, in this process; ends after `most` jobs."""

    slots = 1

    def __init__(self, given, most=100):
        super().__init__()
        self.given, self.most = given, most
        record = make_record(count=10, errors=1, test=None, selected_epoch=None)
        self.record = replace(record, data=replace(record.data, sha256=prepared_sha256("boxes")))

    def _start(self, job):
        if len(self.given) == self.most:
            raise KeyboardInterrupt
        self.given.append(job.config)
        found, future = loss(job.config), Future()
        *rows, last = make_history(2)
        history = (*rows, replace(last, val_cross_entropy=found))
        status = "diverged" if math.isnan(found) else "running"
        record = replace(self.record, config=job.config, status=status, history=history)
        future.set_result((record, None))
        return future

    def _ended(self, future):
        return False

    def _close(self):
        pass


@pytest.fixture
def given(monkeypatch, boxes_cache):
    """The configs that were trained."""
    found = []
    monkeypatch.setattr(tuning, "open_training", lambda config, log_dir: InPlace(found))
    return found


@pytest.fixture
def study():
    return a_study(ARMS)


def test_rates_are_three_a_decade_with_both_ends():
    assert tried_rates("0.01:0.1") == (0.01, 0.0215, 0.0464, 0.1)
    assert tried_rates("0.001:0.1") == (0.001, 0.00215, 0.00464, 0.01, 0.0215, 0.0464, 0.1)
    assert tried_rates("0.03:0.05") == (0.03, 0.05)
    assert best_rate((0.1, 0.2, 0.4), (0.3, 0.2, 0.2)) == 0.2
    assert best_rate((0.1, 0.2), (math.inf, math.inf)) is None


def test_each_arm_gets_the_rate_of_its_lowest_validation_cross_entropy(given, study, tmp_path):
    folder = tmp_path / "studies" / "s"
    tuned = with_rates(study, folder, ASKED)
    assert {arm: config.learning_rate for arm, config in tuned.arms.items()} == BEST
    assert {arm: replace(config, learning_rate="auto") for arm, config in tuned.arms.items()} == ARMS
    assert len(given) == 2 * 4 * 2
    # Paused at their end, so that the test split stays sealed; on seeds that no study has.
    assert {(config.stop_after, config.seed, config.reports_dir) for config in given} == {
        (2, seed, folder / RUNS) for seed in SEEDS
    }
    assert tuned.rates == read_rates(folder)
    means = tuned.rates.arms["ln"].cross_entropies
    assert means[:3] == pytest.approx([0.1005, 0.1005 + math.log10(2.15) ** 2, 0.1005 + math.log10(4.64) ** 2])
    assert means[3] == math.inf
    assert tuned.rates.sentence == (
        "rates were tuned on validation: bn 0.0464, ln 0.01 (of 4 from 0.01 to 0.1, by the mean cross-entropy of 2 "
        "seeds that the study does not have)"
    )
    lines = [json.loads(line) for line in (folder / TRIALS).read_text().splitlines()]
    assert [line["status"] for line in lines if (line["arm"], line["rate"]) == ("ln", 0.1)] == ["diverged"] * 2
    # Found once.
    assert with_rates(study, folder, ASKED) == tuned == with_found_rates(study, folder)
    assert with_rates(study, folder, ASKED, train=False) == tuned
    assert len(given) == 16


def test_what_was_interrupted_is_resumed_and_what_another_study_tried_is_taken(given, study, tmp_path, monkeypatch):
    folder = tmp_path / "studies" / "s"
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "open_training", lambda config, log_dir: InPlace(given, most=5))
        with pytest.raises(KeyboardInterrupt):
            with_rates(study, folder, ASKED)
    left = missing_trials(study, folder, ASKED)
    assert len(left) == 16 - len((folder / TRIALS).read_text().splitlines()) > 8
    assert with_found_rates(study, folder) == study
    del given[:]
    with_rates(study, folder, ASKED)
    assert given == [run.config for run in left]
    # Another study with one of the arms, and a new one; and the first study with an arm more.
    more = a_study({"ln": ARMS["ln"], "gn": replace(ARMS["bn"], norm="gn")})
    del given[:]
    monkeypatch.setitem(BEST, "gn", 0.1)
    assert with_rates(more, tmp_path / "studies" / "t", ASKED).arms["gn"].learning_rate == 0.1
    assert {config.norm for config in given} == {"gn"}
    both = a_study(ARMS | more.arms)
    del given[:]
    assert list(with_rates(both, folder, ASKED).rates.arms) == ["bn", "ln", "gn"]
    assert given == []


def test_an_arm_that_was_changed_is_tuned_again(given, study, tmp_path):
    folder = tmp_path / "studies" / "s"
    with_rates(study, folder, ASKED)
    del given[:]
    changed = a_study(ARMS | {"ln": replace(ARMS["ln"], l2=0.1)})
    with_rates(changed, folder, ASKED)
    assert {config.l2 for config in given} == {0.1}


def test_selection_on_test_is_left_out_while_a_rate_is_found(given, tmp_path):
    arms = {"bn": replace(ARMS["bn"], select="test"), "ln": replace(ARMS["ln"], select="validation")}
    tuned = with_rates(a_study(arms), tmp_path / "studies" / "s", ASKED)
    assert {config.norm: config.select for config in given} == {"bn": "last", "ln": "validation"}
    assert {arm: config.select for arm, config in tuned.arms.items()} == {"bn": "test", "ln": "validation"}


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, "0.1", r"^--tune-rate takes LOW:HIGH with 0 < LOW < HIGH, at most 1000\. Received: '0\.1'\. Give for"),
        ({}, "0.1:0.01", r"^--tune-rate takes LOW:HIGH"),
        ({}, "1:1e6", r"^--tune-rate takes LOW:HIGH"),
        (
            {"ln": replace(ARMS["ln"], validation_size=0)},
            ASKED,
            r"^--tune-rate needs a validation split\. Received: 'ln' with validation_size=0\.",
        ),
        (
            {"slow": replace(ARMS["bn"], learning_rate=0.01)},
            ASKED,
            r"^Arms differ in more than the rate that is found for them\. Received: 'bn' and 'slow'\. Remove one",
        ),
    ],
)
def test_refuses_what_cannot_be_tuned(given, tmp_path, change, asked, message):
    with pytest.raises(UsageError, match=message):
        with_rates(a_study(ARMS | change), tmp_path / "studies" / "s", asked)
    assert (given, list(tmp_path.iterdir())) == ([], [])


def test_a_study_keeps_its_rates_and_is_not_tuned_after_its_first_run(given, study, tmp_path):
    folder = tmp_path / "studies" / "s"
    with pytest.raises(
        UsageError, match=r"^A rate is found by training\. Received: bn, ln without one\. Run the study"
    ):
        with_rates(study, folder, ASKED, train=False)
    assert with_rates(study, folder, None) == study
    with_rates(study, folder, ASKED)
    kept = (
        r"^A study keeps the rates that were found for it\. Received: no --tune-rate\. Give --tune-rate 0\.01:0\.1, or"
    )
    with pytest.raises(UsageError, match=kept):
        with_rates(study, folder, None)
    with pytest.raises(
        UsageError, match=r"^A study keeps the range of its rates\. Received: 0\.1:1, and 0\.01:0\.1 when"
    ):
        with_rates(study, folder, "0.1:1")
    begun = tmp_path / "studies" / "t"
    begun.mkdir()
    Ledger(begun).add(Result(arm="bn", seed=0, run_id="x", status="failed"))
    with pytest.raises(UsageError, match=r"^Rates are found before the first run\. Received: --tune-rate and .*begun"):
        with_rates(study, begun, ASKED)


def test_an_arm_that_diverges_at_every_rate_is_told(given, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.loss", lambda config: math.nan)
    message = (
        r"^A rate is found among those that train\. Received: 'bn', which diverged at each from 0\.01 to 0\.1\. Give"
    )
    with pytest.raises(UsageError, match=message):
        with_rates(a_study(ARMS), tmp_path / "studies" / "s", ASKED)


def test_a_run_that_fails_is_told_and_tried_again(given, study, tmp_path, monkeypatch):
    class Failing(InPlace):
        def _start(self, job):
            future = super()._start(job)
            if job.config.norm == "ln" and job.config.learning_rate == 0.01:
                future = Future()
                future.set_result((None, "OSError: No space left on device"))
            return future

    folder = tmp_path / "studies" / "s"
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "open_training", lambda config, log_dir: Failing(given))
        message = (
            r"^Every run that finds a rate must end\. Received: ln at 0\.01, OSError: No space left on device\. Run"
        )
        with pytest.raises(UsageError, match=message):
            with_rates(study, folder, ASKED)
    del given[:]
    with_rates(study, folder, ASKED)
    assert {(config.norm, config.learning_rate) for config in given} == {("ln", 0.01)}


RATES = Rates(
    asked=ASKED,
    tried=(0.01, 0.1),
    arms={
        "bn": ArmRate(run_id="a", rate=0.05, cross_entropies=()),
        "ln": ArmRate(run_id="b", rate=0.1, cross_entropies=()),
    },
)


def test_the_page_says_how_rates_were_found_and_which_lie_at_an_end(study):
    good, warning = rate_notices(replace(study, rates=RATES))
    assert good.text.startswith(
        "Before the first run, with the test split sealed, rates were tuned on validation: bn 0.05, "
    )
    assert (warning.kind, warning.text) == (
        "warning",
        "The best of `ln` is the lowest or the highest that was tried. A wider range may hold a better one.",
    )
    assert list(rate_notices(study)) == []


def test_rates_that_were_found_are_no_factor(tmp_path):
    arms = {
        f"{norm}-{l2}": TrainConfig(norm=norm, l2=l2, learning_rate=0.01 * (1 + 3 * place + other))
        for place, norm in enumerate(("bn", "gn"))
        for other, l2 in enumerate((0.0, 1e-3))
    }
    values = {arm: Judged(values={0: 0.9, 1: 0.91}, wrong={}) for arm in arms}
    study = a_study(arms)
    assert factors_of(study, values) == ()
    factors = factors_of(replace(study, rates=RATES), values)
    assert [(factor.name, factor.follows) for factor in factors] == [("norm", ()), ("l2", ())]


def test_the_study_file_has_the_rates(study, tmp_path):
    tuned = replace(
        study,
        rates=RATES,
        arms={arm: replace(config, learning_rate=RATES.arms[arm].rate) for arm, config in ARMS.items()},
    )
    write_study_file(tuned, tmp_path / FILE)
    again = load_study(str(tmp_path / FILE))
    assert again.arms == tuned.arms
    assert "By --tune-rate 0.01:0.1 rates were tuned on validation: bn 0.05, ln 0.1" in again.text


WORDS = [
    "--vary",
    "norm=bn,ln",
    "--dataset=boxes",
    "--validation-size=32",
    "--batch-size=40",
    "--epochs=2",
    "--net=eva6",
]


def test_a_dry_run_counts_the_runs_that_find_rates(given, tmp_path, capsys):
    words = [*WORDS, f"--tune-rate={ASKED}", f"--reports-dir={tmp_path}", "--dry-run"]
    code = cli.run(command.StudyConfig, command.main, prog=command.PROG, argv=words, default=command.default)
    assert code == 0
    assert "before them 16 runs to find the rates of 2 arms, about" in capsys.readouterr().out
    assert (given, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.slow
def test_a_study_finds_its_rates_and_is_run_by_them(boxes_cache, tmp_path, start):
    words = [*WORDS, "--tune-rate=0.02:0.05", "--seeds=1", f"--reports-dir={tmp_path}", "--workers=1"]
    process = start([sys.executable, "-m", "kernorm.study", *words], KERNORM_CACHE_DIR=str(boxes_cache))
    process.communicate()
    assert process.returncode == 0
    # Once more, it has them and its runs.
    assert cli.run(command.StudyConfig, command.main, prog=command.PROG, argv=words, default=command.default) == 0
    folder = tmp_path / "studies" / "norm"
    rates = read_rates(folder)
    assert len((folder / TRIALS).read_text().splitlines()) == 2 * 2 * 2
    results = Ledger(folder).results.values()
    assert {(result.arm, result.record.config.learning_rate) for result in results} == {
        (arm, one.rate) for arm, one in rates.arms.items()
    }
    trials = [json.loads(path.read_text()) for path in (folder / RUNS).rglob("record.json")]
    assert [(trial["status"], trial["openings"], trial["test"]) for trial in trials] == [("running", [], None)] * 8
    assert not list((folder / RUNS).rglob("checkpoint.npz"))
    text = Page((folder / "report.html").read_text()).text
    assert "Each arm has a learning rate of its own" in text
    assert re.search(r"rates were tuned on validation: bn 0\.0\d+, ln 0\.0\d+ \(of 2 from 0\.02 to 0\.05", text)
    assert "--tune-rate 0.02:0.05" in text
