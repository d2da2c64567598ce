import signal
import threading

import pytest

from kernorm.system.interrupts import deferred, obey
from tests.builders import Deleted

BOTH = [signal.SIGINT, signal.SIGTERM]


def come(number):
    """Does what a signal does, without one, which would end the test process if its handler were the default."""
    signal.getsignal(number)(number, None)


@pytest.fixture
def heard():
    """Handlers of both signals that note their number and raise; the earlier ones are put back."""
    numbers = []

    def handler(number, frame):
        numbers.append(number)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, handler) for number in BOTH}
    yield numbers
    for number, earlier in before.items():
        signal.signal(number, earlier)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_waits_for_a_moment_at_which_it_can_be_obeyed(heard, number):
    handler = signal.getsignal(number)
    reached = []
    with pytest.raises(KeyboardInterrupt) as raised, deferred():  # noqa: PT012
        obey()
        come(number)
        reached.append("before")
        obey()
        reached.append("after")
    assert (heard, reached, raised.value.args) == ([number], ["before"], (number,))
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_obeyed_at_the_end_at_last(heard, number):
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred():  # noqa: PT012
        come(number)
        reached.append("end")
    assert (heard, reached) == ([number], ["end"])
    obey()  # nothing waits any longer
    with deferred():
        obey()


def test_a_second_signal_does_not_wait(heard):
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred():  # noqa: PT012
        come(signal.SIGINT)
        reached.append("first")
        come(signal.SIGTERM)
        reached.append("second")
    assert (heard, reached) == ([signal.SIGTERM], ["first"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_second_signal_that_is_lost_is_obeyed_later(heard):
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred():  # noqa: PT012
        come(signal.SIGINT)
        Deleted(signal.SIGTERM)
        reached.append("second")
        obey()
        reached.append("after")
    assert (heard, reached) == ([signal.SIGTERM, signal.SIGTERM], ["second"])
    obey()  # nothing waits any longer


def test_what_is_ignored_or_has_its_default_stays_so(heard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with deferred():
        assert [signal.getsignal(number) for number in BOTH] == [signal.SIG_IGN, signal.SIG_DFL]
    assert [signal.getsignal(number) for number in BOTH] == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_thread_leaves_signals_to_the_main_one(heard):
    handler, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with deferred():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [handler]
