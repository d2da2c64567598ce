"""Searches λ's, batch sizes and norms with KerasTuner; loaded when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.config import SearchConfig
    from tuner.results import SearchResult, run_search

__all__ = ["SearchConfig", "SearchResult", "run_search"]

_MODULE_OF = {
    "SearchConfig": "tuner.config",
    "SearchResult": "tuner.results",
    "run_search": "tuner.results",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}; public are: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, those that are not loaded yet included."""
    return sorted(__all__)
