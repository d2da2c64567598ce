"""Compares normalizations, kernel penalties and batch sizes of small image classifiers, and serves the winner.

Everything public is here and is loaded when it is first used: `import kernorm` imports neither Keras nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernorm.api.compared import Compared, compare
    from kernorm.api.exported import Exported, load_exported
    from kernorm.api.model import PenaltyProof, add_penalties, build_model, prove_penalty, swap_norm
    from kernorm.api.run import Run, list_runs, load_run, train_model
    from kernorm.api.study import StudyResult, run_study
    from kernorm.config import TrainConfig
    from kernorm.errors import Refused, UsageError
    from kernorm.parallel.settings import EngineConfig
    from kernorm.recipes import recipe
    from kernorm.studies.published import Published, Statement

__all__ = [
    "Compared",
    "EngineConfig",
    "Exported",
    "PenaltyProof",
    "Published",
    "Refused",
    "Run",
    "Statement",
    "StudyResult",
    "TrainConfig",
    "UsageError",
    "add_penalties",
    "build_model",
    "compare",
    "list_runs",
    "load_exported",
    "load_run",
    "prove_penalty",
    "recipe",
    "run_study",
    "swap_norm",
    "train_model",
]

_HOME = {
    "kernorm.api.compared": ("Compared", "compare"),
    "kernorm.api.exported": ("Exported", "load_exported"),
    "kernorm.api.model": ("PenaltyProof", "add_penalties", "build_model", "prove_penalty", "swap_norm"),
    "kernorm.api.run": ("Run", "list_runs", "load_run", "train_model"),
    "kernorm.api.study": ("StudyResult", "run_study"),
    "kernorm.config": ("TrainConfig",),
    "kernorm.errors": ("Refused", "UsageError"),
    "kernorm.parallel.settings": ("EngineConfig",),
    "kernorm.recipes": ("recipe",),
    "kernorm.studies.published": ("Published", "Statement"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kernorm' has no attribute {name!r}; public are: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, those that are not loaded yet included."""
    return sorted(__all__)
