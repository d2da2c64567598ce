"""Exports a finished run as a SavedModel candidate for TF Serving, checked before it gets its name.

    python -m kernorm.export reports/runs/<run id>

takes about 10 seconds and prints the path. Always under TensorFlow, from backend-neutral weights, whatever trained
them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kernorm.config import FormatName
from kernorm.limits import check_settings
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.export"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Exports a finished run as a SavedModel candidate for TF Serving, in about 10 seconds.

    It writes saved_models/<run id>/<version>/ and records it in the run's record.json. Needs TensorFlow and
    tensorflow-serving-api, whichever backend trained the run.
    """

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run, reports/runs/<run id>, with record.json and model.weights.h5."""

    format: tuple[FormatName, ...] = ()
    """Also write it as onnx, openvino or litert next to it, checked against it. See kernorm.convert for
    what each needs."""

    saved_models_dir: Path | None = None
    """Where <run id>/<version>/ is written. None: where the run's own settings say."""

    net: Annotated[str | None, tyro.conf.arg(metavar="FILE.py:FUNCTION")] = None
    """Of a run on an own net, whose Python is needed once more: the file that it was trained with."""

    trust_code: bool = False
    """Or: run the Python that lies in the run's folder, net.py. Read it first, if the run is from elsewhere."""

    def __post_init__(self) -> None:
        """Refuses values of another type."""
        check_settings(self)


def main(config: ExportConfig) -> None:
    """Exports a run and prints the candidate's path."""
    use_tensorflow_on_cpu()
    from kernorm.nets.source import allow_code
    from kernorm.records.record import RECORD, read_record
    from kernorm.saved_model.export import export_run, require_tensorflow
    from kernorm.saved_model.formats import convert_all, require_format

    require_tensorflow()
    allow_code(read_record(config.run_folder / RECORD).config, config.net, trust_code=config.trust_code)
    for name in config.format:
        require_format(name)
    path = export_run(config.run_folder, config.saved_models_dir).path
    print(path)
    if path:
        for name, file in convert_all(Path(path), config.format).items():
            print(f"{name:8} {file}")


if __name__ == "__main__":
    sys.exit(
        cli.run(ExportConfig, main, prog=PROG, interrupted="Nothing is left half written; run the same command again.")
    )
