import io
import itertools
import re

import pytest
from rich.console import Console

from kernorm.records.record import Epoch
from kernorm.reporting import progress
from kernorm.reporting.progress import RunProgress, StudyProgress, clock, describe, split_loss
from kernorm.system.processes import log_to_stderr

ROW = Epoch(
    epoch=2,
    loss=0.75,
    cross_entropy=0.5,
    l1_penalty=0.05,
    l2_penalty=0.2,
    accuracy=0.9,
    val_cross_entropy=0.4,
    val_accuracy=0.925,
    learning_rate=0.0123456,
    momentum=0.9,
    seconds=7.4,
)


@pytest.fixture
def make(monkeypatch):
    """Makes a progress that writes to text: a terminal of some width, or no terminal."""
    shown = io.StringIO()

    def made(width=None, kind=RunProgress, **settings):
        def console(**given):
            assert given.pop("stderr")
            terminal = {} if width is None else {"width": width, "force_terminal": True}
            return Console(file=shown, **{**given, **terminal})

        monkeypatch.setattr(progress, "Console", console)
        log_to_stderr()  # as commands do: without a terminal, lines are messages of the log
        monkeypatch.setattr("sys.stderr", shown)
        sizes = {"epochs": 4, "steps_per_epoch": 10} if kind is RunProgress else {}
        return kind(**{**sizes, "done": 0, **settings}), shown

    return made


def test_the_loss_is_split_into_its_parts():
    assert split_loss(0.75, 0.5) == "loss 0.7500 = cross-entropy 0.5000 + penalties 0.2500"
    # The mean of sums may round below the sum of means.
    assert split_loss(0.49999, 0.5).endswith("penalties 0.0000")


def test_a_line_says_what_an_epoch_gave():
    assert describe(ROW, 8, "validation") == (
        "epoch 2/8  loss 0.7500 = cross-entropy 0.5000 + penalties 0.2500 (l1 0.0500, l2 0.2000)  accuracy 90.00 %"
        "  validation: cross-entropy 0.4000, accuracy 92.50 %  lr 0.01235  7 s"
    )


def test_without_a_terminal_there_are_lines_alone(make, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    run, shown = make()
    with run:
        run.line("[bold] begins")
        for step in range(10):
            run.step(0, step, "values")
        run.epoch(ROW, "validation")
    lines = shown.getvalue().splitlines()
    assert lines[0] == "[bold] begins"
    assert lines[1].startswith(describe(ROW, 4, "validation"))
    assert len(lines) == 2
    assert "\x1b" not in shown.getvalue()


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_terminal_shows_a_bar_and_keeps_the_lines_whole(make, width):
    run, shown = make(width)
    with run:
        run.step(1, 4, "loss 0.5 = cross-entropy 0.4 + penalties 0.1  accuracy 90.00 %  lr 0.1")
        run.bar.refresh()
        run.line("a line that is longer than twenty columns")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    assert "a line that is longer than twenty columns\n" in text
    assert "\x1b[?25h" in shown.getvalue()  # the cursor is back
    if width >= 80:
        assert re.search(r"epoch 2/4 \S{16} 15/40 \d:\d\d:\d\d ETA -:--:-- loss 0.5 = cross-e", text)


def test_the_time_left_is_that_of_the_epochs_of_this_process(make, monkeypatch):
    run, shown = make(epochs=10, done=4)
    clock = itertools.chain([run.begun + 60.0, run.begun + 120.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    # Two epochs after the four that an earlier process trained took 60 s; four are left.
    assert run._remaining(6) == "  ETA 2:00"
    assert run._remaining(10) == ""
    assert shown.getvalue() == ""


def test_a_study_counts_its_runs_and_tells_the_time_left(make, monkeypatch):
    runs, shown = make(kind=StudyProgress, total=10, done=2, slots=2)
    times = itertools.chain([runs.begun + 100.0, runs.begun + 100.0 * 8 / 1.5])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with runs:
        # One run ended and two are half done: two runs' work in 100 s. Six runs' work is left.
        runs.ended("ln seed 0: 99.20 %")
        runs.done = 9
        runs.ended("ln seed 4: 99.30 %")
    assert shown.getvalue().splitlines() == ["3/10  ln seed 0: 99.20 %  ETA 5:00", "10/10  ln seed 4: 99.30 %"]


def test_a_clock_counts_hours_when_there_are_any():
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3600, 36_061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]
