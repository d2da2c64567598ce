"""Pages in a real browser: what one points at, hides, sorts and copies, on a desk and on a phone."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import HeldOutSplit
from kernorm.evaluation.latency import read_latency
from kernorm.evaluation.report import render
from kernorm.evaluation.result import read_evaluation
from kernorm.reporting.format import concise
from kernorm.reporting.run_report import write_report
from kernorm.saved_model.card import read_card
from kernorm.studies.analysis import analyse
from kernorm.studies.ledger import Ledger
from kernorm.studies.report import mistakes
from kernorm.studies.report.page import write_study_report
from kernorm.studies.wording import half, score, signed
from tests.builders import COUNT, SHOWN, a_study, a_trial, make_mistakes, make_record, some_results, summary_of
from tests.reporting.browser import TEXTS, open_browser
from tuner.config import SearchConfig
from tuner.confirm import DEFAULT, FOUND, Arm, Confirmed
from tuner.report import write_search_report
from tuner.trials import Trials

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
def search(tmp_path_factory):
    """A search over three norms, λ1, λ2 and batch sizes, with two arms confirmed."""
    config = SearchConfig(reports_dir=tmp_path_factory.mktemp("search"), norms="bn,ln,gn")
    config.folder.mkdir(parents=True)
    trials = Trials(config.folder)
    for number in range(24):
        settings = {
            "norm": ("bn", "ln", "gn")[number % 3],
            "l1": (0.0, 1.23e-5, 4e-4)[number % 5 % 3],
            "l2": (0.0, 1e-6, 3e-3, 2e-5)[number % 4],
            "batch_size": (16, 64, 128, 32)[number * 7 % 4],
        }
        trials.add(a_trial(number, 0.03 + 0.004 * (number * 11 % 24), settings))
    trials.add(replace(a_trial(24, 1.0, settings), score=None, repeats=(), status="failed", message="diverged"))
    best = trials.best()[:2]
    names = [f"trial {trial.number + 1}" for trial in best]
    arms = dict(zip([*names, "no penalty"], ("ln", "gn", "bn"), strict=True))
    errors = dict(zip(arms, ((20, 22, 25), (24, 22, 23), (31, 34, 38)), strict=True))
    confirmed = Confirmed(
        arms=tuple(
            Arm(name=name, trial=trial, scores=(trial.score + 0.002, trial.score + 0.003))
            for name, trial in zip(names, best, strict=True)
        ),
        chosen=best[0],
        config=TrainConfig(),
        baseline=Arm(name="no penalty", trial=None, scores=(0.046,)),
        study=summary_of(arms, errors, "no penalty"),
        final=summary_of({FOUND: "ln", DEFAULT: "bn"}, {FOUND: (18, 21, 22), DEFAULT: (20, 21, 22)}, DEFAULT),
    )
    return write_search_report(config, trials, confirmed)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """The evaluation of the model that comes with the repository."""
    path = tmp_path_factory.mktemp("evaluation") / "report.html"
    path.write_text(render(read_evaluation(SHOWN), read_card(SHOWN), read_latency(SHOWN)))
    return path


PAGES = ["study", "many", "run", "classes", "search", "evaluation"]


@pytest.fixture(params=PAGES)
def page(request):
    """The path of a page of each kind, and of those with many arms and many classes."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def summary(study):
    return {arm["name"]: arm for arm in json.loads((study.parent / "summary.json").read_text())["arms"]}


# Ways to have a point speak: the mouse, a finger, and the keys (see `_ask`).
WAYS = ["point_at", "touch", "tab_to"]


