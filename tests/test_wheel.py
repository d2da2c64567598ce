"""The wheel, installed into a folder and used outside the checkout, which `python -m pytest` puts first elsewhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kernorm.datasets import cache
from kernorm.records.record import write_record
from tests.builders import make_record

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("train", "study", "data", "export", "convert", "evaluate", "validate", "push", "predict"),
    "search",
)
REPORT = """
import sys
from pathlib import Path

import numpy as np
import kernorm
import tuner
from kernorm.evaluation.thresholds import read_thresholds
from kernorm.reporting.page import page_renderer
from kernorm.reporting.run_report import write_report

assert Path(kernorm.__file__).is_relative_to(sys.argv[1]), kernorm.__file__
run = kernorm.load_run("reports/runs/x")
images = np.zeros((min(25, len(run.record.test.mistakes)), 28, 28, 1), np.uint8)
write_report(run.record, run.folder, images)
for name in ("report", "study_report", "evaluation_report"):
    assert page_renderer().loader.get_source(page_renderer(), f"{name}.html.j2")
assert (Path(tuner.__file__).parent / "templates" / "search_report.html.j2").exists()
assert read_thresholds("mnist", tuple("0123456789"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel is installed in, and the wheel's names."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, since setuptools packs what an earlier build has left in the checkout.
    source = folder / "source"
    others = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "reports", "saved_models", "tests")
    shutil.copytree(ROOT, source, ignore=others)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("kernorm-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site", zipfile.ZipFile(wheel).namelist()


def ran(installed, cwd, *words):
    environment = {**os.environ, "PYTHONPATH": str(installed[0]), "KERNORM_CACHE_DIR": str(cwd / "cache")}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_holds_the_packages_and_their_files_and_nothing_else(installed):
    _, names = installed
    paths = [*(ROOT / "kernorm").rglob("*"), *(ROOT / "tuner").rglob("*")]
    ours = {path.relative_to(ROOT).as_posix() for path in paths if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_every_command_shows_its_help(installed, tmp_path):
    for name in COMMANDS:
        assert "--quiet" in ran(installed, tmp_path, "-W", "error", "-m", "kernorm", name, "--help")


@pytest.mark.slow
def test_it_prepares_mnist_and_renders_reports(installed, tmp_path, whole_mnist):
    # What tensorflow-datasets wrote from the checkout's files is compared with the wheel's own, image by image.
    words = ("-m", "kernorm", "data", "mnist", "--data-dir", whole_mnist.parent / "tfds")
    assert "mnist 3.0.1: 60,000 training and 10,000 test images" in ran(installed, tmp_path, *words)
    origin = cache.origin(tmp_path / "cache" / "mnist-3.0.1.npz")
    assert Path(origin.manual_dir).is_relative_to(installed[0])
    assert origin.verified
    assert "4 of 4 runs to do" in ran(installed, tmp_path, "-m", "kernorm", "study", "smoke", "--dry-run")
    folder = tmp_path / "reports" / "runs" / "x"
    folder.mkdir(parents=True)
    write_record(make_record(run_id="x"), folder / "record.json")
    ran(installed, tmp_path, "-c", REPORT, installed[0])
    assert "<svg" in (folder / "report.html").read_text()
