import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kernorm.config import TrainConfig
from kernorm.records.data import Duplicates
from kernorm.studies.analysis import analyse
from kernorm.studies.design import Look
from kernorm.studies.published import Published
from kernorm.studies.report.answers import answers
from kernorm.studies.report.cautions import cautions
from kernorm.studies.report.tables import tables_csv
from tests.builders import a_study, cautions_of, make_record, some_results


def test_cautions_of_a_clean_study():
    study = a_study(
        {"bn": TrainConfig(), "ln": TrainConfig(norm="ln", l2=0.01)},
        published={"ln": Published(accuracy=99.4, weight_decay=0.02)},
    )
    found = cautions_of(study, some_results(study, {"bn": (20, 21, 22), "ln": (20, 22, 23)}))
    assert {title: verdict.kind for title, verdict in found.items()} == {
        "Every stated penalty was on": "good",
        "No split selected the weights": "good",
        "The test split was opened 6 times": "good",
        "What so many seeds can see": "note",
        "MNIST's test split is the easier one": "note",
        "How a verdict is found": "note",
    }
    rule = "Holm's correction over 1 arm with the same baseline"
    assert f"{rule}, and the interval for new test images excludes 0; else" in found["How a verdict is found"].text
    by_loss = cautions_of(replace(study, metric="cross_entropy"), some_results(study, {"bn": (20, 21), "ln": (20, 22)}))
    text = by_loss["How a verdict is found"].text
    assert f"{rule}. That is of these images alone: nothing is claimed of new ones, since it is not kept" in text


def test_cautions_on_mixed_runs_failures_and_damage():
    study = a_study({"bn": TrainConfig(select="validation"), "ln": TrainConfig(norm="ln", select="validation")})
    results = some_results(study, {"bn": (20, 21, 22), "ln": (20, 22, 23)})
    first, second, *_ = results
    environment = results[first].record.environment
    other = replace(environment, device="GPU", versions={"keras": "3.16"}, commit="ab" * 20)
    results[first] = replace(results[first], record=replace(results[first].record, environment=other))
    results[second] = replace(results[second], status="failed", record=None, message="OSError: the disk is full.")
    found = cautions_of(study, results)
    assert list(found)[0] == "1 run failed"
    assert found["1 run failed"].text.startswith("`ln`, seed 0: OSError: the disk is full. They are in no mean")
    assert found["The validation split selected the weights"].kind == "good"
    assert found["Not all runs were made the same way"].text == (
        f"Devices: CPU, GPU. Commits: {'ab' * 6}, unknown. Versions of keras: 3.15.1, 3.16."
    )
    damaged = {
        caution.title: caution for caution in cautions(study, analyse(study, results), SimpleNamespace(damaged=[3]), 0)
    }
    assert damaged["Damaged records were set aside"].kind == "warning"


def test_a_spread_below_chance_is_shown_with_what_is_taken_instead():
    study = a_study({name: TrainConfig(norm=name) for name in ("bn", "ln", "gn")}, baselines={"ln": "bn", "gn": "bn"})
    results = some_results(study, {"bn": (20, 20, 21), "ln": (40, 40, 41), "gn": (20, 30, 90)})
    summary = analyse(study, results)
    found = cautions_of(study, results)["1 difference that varies less than chance does"]
    spread = {arm.name: arm.comparisons["accuracy"] for arm in summary.arms if arm.baseline}
    assert spread["ln"].spread ** 2 == pytest.approx(spread["ln"].floor)
    assert spread["ln"].spread_seen < spread["ln"].spread
    assert spread["gn"].spread == spread["gn"].spread_seen > 0
    assert found.kind == "note"
    seen, taken = (f"{100 * sd:.2f}" for sd in (spread["ln"].spread_seen, spread["ln"].spread))
    assert found.text.endswith(f"`ln`: sd {seen}, taken as {taken}. In percentage points.")


