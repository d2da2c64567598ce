"""The list of runs: which settings are said, CSV and LaTeX that other programs read, and the page."""

import csv
import io
import re
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.recipes import recipe
from kernorm.records.index import list_lines
from kernorm.records.tags import Tags
from kernorm.reporting import run_list
from kernorm.reporting.run_list import RunList
from tests.builders import Page, a_line, a_run_of
from tests.reporting.browser import open_browser

LINES = [
    a_line("r1", 0.9941, norm="gn", l2=1e-4),
    a_line("r2", 0.9915, ("studies/eva6",), seed=3, threads=1),
    a_line("r3", None, ("searches/a/studies/b",), norm="gn", clip_ratio=None, nesterov=False),
    a_line("r4", 0.9950, norm_at=("conv1=none", "conv2=gn"), l2=1e-4),
]
TAGS = {"r1": Tags(tags=("good", "paper-1"), note="50 % & more"), "r4": Tags(tags=("bad",))}


def test_settings_are_said_that_differ_among_runs_and_from_the_recipe():
    runs = RunList(LINES, TAGS)
    # norm, l2 are set by two runs each, the others by one; seed and threads are left out.
    assert runs.names == ["norm", "l2", "norm_at", "nesterov", "clip_ratio"]
    said = [runs.row(line, runs.names).settings for line in LINES]
    assert said == [
        "norm=gn l2=0.0001",
        "",
        "norm=gn nesterov=false clip_ratio=none",
        "l2=0.0001 norm_at=conv1=none conv2=gn",
    ]
    assert runs.shared == ""
    assert RunList(LINES[:1], TAGS).shared == "norm=gn l2=0.0001"
    assert RunList([], {}).names == []


def test_a_recipe_is_said_by_its_name():
    config = recipe("eva6", l2=1e-4)
    line = replace(LINES[0], settings=config.identity | {"learning_rate": "auto"})
    runs = RunList([line, LINES[1]], {})
    assert runs.row(line, [name for name in run_list._ORDER if name in runs.names]).settings.startswith("recipe=eva6 ")
    assert config.net != TrainConfig.net
    assert "net=" not in runs.row(line, runs.names).settings
    gone = replace(line, settings=line.settings | {"recipe": "of before"})
    assert "recipe=of before net=eva6" in RunList([gone, line], {}).row(gone, ("recipe", "net")).settings


def test_csv_holds_every_setting_as_it_is():
    rows = list(csv.DictReader(io.StringIO(RunList(LINES, TAGS).csv())))
    assert [row["run"] for row in rows] == ["r1", "r2", "r3", "r4"]
    assert [row["accuracy"] for row in rows] == ["0.9941", "0.9915", "", "0.995"]
    assert [float(rows[0][name]) for name in ("low", "high", "l2")] == [LINES[0].low, LINES[0].high, 1e-4]
    assert rows[0]["tags"], rows[0]["note"] == ("good paper-1", "50 % & more")
    assert (rows[2]["studies"], rows[3]["norm_at"]) == ("searches/a/studies/b", "conv1=none conv2=gn")
    assert set(TrainConfig().identity) <= rows[0].keys()


def test_latex_is_a_table_of_booktabs():
    lines = RunList(LINES[:3], TAGS).latex().splitlines()
    assert lines[:2] == [r"\begin{tabular}{llllrrlr}", r"\toprule"]
    head = r"norm & l2 & nesterov & clip\_ratio & seed & accuracy, \% & 95 \% & cross-entropy \\"
    assert lines[2:5] == [head, r"\midrule", r"gn & 0.0001 & true & 0.2 & 0 & 99.41 & 99.21 to 99.51 & 0.0251 \\"]
    assert lines[6:] == [r"gn & 0 & false & none & 0 & diverged &  &  \\", r"\bottomrule", r"\end{tabular}"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b", r"a\_b"),
        ("50 %", r"50 \%"),
        ("−0.1", "$-$0.1"),
        ("x\\y^z~", r"x\textbackslash{}y\^{}z\~{}"),
        ("{<", r"\{$<$"),
    ],
)
def test_latex_is_escaped(text, written):
    assert run_list._tex(text) == written


