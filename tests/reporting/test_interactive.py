"""Pages in a real browser: what one points at, hides, sorts and copies, on a desk and on a phone."""

import csv
import io
import json
import re

import numpy as np
import pytest
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import HeldOutSplit
from kernorm.reporting.run_report import write_report
from kernorm.studies.analysis import analyse
from kernorm.studies.ledger import Ledger
from kernorm.studies.report import mistakes
from kernorm.studies.report.page import write_study_report
from kernorm.studies.wording import half, score, signed
from tests.builders import COUNT, a_study, make_mistakes, make_record, some_results
from tests.reporting.browser import LABELS, open_browser

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.slow

FEW = {
    "bn": TrainConfig(epochs=6),
    "gn": TrainConfig(epochs=6, norm="gn"),
    "ln": TrainConfig(epochs=6, norm="ln", l2=0.01),
    "far": TrainConfig(epochs=6, norm="rms"),
}
ERRORS = {"bn": (20, 22, 25), "gn": (20, 25, 24), "ln": (31, 34, 38), "far": (450, 460, 470)}
# Names as long as those of the published studies, of close results: what overlaps if anything does.
MANY = {
    f"{norm}-l1_1e-{place}-wd_4e-4-b{16 * place}": TrainConfig(
        epochs=25, norm=norm, l1=10.0**-place, l2=2e-4, batch_size=16 * place
    )
    for norm in ("bn", "gn", "ln")
    for place in (1, 2, 4, 8)
}


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


