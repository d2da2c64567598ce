"""What the report of a study says of looks at the test split: what they chose, and how many there were."""

from collections.abc import Iterator

from kernorm.reporting.notices import Notice
from kernorm.studies.summary import StudySummary, counted
from kernorm.studies.wording import listed


def selection_notices(summary: StudySummary) -> Iterator[Notice]:
    """Says which split chose the weights, and whether the test split was watched."""
    by_test = [arm for arm in summary.arms if arm.config.select == "test"]
    if by_test:
        who = "Each" if len(by_test) == len(summary.arms) else f"In {listed(arm.name for arm in by_test)} each"
        looks = sorted({arm.config.epochs for arm in by_test})
        many = str(looks[0]) if len(looks) == 1 else f"{looks[0]} to {looks[-1]}"
        text = (
            f"{who} accuracy is the best of {many} looks at the test split, one an epoch, hence biased upward. "
            "Compare it only with results that were selected so too, as the published ones were."
        )
        text += "" if summary.chosen else " Verdicts are on the last epoch."
        yield Notice("warning", "The test split selected the weights", text)
    elif "validation" in summary.selections:
        text = "Each run kept its best epoch by validation accuracy; the test split was opened after that."
        yield Notice("good", "The validation split selected the weights", text)
    else:
        yield Notice("good", "No split selected the weights", "Each run kept its last epoch, as decided beforehand.")
    if "test" in summary.monitored and not by_test:
        yield Notice("warning", "The test split was watched during training", "Nobody should tune by its curves.")


def opening_notices(summary: StudySummary, looks: int) -> Iterator[Notice]:
    """Says how often the test split was opened, `looks` of these by the report itself."""
    pictures = f", and {'once' if looks == 1 else f'{looks} times'} for the pictures in this report" if looks else ""
    if not summary.openings:
        yield Notice("note", "The test split was not opened", "Its images are still unseen.")
        return
    once = summary.openings == summary.finished
    runs = (
        f"{_times(summary.openings).capitalize()} by {counted(summary.finished, 'finished run')}, once each, at its end"
    )
    runs = runs if once else f"{_times(summary.openings).capitalize()} by the runs"
    title = f"The test split was opened {_times(summary.openings + looks)}"
    when = ""
    if "test" in summary.selections:
        when = " A run that selects by it opens it for every epoch, and at its end for the last and the best weights."
        when += " An epoch that was interrupted opens it again."
    yield Notice("good" if once else "warning", title, f"{runs}{pictures}.{when}")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
