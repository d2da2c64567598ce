"""What the report of a study says in words: the answer, a sentence an arm, and what to know before believing them.

Between the analysis and the study's report.
"""

import math
from collections.abc import Iterable, Mapping

from kernorm.records.record import REVISION
from kernorm.reporting.run_report import Notice, duplicates_notice
from kernorm.stats.comparison import ALPHA
from kernorm.stats.intervals import Interval
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger
from kernorm.studies.summary import MARGIN, ArmSummary, Claim, StudySummary

# Names that a sentence lists before it only counts.
LISTED = 4
_ANSWERS = {
    "better": "Better than",
    "worse": "Worse than",
    "equivalent": "Equivalent to",
    "not resolved": "Not distinguishable from",
    "no verdict": "Not yet compared with",
}


def answers(summary: StudySummary) -> list[tuple[str, str, str]]:
    """Returns the study's answer on accuracy in a few lines: a verdict, what it says, the arms it says it of.

    What stands between backticks, here and below, is a name.
    """
    baselines = {arm.baseline for arm in summary.arms if arm.baseline}
    against = f"`{baselines.pop()}`" if len(baselines) == 1 else "their baselines"
    found = []
    told = {arm.name: arm.verdicts["accuracy"].name for arm in summary.arms if arm.scores and arm.verdicts}
    for name, words in _ANSWERS.items():
        if arms := [arm for arm, verdict in told.items() if verdict == name]:
            found.append((name, f"{words} {against}", listed(arms)))
    if unfinished := [arm.name for arm in summary.arms if not arm.scores]:
        found.append(("no verdict", "Without a finished run", listed(unfinished)))
    return found


def sentence(arm: ArmSummary) -> str:
    """Says in one sentence how an arm's accuracy compares with its baseline's."""
    parts = []
    comparison, verdict = arm.comparisons.get("accuracy"), arm.verdicts.get("accuracy")
    if comparison and verdict and arm.scores:
        if comparison.difference is not None and comparison.interval:
            low, high = map(points, comparison.interval)
            parts.append(f"{points(comparison.difference)} against `{arm.baseline}`, 95 % interval {low} to {high}")
        parts.append(verdict.sentence.removeprefix(verdict.name).lstrip(":, "))
    elif arm.scores:
        parts.append(f"mean of {_count(arm.scores['accuracy'].n, 'seed')}")
    if arm.states["finished"] < sum(arm.states.values()):
        parts.append(", ".join(f"{count} {state}" for state, count in arm.states.items() if count))
    return "; ".join(part for part in parts if part)


def points(share: float) -> str:
    """Returns a difference of shares in percentage points, with its sign."""
    return f"{signed(share)} pp"


def score(value: float | None, metric: str = "accuracy") -> str:
    """Returns a score as tables show it: accuracy in percent with two decimals, others with four."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2f}" if metric == "accuracy" else f"{value:.4f}"


def signed(value: float | None, metric: str = "accuracy") -> str:
    """Returns a difference with its sign, in the unit of `score`."""
    if value is None or not math.isfinite(value):
        return "–"
    text = score(abs(value), metric)
    return ("" if not float(text) else "+" if value > 0 else "−") + text


def half(interval: Interval | None, metric: str = "accuracy") -> str:
    """Returns what stands behind ±: half of an interval around a mean."""
    return f"± {score((interval[1] - interval[0]) / 2, metric)}" if interval else ""


def p_value(value: float | None) -> str:
    """Returns a p-value with two digits that count."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.0995 else f"{value:.2f}"


def listed(names: Iterable[str]) -> str:
    """Lists a few names, and counts the rest."""
    names = list(names)
    if len(names) <= LISTED + 1:
        return ", ".join(names)
    return ", ".join(names[:LISTED]) + f" and {len(names) - LISTED} more"


def broken_claims(arm: ArmSummary) -> list[Claim]:
    """Returns what a publication states of an arm's penalties and what was not so."""
    return [claim for claim in arm.claims if not claim.kept]


