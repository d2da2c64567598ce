"""Says which runs of a study came from other studies, and which were not taken."""

from collections.abc import Mapping

from kernorm.studies.summary import counted


def taken(counts: Mapping[str, int]) -> str:
    """Says how many runs were taken from which studies; nothing if none were."""
    if not counts:
        return ""
    total = sum(counts.values())
    named = ", ".join(f"{count:,} from {study}" for study, count in sorted(counts.items()))
    return f"{counted(total, 'run')} {'was' if total == 1 else 'were'} trained by other studies: {named}."


def not_used(counts: Mapping[str, int]) -> str:
    """Says how many runs have a result that today's code or data would not give; nothing if none has."""
    if not counts:
        return ""
    total = sum(counts.values())
    named = ", ".join(f"{count:,} of {reason}" for reason, count in sorted(counts.items()))
    return f"{counted(total, 'run')} {'has a result' if total == 1 else 'have results'} not used here: {named}."
