"""The file serving_config/models.config of all published models: read, and written whole, by one process at a time."""

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm.errors import UsageError
from kernorm.serving.models_config import Notes, format_notes, is_own_comment, read_notes
from kernorm.serving.server_files import CONFIG, MOUNTED
from kernorm.system.files import locked, make_folder, write_atomically

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

# The file is held for milliseconds, so another process waits for it.
PATIENCE_SECONDS = 10.0

_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_LOG = logging.getLogger("kernorm")


@dataclass(frozen=True)
class ConfigFile:
    """The models.config of all models that are published in a folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the file lies, once something is published."""
        return self.folder / CONFIG

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from changing the file between what the body reads of it and what it writes.

        Raises:
            Busy: another process holds it, however long this one waits.
        """
        if not self.folder.is_dir():  # there is nothing to change, and a lock would make the folder
            yield
            return
        with locked(self.folder / ".serving_config.lock", "change models.config", PATIENCE_SECONDS):
            yield

    def read(self) -> "ModelServerConfig":
        """Reads the file; an empty config if there is none.

        Raises:
            UsageError: TF Serving would not read it, or it lists no models.
        """
        from google.protobuf import text_format
        from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

        try:
            config = text_format.Parse(self.path.read_text(encoding="utf-8"), ModelServerConfig())
        except FileNotFoundError:
            return ModelServerConfig()
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UsageError(
                "models.config is what TF Serving reads.", f"{self.path}: {error}", "Fix or remove it."
            ) from None
        if config.HasField("custom_model_config"):
            raise UsageError(
                "models.config must list models.",
                f"{self.path} with custom_model_config",
                "Give another --saved-models-dir, or write model_config_list there.",
            )
        return config

    def notes(self) -> Notes:
        """Returns what push has written about each model into the file's comments."""
        return read_notes(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}

    def write(self, config: "ModelServerConfig", notes: Notes) -> None:
        """Replaces the file; one with comments that somebody else wrote is kept as models.config.before."""
        from google.protobuf import text_format

        make_folder(self.path.parent, "--saved-models-dir")
        before = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        if any("#" in _QUOTED.sub("", line) and not is_own_comment(line) for line in before.splitlines()):
            kept = self.path.with_name(f"{self.path.name}.before")
            write_atomically(kept, before.encode())
            _LOG.info(f"the comments of {self.path} are dropped; the file as it was is {kept}")
        write_atomically(self.path, (format_notes(notes) + text_format.MessageToString(config)).encode())


def entry_of(config: "ModelServerConfig", model: str) -> "ModelConfig | None":
    """Returns a model's part of a config; None if it has none."""
    return next((entry for entry in config.model_config_list.config if entry.name == model), None)


def add_entry(config: "ModelServerConfig", model: str) -> "ModelConfig":
    """Adds a model to a config, of which a server follows the newest version; returns its part."""
    entry = config.model_config_list.config.add()
    entry.name, entry.base_path, entry.model_platform = model, f"{MOUNTED}/{model}", "tensorflow"
    return entry
