"""Which run of a study is exported."""

from dataclasses import replace

from kernorm.config import TrainConfig
from kernorm.studies import selection
from kernorm.studies.ledger import Ledger, Result
from tests.builders import a_study, make_record


def test_the_runs_that_an_arm_has_besides_failed_ones_do_not_choose_it(tmp_path, monkeypatch):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=2)
    ledger = Ledger(tmp_path)
    for planned in study.runs():
        values = {"arm": planned.arm, "seed": planned.seed, "run_id": planned.config.run_id}
        if (planned.arm, planned.seed) == ("bn", 1):
            ledger.add(Result(**values, status="failed", message="out of memory"))
            continue
        record = make_record(config=planned.config)
        found = replace(record.validation, cross_entropy=0.01 if planned.arm == "bn" else 0.2 + planned.seed)
        ledger.add(Result(**values, status="finished", record=replace(record, validation=found)))
    monkeypatch.setattr(selection, "train", lambda config: config)
    chosen = selection.export_best_arm(study, tmp_path, reports_dir=tmp_path, saved_models_dir=tmp_path)
    assert (chosen.norm, chosen.seed) == ("ln", 0)
