"""How often verdicts are wrong, by whole studies whose truth is known: `python -m tests.benchmarks.verdicts`.

A study's runs are fabricated as records: of 10,000 test images 4 % are hard, each with a chance of its own to be wrong,
Beta(0.15, 0.85), so that runs of one recipe have 99.4 % with an sd of 0.05 points. Two recipes of the same true
accuracy find different images hard: for each arm a share of them draws new chances, so that differences of true means
on these images have an sd of `interaction`, in points; the committed studies show 0 to 0.037. An arm may be better by
`better` points. Each study goes the way of a real one: records, results, analysis, verdicts, and round by round under
--until-resolved.

With `metric` balanced_accuracy the test split is one of own images, SIZES of six classes, the rarer ones harder; each
image has a chance of its own to be wrong, Beta with the mean HARDNESS of its class and the shape SPREAD, which gives
runs of 84.9 % balanced accuracy. For an arm a share of the images of every class draws new chances, so that recipes of
equal true recalls find different images hard; a better one has the same points in every class.

Prints a row a setting: how many studies made any false claim (better or worse where recipes are equal, in all or on new
images; or the wrong side), the share with its 95 % interval, how many were right, and how many runs they took. With
--saved, how many runs --until-resolved saves against the fixed number of seeds that gets as many arms right.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.records.record import Evaluation, Mistake, Record
from kernorm.stats import comparison, new_images
from kernorm.stats.intervals import clopper_pearson
from kernorm.studies import verdicts
from kernorm.studies.definition import Study
from kernorm.studies.design import Design
from kernorm.studies.judged import Judged, ended_runs
from kernorm.studies.ledger import Result
from kernorm.studies.primary import resolved
from kernorm.studies.rounds import is_closed, next_round, with_counts
from kernorm.studies.verdicts import decide
from tests.benchmarks.tables import write
from tests.builders import a_study, make_record

T = TypeVar("T")
COUNT, HARD = 10_000, 400
# Test images of each class, its mean share of wrong images, and α + β of the Beta distribution of their chances.
SIZES, HARDNESS, SPREAD = (400, 240, 160, 100, 60, 40), (0.08, 0.10, 0.12, 0.16, 0.20, 0.25), 0.8
SHAPE = (0.15, 0.85)
# Variance of a chance to be wrong, and the share of them that is drawn anew for an interaction.
_VARIANCE = 0.15 * 0.85 / 2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Arms besides the baseline, seeds of each (None: until resolved), points of interaction and of difference.

    `mixed` gives arms differences of their own, in turn, in place of `better`. `redrawn` is the share of images that
    draw new chances, where the metric is the balanced accuracy.
    """

    arms: int
    seeds: int | None
    interaction: float
    better: float = 0.0
    cap: int | None = None
    mixed: tuple[float, ...] = ()
    metric: str = "accuracy"
    redrawn: float = 0.0

    def better_of(self, number: int) -> float:
        """Returns by how many points an arm is better, arms counted from 0."""
        return self.mixed[number % len(self.mixed)] if self.mixed else self.better

    @property
    def sizes(self) -> tuple[int, ...]:
        """Test images of each class."""
        return (COUNT // 10,) * 10 if self.metric == "accuracy" else SIZES


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The verdicts of one simulated study by arm, and the runs that it took."""

    verdicts: dict[str, str]
    runs: int


class UnevenWorld:
    """As World, of a test split whose classes are uneven."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.classes = np.repeat(np.arange(len(SIZES)), SIZES)
        hard = np.array(HARDNESS)[self.classes]
        base = self.drawn(hard)
        self.chances = {"base": base}
        for number in range(setting.arms):
            other = self.generator.random(len(base)) < setting.redrawn
            mine = np.where(other, self.drawn(hard), base)
            mine = mine * (1 - setting.better_of(number) / 100 / hard)
            self.chances[f"arm {number + 1}"] = mine

    def drawn(self, hard: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draws a chance to be wrong of every image."""
        return self.generator.beta(SPREAD * hard, SPREAD * (1 - hard))

    def test(self, template: Record, arm: str) -> Evaluation:
        """Returns the scores of one more run of an arm."""
        wrong = self.generator.random(len(self.classes)) < self.chances[arm]
        taken = np.where(wrong, (self.classes + 1) % len(SIZES), self.classes)
        confusion = np.bincount(self.classes * len(SIZES) + taken, minlength=len(SIZES) ** 2)
        mistakes = tuple(
            Mistake(index=int(image), target=int(self.classes[image]), prediction=int(taken[image]), confidence=0.9)
            for image in np.flatnonzero(wrong)
        )
        assert template.test is not None
        return replace(
            template.test,
            count=len(wrong),
            errors=int(wrong.sum()),
            accuracy=float(1 - wrong.mean()),
            confusion=tuple(map(tuple, confusion.reshape(len(SIZES), -1).tolist())),
            mistakes=mistakes,
        )


def redrawn(interaction: float) -> float:
    """Returns the share of hard images that draw new chances, for an sd of the true difference in points."""
    return (interaction / 100 * COUNT) ** 2 / (2 * HARD * _VARIANCE)


class World:
    """A test split and recipes whose truth is known; gives the wrong images of any run."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        base = self.generator.beta(*SHAPE, HARD)
        self.chances = {"base": base}
        for number in range(setting.arms):
            mine = base.copy()
            other = self.generator.random(HARD) < redrawn(setting.interaction)
            mine[other] = self.generator.beta(*SHAPE, int(other.sum()))
            # Fewer images wrong, in expectation over all images.
            mine *= 1 - setting.better_of(number) / 100 * COUNT / (HARD * SHAPE[0])
            self.chances[f"arm {number + 1}"] = mine

    def wrong(self, arm: str) -> list[int]:
        """Returns the images that one more run of an arm has wrong."""
        return np.flatnonzero(self.generator.random(HARD) < self.chances[arm]).tolist()

    def test(self, template: Record, arm: str) -> Evaluation:
        """Returns the scores of one more run of an arm."""
        return evaluation(template, self.wrong(arm))


def study_of_setting(setting: Setting, seeds: int) -> Study:
    """Returns a study with as many arms as a setting has."""
    names = ["base", *(f"arm {number + 1}" for number in range(setting.arms))]
    return a_study({name: TrainConfig(seed=1000 * place) for place, name in enumerate(names)}, seeds=seeds)


def evaluation(template: Record, wrong: list[int]) -> Evaluation:
    """Returns the scores of a run with these images wrong."""
    test, accuracy = template.test, 1 - len(wrong) / COUNT
    assert test is not None
    mistakes = tuple(Mistake(index=image, target=0, prediction=1, confidence=0.9) for image in wrong)
    return replace(test, errors=len(wrong), accuracy=accuracy, mistakes=mistakes)


def simulate(setting: Setting, seed: int, template: Record) -> Outcome:
    """Runs one study of a setting to its end."""
    world: World | UnevenWorld = (World if setting.metric == "accuracy" else UnevenWorld)(setting, seed)
    results: dict[str, Result] = {}
    begun = resolved(Design(metric=setting.metric, margin="auto", cap=setting.cap), [setting.sizes])

    def run(study: Study) -> None:
        for arm, number in ((arm, one) for one in study.seeds for arm in study.arms if one in study.seeds_of(arm)):
            name = f"{arm}-{number}"
            if name not in results:
                record = replace(template, run_id=name, config=study.arms[arm], test=world.test(template, arm))
                results[name] = Result(arm=arm, seed=number, run_id=name, status="finished", record=record)

    def by_arm(study: Study) -> dict[str, dict[int, Result]]:
        found: dict[str, dict[int, Result]] = {arm: {} for arm in study.arms}
        for result in results.values():
            found[result.arm][result.seed] = result
        return found

    if setting.seeds is not None:
        study, design = study_of_setting(setting, setting.seeds), begun
        run(study)
        decisions = decide(study, design, by_arm(study))
    else:
        study, design = study_of_setting(setting, 1), replace(begun, until_resolved=True)
        decisions, going = {}, [arm for arm in study.arms if arm != "base"]
        while counts := next_round(study, design, going, ended_runs(by_arm(study)) if results else {}):
            study = with_counts(study, counts)
            run(study)
            decisions = decide(study, design, by_arm(study))
            going = [arm for arm, one in decisions.items() if not is_closed(one.verdict, one.exhausted)]
    return Outcome(verdicts={arm: one.verdict.name for arm, one in decisions.items()}, runs=len(results))


def judge(setting: Setting, outcome: Outcome) -> tuple[bool, float]:
    """Returns whether a study made any false claim, and the share of its arms that it got right.

    Equal recipes are rightly equivalent, better ones better; a claim about these images alone is not one about recipes.
    """
    false, right = False, 0
    for number, name in enumerate(outcome.verdicts.values()):
        better = setting.better_of(number)
        false = false or name in ({"worse", "equivalent"} if better else {"better", "worse"})
        right += name == ("better" if better else "equivalent")
    return false, right / len(outcome.verdicts)


def template_record() -> Record:
    """Returns what all simulated records share."""
    return make_record(count=COUNT, errors=60, epochs=2)


def settings() -> Iterator[Setting]:
    """Yields the settings of the table."""
    for interaction in (0.02, 0.03):
        for arms in (1, 4, 11):
            for fixed in (5, 20, 50):
                yield Setting(arms=arms, seeds=fixed, interaction=interaction)
            yield Setting(arms=arms, seeds=None, interaction=interaction)
            yield Setting(arms=arms, seeds=None, interaction=interaction, cap=50)
    for seeds in (5, 20, None):
        yield Setting(arms=1, seeds=seeds, interaction=0.02, better=0.10)
    uneven = Setting(arms=1, seeds=None, interaction=0.0, metric="balanced_accuracy")
    for share in (0.0, 0.3):
        for arms in (1, 4):
            for many in (5, 20, 50, None):
                yield replace(uneven, arms=arms, seeds=many, redrawn=share)
    for few in (5, 20, None):
        yield replace(uneven, seeds=few, redrawn=0.3, better=4.0)


# What arms may truly be better by, in points, and the fixed numbers of seeds that --saved compares with.
MIXED = (0.0, 0.05, 0.10, 0.20)
FIXED = (3, 5, 8, 12, 16, 20, 25, 30, 40, 50)


def against_fixed(curve: NDArray[np.float64], right: NDArray[np.float64], arms: int) -> float:
    """Returns the runs of the fixed design that gets as many arms right.

    `curve` holds, by study and by number of seeds in FIXED, the share of arms that a fixed design got right; `right`
    what --until-resolved got right, by study.
    """
    reached, share = np.maximum.accumulate(curve.mean(axis=0)), right.mean()
    # The fewest seeds of which the share is as high, but for what one study of a hundred changes.
    first = int(np.argmax(reached >= min(share, reached[-1]) - 0.01))
    ends = slice(max(0, first - 1), first + 1)
    return float(np.interp(share - 0.01, reached[ends], FIXED[ends])) * (arms + 1)


def saved(studies: int, template: Record, arms_asked: list[int] | None, *, floor: bool) -> Iterator[dict[str, object]]:
    """Yields how many runs --until-resolved takes against the fixed design of the same share of right verdicts.

    The interval is of 95 %, by bootstrap over studies.
    """
    for arms, mixed in ((1, (0.0,)), (1, (0.05,)), (1, (0.10,)), (1, (0.20,)), (4, MIXED), (4, (0.0,)), (11, MIXED)):
        if arms not in (arms_asked or [arms]):
            continue
        plain = Setting(arms=arms, seeds=None, interaction=0.0, mixed=mixed)
        designs = [replace(plain, seeds=seeds) for seeds in FIXED]
        curve = np.array([[judge(one, simulate(one, seed, template))[1] for one in designs] for seed in range(studies)])
        for cap in (None, 50):
            setting = replace(plain, cap=cap)
            outcomes = [simulate(setting, seed, template) for seed in range(studies)]
            right = np.array([judge(setting, outcome)[1] for outcome in outcomes])
            runs = np.array([outcome.runs for outcome in outcomes], float)
            drawn = np.random.default_rng(0).integers(studies, size=(2000, studies))
            changes = [100 * (runs[one].mean() / against_fixed(curve[one], right[one], arms) - 1) for one in drawn]
            fixed_runs = against_fixed(curve, right, arms)
            low, high = np.quantile(changes, (0.025, 0.975))
            yield {
                "arms": arms,
                "better": " ".join(map(str, mixed)),
                "floor": "image by image" if floor else "rounding",
                "cap": cap or "none",
                "studies": studies,
                "right": round(float(right.mean()), 3),
                "runs": round(float(runs.mean()), 1),
                "fixed": round(fixed_runs, 1),
                "change, %": round(100 * (float(runs.mean()) / fixed_runs - 1)),
                "low": round(float(low)),
                "high": round(float(high)),
            }


def rates(studies: int, template: Record, settings: Iterable[Setting]) -> Iterator[dict[str, object]]:
    """Yields how often verdicts are wrong and right in each setting."""
    for setting in settings:
        outcomes = [simulate(setting, seed, template) for seed in range(studies)]
        judged = [judge(setting, outcome) for outcome in outcomes]
        wrong = sum(false for false, _ in judged)
        low, high = clopper_pearson(wrong, len(judged))
        yield {
            "metric": setting.metric,
            "arms": setting.arms,
            "seeds": setting.seeds or (f"until resolved, cap {setting.cap}" if setting.cap else "until resolved"),
            "interaction": setting.interaction,
            "redrawn": setting.redrawn,
            "better": setting.better,
            "studies": len(judged),
            "false": wrong,
            "rate": round(wrong / len(judged), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "right": round(float(np.mean([share for _, share in judged])), 3),
            "runs": round(float(np.mean([outcome.runs for outcome in outcomes])), 1),
        }


def remembered(test: Callable[..., T]) -> Callable[..., T]:
    """Returns the test of an arm, done once for the same runs."""
    known: dict[object, T] = {}

    def tested(mine: Judged, base: Judged, *args: object, **settings: object) -> T:
        pairs = tuple((mine.values[seed], base.values[seed]) for seed in mine.values if seed in base.values)
        key = (pairs, *settings.values())
        if key not in known:
            if len(known) > 100:
                known.clear()
            known[key] = test(mine, base, *args, **settings)
        return known[key]

    return tested


def main() -> int:
    """Prints the table, and writes it if --out is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--arms", type=int, nargs="+", help="only settings of so many arms")
    parser.add_argument("--interaction", type=float, nargs="+", help="only settings of such an interaction, in points")
    parser.add_argument("--metric", help="only settings of this metric")
    parser.add_argument("--saved", action="store_true")
    parser.add_argument("--no-floor", action="store_true", help="with --saved: no variance implied by the images")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    template = template_record()
    # No verdict looks at these two, and an arm that is closed is tested again in every round.
    comparison.bootstrap_interval = lambda *_: (0.0, 0.0)
    verdicts.confidence_sequence = lambda *_, **__: None
    verdicts._test_anytime = remembered(verdicts._test_anytime)
    if asked.no_floor:
        new_images.chance_variance = lambda *_: 0.0
        new_images.chance_variances = lambda wrong, *_: (0.0,) * len(wrong)
    chosen = (
        setting
        for setting in settings()
        if setting.arms in (asked.arms or [setting.arms])
        and setting.interaction in (asked.interaction or [setting.interaction])
        and setting.metric == (asked.metric or setting.metric)
    )
    found = (
        saved(asked.studies, template, asked.arms, floor=not asked.no_floor)
        if asked.saved
        else rates(asked.studies, template, chosen)
    )
    rows = []
    for row in found:
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
        if asked.out:
            write(rows, asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
