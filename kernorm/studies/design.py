"""How a study decides, fixed before its first run, and its looks at verdicts: design.json next to records.jsonl.

A number of seeds that is fixed beforehand allows one test of each arm. Whoever looks, adds seeds and tests again finds
differences that are not there. So every look at verdicts is kept here, and a study that was looked at with fewer seeds
is judged by tests that are valid however often one looks, as a study that runs `--until-resolved` is from the start.
"""

import datetime
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kernorm.errors import UsageError
from kernorm.records.schema import Schema, strict
from kernorm.stats.anytime import CAPS, MIXTURE, cap_constant
from kernorm.stats.comparison import ALPHA
from kernorm.studies.choices import AUTO
from kernorm.studies.definition import Study
from kernorm.studies.ledger import RECORDS, results_of
from kernorm.studies.metrics import METRICS

DESIGN = "design.json"
# Seeds of an arm under --until-resolved, where no other number is given.
MOST = 50
_SCHEMA = 1


@strict
@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the verdicts: when (ISO 8601, UTC), and how many runs of each arm had ended.

    `study` is the one whose verdicts were seen, where these runs were taken from another.
    """

    time: str
    seeds: dict[str, int]
    study: str = ""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The arms that one baseline has: those that are compared, and those `left_out` since their verdict was seen."""

    arms: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Returns how many share α."""
        return len(self.arms) + len(self.left_out)


@strict
@dataclass(frozen=True, kw_only=True)
class Design:
    """How a study decides.

    Attributes:
        metric: the primary one, which alone has verdicts.
        margin: what counts as no difference of it; None: the metric's own, as before margins were kept.
        targets: accuracies whose time is shown; they decide nothing, and may change.
        until_resolved: seeds are added round by round; else their number was fixed.
        cap: the most seeds of an arm, as it was declared; None: MOST.
        alpha: the chance of any wrong claim, over the arms with one baseline.
        mixture: weights of the e-process by τ (see `kernorm.stats.anytime`).
        looks: at verdicts, oldest first.
    """

    schema_version: int = _SCHEMA
    metric: str = "accuracy"
    margin: float | Literal["auto"] | None = None
    targets: tuple[float, ...] | Literal["auto"] = ()
    until_resolved: bool = False
    cap: int | None = None
    alpha: float = ALPHA
    mixture: dict[str, float] = field(default_factory=lambda: {f"{tau:g}": weight for tau, weight in MIXTURE.items()})
    looks: tuple[Look, ...] = ()

    @property
    def c(self) -> float:
        """What c/E is multiplied by: less than 1 where the most seeds were declared."""
        return cap_constant(self.cap) if self.until_resolved else 1.0

    @property
    def most(self) -> int:
        """The most seeds of an arm."""
        return self.cap or MOST

    def anytime(self, seeds: Mapping[str, int]) -> bool:
        """Tells whether verdicts with these seeds, by arm, need tests that are valid however often one looks."""
        return self.until_resolved or self.looked_before(seeds)

    def looked_before(self, seeds: Mapping[str, int]) -> bool:
        """Tells whether verdicts were seen with fewer seeds than these, by arm."""
        return any(2 <= count < seeds.get(arm, 0) for look in self.looks for arm, count in look.seeds.items())

    def families(self, study: Study) -> dict[str, "Family"]:
        """Returns the arms that share α, by their baseline.

        An arm of the study file that was left out (`--only`) after its verdict was seen still counts. Who drops arms by
        what they show, and corrects over those that are left, finds differences that are not there.
        """
        seen = {arm for look in self.looks for arm, count in look.seeds.items() if count >= 2}
        found: dict[str, Family] = {}
        for arm, base in study.baselines.items():
            if arm != base and base in study.arms and (arm in study.arms or arm in seen):
                family = found.setdefault(base, Family())
                (family.arms if arm in study.arms else family.left_out).append(arm)
        return {base: family for base, family in found.items() if family.arms}

    def looked(self, seeds: Mapping[str, int]) -> "Design":
        """Returns the design with one look more, if verdicts were not seen with just these seeds before."""
        if max(seeds.values(), default=0) < 2 or any(look.seeds == dict(seeds) for look in self.looks):
            return self
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return replace(self, looks=(*self.looks, Look(time=now, seeds=dict(seeds))))


_FILE = Schema("A design.json", Design, version=_SCHEMA, fix="Remove it; then the looks so far are forgotten.")


def read_design(folder: Path) -> Design | None:
    """Returns the design of the study in `folder`; None if it has none yet.

    Raises:
        UsageError: its file is damaged.
    """
    return _FILE.read(folder / DESIGN)


def write_design(design: Design, folder: Path) -> None:
    """Writes the design of the study in `folder`."""
    _FILE.write(design, folder / DESIGN)


def with_looks_of_others(
    design: Design, study: Study, held: Collection[str], taken: Collection[str], folder: Path
) -> Design:
    """Returns the design with the looks that other studies had at runs which this one is about to take.

    A look counts if it was at runs of an arm and of its baseline, one of which is taken. If the other study is of the
    same file, its arms that are left out here come with it.

    Args:
        design: of the study.
        study: its arms and baselines.
        held: ids of the runs that have ended, those that are taken included.
        taken: ids of these.
        folder: of the study; the others are next to it.
    """
    arms = {run.config.run_id: run.arm for run in study.runs() if run.config.run_id in held}
    for path in sorted(folder.parent.glob(f"*/{DESIGN}")) if taken else ():
        other = None if path.parent == folder else _readable(path.parent)
        if other is None or not (path.parent / RECORDS).exists():
            continue
        theirs = {one.run_id: one for one in results_of(path.parent / RECORDS, arms)}
        shared: dict[str, Counter[str]] = {}
        for name, result in theirs.items():
            shared.setdefault(arms[name], Counter())[result.arm] += 1
        taking = {arms[name] for name in theirs.keys() & taken}
        same_file = any(study.file == result.file != "" for result in theirs.values())
        left_out = study.baselines.keys() - study.arms.keys() if same_file else set()
        for look in other.looks:
            seen = {
                arm: min(count, look.seeds.get(name, 0))
                for arm, counts in shared.items()
                for name, count in counts.most_common(1)
            }
            pairs = [(arm, base) for arm, base in study.baselines.items() if arm != base]
            pairs = [pair for pair in pairs if {*pair} & taking and min(seen.get(arm, 0) for arm in pair) >= 2]
            if pairs:
                seeds = {arm: seen[arm] for arm in sorted({arm for pair in pairs for arm in pair})}
                seeds |= {arm: look.seeds[arm] for arm in sorted(left_out & look.seeds.keys())}
                found = Look(time=look.time, seeds=seeds, study=path.parent.name)
                design = design if found in design.looks else replace(design, looks=(*design.looks, found))
    return design


def _readable(folder: Path) -> Design | None:
    try:
        return read_design(folder)
    except UsageError:  # of another study, whose own command says so
        return None


def settled(kept: Design | None, asked: Design, *, begun: bool, train: bool) -> Design:
    """Returns the design of a study from the one that it has and the one that is asked for.

    Args:
        kept: what it began with; None if that is not known.
        asked: without looks.
        begun: whether it has results.
        train: whether runs are to be added; else the report alone is written.

    Raises:
        UsageError: what was fixed before the first run would change.
    """
    if not begun:
        return asked if train or kept is None else kept
    if kept is None:
        if asked.until_resolved and train:
            raise UsageError(
                "--until-resolved is decided before the first run.",
                "a study that was begun without it",
                "Give --name another name; its finished runs are taken.",
            )
        return asked
    if asked.metric not in (AUTO, kept.metric):
        raise UsageError(
            "A study keeps its primary metric.",
            f"{asked.metric}, and {kept.metric} when it was begun",
            "Give --name another name; its finished runs are taken.",
        )
    margin = METRICS[kept.metric].margin if kept.margin is None else kept.margin
    if asked.margin not in (AUTO, None, margin):
        raise UsageError(
            "A study keeps its margin.",
            f"{asked.margin:g}, and {'none' if margin is None else f'{margin:g}'} when it was begun",
            "Give --name another name; its finished runs are taken.",
        )
    kept = replace(kept, targets=asked.targets or kept.targets)
    if not train:
        return kept
    if asked.until_resolved != kept.until_resolved:
        now, then = ("--until-resolved" if one.until_resolved else "a fixed number of seeds" for one in (asked, kept))
        raise UsageError(
            "How a study ends is decided before its first run.",
            f"{now}, and {then} when it was begun",
            f"Give {'--until-resolved' if kept.until_resolved else 'none'}, or --name another name.",
        )
    if asked.cap != kept.cap and kept.c < 1:
        raise UsageError(
            f"A cap of {', '.join(map(str, CAPS))} seeds is kept, since the tests count on it.",
            f"--max-seeds {asked.cap or 'not given'}, and {kept.cap} when it was begun",
            f"Give --max-seeds {kept.cap}, or --name another name.",
        )
    if asked.cap != kept.cap and asked.c < 1:
        # The constant of a declared cap holds only if it was declared before the first run.
        raise UsageError(
            f"A cap of {', '.join(map(str, CAPS))} seeds is declared before the first run.",
            f"--max-seeds {asked.cap}, and {kept.cap or 'no cap'} when it was begun",
            f"Give another number, such as {(asked.cap or MOST) + 1}, which has no constant of its own.",
        )
    return replace(kept, cap=asked.cap)
