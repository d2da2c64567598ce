"""Publishes a blessed model for TF Serving, all of it or nothing, and says which version is served.

    python -m kernorm.push saved_models/<run id>/<version>

tries it in the runtimes that are here, if that has not been done (validate.py), copies it to
saved_models/<model>/<unix seconds>/ under a temporary name, verifies the copy, flushes it to disk and renames it. Last
in the way of a model. What is served is said in serving_config/models.config, which TF Serving reads again while it
runs (--model_config_file_poll_wait_seconds).
"""

import datetime
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from kernorm import cli
from kernorm.errors import UsageError
from kernorm.evaluate import MODEL, read_evaluation, require_whole, unblessed
from kernorm.files import locked, make_folder, tree_sha256, write_atomically
from kernorm.validate import unvalidated, validate_model
from kernorm.versions import new_version, versions

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

PROG = "python -m kernorm.push"
CONFIG = Path("serving_config") / "models.config"
# Where the command in README mounts saved_models in the container.
MOUNTED = "/models"


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Publishes a blessed model for TF Serving, or says which published version is served.

    Exit code 1, with the reason, if the model is not blessed. A published version is never changed.
    """

    path: tyro.conf.Positional[Path | None] = None
    """The model to publish: saved_models/<run id>/<version>, blessed by kernorm.evaluate."""

    model: str = MODEL
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
        given = [name for name in ("path", "rollback", "pin", "label", "list") if getattr(self, name)]
        if len(given) != 1:
            raise UsageError(
                "One thing at a time: a model to push, --rollback, --pin, --label or --list.",
                ", ".join(given) or "none",
                f"See {PROG} --help.",
            )
        if not self.model or self.model.startswith(".") or "/" in self.model or self.model == CONFIG.parts[0]:
            raise UsageError("--model is one folder's name.", f"{self.model!r}", f"Give for example {MODEL}.")

    @property
    def base(self) -> Path:
        """The published model's folder, TF Serving's base path."""
        return self.saved_models_dir / self.model


class Refused(Exception):  # noqa: N818
    """A model that may not be published; the message is the reason."""


def push(config: PushConfig) -> Path:
    """Publishes a model and returns the new version's folder.

    Raises:
        Refused: the model is not blessed, for exactly the files that it has, or fails in a runtime.
        UsageError: it is no model of kernorm's or was changed, another process is publishing, the folder cannot be
            written or the disk is full.
    """
    if config.path is None:
        raise ValueError("A push needs a path.")
    _, digest = require_whole(config.path)
    if reason := unblessed(config.path, digest):
        raise Refused(f"{config.path}: {reason}")
    if unvalidated(config.path, digest):
        validate_model(config.path)
    if reason := unvalidated(config.path, digest):
        raise Refused(f"{config.path}: {reason}")
    make_folder(config.saved_models_dir, "--saved-models-dir")
    with locked(config.saved_models_dir / f".{config.model}.push.lock", f"publish {config.model}"):
        with new_version(config.base) as version:
            _copy(config.path, version.folder)
            copied = tree_sha256(version.folder)
            if copied != digest:
                raise UsageError(
                    "A copy must be what was blessed.",
                    f"{version.folder} with the hash {copied[:12]}… instead of {digest[:12]}…",
                    f"Was {config.path} changed meanwhile? Evaluate it and push again.",
                )
        served = read_config(config)
        _entry(served, config)
        _write_config(config, served)
    return version.path


def _copy(source: Path, target: Path) -> None:
    """Copies a folder into an empty one; unlike shutil.copytree it stops at the first error, and with its number."""
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def read_config(config: PushConfig) -> "ModelServerConfig":
    """Reads models.config; an empty one if there is none.

    Raises:
        UsageError: TF Serving would not read it.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    path = config.saved_models_dir / CONFIG
    try:
        return text_format.Parse(path.read_text(), ModelServerConfig())
    except FileNotFoundError:
        return ModelServerConfig()
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError("models.config is what TF Serving reads.", f"{path}: {error}", "Mend or remove it.") from None


def serve(config: PushConfig, number: int | None) -> None:
    """Enters which version is to be served; None for the newest one there is.

    Raises:
        UsageError: there is no such version.
    """
    with locked(config.saved_models_dir / f".{config.model}.push.lock", f"publish {config.model}"):
        if number is not None:
            _require_version(config, number)
        served = read_config(config)
        entry = _entry(served, config)
        entry.ClearField("model_version_policy")
        if number is not None:
            entry.model_version_policy.specific.versions.append(number)
        _write_config(config, served)