def test_a_long_setting_is_shown_by_its_digest():
    lines = [
        replace(line, settings=line.settings | {"net_source": text}) for line, text in zip(LINES, "ab" * 2, strict=True)
    ]
    lines[0] = replace(lines[0], settings=lines[0].settings | {"net_source": "def net():\n" * 9})
    runs = RunList(lines, {})
    shown = runs.row(lines[0], ["net_source"]).settings
    assert re.fullmatch("net_source=sha256:[0-9a-f]{8}", shown)


def test_the_page_links_to_the_pages_that_are_there(tmp_path):
    record, folder = a_run_of(tmp_path)
    (folder / "report.html").touch()
    other, _ = a_run_of(tmp_path, seed=1)
    for name in ("s t", "gone"):
        (tmp_path / "studies" / name).mkdir(parents=True)
    (tmp_path / "studies" / "s t" / "report.html").touch()
    lines = [
        replace(line, studies=("studies/gone", "studies/s t") if line.run == other.run_id else ())
        for line in list_lines(tmp_path)
    ]
    only = replace(lines[0], run="only-in-a-study", path="studies/s t", studies=("studies/s t",))
    page = RunList([*lines, only], {record.run_id: Tags(tags=("best",), note="<b>")}).write_page(tmp_path)
    text = page.read_text()
    assert page == tmp_path / "index.html"
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', text)
    assert ("studies/s%20t/report.html", "only-in-a-study") in links
    assert (f"runs/{record.run_id}/report.html", record.run_id) in links
    assert other.run_id not in dict(map(reversed, links))
    assert not [name for _, name in links if name == "gone"]
    assert "&lt;b&gt;" in text
    assert ">best<" in text
    assert str(tmp_path) not in text
    assert "http" not in text.partition("<script")[0]
    Page(text)


def test_columns_are_those_that_most_runs_set_and_others_are_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run_list, "OWN_COLUMNS", 2)
    text = RunList(LINES, TAGS).write_page(tmp_path).read_text()
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', text)
    assert heads[4:8] == ["norm", "l2", "seed", "Other settings"]
    assert "norm_at=conv1=none conv2=gn" in text
    assert '<td class="diverged">diverged</td>' in text


def test_the_terminal_shows_some_and_says_how_many_more_there_are(capsys, monkeypatch):
    monkeypatch.setattr(run_list, "SHOWN", 2)
    RunList(LINES, TAGS).show()
    head, first, second, more = capsys.readouterr().out.splitlines()
    assert re.split("  +", first.strip()) == [
        *("r1", "99.41", "99.21 to 99.51", "0.0251", "norm=gn l2=0.0001", "good, paper-1", "50 % & more")
    ]
    assert re.split("  +", second.strip()) == ["r2", "99.15", "98.95 to 99.25", "0.0251", "eva6"]
    assert more == "and 2 more: see the page, --csv, or --where for fewer"
    assert head.split()[0] == "run"


@pytest.mark.slow
def test_a_long_list_is_searched_and_sorted_in_a_browser(tmp_path):
    lines = [a_line(f"r{place}", 0.9 + place / 10_000, norm="gn" if place % 3 else "bn") for place in range(1, 301)]
    for line in lines:
        a_page = tmp_path / line.path / "report.html"
        a_page.parent.mkdir(parents=True)
        a_page.touch()
    runs = RunList([replace(line, started=lines[0].started) for line in lines], {})
    with open_browser() as browser:
        page = browser.open(runs.write_page(tmp_path))
        assert (page.count("tbody tr"), page.texts(".tools span")) == (200, ["300 runs, 200 shown"])
        page.click("th:nth-child(2) .sort")
        page.click("th:nth-child(2) .sort")
        assert page.texts("tbody tr:first-child th") == ["r300"]
        page.click("[type=search]")
        page.press("norm=bn r2")
        assert page.texts(".tools span") == [f"{sum(r % 3 == 0 and str(r)[0] == '2' for r in range(301))} of 300 runs"]
        assert page.texts("tbody tr:first-child th") == ["r297"]
        page.run("document.querySelector('[type=search]').value = ''")
        page.press("r")
        page.click(".tools button")
        assert page.count("tbody tr") == 300
        assert page.run("return document.querySelector('tbody a').href").endswith("/runs/r300/report.html")
        assert page.problems() == []
