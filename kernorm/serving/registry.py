"""Published models: versions in a folder, and which of them TF Serving serves.

What is served is said in serving_config/models.config, which TF Serving reads again while it runs
(--model_config_file_poll_wait_seconds).
"""

import contextlib
import datetime
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm.errors import Refused, UsageError
from kernorm.evaluation.result import blessing_problem, read_evaluation
from kernorm.saved_model.integrity import tree_sha256, verify_integrity
from kernorm.saved_model.versions import PUBLISHED, new_version, versions
from kernorm.serving.validation import validate_model, validation_problem
from kernorm.system.files import locked, make_folder, write_atomically

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

CONFIG = Path("serving_config") / "models.config"
# Where the command in README mounts saved_models in the container.
MOUNTED = "/models"


@dataclass(frozen=True)
class Registry:
    """The published versions of one model.

    Attributes:
        folder: holds <model>/ and serving_config/.
        model: name of the published model.

    Raises:
        UsageError: the name is not one folder's.
    """

    folder: Path = Path("saved_models")
    model: str = PUBLISHED

    def __post_init__(self) -> None:
        """Refuses a name that is not one folder's."""
        if not self.model or self.model.startswith(".") or "/" in self.model or self.model == CONFIG.parts[0]:
            raise UsageError("--model is one folder's name.", f"{self.model!r}", f"Give for example {PUBLISHED}.")

    @property
    def base(self) -> Path:
        """The model's own folder, TF Serving's base path."""
        return self.folder / self.model

    def push(self, path: Path) -> Path:
        """Publishes the model in `path`, all of it or nothing, and returns the new version's folder.

        It is validated in the runtimes of this machine first, if that has not been done; copied under a temporary
        name, verified, flushed to disk and renamed. A published version is never changed.

        Raises:
            Refused: the model is not blessed, for exactly the files that it has, or fails in a runtime.
            UsageError: it is no model of kernorm's or was changed, another process is publishing, the folder cannot
                be written or the disk is full.
        """
        _, digest = verify_integrity(path)
        if reason := blessing_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        if validation_problem(path, digest):
            validate_model(path)
        if reason := validation_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        make_folder(self.folder, "--saved-models-dir")
        with self._locked():
            with new_version(self.base) as version:
                _copy(path, version.folder)
                copied = tree_sha256(version.folder)
                if copied != digest:
                    raise UsageError(
                        "A copy must be what was blessed.",
                        f"{version.folder} with the hash {copied[:12]}… instead of {digest[:12]}…",
                        f"Was {path} changed meanwhile? Evaluate it and push again.",
                    )
            config = self.read_config()
            self._entry(config)
            self._write_config(config)
        return version.path

    def read_config(self) -> "ModelServerConfig":
        """Reads models.config; an empty one if there is none.

        Raises:
            UsageError: TF Serving would not read it.
        """
        from google.protobuf import text_format
        from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

        path = self.folder / CONFIG
        try:
            return text_format.Parse(path.read_text(encoding="utf-8"), ModelServerConfig())
        except FileNotFoundError:
            return ModelServerConfig()
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UsageError(
                "models.config is what TF Serving reads.", f"{path}: {error}", "Fix or remove it."
            ) from None

    def serve(self, number: int | None) -> None:
        """Says which version is to be served; None for the newest one.

        Raises:
            UsageError: there is no such version.
        """
        with self._locked():
            if number is not None:
                self._require_version(number)
            config = self.read_config()
            entry = self._entry(config)
            entry.ClearField("model_version_policy")
            if number is not None:
                entry.model_version_policy.specific.versions.append(number)
            self._write_config(config)

    def label(self, name: str, number: int) -> None:
        """Gives a version a label for clients.

        Raises:
            UsageError: there is no such version.
        """
        with self._locked():
            self._require_version(number)
            config = self.read_config()
            self._entry(config).version_labels[name] = number
            self._write_config(config)

    def served_version(self) -> int | None:
        """Returns the version that models.config has TF Serving serve; None without any."""
        for entry in self.read_config().model_config_list.config:
            if entry.name == self.model and entry.model_version_policy.specific.versions:
                return int(max(entry.model_version_policy.specific.versions))
        return max(versions(self.base), default=None)

    def previous(self) -> int:
        """Returns the version before the one that is served.

        Raises:
            UsageError: there is none.
        """
        now = self.served_version()
        before = [number for number in versions(self.base) if now is not None and number < now]
        if not before:
            raise UsageError(
                "A rollback needs a version before the one that is served.",
                f"{self.base}, which serves {now or 'none'} and has none before it",
                "See python -m kernorm.push --list.",
            )
        return before[-1]

    def format_versions(self) -> list[str]:
        """Returns a line a published version, the newest first."""
        entries = self.read_config().model_config_list.config
        entry = next((entry for entry in entries if entry.name == self.model), None)
        labels = dict(entry.version_labels) if entry else {}
        now = self.served_version()
        return [
            _line(self.base / str(number), number == now, [name for name, of in labels.items() if of == number])
            for number in reversed(versions(self.base))
        ]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.folder / f".{self.model}.push.lock", f"publish {self.model}"):
            yield

    def _entry(self, config: "ModelServerConfig") -> "ModelConfig":
        """Returns the model's entry, added if it is missing."""
        for entry in config.model_config_list.config:
            if entry.name == self.model:
                return entry
        entry = config.model_config_list.config.add()
        entry.name, entry.base_path, entry.model_platform = self.model, f"{MOUNTED}/{self.model}", "tensorflow"
        return entry

    def _write_config(self, config: "ModelServerConfig") -> None:
        from google.protobuf import text_format

        path = self.folder / CONFIG
        make_folder(path.parent, "--saved-models-dir")
        write_atomically(path, text_format.MessageToString(config).encode())

    def _require_version(self, number: int) -> None:
        known = versions(self.base)
        if number not in known:
            raise UsageError(
                "A version must be a published one.", number, f"Known: {', '.join(map(str, known)) or 'none'}."
            )
        verify_integrity(self.base / str(number))


def _copy(source: Path, target: Path) -> None:
    """Copies a folder into an empty one; unlike shutil.copytree it stops at the first error, and with its number."""
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def _line(path: Path, served: bool, labels: list[str]) -> str:
    marks = ", ".join([*(["served"] if served else []), *labels])
    when = f"{datetime.datetime.fromtimestamp(int(path.name), datetime.UTC):%Y-%m-%d %H:%M:%S}"
    try:
        card, digest = verify_integrity(path)
        found, reason = read_evaluation(path), blessing_problem(path, digest)
    except UsageError as error:
        return f"{path.name}  {when}  UNUSABLE: {error}"
    accuracy = f"{100 * found.measured('accuracy').value:.2f} %" if found else "not evaluated"
    return f"{path.name}  {when}  {'not blessed' if reason else 'blessed':11}  {accuracy:13}  {card.run_id}  {marks}"
