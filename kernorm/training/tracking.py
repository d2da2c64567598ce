"""What is known of a run's tracker before Keras is imported: whether it is installed, and of which study the run is."""

import importlib.util
from dataclasses import dataclass

from kernorm.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The study that trains a run first, the run's arm in it, and the study's question; they decide nothing of it."""

    study: str
    arm: str
    question: str = ""


def require_tracker(name: str) -> None:
    """Refuses a tracker that is not installed, before anything is trained.

    Raises:
        UsageError: its package is missing.
    """
    if name == "none":
        return
    # wandb leaves a folder of its own name where it is run, which Python takes for a package without origin.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UsageError(
            "--track needs its package.",
            f"--track {name}, which is not installed",
            f"pip install {name}, or remove --track.",
        )
