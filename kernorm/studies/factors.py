"""The factors of a study whose arms are every combination of some settings' values, and their main effects.

Between verdicts and the summary. A main effect of a value is the mean over the arms that have it, less that over the
arms that have the factor's first value (Box, Hunter and Hunter 2005, chapter 5); combinations are as many for each.
"""

import json
import math
from collections.abc import Mapping

import numpy as np

from kernorm.stats.comparison import summarize
from kernorm.studies.definition import Study
from kernorm.studies.judged import Judged
from kernorm.studies.summary import Factor, Level


def varied_settings(study: Study) -> dict[str, dict[str, str]]:
    """Returns the settings that differ between arms: their values, as text, by arm.

    An arm's seed does not count, nor a rate that was found for it.
    """
    identities = {arm: config.identity for arm, config in study.arms.items()}
    first = next(iter(identities.values()))
    left = ("seed", "learning_rate") if study.rates else ("seed",)
    values = {
        name: {arm: _text(identity[name]) for arm, identity in identities.items()} for name in first if name not in left
    }
    return {name: by_arm for name, by_arm in values.items() if len(set(by_arm.values())) > 1}


def factors_of(study: Study, judged: Mapping[str, Judged]) -> tuple[Factor, ...]:
    """Returns the factors of a study; none if its arms are no product of two or more settings' values.

    A setting that is decided by another one, as the learning rate `auto` by the norm, is none of its own.

    Args:
        study: its arms.
        judged: values of the primary metric by arm and seed.
    """
    varied = varied_settings(study)
    follows: dict[str, list[str]] = {}
    for name, by_arm in varied.items():
        leader = next((other for other in follows if _decides(varied[other], by_arm)), None)
        if leader is None:
            follows[name] = []
        else:
            follows[leader].append(name)
    combined = {tuple(varied[name][arm] for name in follows) for arm in study.arms}
    product = math.prod(len(set(varied[name].values())) for name in follows)
    if len(follows) < 2 or not len(study.arms) == len(combined) == product:
        return ()
    seeds = sorted(set.intersection(*(set(one.values) for one in judged.values())))
    return tuple(
        Factor(name=name, levels=_levels(varied[name], judged, seeds), follows=tuple(others))
        for name, others in follows.items()
    )


def _levels(by_arm: Mapping[str, str], judged: Mapping[str, Judged], seeds: list[int]) -> tuple[Level, ...]:
    found: list[Level] = []
    means: dict[str, np.ndarray] = {}
    for value in dict.fromkeys(by_arm.values()):
        arms = tuple(arm for arm, mine in by_arm.items() if mine == value)
        means[value] = np.array([[judged[arm].values[seed] for seed in seeds] for arm in arms]).mean(axis=0)
        differences = means[value] - next(iter(means.values()))
        known = summarize(differences.tolist()) if seeds and found else None
        found.append(
            Level(
                value=value,
                arms=arms,
                mean=float(means[value].mean()) if seeds else None,
                effect=known.mean if known else None,
                interval=known.interval if known else None,
            )
        )
    return tuple(found)


def _decides(leader: Mapping[str, str], follower: Mapping[str, str]) -> bool:
    """Tells whether one setting's value gives the other's."""
    pairs = {(value, follower[arm]) for arm, value in leader.items()}
    return len(pairs) == len({value for value, _ in pairs})


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