def twin(study: Study, arm: ArmSummary) -> bool:
    """Tells whether an arm and its baseline differ in their seeds alone."""
    if arm.baseline is None:
        return False
    mine, baseline = (config.identity | {"seed": 0} for config in (arm.config, study.arms[arm.baseline]))
    return mine == baseline


def cautions(study: Study, summary: StudySummary, ledger: Ledger, looks: int) -> list[Notice]:
    """Says what a reader must know before believing the numbers, most serious first.

    `looks` counts how often the report itself opened the test split, for its pictures.
    """
    found = [
        *_claims(study, summary),
        *_selection(summary),
        *_unfinished(summary, ledger),
        *_openings(summary, looks),
        *_mixture(summary),
        *_sources(summary),
        *(duplicates_notice(name, found) for name, found in summary.duplicates.items()),
        _rule(summary),
    ]
    order = ("bad", "warning", "good", "note")
    return sorted(found, key=lambda verdict: order.index(verdict.kind))


def _claims(study: Study, summary: StudySummary) -> Iterable[Notice]:
    broken = {arm.name: broken_claims(arm) for arm in summary.arms if broken_claims(arm)}
    if broken:
        few = list(broken.items())[: 2 * LISTED]
        text = " ".join(f"`{name}`: {' '.join(claim.sentence for claim in claims)}" for name, claims in few)
        more = f" And {len(broken) - len(few)} more, see Penalties." if len(broken) > len(few) else ""
        title = f"{_count(len(broken), 'arm')} did not train what the publication states"
        yield Notice("bad", title, f"{text}{more} What was on is measured from the weights at every epoch.")
    elif kept := sum(bool(arm.claims) for arm in summary.arms):
        text = f"{_count(kept, 'arm')} with a penalty in the publication: the same λ was on, measured from step 0 on."
        yield Notice("good", "Every stated penalty was on", text)
    elif on := sum(bool(arm.penalties and any(map(any, arm.penalties))) for arm in summary.arms):
        text = f"{_count(on, 'arm')} with a penalty: what it added to the loss is measured from step 0 on."
        yield Notice("good", "Every penalty is proven", text)
    if twins := [arm for arm in summary.arms if twin(study, arm)]:
        pairs = " ".join(f"`{arm.name}` has the settings of `{arm.baseline}` and other seeds." for arm in twins)
        yield Notice("warning", "The same recipe twice", f"{pairs} What differs between them is noise.")


def _selection(summary: StudySummary) -> Iterable[Notice]:
    by_test = [arm for arm in summary.arms if arm.config.select == "test"]
    if by_test:
        who = "Each" if len(by_test) == len(summary.arms) else f"In {listed(arm.name for arm in by_test)} each"
        looks = sorted({arm.config.epochs for arm in by_test})
        many = str(looks[0]) if len(looks) == 1 else f"{looks[0]} to {looks[-1]}"
        text = (
            f"{who} accuracy is the best of {many} looks at the test split, one an epoch, hence biased upward. "
            "Compare it only with results that were selected so too, as the published ones were."
        )
        yield Notice("warning", "The test split selected the weights", text)
    elif "validation" in summary.selections:
        text = "Each run kept its best epoch by validation accuracy; the test split was opened after that."
        yield Notice("good", "The validation split selected the weights", text)
    else:
        yield Notice("good", "No split selected the weights", "Each run kept its last epoch, as decided beforehand.")
    if "test" in summary.monitored and not by_test:
        yield Notice("warning", "The test split was watched during training", "Nobody should tune by its curves.")