def written(arms, errors, folder):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28, 1)).astype(np.uint8)
    study = a_study(arms)
    results = some_results(study, errors)
    ledger = Ledger(folder)
    ledger.results = dict(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistakes, "load_test_split", lambda *_, **__: HeldOutSplit(images, np.zeros(COUNT, np.int32)))
        write_study_report(study, analyse(study, results), ledger, folder, "python -m kernorm.study mine.py")
    return folder / "report.html"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return written(FEW, ERRORS, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    errors = {arm: (20 + place % 3, 22, 25 + place) for place, arm in enumerate(MANY)}
    return written(MANY, errors, tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, record = tmp_path_factory.mktemp("run"), make_record(count=10_000, errors=61)
    return write_report(record, folder, make_mistakes(record))


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A run on many classes with names."""
    names = tuple(f"class number {place}" for place in range(47))
    folder, record = tmp_path_factory.mktemp("classes"), make_record(classes=47, errors=300, count=2000, labels=names)
    return write_report(record, folder, make_mistakes(record))


@pytest.fixture(scope="module")
def summary(study):
    return {arm["name"]: arm for arm in json.loads((study.parent / "summary.json").read_text())["arms"]}


def test_a_point_says_what_summary_json_holds(browser, study, summary):
    page = browser.open(study)
    found = summary["ln"]["comparisons"]["accuracy"]
    said = page.point_at('svg[data-chart="difference-accuracy"] [data-arm="2"] use')
    ends = " to ".join(signed(end) for end in found["interval"])
    assert said.startswith(f"ln: {signed(found['difference'])} pp, 95 % {ends} over seeds, ")
    assert said.endswith(f"for new images; {summary['ln']['verdict']['name']}")
    value = summary["gn"]["scores"]["accuracy"]
    # The mean's bar is the last that is drawn of an arm.
    said = page.point_at('svg[data-chart="seeds-accuracy"] [data-arm="1"]:nth-last-child(1 of [data-arm="1"])')
    assert said == f"gn: mean {score(value['mean'])} % {half(value['interval'])}, n = 3"
    assert page.problems() == []


@pytest.mark.parametrize("how", ["point_at", "touch"])
def test_a_line_says_arm_epoch_and_mean_with_its_interval(browser, study, how):
    rows = csv.DictReader(io.StringIO((study.parent / "tables.csv").read_text()))
    page = browser.open(study)
    said = getattr(page, how)('svg[data-chart="val-accuracy"] [data-arm="2"] use')
    arm, epoch, value, around = re.fullmatch(r"(\w+), epoch (\d): validation accuracy (.+) % ± (.+)", said).groups()
    held = {
        row["statistic"]: float(row["value"])
        for row in rows
        if (row["arm"], row["metric"], row["epoch"]) == (arm, "val_accuracy", epoch)
    }
    assert arm == "ln"
    assert float(value) == pytest.approx(100 * held["mean"], abs=0.00501)
    half_width = stats.t.isf(0.025, 2) * 100 * held["sd"] / np.sqrt(3)
    assert float(around) == pytest.approx(half_width, abs=0.00501)
    # The line is in sight, the others step back.
    assert page.run("return document.querySelector('svg[data-hot]').dataset.hot") == "2"


def test_an_interval_beyond_what_is_possible_is_bounded(browser, tmp_path):
    page = browser.open(written({"bn": TrainConfig(epochs=2)}, {"bn": (90, 300)}, tmp_path))
    said = page.point_at('svg[data-chart="val-accuracy"] [data-arm="0"] use')
    assert re.fullmatch(r"bn, epoch \d: validation accuracy [\d.]+ %, 95 % 0.00 to 100.00", said)


def test_keys_go_along_a_line_and_to_the_next(browser, study):
    page, chart = browser.open(study), 'svg[data-chart="val-accuracy"]'
    assert page.press(chart, Keys.ARROW_RIGHT).startswith("bn, epoch 2: ")
    assert page.press(chart, Keys.ARROW_RIGHT).startswith("bn, epoch 3: ")
    assert page.press(chart, Keys.ARROW_LEFT).startswith("bn, epoch 2: ")
    assert page.press(chart, Keys.ARROW_DOWN).startswith("gn, epoch 2: ")
    assert page.press(chart, Keys.ARROW_UP, Keys.ARROW_UP).startswith("far, epoch ")
    assert page.press(chart, Keys.ESCAPE) == ""


def test_a_checkbox_hides_an_arm_in_every_chart_and_table(browser, study):
    page = browser.open(study)
    charts = ("val-accuracy", "accuracy", "val-cross-entropy", "cross-entropy")
    lines = [f'svg[data-chart="{name}"] [data-arm="2"] path' for name in charts]
    rows, cards = "tbody tr[data-arm='2']", "figure[data-arm='2']"
    before = [page.count(one) for one in (*lines, rows, cards)]
    assert min(before) >= 1
    others = page.count("tbody tr[data-arm='1']")
    page.click("nav .pick summary")
    page.click("nav .pick label:nth-of-type(3)")
    assert [page.count(one) for one in (*lines, rows, cards)] == [0] * len(before)
    assert page.count("tbody tr[data-arm='1']") == others
    assert "ln" not in page.press('svg[data-chart="val-accuracy"]', *[Keys.ARROW_RIGHT] * 20)
    # A page that loads itself again keeps the choice.
    page.driver.refresh()
    assert page.count(rows) == 0
    page.click("nav .pick summary")
    page.click("nav .pick button")
    assert [page.count(one) for one in (*lines, rows, cards)] == before


def test_columns_sort_by_number_and_by_word_and_back(browser, study, summary):
    page = browser.open(study)
    table = "#results .tabs table"

    def names():
        return page.texts(f"{table} tbody th")

    means = {name: arm["scores"]["accuracy"]["mean"] for name, arm in summary.items()}
    page.click(f"{table} th:nth-child(2) button")
    assert names() == sorted(means, key=means.get)
    assert page.run("return document.querySelector('#results th[aria-sort]').ariaSort") == "ascending"
    page.click(f"{table} th:nth-child(2) button")
    assert names() == sorted(means, key=means.get, reverse=True)
    page.click(f"{table} th:nth-child(1) button")
    assert names() == sorted(means)
    page.press(f"{table} th:nth-child(1) button", Keys.ENTER)
    assert names() == sorted(means, reverse=True)
    page.press(f"{table} th:nth-child(1) button", Keys.ENTER)
    assert names() == list(FEW)


def test_only_differences_leaves_out_what_is_the_same_in_the_arms_that_are_shown(browser, study):
    page = browser.open(study)
    assert "Batch" in page.texts("#results table thead th")
    page.click("#results .tools label")
    assert "Batch" not in page.texts("#results table thead th")
    assert "Norm, groups" in page.texts("#results table thead th")


def test_a_table_is_copied_as_csv_and_as_latex(browser, study, summary):
    page = browser.open(study)
    page.click("#results .tools button:nth-of-type(1)")
    rows = list(csv.reader(io.StringIO(page.copied())))
    assert rows[0][:3] == ["Arm", "Mean ± 95 %", "Difference"]
    assert [row[0] for row in rows[1:]] == list(FEW)
    value = summary["ln"]["scores"]["accuracy"]
    assert rows[3][1] == f"{score(value['mean'])} {half(value['interval'])}"
    page.click("nav .pick summary")
    page.click("nav .pick label:nth-of-type(4)")
    page.click("nav .pick summary")
    page.click("#results .tools button:nth-of-type(2)")
    lines = page.copied().splitlines()
    assert lines[0].startswith("\\begin{tabular}{lrrl")
    assert (lines[1], lines[3], lines[-2:]) == ("\\toprule", "\\midrule", ["\\bottomrule", "\\end{tabular}"])
    assert lines[2].startswith("Arm & Mean $\\pm$ 95 \\% & Difference & ")
    assert [line.partition(" &")[0] for line in lines[4:-2]] == ["bn", "gn", "ln"]
    assert all(line.endswith(" \\\\") for line in lines[2:3] + lines[4:-2])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["study", "many", "run", "classes"])
def test_no_label_of_a_chart_is_small_cut_or_under_another_one(browser, request, name, width, dark):
    found = browser.open(request.getfixturevalue(name), width, dark).run(LABELS)
    assert found["labels"] > 50
    assert found["smallest"] >= 11
    assert (found["overlapping"], found["cut"]) == ([], [])
    assert found["width"] == width


def test_a_phone_shows_mean_difference_and_verdict(browser, many):
    page = browser.open(many, 390)
    right = page.run(
        "return [...document.querySelectorAll('#results thead th')].slice(0, 4)"
        ".map((head) => head.getBoundingClientRect().right)"
    )
    assert page.texts("#results thead th")[1:4] == ["Mean ± 95 %", "Difference", "Verdict"]
    assert max(right) <= 390


def test_series_of_a_run_are_hidden_alike(browser, run):
    page = browser.open(run)
    page.click("nav .pick summary")
    assert page.texts("nav .pick label") == ["training, augmented", "validation", "test"]
    page.click("nav .pick label:nth-of-type(2)")
    for name in ("accuracy", "cross-entropy"):
        assert page.count(f'svg[data-chart="{name}"] [data-arm="1"] path') == 0
        assert page.count(f'svg[data-chart="{name}"] [data-arm="0"] path') >= 1
    assert page.texts("#scores tbody th") == ["train", "test"]
    label, value = page.point_at('svg[data-chart="classes"] use').split(" %, 95 % ")[0].split(": ")
    confusion = np.array(make_record(count=10_000, errors=61).test.confusion)
    assert value == f"{100 * confusion[int(label), int(label)] / confusion[int(label)].sum():.1f}"
    assert page.problems() == []


def test_without_script_a_page_is_what_it_was(browser, study):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(study)
        names = [element.text for element in browser.driver.find_elements("css selector", "#results tbody th")]
        assert names[: len(FEW)] == list(FEW)
        assert browser.driver.find_elements("css selector", ".tools, .pick, .tip") == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