def test_a_point_says_what_summary_json_holds(browser, study, summary):
    page = browser.open(study)
    found = summary["ln"]["comparisons"]["accuracy"]
    ends = " to ".join(signed(end) for end in found["interval"])
    page.point_at('svg[data-chart="difference-accuracy"] [data-arm="2"] use')
    page.says(
        re.escape(f"ln: {signed(found['difference'])} pp, 95 % {ends} over seeds, ")
        + ".* for new images; "
        + re.escape(summary["ln"]["verdict"]["name"])
    )
    value = summary["gn"]["scores"]["accuracy"]
    # The mean's bar is the last that is drawn of an arm.
    page.point_at('svg[data-chart="seeds-accuracy"] [data-arm="1"]:nth-last-child(1 of [data-arm="1"]) > :last-child')
    page.says(re.escape(f"gn: mean {score(value['mean'])} % {half(value['interval'])}, n = 3"))
    assert page.problems() == []


@pytest.mark.parametrize("how", WAYS)
def test_a_mean_is_said_alike_to_mouse_finger_and_keys(browser, many, how):
    arms = json.loads((many.parent / "summary.json").read_text())["arms"]
    page, chart, place = browser.open(many), 'svg[data-chart="seeds-accuracy"]', 0 if how == "tab_to" else 7
    value = arms[place]["scores"]["accuracy"]
    element = f'[data-arm="{place}"]:nth-last-child(1 of [data-arm="{place}"]) > :last-child'
    getattr(page, how)(chart if how == "tab_to" else f"{chart} {element}")
    page.says(re.escape(f"{arms[place]['name']}: mean {score(value['mean'])} % {half(value['interval'])}, n = 3"))


@pytest.mark.parametrize("how", WAYS)
def test_a_line_says_arm_epoch_and_mean_with_its_interval(browser, study, how):
    rows = csv.DictReader(io.StringIO((study.parent / "tables.csv").read_text()))
    page, chart = browser.open(study), 'svg[data-chart="val-accuracy"]'
    getattr(page, how)(chart if how == "tab_to" else f'{chart} [data-arm="2"] use')
    if how == "tab_to":
        page.says(r"bn, epoch 1: .*")
        page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    said = r"(ln), epoch (\d): validation accuracy (.+) % ± (.+)"
    arm, epoch, value, around = page.says(said).groups()
    held = {
        row["statistic"]: float(row["value"])
        for row in rows
        if (row["arm"], row["metric"], row["epoch"]) == (arm, "val_accuracy", epoch)
    }
    assert float(value) == pytest.approx(100 * held["mean"], abs=0.00501)
    half_width = stats.t.isf(0.025, 2) * 100 * held["sd"] / np.sqrt(3)
    assert float(around) == pytest.approx(half_width, abs=0.00501)
    # The line is in sight, the others step back.
    assert page.run("return document.querySelector('svg[data-hot]').dataset.hot") == "2"
    opacity = "return [...document.querySelectorAll(arguments[0])].map((one) => getComputedStyle(one).opacity)"
    assert set(page.run(opacity, f'{chart} g[data-arm="2"]')) == {"1"}
    assert set(page.run(opacity, f'{chart} g[data-arm="1"]')) == {"0.15"}


def test_an_interval_beyond_what_is_possible_is_bounded(browser, tmp_path):
    page = browser.open(written({"bn": TrainConfig(epochs=2)}, {"bn": (90, 300)}, tmp_path))
    page.point_at('svg[data-chart="val-accuracy"] [data-arm="0"] use')
    page.says(r"bn, epoch \d: validation accuracy [\d.]+ %, 95 % 0.00 to 100.00")


def test_keys_go_along_a_line_and_to_the_next(browser, study):
    page = browser.open(study)
    page.tab_to('svg[data-chart="val-accuracy"]')
    page.says("bn, epoch 1: .*")
    for key, said in (
        (Keys.ARROW_RIGHT, "bn, epoch 2: .*"),
        (Keys.ARROW_RIGHT, "bn, epoch 3: .*"),
        (Keys.ARROW_LEFT, "bn, epoch 2: .*"),
        (Keys.ARROW_DOWN, "gn, epoch 2: .*"),
        (Keys.ARROW_UP, "bn, epoch 2: .*"),
        (Keys.ARROW_UP, "far, epoch .*"),
        (Keys.ESCAPE, ""),
    ):
        page.press(key)
        page.says(said)


