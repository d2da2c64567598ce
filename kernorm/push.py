"""Publishes a blessed model for TF Serving, all of it or nothing, and says which version is served.

    python -m kernorm.push saved_models/<run id>/<version>

validates it in the runtimes of this machine, if that has not been done, and copies it to
saved_models/<model>/<unix seconds>/.
"""

import shlex
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

    Exit code 1, with the reason, if the model is not blessed, or a label has to wait. A published version is never
    changed.
    """

    path: tyro.conf.Positional[Path | None] = None
    """The model to publish, blessed by kernorm.evaluate: saved_models/<run id>/<version>, or saved_models/<run id> for
    its newest version."""

    model: str = PUBLISHED
    """Name of the published model: <saved_models_dir>/<model>/<version>/."""

    rollback: bool = False
    """Serve the version before the one that is served, which also gets its labels, in two steps as with --label."""

    pin: str | None = None
    """Serve this version, and no higher one, or 'latest' again."""

    label: str | None = None
    """Give a version a name for clients: stable=VERSION. It stays loaded as long as it has one.

    TF Serving refuses a label on a version that it has not loaded. So push has it loaded first, and writes the label
    at once only if it has been served for two minutes: else give --wait, or run the command again later."""

    wait: str | None = None
    """With --label or --rollback: ask this server, http://HOST:PORT/v1/models/NAME or HOST:PORT, until it has loaded
    the version. If it does not, the version is not listed for it any more."""

    unlabel: str | None = None
    """Take a label away, also one that is not written yet."""

    allow_other_data: bool = False
    """Publish a model whose labels or image shape differ from those of the version that is served now."""

    list: bool = False
    """Show the published versions: blessing, test accuracy, origin, and what models.config makes a server do."""

    saved_models_dir: Path = Path("saved_models")
    """Where <model>/ and serving_config/ lie."""

    def __post_init__(self) -> None:
        """Refuses more or less than one thing to do."""
        check_settings(self)
        given = [name for name in ("path", "rollback", "pin", "label", "unlabel", "list") if getattr(self, name)]
        if len(given) != 1:
            raise UsageError(
                "One thing at a time: a model to push, --rollback, --pin, --label, --unlabel or --list.",
                ", ".join(given) or "none",
                f"See {PROG} --help.",
            )
        if self.wait and not (self.label or self.rollback):
            raise UsageError("--wait goes with --label or --rollback.", ", ".join(given), "Remove it.")
        if self.allow_other_data and not self.path:
            raise UsageError("--allow-other-data goes with a model to push.", ", ".join(given), "Remove it.")


def main(config: PushConfig) -> int:
    """Does what the command asks for; returns 1 if a label has to wait.

    Raises:
        Refused: the model may not be published.
    """
    use_tensorflow_on_cpu(load=False)  # what is validated already needs no TensorFlow
    from kernorm.saved_model.versions import model_of
    from kernorm.serving.endpoint import read_endpoint
    from kernorm.serving.listing import format_versions
    from kernorm.serving.registry import Registry

    registry = Registry(config.saved_models_dir, config.model)
    wait, done = read_endpoint(config.wait, "--wait") if config.wait else None, True
    if config.list:
        print("\n".join(format_versions(registry)) or f"nothing is published under {registry.base}")
    elif config.path:
        print(registry.push(model_of(config.path), other_data=config.allow_other_data))
    elif config.label:
        done = registry.label(*_label(config.label), wait=wait)
    elif config.unlabel:
        registry.unlabel(config.unlabel)
    elif config.rollback:
        done = registry.rollback(wait)
    else:
        registry.pin(_number(config))
    if not done:
        print(_later(config))
    return 0 if done else 1


def _later(config: PushConfig) -> str:
    asked, what = (["--label", config.label], "label") if config.label else (["--rollback"], "rollback")
    words = [*asked, "--saved-models-dir", str(config.saved_models_dir), "--model", config.model]
    return (
        f"the {what} is not written yet: a server refuses models.config, if it has not loaded the version. Two minutes "
        f"after this is served, or at once with --wait ENDPOINT, run: {PROG} {shlex.join(words)}"
    )


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
