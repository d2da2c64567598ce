"""What a reader of a study's report must know before believing its numbers.

Between the analysis and the study's report.
"""

from collections.abc import Iterable

from kernorm.records.record import REVISION
from kernorm.reporting.notices import EASIER, Notice, duplicates_notice, easier
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger
from kernorm.studies.metrics import METRICS
from kernorm.studies.report.looks import opening_notices, selection_notices
from kernorm.studies.report.rates import rate_notices
from kernorm.studies.report.rule import counted_as, look_notices, rule_notice, visible_notices
from kernorm.studies.sources import not_used, taken
from kernorm.studies.statements import format_lengths
from kernorm.studies.summary import ArmSummary, Claim, StudySummary, counted
from kernorm.studies.wording import LISTED, compared, failure_rate, listed, score

# What the claim that a penalty was on rests on.
_CHECKED = (
    "Checked in the loss of one batch before the first step, and again after the last epoch since records hold that; "
    "what it adds is measured on the weights at every epoch's end."
)


def cautions(study: Study, summary: StudySummary, ledger: Ledger, looks: int) -> list[Notice]:
    """Says what a reader must know before believing the numbers, most serious first.

    `looks` counts how often the report itself opened the test split, for its pictures.
    """
    found = [
        *_chosen(summary),
        *_claims(study, summary),
        *_shortened(study),
        *look_notices(summary),
        *_failures(summary),
        *_unpredicted(summary),
        *_exhausted(summary),
        *(() if summary.chosen else _spread(summary)),
        *selection_notices(summary),
        *rate_notices(study),
        *_unfinished(summary, ledger),
        *opening_notices(summary, looks),
        *_mixture(summary),
        *_sources(summary),
        *_side_by_side(summary),
        *visible_notices(summary),
        *_easier(summary),
        *(duplicates_notice(name, found) for name, found in summary.duplicates.items()),
        *(() if summary.chosen else [rule_notice(study, summary)]),
    ]
    order = ("bad", "warning", "good", "note")
    return sorted(found, key=lambda verdict: order.index(verdict.kind))


def _chosen(summary: StudySummary) -> Iterable[Notice]:
    if summary.chosen:
        text = (
            "The runs were there, and were picked when their results could be seen. Who picks among many finds "
            "differences that are chance, so there is no verdict and no p here. Intervals are 95 % each, not corrected "
            "for the number of arms. What they suggest is a question for new seeds: `python -m kernorm.study --vary …`."
        )
        yield Notice("warning", "Chosen afterwards", text)


def _claims(study: Study, summary: StudySummary) -> Iterable[Notice]:
    broken = {arm.name: broken_claims(arm) for arm in summary.arms if broken_claims(arm)}
    if broken:
        few = list(broken.items())[: 2 * LISTED]
        text = " ".join(f"`{name}`: {' '.join(claim.sentence for claim in claims)}" for name, claims in few)
        more = f" And {len(broken) - len(few)} more, see Penalties." if len(broken) > len(few) else ""
        title = f"{counted(len(broken), 'arm')} did not train what the publication states"
        yield Notice("bad", title, f"{text}{more} What was on is measured from the weights at every epoch.")
    elif kept := sum(bool(arm.claims) for arm in summary.arms):
        text = f"{counted(kept, 'arm')} with a penalty in the publication: the same λ was on. {_CHECKED}"
        yield Notice("good", "Every stated penalty was on", text)
    elif on := sum(bool(arm.penalties and any(map(any, arm.penalties))) for arm in summary.arms):
        yield Notice("good", "Every penalty was on", f"{counted(on, 'arm')} with a penalty. {_CHECKED}")
    if twins := [arm for arm in summary.arms if twin(study, arm)]:
        pairs = " ".join(f"`{arm.name}` has the settings of `{arm.baseline}` and other seeds." for arm in twins)
        yield Notice("warning", "The same recipe twice", f"{pairs} What differs between them is noise.")


def _shortened(study: Study) -> Iterable[Notice]:
    if study.shortened:
        text = f"Arms are trained for {format_lengths(study)}."
        if study.published:
            text += " What is published is of full length: these runs neither confirm nor refute it."
        yield Notice("warning", "A shortened study", text)


def _easier(summary: StudySummary) -> Iterable[Notice]:
    for name, gain in summary.test_gains.items():
        if name == "mnist" and gain > 0:
            yield Notice("note", EASIER, easier(gain))