def _unfinished(summary: StudySummary, ledger: Ledger) -> Iterable[Notice]:
    for state in ("diverged", "failed"):
        if arms := [arm for arm in summary.arms if arm.states[state]]:
            many = sum(arm.states[state] for arm in arms)
            told = [f"`{arm.name}`, {arm.troubles[0].rstrip('.')}." for arm in arms[:LISTED]]
            text = f"{' '.join(told)} They are in no mean; all are listed in Runs."
            yield Notice("bad", f"{_count(many, 'run')} {state}", text)
    if summary.missing:
        total = sum(sum(arm.states.values()) for arm in summary.arms)
        yield Notice(
            "warning",
            "The study is not complete",
            f"{_count(summary.missing, 'run')} of {total} {'is' if summary.missing == 1 else 'are'} missing. "
            "Run the same command to add them; these numbers will change.",
        )
    if ledger.damaged:
        yield Notice(
            "warning",
            "Damaged records were set aside",
            f"{_count(len(ledger.damaged), 'line')} of records.jsonl could not be read and "
            f"{'is' if len(ledger.damaged) == 1 else 'are'} in records.damaged.jsonl.",
        )


def _openings(summary: StudySummary, looks: int) -> Iterable[Notice]:
    pictures = f", and {'once' if looks == 1 else f'{looks} times'} for the pictures in this report" if looks else ""
    if not summary.openings:
        yield Notice("note", "The test split was not opened", "Its images are still unseen.")
        return
    once = summary.openings == summary.finished
    runs = (
        f"{_times(summary.openings).capitalize()} by {_count(summary.finished, 'finished run')}, once each, at its end"
    )
    runs = runs if once else f"{_times(summary.openings).capitalize()} by the runs"
    title = f"The test split was opened {_times(summary.openings + looks)}"
    yield Notice("good" if once else "warning", title, f"{runs}{pictures}.")


def _mixture(summary: StudySummary) -> Iterable[Notice]:
    mixed = {"Devices": summary.devices, "Commits": summary.commits}
    mixed |= {f"Versions of {package}": found for package, found in summary.versions.items()}
    told = [
        f"{name}: {', '.join(part[:12] if name == 'Commits' else part or 'none' for part in found)}."
        for name, found in mixed.items()
        if len(found) > 1
    ]
    if told:
        yield Notice("warning", "Not all runs were made the same way", " ".join(told))


def _sources(summary: StudySummary) -> Iterable[Notice]:
    if old := [revision for revision in summary.revisions if revision < REVISION]:
        yield Notice(
            "warning",
            "Trained by an earlier revision of the training code",
            f"{_count(summary.finished, 'run')} of revision {old[0]}; today it is {REVISION}, which gives "
            "other results for the same settings. The same command trains these runs again.",
        )
    elif text := not_used(summary.unusable):
        yield Notice("note", "Other results of these runs were not used", text)
    if text := taken(summary.taken):
        yield Notice("note", "Some runs are shared with other studies", text)


def taken(counts: Mapping[str, int]) -> str:
    """Says how many runs were taken from which studies; nothing if none were."""
    if not counts:
        return ""
    total = sum(counts.values())
    named = ", ".join(f"{count:,} from {study}" for study, count in sorted(counts.items()))
    return f"{_count(total, 'run')} {'was' if total == 1 else 'were'} trained by other studies: {named}."


def not_used(counts: Mapping[str, int]) -> str:
    """Says how many runs have a result that today's code or data would not give; nothing if none has."""
    if not counts:
        return ""
    total = sum(counts.values())
    named = ", ".join(f"{count:,} of {reason}" for reason, count in sorted(counts.items()))
    return f"{_count(total, 'run')} {'has a result' if total == 1 else 'have results'} not used here: {named}."


def _rule(summary: StudySummary) -> Notice:
    compared = sum(arm.baseline is not None for arm in summary.arms)
    if not compared:
        return Notice("note", "Nothing is compared", "The study has no arm but its baseline.")
    correction = f"Holm's correction over {_count(compared, 'arm')}"
    return Notice(
        "note",
        "How a verdict is found",
        f"Arms are paired with their baseline by seed. Better or worse: paired t-test, p ≤ {ALPHA:g} after "
        f"{correction}. Equivalent: within ±{100 * MARGIN:g} pp by two one-sided tests, corrected as well. "
        "Else not resolved, which is never evidence of no difference. Intervals hold 95 % each and are not "
        "corrected.",
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