def test_keys_begin_with_the_arm_that_a_chart_is_of(browser, many):
    page = browser.open(many)
    page.tab_to('svg[data-chart="accuracy-6"]')
    page.says(f"{re.escape(list(MANY)[6])}, epoch 1: .*")


def test_what_is_said_stays_on_the_screen_of_a_phone(browser, many):
    page = browser.open(many, 390)
    for chart in page.all("svg[data-chart]")[:6]:
        for mark in chart.find_elements("css selector", "[data-arm] use")[::5]:
            page.touch(mark)
            page.says(".+")
            left, right, top, bottom = page.run(
                "const box = document.querySelector('.tip').getBoundingClientRect();"
                "return [box.left, box.right, box.top, box.bottom]"
            )
            assert 0 <= left < right <= 390
            assert 0 <= top < bottom <= 900
            # The ring of the focus is for keys.
            assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "none"


def test_a_trial_of_a_search_says_its_settings_and_score(browser, search):
    trials = [json.loads(line) for line in (search.parent / "trials.jsonl").read_text().splitlines()]
    page = browser.open(search)
    page.tab_to('svg[data-chart="progress"]')
    for trial in trials[:3]:
        found = trial["settings"]
        penalties = (concise(found[name]) if found[name] else "off" for name in ("l1", "l2"))
        said = "trial {}: norm {}, λ1 {}, λ2 {}, batch size {}; cross-entropy {:.4f}".format(
            trial["number"] + 1, found["norm"], *penalties, found["batch_size"], trial["score"]
        )
        page.says(re.escape(said))
        page.press(Keys.ARROW_RIGHT)


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
    assert page.count("[data-arm='2']") == 0
    assert page.count("tbody tr[data-arm='1']") == others
    page.tab_to('svg[data-chart="val-accuracy"]')
    for _ in range(20):
        page.press(Keys.ARROW_RIGHT)
        assert not page.says(".+")[0].startswith("ln")
    # A page that loads itself again keeps the choice.
    page.reload()
    assert page.count(rows) == 0
    page.click("nav .pick summary")
    page.click("nav .pick button")
    assert [page.count(one) for one in (*lines, rows, cards)] == before


def test_a_checkbox_by_keys_and_on_a_phone(browser, many):
    page = browser.open(many, 390)
    page.tab_to("nav .pick summary")
    page.press(Keys.ENTER)
    left, right = page.run(
        "const box = document.querySelector('.pick > div').getBoundingClientRect(); return [box.left, box.right]"
    )
    assert 0 <= left < right <= 390
    page.tab_to("nav .pick label:nth-of-type(5) input")
    page.press(Keys.SPACE)
    page.wait(lambda: page.count("tbody tr[data-arm='4']") == 0, "no row of the arm")
    assert page.count("tbody tr[data-arm='3']") > 0
    assert page.count("[data-arm='4']") == 0


def test_a_norm_of_a_search_is_hidden_in_charts_and_tables(browser, search):
    page = browser.open(search)
    norms = [row[1] for row in page.tables()[1]["rows"]]
    assert set(norms) == {"bn", "ln", "gn"}
    page.click("nav .pick summary")
    assert page.texts("nav .pick label") == ["bn", "ln", "gn"]
    page.click("nav .pick label:nth-of-type(2)")
    assert [row[1] for row in page.tables()[1]["rows"]] == [norm for norm in norms if norm != "ln"]
    for name in ("progress", "coordinates"):
        assert page.count(f'svg[data-chart="{name}"] [data-arm="1"]') == 0
        assert page.count(f'svg[data-chart="{name}"] [data-arm="0"] :is(path, use)') >= 1
    assert page.texts("figure h3").count("Penalties with ln") == 0
    assert page.problems() == []