def label(config: PushConfig, text: str) -> None:
    """Gives a version a label.

    Raises:
        UsageError: it is not LABEL=VERSION, or there is no such version.
    """
    name, _, number = text.partition("=")
    if not (name.strip() and number.isdecimal()):
        raise UsageError("--label takes LABEL=VERSION.", f"{text!r}", "Give for example stable=1795518246.")
    with locked(config.saved_models_dir / f".{config.model}.push.lock", f"publish {config.model}"):
        _require_version(config, int(number))
        served = read_config(config)
        _entry(served, config).version_labels[name] = int(number)
        _write_config(config, served)


def served_version(config: PushConfig) -> int | None:
    """Returns the version that models.config has TF Serving serve; None without any."""
    for entry in read_config(config).model_config_list.config:
        if entry.name == config.model and entry.model_version_policy.specific.versions:
            return int(max(entry.model_version_policy.specific.versions))
    return max(versions(config.base), default=None)


def previous(config: PushConfig) -> int:
    """Returns the version before the one that is served.

    Raises:
        UsageError: there is none.
    """
    now = served_version(config)
    before = [number for number in versions(config.base) if now is not None and number < now]
    if not before:
        raise UsageError(
            "A rollback needs a version before the one that is served.",
            f"{config.base}, which serves {now or 'none'} and has none before it",
            f"See {PROG} --list.",
        )
    return before[-1]


def listed(config: PushConfig) -> list[str]:
    """Returns a line a published version, the newest first."""
    entry = next((entry for entry in read_config(config).model_config_list.config if entry.name == config.model), None)
    labels = dict(entry.version_labels) if entry else {}
    now = served_version(config)
    return [
        _line(config.base / str(number), number == now, [name for name, of in labels.items() if of == number])
        for number in reversed(versions(config.base))
    ]


def _line(path: Path, served: bool, labels: list[str]) -> str:
    marks = ", ".join([*(["served"] if served else []), *labels])
    when = f"{datetime.datetime.fromtimestamp(int(path.name), datetime.UTC):%Y-%m-%d %H:%M:%S}"
    try:
        card, digest = require_whole(path)
        found, reason = read_evaluation(path), unblessed(path, digest)
    except UsageError as error:
        return f"{path.name}  {when}  UNUSABLE: {error}"
    accuracy = f"{100 * found.measured('accuracy').value:.2f} %" if found else "not evaluated"
    return f"{path.name}  {when}  {'not blessed' if reason else 'blessed':11}  {accuracy:13}  {card.run_id}  {marks}"


def _entry(served: "ModelServerConfig", config: PushConfig) -> "ModelConfig":
    """Returns the model's entry, made if it is not there."""
    for entry in served.model_config_list.config:
        if entry.name == config.model:
            return entry
    entry = served.model_config_list.config.add()
    entry.name, entry.base_path, entry.model_platform = config.model, f"{MOUNTED}/{config.model}", "tensorflow"
    return entry


def _write_config(config: PushConfig, served: "ModelServerConfig") -> None:
    from google.protobuf import text_format

    path = config.saved_models_dir / CONFIG
    make_folder(path.parent, "--saved-models-dir")
    write_atomically(path, text_format.MessageToString(served).encode())


def _require_version(config: PushConfig, number: int) -> None:
    known = versions(config.base)
    if number not in known:
        raise UsageError(
            "A version must be a published one.", number, f"Known: {', '.join(map(str, known)) or 'none'}."
        )
    require_whole(config.base / str(number))


def main(config: PushConfig) -> int:
    """Does what the command asks for; returns 1 if a model is refused."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if config.list:
        print("\n".join(listed(config)) or f"nothing is published under {config.base}")
    elif config.path:
        try:
            print(push(config))
        except Refused as reason:
            print(f"refused: {reason}", file=sys.stderr)
            return 1
    elif config.label:
        label(config, config.label)
    else:
        number = previous(config) if config.rollback else _number(config)
        serve(config, number)
        print(f"serves {number or 'the newest version'}")
    return 0


def _number(config: PushConfig) -> int | None:
    if config.pin == "latest":
        return None
    if config.pin is None or not config.pin.isdecimal():
        raise UsageError("--pin takes a version, or latest.", f"{config.pin!r}", f"See {PROG} --list.")
    return int(config.pin)


if __name__ == "__main__":
    sys.exit(cli.run(PushConfig, main, prog=PROG))
