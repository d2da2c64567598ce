import re
import shlex
import subprocess
from pathlib import Path

import pytest

from kernorm.system import cli
from tests.readme_tables import figures, rendered
from tuner.config import SearchConfig
from tuner.search import default

ROOT = Path(__file__).parent.parent


def test_what_the_readme_shows_is_there():
    text = (ROOT / "README.md").read_text()
    paths = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", text)
    assert len(paths) > 3
    for path in (first or second for first, second in paths):
        assert (ROOT / path).exists(), path


def test_what_a_user_of_openvino_must_know_is_said():
    serve = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Serve")[2].partition("\n## ")[0]
    assert "`INFERENCE_PRECISION_HINT=f32`" in serve


@pytest.mark.parametrize(
    "study", ["eva4", "eva6", "eva4_as_run", "eva6_as_run", "recipes", "batch_size", "fashion", "eva6-e3"]
)
def test_git_shows_the_evidence_of_committed_studies(study):
    """What git ignores can be lost unnoticed: `git status` does not show it."""
    names = ("records.jsonl", "report.html", "summary.json", "tables.csv")
    paths = [f"reports/studies/{study}/{name}" for name in (*names, "curves.png", "lock", "logs/1.log")]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode > 1:
        pytest.skip("not a git checkout")
    assert asked.stdout.split() == paths[len(names) :]


def test_a_fresh_clone_has_no_run_that_would_count_as_already_trained():
    listed = subprocess.run(["git", "ls-files", "reports/runs"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert listed.stdout == ""


def test_what_the_readme_searches_for_is_not_there_yet():
    """In a checkout, that is, which holds a search that has ended."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^pip install .* && python -m tuner\.search *(.*)$", text, re.MULTILINE)
    config, own = default(shlex.split(words))
    assert not (ROOT / cli.parse(SearchConfig, prog="search", argv=own, default=config).folder).exists()


def test_every_result_in_the_readme_is_what_committed_records_say():
    """`python -m tests.readme_tables` writes the tables again."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == rendered(text)
    for figure in figures():
        assert figure in " ".join(text.split()), figure
