"""The suite itself: the same surroundings however it is started, and nothing left of it when it ends."""

import sys
from pathlib import Path

from tests.processes import RUN

ROOT = Path(__file__).parents[1]
SEEN = """
import os, signal, subprocess, sys
import tests.conftest
print([signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGQUIT)] == [signal.SIG_DFL] * 2)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
print(oct(os.umask(0)), os.environ["KERAS_BACKEND"], os.environ["LANG"], os.environ["HOME"] == "/nowhere")
print({"LC_ALL", "TF_XLA_FLAGS", "KERNORM_CACHE_DIR", "COLUMNS", "PYTEST_ADDOPTS", "PY_COLORS"} & set(os.environ))
print(os.environ["TF_NUM_INTRAOP_THREADS"], flush=True)
subprocess.run([sys.executable, "-c", "import kernorm; print(kernorm.__file__)"], cwd="/", check=True)
"""
LEAVING = """
import subprocess
import tests.conftest

def test_leaves_a_process_behind():
    tests.conftest.GRACE = 0
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
"""
CRASHING = """
import os

def test_before(): pass
def test_crash(): os.abort()
def test_after(): pass
"""
SKIPPING = """
import pytest

def test_nowhere(): pytest.importorskip("no_such_package")
@pytest.mark.extra
def test_in_ci(): pytest.importorskip("no_such_package")
@pytest.mark.slow
def test_among_the_proofs(): pytest.importorskip("no_such_package")
def test_for_another_reason(): pytest.skip("not on a Sunday")
"""
# Of a child that runs tests as this suite does, in one process.
CHILD = ["env", "-u", RUN, "-u", "PYTEST_XDIST_WORKER", sys.executable, "-m", "pytest", "-n", "0"]
CHILD += ["-p", "tests.conftest", "-p", "no:cacheprovider", "-W", "ignore", "-c", "/dev/null"]


def test_signals_umask_home_and_variables_are_the_suites_own(start, tmp_path):
    """As a background job of a shell, or after nohup, in a user's own environment."""
    (tmp_path / "kernorm.py").write_text("")  # of another checkout
    shell = f'cd {ROOT}; trap "" INT HUP QUIT; umask 077; exec env -u {RUN} {sys.executable} -c "$0"'
    process = start(
        ["bash", "-c", shell, SEEN],
        PYTHONPATH=str(tmp_path),
        KERAS_BACKEND="torch",
        HOME="/nowhere",
        LC_ALL="C",
        TF_XLA_FLAGS="--tf_xla_auto_jit=2",
        TF_NUM_INTRAOP_THREADS="7",
        PYTEST_XDIST_WORKER_COUNT="1000",
        KERNORM_CACHE_DIR="/nowhere",
        COLUMNS="20",
        PYTEST_ADDOPTS="--maxfail=1",
        PY_COLORS="1",
    )
    told, error = process.communicate()
    assert process.returncode == 0, error
    assert told.splitlines()[:-1] == ["True", "True set()", "0o22 tensorflow C.UTF-8 False", "set()", "1"]
    assert told.splitlines()[-1] == str(ROOT / "kernorm" / "__init__.py")


def test_a_process_left_behind_fails_the_run_and_is_ended(start, tmp_path):
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    process = start([*CHILD, tmp_path])
    told, error = process.communicate()
    assert "1 passed" in told
    assert "left behind by a test: " in error
    assert "sleep 1000" in error
    assert process.returncode == 1


def test_what_a_missing_package_skips_is_run_by_ci_or_fails(start, tmp_path):
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    process = start([*CHILD, tmp_path])
    told, _ = process.communicate()
    assert "1 failed, 3 skipped" in told
    assert "No module named 'no_such_package'" in told
    assert "mark it as extra, so that CI runs it" in told
    assert process.returncode == 1


def test_a_test_process_that_crashes_ends_the_run_and_names_its_test(start, tmp_path):
    """As README's command is set up; pytest-xdist would begin another process, and may then wait for ever."""
    (tmp_path / "test_one.py").write_text(CRASHING)
    for name in ("two", "three"):
        (tmp_path / f"test_{name}.py").write_text("def test_nothing(): pass")
    words = ["-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path]
    process = start(["env", "-u", RUN, "-u", "PYTEST_XDIST_WORKER", sys.executable, *words, tmp_path])
    told, _ = process.communicate()
    assert process.returncode == 1
    assert "crashed while running 'test_one.py::test_crash'" in told
