"""The report of a search: report.html, which opens offline, its charts as PNG files, and the files TFX's Tuner writes.

Every number shown is in trials.jsonl or in the studies of its confirmation.
"""

import importlib.util
import json
import shlex
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from kernorm.limits import Range
from kernorm.reporting.command import flag_words, recipe_words, with_kept_net
from kernorm.reporting.figures import to_png
from kernorm.reporting.live import Live
from kernorm.reporting.page import drawn, page_data, page_renderer
from kernorm.studies.metrics import METRICS
from kernorm.studies.summary import ArmSummary
from kernorm.studies.wording import compared, decided_interval, half, score, signed, unit
from kernorm.system.files import write_atomically, write_json
from tuner.config import SearchConfig, first_of_trials, training_settings
from tuner.confirm import Confirmed, baseline_in_words
from tuner.plots import LABELS, charts, norms_of
from tuner.space import Space, declare
from tuner.trials import Trial, Trials

SHOWN = 15
# Fields that are written otherwise, or say what a command does and where.
_NOT_SHOWN = {
    *("name", "oracle", "train", "engine", "resume", "overwrite", "dry_run", "report_only"),
    *("reports_dir", "saved_models_dir"),
}


@lru_cache(maxsize=1)
def _renderer() -> Environment:
    """Returns what renders a search's page: its template, and those of all reports."""
    loader = ChoiceLoader([PackageLoader("tuner"), PackageLoader("kernorm.reporting")])
    renderer = page_renderer().overlay(loader=loader)
    renderer.filters |= {"score": score, "signed": signed, "half": half}
    return renderer


def write_search_report(
    config: SearchConfig, trials: Trials, confirmed: Confirmed, *, live: Live | None = None
) -> Path:
    """Writes the report, best_hyperparameters.txt and tuner_results.json into the search's folder, each atomically.

    While trials are under way (`live`), the page alone.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    folder, best = config.folder, trials.best()
    if not live:
        _write_for_tfx(config, confirmed, best)
    importance = importances(config.space, best)
    groups = charts(config.space, trials.ended, importance)
    for name, group in groups.items() if not live else ():
        write_atomically(folder / f"{name}.png", to_png(group, f"{config.name}, {len(trials.ended)} trials"))
    shown = drawn(panel for group in groups.values() for panel in group)
    page = (
        _renderer()
        .get_template("search_report.html.j2")
        .render(
            config=config,
            live=live,
            labels=LABELS,
            command=command(config, trials.ended),
            trials=trials.ended,
            best=best,
            shown=best[:SHOWN],
            failed=[trial for trial in trials.ended if trial.score is None],
            confirmed=confirmed,
            arms=_arms(confirmed),
            against=baseline_in_words(config, confirmed.study),
            final={arm.name: arm for arm in confirmed.final.arms} if confirmed.final else {},
            metrics=METRICS,
            decided_interval=decided_interval,
            compared=compared,
            unit=unit,
            panels=shown.panels,
            svgs=shown.svgs,
            data=page_data(arms=norms_of(config.space), charts=shown),
            drawn={name: [panel.name for panel in group] for name, group in groups.items()},
            importance=importance,
            cpu_seconds=sum(repeat.cpu_seconds for trial in trials.ended for repeat in trial.repeats),
            epochs=sum(trial.new_epochs for trial in trials.ended),
            seconds=max(trial.ended for trial in trials.ended),
        )
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _write_for_tfx(config: SearchConfig, confirmed: Confirmed, best: Sequence[Trial]) -> None:
    """Writes what TFX's Tuner writes."""
    hp = declare(config.space, grid=config.oracle == "grid")
    hp.values = dict(confirmed.chosen.values)
    write_atomically(config.folder / "best_hyperparameters.txt", json.dumps(hp.get_config()).encode())
    rows = [{"trial_id": trial.trial_id, "score": trial.score, **trial.values} for trial in best]
    write_json(config.folder / "tuner_results.json", rows)


def importances(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """Returns the importance of each searched setting by Optuna's PED-ANOVA; empty without Optuna or ten trials.

    Watanabe, Bansal and Hutter 2023, arXiv:2304.10255. A penalty that is off counts as a decade below its range.
    """
    if not importlib.util.find_spec("optuna") or len(trials) < 10:
        return {}
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, BaseDistribution] = {}
    for name, _ in space.described():
        found = getattr(space, name)
        if isinstance(found, Range):
            distributions[name] = FloatDistribution(found.low / 10, found.high, log=True)
        elif name != "groups":
            distributions[name] = CategoricalDistribution(found)
    study = optuna.create_study()
    for trial in trials:
        params: dict[str, Any] = {name: trial.settings[name] for name in distributions}
        for name in ("l1", "l2"):
            if name in params and not params[name]:
                params[name] = getattr(space, name).low / 10
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.score))
    return dict(optuna.importance.get_param_importances(study))


def command(config: SearchConfig, trials: Sequence[Trial] = ()) -> str:
    """Returns a command line that begins this search: every flag that differs from the defaults.

    An own net is named by the file that the runs of the `trials` keep.
    """
    words = ["python", "-m", "tuner.search", "--name", config.name, "--oracle", config.oracle]
    first = SearchConfig()
    for field in fields(SearchConfig):
        value = getattr(config, field.name)
        if field.name not in _NOT_SHOWN and value != getattr(first, field.name):
            words += flag_words(field.name, value)
    runs = [repeat.run_id for trial in trials for repeat in trial.repeats]
    train = with_kept_net(config.train, config.folder, runs[0] if runs else "RUN")
    base = first_of_trials(config.train)
    words += recipe_words(train)
    for name in training_settings():
        if (value := getattr(train, name)) != getattr(base, name):
            words += flag_words(name, value)
    return shlex.join(words)


def _arms(confirmed: Confirmed) -> list[tuple[ArmSummary, Any]]:
    """Returns the confirmation's arms with the confirmed trials, the baseline last."""
    if confirmed.study is None:
        return []
    scored = {arm.name: arm for arm in (*confirmed.arms, confirmed.baseline) if arm}
    rank = {name: place for place, name in enumerate(scored)}
    return [(arm, scored.get(arm.name)) for arm in sorted(confirmed.study.arms, key=lambda arm: rank.get(arm.name, 99))]
