import base64
import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import HeldOutSplit
from kernorm.errors import UsageError
from kernorm.records.record import Elsewhere
from kernorm.studies.analysis import analyse
from kernorm.studies.definition import with_overrides
from kernorm.studies.design import Design
from kernorm.studies.ledger import Ledger
from kernorm.studies.metrics import METRICS
from kernorm.studies.published import Published, Statement
from kernorm.studies.report import mistakes
from kernorm.studies.report import page as module
from kernorm.studies.report.answers import answers, narrower, sentence
from kernorm.studies.report.page import write_study_report
from kernorm.studies.wording import (
    decided_interval,
    half,
    p_value,
    score,
    signed,
    unit,
)
from tests.builders import (
    COUNT,
    Page,
    a_study,
    arm_named,
    arms_from,
    cautions_of,
    leave_undrawn,
    make_record,
    some_results,
)

COMMAND = "python -m kernorm.study mine.py --seeds 3"
MESSAGE = "diverged at step 9: the loss is nan"
# The published faults in small: `l1` is the baseline with other seeds, `l1_l2` has ten times the λ1 that is stated.
ARMS = {
    "none": TrainConfig(epochs=6, select="test"),
    "l1": TrainConfig(epochs=6, select="test", seed=1000),
    "l1_l2": TrainConfig(epochs=6, select="test", l1=5e-3, l2=2.5e-3, penalize="all"),
    "<b>gn</b>": TrainConfig(epochs=6, select="test", norm="gn", batch_size=32),
    "wild": TrainConfig(epochs=6, select="test", learning_rate=1000.0),
}
PUBLISHED = {
    "none": Published(accuracy=99.47, source="a paper"),
    "l1": Published(accuracy=99.44, l1=5e-4, source="a paper"),
    "l1_l2": Published(accuracy=98.76, l1=5e-4, weight_decay=5e-3, source="a paper"),
}
STATEMENTS = (
    Statement(text="L1 with L2 is worst", arm="l1_l2", worse_than=("none", "l1")),
    Statement(text="L1 with L2 reaches 98.76", arm="l1_l2", reaches=98.76, note="Only one run was published."),
)
ERRORS = {"none": (20, 22, 25), "l1": (21, 20, 26), "l1_l2": (61, 64, 70), "<b>gn</b>": (22, 20), "wild": (None, 30)}
NO_PENALTY = "λ1 = 0.0005 is stated, but no such penalty was on: it measured 0 at every epoch."


def pictures():
    """Test images that can be told apart: the index in their first two pixels."""
    images = np.zeros((COUNT, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(COUNT), 256)
    return images


@pytest.fixture(autouse=True, scope="module")
def test_images():
    """What stands for the prepared data set; counts how often it is loaded."""
    loaded = []

    def load(data, **folders):
        assert data.sha256 == make_record().data.sha256
        loaded.append(data.name)
        images = pictures()
        return HeldOutSplit(images, np.zeros(len(images), np.int32))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistakes, "load_test_split", load)
        yield loaded


@pytest.fixture(scope="module")
def study():
    return a_study(ARMS, published=PUBLISHED, statements=STATEMENTS, text="Which one?\n\n    a command\n\nMore of it.")


@pytest.fixture(scope="module")
def results(study):
    return some_results(study, ERRORS)


@pytest.fixture(scope="module")
def summary(study, results):
    return analyse(study, results)


