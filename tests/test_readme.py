import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_what_the_readme_shows_is_there():
    text = (ROOT / "README.md").read_text()
    paths = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", text)
    assert len(paths) > 3
    for path in (first or second for first, second in paths):
        assert (ROOT / path).exists(), path


def test_a_fresh_clone_has_no_run_that_would_count_as_already_trained():
    listed = subprocess.run(["git", "ls-files", "reports/runs"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert listed.stdout == ""