def test_series_of_a_run_are_hidden_alike(browser, run):
    page = browser.open(run)
    page.click("nav .pick summary")
    assert page.texts("nav .pick label") == ["training, augmented", "validation", "test"]
    page.click("nav .pick label:nth-of-type(2)")
    for name in ("accuracy", "cross-entropy"):
        assert page.count(f'svg[data-chart="{name}"] [data-arm="1"] path') == 0
        assert page.count(f'svg[data-chart="{name}"] [data-arm="0"] path') >= 1
    assert page.texts("#scores tbody th") == ["train", "test"]
    page.point_at('svg[data-chart="classes"] use')
    label, value = page.says(r"(\d): ([\d.]+) %, 95 % .*").groups()
    confusion = np.array(make_record(count=10_000, errors=61).test.confusion)
    assert value == f"{100 * confusion[int(label), int(label)] / confusion[int(label)].sum():.1f}"
    assert page.problems() == []


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
    page.tab_to(f"{table} th:nth-child(1) button")
    page.press(Keys.ENTER)
    page.wait(lambda: names() == sorted(means, reverse=True), "the reverse order")
    page.press(Keys.SPACE)
    page.wait(lambda: names() == list(FEW), "the order of the study")


NUMBER = re.compile(r"[^\w.+−]*([+−]?(?:\d[\d,]*)?\.?\d+(?:e[-−]?\d+)?)(?:$|[^\w.-].*)")


def number(text):
    """The number that a cell begins with, NaN for none."""
    found = NUMBER.fullmatch(text)
    return float(found[1].replace("−", "-").replace(",", "")) if found else float("nan")


def test_every_column_of_numbers_sorts_as_numbers(browser, page):
    shown = browser.open(page)
    before, columns = shown.tables(), 0
    sort = (
        "const table = [...document.querySelectorAll('.scroll>table')].filter((one) => one.tHead)[arguments[0]];"
        "table.tHead.rows[0].cells[arguments[1]].querySelector('button').click()"
    )
    for place, table in enumerate(before):
        for column in range(len(table["head"]) if len(table["rows"]) > 1 else 0):
            values = [number(row[column]) for row in table["rows"]]
            if not table["head"][column] or np.isnan(values).any():
                continue
            columns += 1
            for expected in (sorted(values), sorted(values, reverse=True), values):
                shown.run(sort, place, column)
                assert [number(row[column]) for row in shown.tables()[place]["rows"]] == expected, table["head"]
    assert columns > 5
    assert shown.tables() == before


def test_only_differences_leaves_out_what_is_the_same_in_the_arms_that_are_shown(browser, study):
    page = browser.open(study)
    assert "Batch" in page.texts("#results table thead th")
    page.click("#results .tools label")
    assert "Batch" not in page.texts("#results table thead th")
    assert "Norm, groups" in page.texts("#results table thead th")


def test_a_table_is_copied_as_csv_and_as_latex(browser, study, summary):
    page = browser.open(study)
    rows = list(csv.reader(io.StringIO(page.copied("#results .tools button:nth-of-type(1)"))))
    assert rows[0][:3] == ["Arm", "Mean ± 95 %", "Difference"]
    assert [row[0] for row in rows[1:]] == list(FEW)
    value = summary["ln"]["scores"]["accuracy"]
    assert rows[3][1] == f"{score(value['mean'])} {half(value['interval'])}"
    page.click("nav .pick summary")
    page.click("nav .pick label:nth-of-type(4)")
    page.click("nav .pick summary")
    lines = page.copied("#results .tools button:nth-of-type(2)").splitlines()
    assert lines[0].startswith("\\begin{tabular}{lrrl")
    assert (lines[1], lines[3], lines[-2:]) == ("\\toprule", "\\midrule", ["\\bottomrule", "\\end{tabular}"])
    assert lines[2].startswith("Arm & Mean $\\pm$ 95 \\% & Difference & ")
    assert [line.partition(" &")[0] for line in lines[4:-2]] == ["bn", "gn", "ln"]
    assert all(line.endswith(" \\\\") for line in lines[2:3] + lines[4:-2])