@pytest.fixture(scope="module")
def folder(study, results, tmp_path_factory):
    """The report of that study, undrawn."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch, module)
        write(study, results, folder)
    return folder


@pytest.fixture(scope="module")
def drawn_folder(tmp_path_factory):
    """The report of two arms with everything in it."""
    folder = tmp_path_factory.mktemp("drawn")
    study = a_study({"bn": TrainConfig(epochs=3), "bn-32": TrainConfig(epochs=3, batch_size=32, l2=1e-3)})
    write(study, some_results(study, {"bn": (20, 22), "bn-32": (21, 24)}), folder)
    return folder


def write(study, results, folder, design=None):
    ledger = Ledger(folder)
    ledger.results = dict(results)
    return Page(write_study_report(study, analyse(study, results, design=design), ledger, folder, COMMAND).read_text())


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def rows_of(page, name):
    """The cells of every table row of an arm, in the order of the page."""
    return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in page.rows if row and row[0].strip() == name]


def test_the_result_table_holds_the_numbers_of_the_summary(page, summary):
    for arm in summary.arms:
        (row,) = [row for row in rows_of(page, arm.name) if len(row) == 13]
        value, comparison = arm.scores["accuracy"], arm.comparisons.get("accuracy")
        around = f" ± {50 * (value.interval[1] - value.interval[0]):.2f}*" if value.interval else " *"
        compared = not (arm.name == "wild" or arm.baseline is None)
        assert row[1:] == [
            f"{100 * value.mean:.2f}{around}",
            signed(comparison.difference) if compared else "–",
            "as selected" if arm.baseline else "baseline",
            "–",
            "on test: no verdict" if arm.baseline else "",
            str(value.n),
            f"{100 * value.sd:.2f}" if value.sd is not None else "–",
            f"{comparison.probability_better:.2f}" if compared else "–",
            "gn, 1" if arm.config.norm == "gn" else "bn",  # the groups that its layers have
            {"l1": "0 ✗ 0.0005 stated", "l1_l2": "0.005 ✗ 0.0005 stated"}.get(arm.name, "0"),
            f"{arm.config.l2:g}",
            str(arm.config.batch_size),
        ]


def test_the_published_table_is_answered_row_by_row(page, summary):
    """As published, by the last epoch with its verdict, what selecting is worth, whether the penalty was on."""
    for arm in summary.arms:
        published = f"{arm.published.accuracy:.2f}" if arm.published else "–"
        (row,) = [row for row in rows_of(page, arm.name) if len(row) == 12 and row[1] == published]
        value, last = arm.scores["accuracy"], arm.last
        assert row[2:6] == [
            f"{score(value.mean)} {half(value.interval)}".strip(),
            str(value.n),
            f"{score(last.score.mean)} {half(last.score.interval)}".strip(),
            signed(2 / COUNT),
        ]
        difference = last.compared and last.compared.difference
        words = f"{signed(difference)} {last.verdict.name}" if difference is not None else "no verdict"
        assert row[6] == (words if arm.baseline else "baseline")
        assert row[7] == ("gn, 1" if arm.config.norm == "gn" else "bn")
        assert row[11] == {"l1": "✗ no", "l1_l2": "✗ no"}.get(arm.name, "none")


def test_what_a_publication_concludes_is_answered(page, summary):
    assert [one.name for one in summary.answers] == ["yes", "no"]
    for one in summary.answers:
        assert f"{one.name} “{one.statement.text}” {one.text}." in page.text
    assert "Only one run was published." in page.text


def test_factors_have_a_table_and_their_main_effects(tmp_path, undrawn):
    arms = {f"{norm}-{l2:g}": TrainConfig(norm=norm, l2=l2) for norm in ("ln", "gn") for l2 in (0.0, 1e-3)}
    study = a_study(arms, seeds=2)
    errors = {"ln-0": (20, 22), "ln-0.001": (30, 34), "gn-0": (24, 28), "gn-0.001": (50, 52)}
    results = some_results(study, errors)
    page, summary = write(study, results, tmp_path), analyse(study, results)
    means = {
        arm.name: f"{score(arm.scores['accuracy'].mean)} {half(arm.scores['accuracy'].interval)}"
        for arm in summary.arms
    }
    assert page.row("ln", means["ln-0"])[1:] == [means["ln-0"], means["ln-0.001"]]
    assert page.row("gn", means["gn-0"])[1:] == [means["gn-0"], means["gn-0.001"]]
    effect = -(24 + 28 + 50 + 52 - 20 - 22 - 30 - 34) / 4 / COUNT
    assert page.row("norm", "gn", "2")[4].startswith(f"{signed(effect)} [")
    assert page.row("l2", "0.0", "2")[4] == "–"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables.csv").read_text())))
    (row,) = [row for row in rows if (row["metric"], row["statistic"]) == ("accuracy, norm gn", "effect")]
    assert float(row["value"]) == pytest.approx(effect)
    write(replace(study, arms=dict(list(arms.items())[:3])), results, tmp_path)
    assert 'id="factors"' not in (tmp_path / "report.html").read_text()


def test_conclusions_are_answered_without_a_published_table(study, results, tmp_path, undrawn):
    page = write(replace(study, published={}), results, tmp_path)
    assert "What they conclude, answered" in page.text
    assert "The published table, row by row." not in page.text


def test_a_study_that_selects_on_test_has_a_table_of_the_last_epoch(study, results, summary, tmp_path, undrawn):
    """What selecting is worth, and the verdict, where nothing was published."""
    page = write(replace(study, published={}, statements=()), results, tmp_path)
    assert 'id="published"' not in (tmp_path / "report.html").read_text()
    for arm in summary.arms:
        (row,) = [
            row for row in rows_of(page, arm.name) if len(row) == 7 and row[1] == score(arm.scores["accuracy"].mean)
        ]
        last = arm.last
        assert last.gain == pytest.approx(2 / COUNT)
        assert row[1:4] == [
            score(arm.scores["accuracy"].mean),
            f"{score(last.score.mean)} {half(last.score.interval)}".strip(),
            signed(2 / COUNT),
        ]
        if arm.baseline:
            assert row[4:6] == [signed(last.compared.difference), p_value(last.p_adjusted)]
            assert row[6].startswith(last.verdict.name)
            assert row[6].endswith(decided_interval(last.verdict))


def test_the_primary_metric_has_verdicts_and_the_interval_that_decided(tmp_path, undrawn):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln"), "gn": TrainConfig(norm="gn")})
    results = some_results(study, {"bn": (20, 21, 22), "ln": (60, 61, 62), "gn": (20, 22, 21)})
    page, summary = write(study, results, tmp_path), analyse(study, results)
    for arm in summary.arms[1:]:
        (row,) = [row for row in rows_of(page, arm.name) if len(row) == 13]
        found = arm.comparisons["accuracy"]
        words = arm.verdict.sentence.removeprefix(arm.verdict.name).lstrip(":;, ")
        assert row[2:6] == [
            signed(found.difference),
            arm.verdict.name,
            p_value(arm.p_adjusted),
            " ".join(f"{words}{'; ' if words else ''}{decided_interval(arm.verdict)}".split()),
        ]
        assert row[8] == f"{found.probability_better:.2f}"
    assert [arm.verdict.name for arm in summary.arms[1:]] == ["worse", "not resolved"]
    by_loss = replace(study, metric="cross_entropy")
    found = analyse(by_loss, results)
    assert {arm.verdict.name for arm in found.arms[1:]} == {"not resolved"}
    assert "Cross-entropy (NLL), arm by arm" in write(by_loss, results, tmp_path).text
    assert "That is of these images" in cautions_of(by_loss, results)["How a verdict is found"].text


@pytest.mark.parametrize("metric", ["cross_entropy", "brier", "ece"])
def test_every_metric_has_its_table(page, summary, metric):
    place = list(METRICS).index(metric) - 1
    for arm in summary.arms:
        row = [row for row in rows_of(page, arm.name) if len(row) == 8][place]
        value, comparison = arm.scores[metric], arm.comparisons.get(metric)
        assert row[1].split()[0] == f"{value.mean:.4f}"
        assert (row[3], row[5:7]) == (str(value.n), [f"{value.minimum:.4f}", f"{value.maximum:.4f}"])
        if comparison and comparison.difference is not None:
            ends = [signed(end, metric) for end in (comparison.difference, *comparison.interval)]
            assert row[2] == f"{ends[0]} [{ends[1]}, {ends[2]}]"
            assert row[7] == f"{comparison.probability_better:.2f}"


def test_new_digits_mcnemar_times_and_sparsity(page, summary):
    for arm in summary.arms[1:4]:
        (row,) = [row for row in rows_of(page, arm.name) if len(row) == 6 and "to" in row[1]]
        assert row[1] == " to ".join(f"{100 * end:.2f}" for end in arm.generalization_interval)
        assert row[2] == " to ".join(signed(end) for end in arm.generalization_difference)
        assert row[3:] == [str(arm.mcnemar.only_a), str(arm.mcnemar.only_b), p_value(arm.mcnemar.p)]
    (row,) = [row for row in rows_of(page, "l1_l2") if "not reached" in row[1]]
    assert row[1:] == ["not reached in 3 of 3"] * 4
    (row,) = [row for row in rows_of(page, "none") if row[1] == "0.1 %"]
    assert row[1:3] == ["0.1 %", "95.00"]


def test_penalties_that_were_not_as_stated_cannot_be_overlooked(page, html):
    text = page.text
    assert text.count(NO_PENALTY) == 2  # beside the arm and among the cautions
    assert text.count("λ1 = 0.0005 is stated, 0.005 was on, 10 times that; measured at step 0: 2.") == 2
    assert "2 arms did not train what the publication states" in text
    assert "It has the settings of none and other seeds: what differs is noise." in text
    assert html.count('class="caught"') == 2
    by_name = {
        name: [row for row in rows_of(page, name) if row[-1] in ("✗ no", "✓ yes", "none stated, none on", "–")]
        for name in ARMS
    }
    assert by_name["l1"][-1][1:5] == ["0.0005", "0", "0", "0"]
    assert by_name["l1_l2"][-1][1:5] == ["0.0005", "0.005", "2", "1.97"]
    assert by_name["l1_l2"][-1][5:9] == ["0.0025", "0.0025", "0.125", "0.0179"]
    assert [by_name[name][-1][-1] for name in ARMS] == ["none stated, none on", "✗ no", "✗ no", "–", "–"]


def test_selection_by_test_and_the_openings_are_told(page, summary, results):
    assert "Each accuracy is the best of 6 looks at the test split, one an epoch, hence biased upward." in page.text
    looks = sum(len(result.record.openings) for result in results.values())
    assert looks == summary.openings == 12 * 7 + 6
    assert (
        f"The test split was opened {looks + 1} times {looks} times by the runs, and once for the pictures in this "
        "report. A run that selects by it opens it for every epoch, and at its end for the last and the best weights. "
        "An epoch that was interrupted opens it again." in page.text
    )
    assert f"Test openings {looks + 1} 1 of them for this report" in page.text
    assert "Accuracy: test (used for selection)" in page.text
    assert "The split watched here is the test split." in page.text


def test_runs_that_did_not_finish_are_shown(page):
    assert "1 run diverged wild , seed 0: " + MESSAGE in page.text
    runs = [row for name in ARMS for row in rows_of(page, name) if row[2] in ("finished", "diverged", "missing")]
    assert Counter(row[2] for row in runs) == {"finished": 12, "diverged": 1, "missing": 2}
    (diverged,) = [row for row in runs if row[2] == "diverged"]
    assert diverged[:4] == ["wild", "0", "diverged", "–"]
    assert diverged[-1] == MESSAGE
    assert "2 runs of 15 are missing" in page.text
    assert "13 of 15 runs, not complete" in page.text


def test_settings_that_differ_are_listed(page):
    names = ["norm", "l1", "l2", "penalize", "batch_size", "learning_rate", "seed"]
    (head,) = [row for row in page.rows if [cell.strip() for cell in row[1:]] == names]
    values = {name: dict(zip(names, rows_of(page, name)[-4][1:], strict=False)) for name in ARMS}
    assert head[0].strip() == "Arm"
    assert [values[name]["l1"] for name in ARMS] == ["0", "0", "0.005", "0", "0"]
    assert [values[name]["seed"] for name in ARMS] == ["0", "1000", "0", "0", "0"]
    assert values["wild"]["learning_rate"] == "1000"


def test_mistakes_hold_the_images_themselves(page, summary, test_images):
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(shown) == 25 + 5 * 10
    images = pictures()
    for attributes in shown:
        index = int(re.match(r"Test image (\d+): ", attributes["alt"])[1])
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), images[index, ..., 0])
    wrong = Counter()
    for arm in summary.arms:
        wrong.update({image.index: image.wrong for image in arm.hard})
    every = sum(count == 12 for count in wrong.values())
    assert every == 20
    assert ["every run", str(every)] in [[cell.strip() for cell in row] for row in page.rows]
    assert ["at least one run", str(len(wrong))] in [[cell.strip() for cell in row] for row in page.rows]
    assert "12 of 12" in page.text
    assert test_images.count("mnist") >= 1


def test_an_equivalence_is_told_with_its_margin():
    study = a_study({"bn": TrainConfig(), "gn": TrainConfig(norm="gn")}, seeds=6, margin=0.02)
    same = {arm: (20, 21, 20, 21, 20, 21) for arm in ("bn", "gn")}
    (told,) = answers(analyse(study, some_results(study, same)))
    assert told == ("equivalent", "On these test images equivalent to `bn` within 2 pp", "gn")


def test_the_answer_is_told_first(page, summary):
    assert answers(summary) == [
        ("worse", "Worse than `none`", "l1_l2"),
        ("not resolved", "Not resolved against `none`", "l1, <b>gn</b>, wild"),
    ]
    assert "Which one?" in page.text
    assert page.text.index("Worse than none : l1_l2") < page.text.index("Protocol What to know")
    arm = summary.arms[2]
    low, high = (unit(end) for end in arm.last.verdict.interval)
    difference = unit(arm.last.compared.difference)
    level = 100 * (1 - arm.last.verdict.alpha)
    assert sentence(arm) == (
        f"last epoch {score(arm.last.score.mean)}, selecting on test added {unit(2 / COUNT)}; "
        f"{difference} against `none`, {level:.4g} % interval for new images {low} to {high}"
    )
    baseline = summary.arms[0]
    added = f"last epoch {score(baseline.last.score.mean)}, selecting on test added {unit(2 / COUNT)}"
    assert sentence(baseline) == f"{added}; mean of 3 seeds"
    assert sentence(summary.arms[4]).endswith(
        "fails in 1 of 2 runs: a rate of 1 to 99 %; 1 finished, 1 diverged, 1 missing"
    )
    assert "new seeds in one look, or --until-resolved, would see 0.05 pp" in sentence(summary.arms[1])
    assert page.text.index(COMMAND) < page.text.index("Worse than")


def test_names_are_escaped(page, html):
    assert "<b>gn</b>" not in html
    assert "&lt;b&gt;gn&lt;/b&gt;" in html
    assert rows_of(page, "<b>gn</b>")


def test_the_page_stands_alone(drawn_folder):
    html = (drawn_folder / "report.html").read_text()
    page = Page(html)
    assert set(re.findall(r"https?://[^\"'\s<]+", html)) == {"http://www.w3.org/2000/svg"}
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object")]
    assert not [attributes for tag, attributes in page.tags if tag == "script" and "src" in attributes]
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), tag
    assert not re.search(r"url\((?!#)|@import", html)
    assert len(page.ids) == len(set(page.ids))
    links = [value[1:] for _, attributes in page.tags if (value := attributes.get("href") or "").startswith("#")]
    assert set(links) <= set(page.ids)
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert all(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_tables_csv_holds_the_numbers_of_the_summary(folder, summary, results):
    rows = list(csv.DictReader(io.StringIO((folder / "tables.csv").read_text())))
    assert list(rows[0]) == ["arm", "seed", "epoch", "metric", "statistic", "value", "text"]
    found = {(row["arm"], row["seed"], row["epoch"], row["metric"], row["statistic"]): row for row in rows}
    assert len(found) == len(rows)

    def value(arm, metric, statistic, seed="", epoch=""):
        return float(found[arm, seed, epoch, metric, statistic]["value"])

    for arm in summary.arms:
        for metric, of_metric in METRICS.items():
            score = arm.scores[metric]
            assert value(arm.name, metric, "mean") == score.mean
            if score.interval:
                assert (
                    value(arm.name, metric, "interval_low"),
                    value(arm.name, metric, "interval_high"),
                ) == score.interval
            comparison = arm.comparisons.get(metric)
            if comparison and comparison.difference is not None:
                assert value(arm.name, metric, "difference") == comparison.difference
                assert value(arm.name, metric, "difference_interval_high") == comparison.interval[1]
            for result in results.values():
                if result.arm == arm.name and result.status == "finished":
                    score = value(arm.name, metric, "score", seed=str(result.seed))
                    assert score == of_metric.value(result.record)
        assert value(arm.name, "runs", "openings") == arm.openings
        assert value(arm.name, "failures", "failed") == arm.failures.failed
        if arm.baseline:
            assert found[arm.name, "", "", "accuracy", "verdict_name"]["text"] == "as selected"
            verdict = found[arm.name, "", "", "last epoch", "verdict_name"]
            assert (verdict["text"], verdict["value"]) == (arm.last.verdict.name, "")
            assert value(arm.name, "last epoch", "p_holm") == arm.last.p_adjusted
            assert value(arm.name, "last epoch", "verdict_interval_low") == arm.last.verdict.interval[0]
        assert value(arm.name, "last epoch", "gain") == arm.last.gain
        if arm.generalization_interval:
            assert value(arm.name, "accuracy", "generalization_interval_low") == arm.generalization_interval[0]
    assert value("l1", "lambda1", "stated") == 5e-4
    assert value("l1", "lambda1", "kept") == 0
    history = [result.record.history[6] for result in results.values() if result.arm == "l1_l2"]
    for measure in ("val_accuracy", "l1_penalty"):
        mean = np.mean([getattr(row, measure) for row in history])
        assert value("l1_l2", measure, "mean", epoch="6") == pytest.approx(mean, rel=1e-5)
    assert value("", "study", "finished") == 12


def test_summary_json_is_the_summary_and_has_no_nan(study, results, folder, tmp_path, monkeypatch):
    written = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert [arm["name"] for arm in written["arms"]] == list(ARMS)
    summary = analyse(study, results)
    assert written["arms"][2]["comparisons"]["accuracy"]["interval"] == list(
        summary.arms[2].comparisons["accuracy"].interval
    )
    monkeypatch.setattr(module, "charts", lambda *_: {})
    monkeypatch.setattr(module, "grids_of", lambda arms: [])
    first = summary.arms[0]
    odd = replace(first, sparsity=(replace(first.sparsity[0], accuracy=float("nan")),))
    ledger = Ledger(tmp_path)
    write_study_report(study, replace(summary, arms=(odd, *summary.arms[1:])), ledger, tmp_path, COMMAND)
    again = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert again["arms"][0]["sparsity"][0]["accuracy"] is None
    assert rows_of(Page((tmp_path / "report.html").read_text()), "none")[-1][1:]


def test_files_beside_the_page(drawn_folder):
    charts = ("differences", "seeds", "curves", "accuracy", "cross_entropy", "penalties", "kernels", "activations")
    names = {f"{name}.png" for name in (*charts, "misclassified", "misclassified_by_arm")}
    assert {path.name for path in drawn_folder.iterdir()} == names | {"report.html", "summary.json", "tables.csv"}
    for name in names:
        with Image.open(drawn_folder / name) as image:
            image.verify()


@pytest.fixture
def undrawn(monkeypatch):
    leave_undrawn(monkeypatch, module)


def test_the_same_records_give_the_same_files(study, results, folder, tmp_path, undrawn):
    write(study, results, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in tmp_path.iterdir()} > {"report.html", "summary.json", "tables.csv"}
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_before_the_first_run(study, tmp_path):
    page = write(study, {}, tmp_path)
    assert "The test split was not opened" in page.text
    assert "15 runs of 15 are missing" in page.text
    assert "Without a finished run: none, l1, l1_l2, <b>gn</b>, wild" in page.text
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "summary.json", "tables.csv"}
    assert not {"curves", "penalties", "mistakes", "differences"} & set(page.ids)


@pytest.mark.parametrize(("cap", "state"), [(None, "goes on: 2 of 3 arms open"), (2, "finished")])
def test_a_study_that_may_go_on_does_not_say_that_it_is_finished(tmp_path, undrawn, cap, state):
    study = a_study({norm: TrainConfig(norm=norm, epochs=2) for norm in ("bn", "ln", "gn")}, seeds=2)
    results = some_results(study, {"bn": (20, 21), "ln": (21, 20), "gn": (20, 22)})
    write(study, results, tmp_path, Design(until_resolved=True, cap=cap))
    head = (tmp_path / "report.html").read_text().partition("<h1")[0]
    assert re.findall(r'class="status \w+">(.*?)<', head) == [state]


def test_without_the_data_set_there_are_no_pictures(tmp_path, monkeypatch):
    def refuse(data, **folders):
        raise UsageError("no network")

    monkeypatch.setattr(mistakes, "load_test_split", refuse)
    monkeypatch.setattr(module, "charts", lambda *_: {})
    study = a_study({"bn": TrainConfig(epochs=2)})
    page = write(study, some_results(study, {"bn": (3, 4)}), tmp_path)
    assert "The data set is not available, so there are no pictures." in page.text
    assert "The test split was opened 2 times 2 times by 2 finished runs, once each, at its end." in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not list(tmp_path.glob("misclassified*"))


@pytest.mark.parametrize("hiding", ["arm", "record"])
def test_without_pictures_the_test_split_stays_closed(tmp_path, monkeypatch, hiding):
    """As the study asks for it, or as its runs were asked for it when they were trained."""
    monkeypatch.setattr(mistakes, "load_test_split", lambda *_, **__: pytest.fail("it was opened"))
    monkeypatch.setattr(module, "charts", lambda *_: {})
    hidden, open_ = (a_study({"bn": TrainConfig(epochs=2, pictures=pictures)}) for pictures in (False, True))
    results = some_results(hidden if hiding == "record" else open_, {"bn": (3, 4)})
    page = write(hidden if hiding == "arm" else open_, results, tmp_path)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not list(tmp_path.glob("misclassified*"))
    assert "The test split was opened 2 times 2 times by 2 finished runs, once each, at its end." in page.text
    assert "Without pictures ( --no-pictures )." in page.text


def test_many_arms_are_told_by_those_that_differ(tmp_path, undrawn):
    study = a_study({f"arm {n}": TrainConfig(epochs=1, l1=n * 1e-6) for n in range(14)})
    errors = {f"arm {n}": (20 + n % 3, 22, 21) for n in range(14)} | {"arm 7": (90, 91, 92)}
    page = write(study, some_results(study, errors), tmp_path)
    assert "Worse than arm 0 : arm 7" in page.text
    assert "Not resolved against arm 0 : arm 1, arm 2, arm 3, arm 4 and 8 more" in page.text
    assert "All 14 arms" in page.text
    assert "The first 12 arms; summary.json holds all." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 25 + 12 * 10


def test_a_shortened_study_says_so(tmp_path, undrawn):
    study = with_overrides(a_study(ARMS, published=PUBLISHED, statements=STATEMENTS), epochs=2)
    results = some_results(study, {"none": (20, 22), "l1": (21, 20)})
    assert cautions_of(study, results)["A shortened study"].text == (
        "Arms are trained for 2 epochs in place of 6. What is published is of full length: these runs neither confirm "
        "nor refute it."
    )
    text = write(study, results, tmp_path).text
    assert "shortened: 2 epochs in place of 6" in text
    assert "The published values are of full length, and are neither confirmed nor refuted here." in text


def test_an_interval_for_new_images_that_is_narrower_is_explained(summary):
    pairs = [(arm.generalization_interval, arm.scores["accuracy"].interval) for arm in summary.arms if arm.scores]
    known = [(new, seeds) for new, seeds in pairs if new and seeds]
    many = sum(new[1] - new[0] < seeds[1] - seeds[0] for new, seeds in known)
    assert 0 < many < len(known)
    assert narrower(summary).startswith(f"In {many} of {len(known)} arms it is narrower than the one over seeds")
    assert narrower(replace(summary, arms=())) == ""


def test_the_times_of_runs_that_trained_side_by_side_are_called_shares(tmp_path, monkeypatch):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")})
    results = some_results(study, {"bn": (20, 21), "ln": (20, 22)})
    assert "Times are shares" not in cautions_of(study, results)
    first, second, *_ = results
    for name, moved in ((first, False), (second, True)):
        record = results[name].record
        member = replace(record.environment, population=16)
        before = (Elsewhere(last=3, environment=member),) if moved else ()
        record = replace(record, environment=record.environment if moved else member, elsewhere=before)
        results[name] = replace(results[name], record=record)
    found = cautions_of(study, results)["Times are shares"]
    assert (found.kind, found.text[:51]) == ("note", "2 of 4 runs trained side by side as one program. Th")
    leave_undrawn(monkeypatch, module)
    assert write(study, results, tmp_path).text.count("accelerators not counted") == 2


@pytest.mark.parametrize(("paired", "pairs", "said"), [(True, 3, False), (True, 2, True), (False, 2, False)])
def test_it_is_said_where_differences_leave_seeds_out(paired, pairs, said):
    study = a_study({name: TrainConfig(norm=name) for name in ("bn", "ln")}, baselines={"ln": "bn"})
    results = some_results(study, {"bn": (20, 25, 21), "ln": (40, 45, 41)})
    summary = analyse(study, results)
    compared = replace(summary.arms[1].comparisons["accuracy"], paired=paired, pairs=pairs)
    arm = replace(summary.arms[1], comparisons={"accuracy": compared})
    assert module._partly_paired(replace(summary, arms=(summary.arms[0], arm))) is said


def test_arms_share_their_look_with_the_report(study, results):
    assert arm_named(arms_from(study, results), "none").look.label == "none (baseline)"
