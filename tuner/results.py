"""A search for Python users: run it, and what it found."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from kernorm.api.display import Chart, page
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.recipes import recipe
from tuner.config import TRIAL, SearchConfig
from tuner.confirm import Confirmed
from tuner.plots import charts
from tuner.report import importances
from tuner.runner import find
from tuner.trials import Trial, Trials


class SearchResult:
    """A search that has ended.

    Attributes:
        config: its settings.
        folder: reports/searches/<name>.
        confirmed: the best trials on fresh seeds, and the export; see `tuner.confirm.Confirmed`.
    """

    def __init__(self, config: SearchConfig, trials: Trials, confirmed: Confirmed | None) -> None:
        self.config, self.folder, self._trials, self.confirmed = config, config.folder, trials, confirmed

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial, the best first: what was searched, its score (validation cross-entropy in nats), its cost."""
        done = self._trials.best()
        failed = [trial for trial in self._trials.ended if trial.score is None]
        rows = {trial.number + 1: _row(trial) for trial in (*done, *failed)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    @property
    def best(self) -> dict[str, Any]:
        """The settings of the trial that was confirmed best, or scored best without confirmation.

        Raises:
            UsageError: no trial completed.
        """
        if self.confirmed:
            return dict(self.confirmed.chosen.settings)
        raise UsageError("A search has a best trial.", f"{self.folder}, where none completed", "See its logs.")

    @property
    def report_path(self) -> Path:
        """The search's page, report.html."""
        return self.folder / "report.html"

    def plot(self, name: str = "progress") -> Chart:
        """Returns a chart of the search's report by name.

        Raises:
            UsageError: the search has no such chart.
        """
        space, done = self.config.space, self._trials.best()
        drawn = charts(space, self._trials.ended, importances(space, done))
        if name not in drawn:
            raise UsageError("A chart is one that the search has.", f"{name!r}", nearest(name, drawn))
        return Chart(drawn[name], self.config.name)

    def __repr__(self) -> str:
        return f"SearchResult({self._headline()})"

    def _repr_html_(self) -> str:
        return page(self._headline(), self.trials.head(10))

    def _headline(self) -> str:
        ended = self._trials.ended
        return f"{self.config.name}: {len(ended)} trials" + (f", best {self.best}" if self.confirmed else "")


def run_search(*, train: TrainConfig | None = None, **settings: Any) -> SearchResult:
    """Searches λ1, λ2, batch size and more, confirms the best on fresh seeds and exports it.

    Args:
        train: what is not searched; by default the default recipe, 4 epochs on 10,000 images.
        settings: fields of SearchConfig, such as l1="1e-6:1e-2", max_trials=30 or resume=True.

    Raises:
        UsageError: a setting is wrong, or a search of that name exists and `resume` is not set.
    """
    known = [field.name for field in fields(SearchConfig)]
    if unknown := next((name for name in settings if name not in known), None):
        raise UsageError("A setting is a field of SearchConfig.", f"{unknown!r}", nearest(unknown, known))
    config = SearchConfig(train=train or recipe(TrainConfig.recipe, **TRIAL), **settings)
    trials, confirmed = find(config)
    return SearchResult(config, trials, confirmed)


def _row(trial: Trial) -> dict[str, Any]:
    return {**trial.settings, "score": trial.score, "status": trial.status, "epochs": trial.epochs}
