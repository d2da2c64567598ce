"""Runs that other studies have trained: which a study can take, which it lacks, and taking them."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from kernorm.datasets.dataset import prepared_sha256
from kernorm.studies.definition import Planned, Study
from kernorm.studies.ledger import RECORDS, Ledger, Result, Shared, find_shared, source_of
from kernorm.studies.sources import not_used, taken

_LOG = logging.getLogger("kernorm")


def shared_runs(study: Study, folder: Path) -> Shared:
    """Looks for the study's runs in the records of all studies."""
    configs = [run.config for run in study.runs()]
    sources = {(config.dataset, config.manual_dir, config.data_dir) for config in configs}
    digests = {name: prepared_sha256(name, manual_dir=first, data_dir=second) for name, first, second in sources}
    return find_shared(folder / RECORDS, {config.run_id for config in configs}, digests)


def missing_runs_of(study: Study, shared: Shared) -> list[Planned]:
    """Returns the runs that are to be trained: a diverged one would diverge again, a failed one may not."""
    return [run for run in study.runs() if run.config.run_id not in shared.usable]


def lacking_results(study: Study, shared: Shared, ledger: Ledger) -> dict[str, Result]:
    """Returns the usable results that the ledger lacks, by run id, as it is to hold them."""
    lacking: dict[str, Result] = {}
    for run in study.runs():
        result, own = shared.usable.get(run.config.run_id), ledger.results.get(run.config.run_id)
        if result and result.record:
            same = own and own.record and source_of(own.record) == source_of(result.record)
            if not same:
                lacking[result.run_id] = replace(result, arm=run.arm, seed=run.seed, file=study.file)
    return lacking


def take_over(study: Study, shared: Shared, ledger: Ledger, told: set[str]) -> None:
    """Copies usable results that the ledger lacks into it; says what is taken and what is not, unless it was `told`."""
    lacking = lacking_results(study, shared, ledger)
    for result in lacking.values():
        ledger.add(result)
    counts = Counter(result.taken_from for result in lacking.values() if result.taken_from)
    for text in (taken(counts), not_used(shared.unusable)):
        if text and text not in told:
            _LOG.info(text)
            told.add(text)
