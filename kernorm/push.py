"""Publishes a blessed model for TF Serving, all of it or nothing, and says which version is served.

    python -m kernorm.push saved_models/<run id>/<version>

validates it in the runtimes of this machine, if that has not been done, and copies it to
saved_models/<model>/<unix seconds>/.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from kernorm.errors import UsageError
from kernorm.limits import check_settings
from kernorm.saved_model.versions import PUBLISHED
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.push"


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Publishes a blessed model for TF Serving, or says which published version is served.

    Exit code 1, with the reason, if the model is not blessed. A published version is never changed.
    """

    path: tyro.conf.Positional[Path | None] = None
    """The model to publish: saved_models/<run id>/<version>, blessed by kernorm.evaluate."""

    model: str = PUBLISHED
    """Name of the published model: <saved_models_dir>/<model>/<version>/."""

    rollback: bool = False
    """Serve the version before the one that is served."""

    pin: str | None = None
    """Serve this version, or 'latest' again."""

    label: str | None = None
    """Give a version a name for clients: stable=VERSION. TF Serving knows labels of loaded versions only."""

    list: bool = False
    """Show the published versions: blessing, test accuracy, origin, what is served."""

    saved_models_dir: Path = Path("saved_models")
    """Where <model>/ and serving_config/ lie."""

    def __post_init__(self) -> None:
        """Refuses more or less than one thing to do."""
        check_settings(self)
        given = [name for name in ("path", "rollback", "pin", "label", "list") if getattr(self, name)]
        if len(given) != 1:
            raise UsageError(
                "One thing at a time: a model to push, --rollback, --pin, --label or --list.",
                ", ".join(given) or "none",
                f"See {PROG} --help.",
            )


def main(config: PushConfig) -> None:
    """Does what the command asks for.

    Raises:
        Refused: the model may not be published.
    """
    use_tensorflow_on_cpu(load=False)  # what is validated already needs no TensorFlow
    from kernorm.serving.registry import Registry

    registry = Registry(config.saved_models_dir, config.model)
    if config.list:
        print("\n".join(registry.format_versions()) or f"nothing is published under {registry.base}")
    elif config.path:
        print(registry.push(config.path))
    elif config.label:
        registry.label(*_label(config.label))
    else:
        number = registry.previous() if config.rollback else _number(config)
        registry.serve(number)
        print(f"serves {number or 'the newest version'}")


def _label(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not (name.strip() and number.isdecimal()):
        raise UsageError("--label takes LABEL=VERSION.", f"{text!r}", "Give for example stable=1795518246.")
    return name, int(number)


def _number(config: PushConfig) -> int | None:
    if config.pin == "latest":
        return None
    if config.pin is None or not config.pin.isdecimal():
        raise UsageError("--pin takes a version, or latest.", f"{config.pin!r}", f"See {PROG} --list.")
    return int(config.pin)


if __name__ == "__main__":
    sys.exit(cli.run(PushConfig, main, prog=PROG))
