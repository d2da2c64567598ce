"""Child processes that clean up: what they return, how they end. With a server: tests/serving/test_validation.py."""

import signal
import sys

import pytest

from kernorm.system.children import run_child

# A second signal comes during the cleaning up.
CLEANS_UP = """
import signal, sys
from kernorm.system.children import exit_when_ended
exit_when_ended()
try:
    signal.raise_signal(int(sys.argv[1]))
finally:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(number)
    print("cleaned up")
"""


def test_a_child_that_ends_by_itself_has_its_output():
    ended = run_child([sys.executable, "-c", "import sys; print('said'); print('told', file=sys.stderr); sys.exit(3)"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "said\n", "told\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_child_once_it_has_cleaned_up(number):
    ended = run_child([sys.executable, "-c", CLEANS_UP, str(int(number))])
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "cleaned up\n", "")