def test_a_spread_that_is_taken_as_what_is_shown_is_not_told():
    study = a_study({name: TrainConfig(norm=name) for name in ("bn", "ln")}, baselines={"ln": "bn"})
    results = some_results(study, {"bn": (20, 20, 20), "ln": (40, 40, 40)})
    summary = analyse(study, results)
    compared = summary.arms[1].comparisons["accuracy"]
    close = replace(compared, spread_seen=compared.spread * 0.9999)
    arms = (summary.arms[0], replace(summary.arms[1], comparisons={"accuracy": close}))

    def noticed(arms):
        return cautions(study, replace(summary, arms=arms), SimpleNamespace(damaged=[]), 0)

    assert not any("less than chance" in notice.title for notice in noticed(arms))
    assert any("less than chance" in notice.title for notice in noticed(summary.arms))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("", "Verdicts were seen with 2, 3 seeds, and seeds were added after that. So"),
        (
            "first",
            "Verdicts were seen with 2, 3 seeds, in `first`, whose runs were taken, and seeds were added after that.",
        ),
    ],
)
def test_a_look_before_names_how_many_seeds_were_seen_and_where(other, words):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=4)
    looks = [Look(time="2026-01-01T00:00:00+00:00", seeds={"bn": n, "ln": n}, study=other) for n in (1, 2, 3)]
    looks.append(Look(time="2026-01-02T00:00:00+00:00", seeds={"bn": 4, "ln": 4}))  # at all that there is now
    summary = analyse(study, some_results(study, {"bn": (20, 21, 22, 20), "ln": (20, 22, 23, 21)}))
    summary = replace(summary, design=replace(summary.design, looks=tuple(looks)), anytime=True)
    found = {one.title: one for one in cautions(study, summary, SimpleNamespace(damaged=[]), 0)}
    assert found["It was looked at before"].text.startswith(words)
    assert "a chance of up to 7 %" in found["It was looked at before"].text


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            {"bn": (20, 25, 22), "ln": (21, 26, 23)},
            "Welch's t-test of arms that are not paired, since seeds are few",
        ),
        (
            {"bn": (20, 25, 22) * 4, "ln": (21, 26, 23) * 4},
            "by the t-test of arms paired with their baseline by seed, ",
        ),
        (
            {"bn": (20, 25, 22), "ln": (21, 26, 23), "gn": (25, 20, 23)},
            "paired with their baseline by seed where the seeds of other arms correlate, else Welch's t-test, after",
        ),
    ],
)
def test_the_rule_says_how_arms_are_compared(errors, words):
    study = a_study({name: TrainConfig(norm=name) for name in errors}, seeds=len(errors["bn"]))
    assert words in cautions_of(study, some_results(study, errors))["How a verdict is found"].text


def test_a_study_says_which_images_stand_in_its_data_twice():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")})
    results = some_results(study, {"bn": (20, 21), "ln": (20, 22)})
    data = make_record().data
    assert not analyse(study, results).duplicates  # in records of before
    data = replace(data, duplicates=Duplicates(train=1, test=0, across=3))
    results = {name: replace(one, record=replace(one.record, data=data)) for name, one in results.items()}
    rows = list(csv.DictReader(io.StringIO(tables_csv(analyse(study, results), []).decode())))
    counts = {row["statistic"]: float(row["value"]) for row in rows if row["metric"] == f"duplicates {data.name}"}
    assert counts == {"train": 1, "test": 0, "across": 3}
    found = cautions_of(study, results)["3 test images stand in training too"]
    assert (found.kind, found.text) == (
        "warning",
        f"In {data.name}, by exact pixels: 3 test images also in training, 1 repeated in training, 0 in test.",
    )


def test_a_study_of_one_arm_compares_nothing():
    study = a_study({"bn": TrainConfig()})
    found = cautions_of(study, some_results(study, {"bn": (20, 21, 22)}))
    assert found["Nothing is compared"].kind == "note"
    assert answers(analyse(study, {})) == [("no verdict", "Without a finished run", "bn")]