def _unfinished(summary: StudySummary, ledger: Ledger) -> Iterable[Notice]:
    for state in ("diverged", "failed"):
        if arms := [arm for arm in summary.arms if arm.states[state]]:
            many = sum(arm.states[state] for arm in arms)
            told = [f"`{arm.name}`, {arm.troubles[0].rstrip('.')}." for arm in arms[:LISTED]]
            verdicts = counted_as(METRICS[summary.metric])
            text = f"{' '.join(told)} They are in no mean, and in verdicts they {verdicts}; see Runs."
            yield Notice("bad", f"{counted(many, 'run')} {state}", text)
    if summary.missing:
        total = sum(sum(arm.states.values()) for arm in summary.arms)
        yield Notice(
            "warning",
            "The study is not complete",
            f"{counted(summary.missing, 'run')} of {total} {'is' if summary.missing == 1 else 'are'} missing. "
            "Run the same command to add them; these numbers will change.",
        )
    if ledger.damaged:
        yield Notice(
            "warning",
            "Damaged records were set aside",
            f"{counted(len(ledger.damaged), 'line')} of records.jsonl could not be read and "
            f"{'is' if len(ledger.damaged) == 1 else 'are'} in records.damaged.jsonl.",
        )


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


def _side_by_side(summary: StudySummary) -> Iterable[Notice]:
    if many := summary.side_by_side:
        yield Notice(
            "note",
            "Times are shares",
            f"{many:,} of {counted(summary.finished, 'run')} trained side by side as one program. Their times are "
            "their share of what the program took, and CPU time leaves out what an accelerator did: compare them with "
            "each other, not with runs that train alone.",
        )


def _sources(summary: StudySummary) -> Iterable[Notice]:
    if old := [revision for revision in summary.revisions if revision < REVISION]:
        yield Notice(
            "warning",
            "Trained by an earlier revision of the training code",
            f"{counted(summary.finished, 'run')} of revision {old[0]}; today it is {REVISION}, which gives "
            "other results for the same settings."
            + ("" if summary.chosen else " The same command trains these runs again."),
        )
    elif text := not_used(summary.unusable):
        yield Notice("note", "Other results of these runs were not used", text)
    if text := taken(summary.taken):
        yield Notice("note", "Some runs are shared with other studies", text)


def _failures(summary: StudySummary) -> Iterable[Notice]:
    if arms := [arm for arm in summary.arms if arm.failures.collapsed]:
        text = " ".join(f"`{arm.name}` {failure_rate(arm)}." for arm in arms[:LISTED])
        title = f"{counted(len(arms), 'arm')} with collapsed runs"
        yield Notice(
            "bad",
            title,
            f"{text} Collapsed: a balanced accuracy of chance, or an accuracy below half of the arm's median.",
        )


def _unpredicted(summary: StudySummary) -> Iterable[Notice]:
    if arms := [arm for arm in summary.arms if arm.unpredicted]:
        text = " ".join(f"`{arm.name}`: {arm.unpredicted}." for arm in arms[:LISTED])
        more = f" And {len(arms) - LISTED} more." if len(arms) > LISTED else ""
        yield Notice("bad", f"{counted(len(arms), 'arm')} with classes that were never predicted", text + more)


def _exhausted(summary: StudySummary) -> Iterable[Notice]:
    if METRICS[summary.metric].mean_over is None:
        return
    if arms := [arm.name for arm in summary.arms if arm.exhausted and arm.decided and "images" in arm.decided.name]:
        text = f"In {listed(arms)} the choice of test images leaves more open than that of seeds."
        yield Notice("note", "More seeds cannot help, more images would", text)


def _spread(summary: StudySummary) -> Iterable[Notice]:
    told = []
    for arm in summary.arms:
        found = compared(arm, summary.metric)
        if found and found.spread and found.spread_seen is not None and found.spread > found.spread_seen:
            seen, taken = (score(sd, summary.metric) for sd in (found.spread_seen, found.spread))
            if seen != taken:  # in the digits that are shown
                told.append(f"`{arm.name}`: sd {seen}, taken as {taken}.")
    if told:
        more = f" And {len(told) - LISTED} more." if len(told) > LISTED else ""
        title = (
            f"{counted(len(told), 'difference')} that {'varies' if len(told) == 1 else 'vary'} less than chance does"
        )
        text = "The runs agree more than independent errors over the images would; verdicts take what chance implies."
        unit_of = " In percentage points." if METRICS[summary.metric].in_percent else ""
        yield Notice("note", title, f"{text} {' '.join(told[:LISTED])}{more}{unit_of}")


def broken_claims(arm: ArmSummary) -> list[Claim]:
    """Returns what a publication states of an arm's penalties and what was not so."""
    return [claim for claim in arm.claims if not claim.kept]


def twin(study: Study, arm: ArmSummary) -> bool:
    """Tells whether an arm and its baseline differ in their seeds alone."""
    if arm.baseline is None:
        return False
    mine, baseline = (config.identity | {"seed": 0} for config in (arm.config, study.arms[arm.baseline]))
    return mine == baseline