def test_every_table_is_copied_as_it_is_shown(browser, page):
    shown = browser.open(page)
    shown.run("document.querySelectorAll('main details').forEach((details) => (details.open = true))")
    tables = [table for table in shown.tables() if len(table["rows"]) > 1]
    tools = shown.all(".tools")
    assert len(tools) == len(tables) > 1
    for table, tool in zip(tables, tools, strict=True):
        if not tool.is_displayed():
            continue  # behind a tab
        as_csv, as_latex = tool.find_elements("tag name", "button")
        assert list(csv.reader(io.StringIO(shown.copied(as_csv)))) == [table["head"], *table["rows"]]
        lines = shown.copied(as_latex).splitlines()
        assert len(re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])[1]) == len(table["head"])
        rows = [line.removesuffix(" \\\\") for line in lines if line.endswith(" \\\\")]
        assert len(rows) == len(lines) - 5
        assert [re.split(r"(?<!\\) ?& ?", row) for row in map(plain, rows)] == [table["head"], *table["rows"]]
    assert shown.problems() == []


LATEX = {
    "textbackslash{}": "\\", "pm": "±", "lambda": "λ", "Sigma": "Σ", "to": "→", "cdot": "·",
    "approx": "≈", "surd": "✓", "times": "✗", "^{}": "^", "~{}": "~"
}  # fmt: skip


def plain(latex):
    """What LaTeX would print, with the columns' & as they are."""
    latex = latex.replace("$-$", "−").replace("$<$", "<").replace("$>$", ">").replace("$|$", "|").replace("--", "–")
    latex = latex.replace("$\\|$", "‖").replace("$^2$", "²").replace("$_2$", "₂")
    latex = latex.replace("-{}", "-")
    latex = re.sub(r"\$\\(\w+)\$", lambda found: LATEX[found[1]], latex)
    return re.sub(r"\\([%$#_{}])", r"\1", latex)


def test_a_copy_without_a_clipboard_of_the_page_is_copied_all_the_same(browser, study):
    page = browser.open(study)
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))")
    button = "#results .tools button:nth-of-type(1)"
    assert page.copied(button).startswith('"Arm","Mean ± 95 %"')
    assert page.driver.switch_to.active_element == page.find(button)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_of_a_chart_is_small_outside_or_over_another_one(browser, page, width, dark, request):
    found = browser.open(page, width, dark).run(TEXTS)
    kind = request.node.callspec.params["page"]
    assert found["texts"] > 50 or kind == "evaluation"  # which has no chart
    assert kind == "evaluation" or found["smallest"] >= 11
    assert (found["overlapping"], found["outside"], found["faint"]) == ([], [], [])
    assert (found["paper"] < 0.1) is dark
    assert found["width"] == width


def test_a_phone_shows_mean_difference_and_verdict(browser, many):
    page = browser.open(many, 390)
    over = page.run(
        "const box = document.querySelector('#results .tabs .scroll').getBoundingClientRect();"
        "const cells = document.querySelectorAll('#results .tabs table tr > :nth-child(-n + 4)');"
        "return [...cells].flatMap((cell) => [cell, ...cell.children])"
        ".map((part) => part.getBoundingClientRect().right - box.right)"
    )
    assert page.texts("#results thead th")[1:4] == ["Mean ± 95 %", "Difference", "Verdict"]
    assert max(over) <= 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_longest_verdict_lies_over_no_name_of_an_arm(browser, study, width):
    over = browser.open(study, width).run(
        "return [...document.querySelectorAll('.arms li')].map((line) => {"
        "const chip = line.querySelector('.chip'); chip.textContent = 'better on these images';"
        "const range = document.createRange(); range.selectNodeContents(chip);"
        "const [a, b] = [range, line.querySelector('div')].map((part) => part.getBoundingClientRect());"
        "return Math.min(a.right - b.left, b.right - a.left, a.bottom - b.top, b.bottom - a.top); })"
    )
    assert len(over) == len(FEW)
    assert max(over) <= 0.5


def test_without_script_a_page_shows_the_same_tables(browser, page):
    tables = browser.open(page).tables()
    assert len(tables) > 1
    with browser.without_script():
        plain = browser.open(page)
        assert plain.tables() == tables
        assert plain.all(".tools, .pick, .tip, .sort") == []
