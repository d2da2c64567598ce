from datetime import UTC, datetime, timedelta

from kernorm.reporting.live import EVERY, SHARE, Live, LivePage


class Clock:
    """Seconds that pass as a test says."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_page_is_written_at_once_and_then_once_a_minute():
    clock, written = Clock(), []
    pages = LivePage(clock)
    for seconds in range(0, 200, 20):
        clock.now = 1000.0 + seconds
        pages.ended(written.append, seconds // 20, 36, left=600.0)
    assert [live.done for live in written] == [0, 3, 6, 9]
    assert EVERY == 60


def test_a_page_that_takes_long_is_written_less_often():
    clock, written = Clock(), []

    def write(live):
        clock.now += 12
        written.append(live.done)

    pages = LivePage(clock)
    for done in range(9):
        pages.ended(write, done, 36, left=1.0)
        clock.now += 40
    # 12 seconds are a twentieth of four minutes.
    assert SHARE * 12 == 240
    assert written == [0, 6]


def test_after_the_last_run_comes_the_complete_page():
    written = []
    LivePage().ended(written.append, 36, 36, left=0.0)
    assert written == []


def test_it_says_how_far_it_is_and_when_it_ends():
    written = []
    before = datetime.now(UTC)
    LivePage().ended(written.append, 14, 1036, left=3600.0, what="trials")
    (live,) = written
    assert live.text == "14 of 1,036 trials"
    assert before + timedelta(hours=1) <= live.ends <= datetime.now(UTC) + timedelta(hours=1)
    assert Live(1, 2).text == "1 of 2 runs"
