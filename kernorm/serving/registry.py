"""Published models: versions in a folder, and which of them TF Serving serves.

What is served is said in serving_config/models.config, which TF Serving reads again while it runs
(--model_config_file_poll_wait_seconds).
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm.errors import Refused, UsageError, nearest
from kernorm.evaluation.result import blessing_problem
from kernorm.saved_model.integrity import tree_sha256, verify_integrity
from kernorm.saved_model.versions import PUBLISHED, ignored_versions, new_version, versions
from kernorm.serving.endpoint import Endpoint
from kernorm.serving.models_config import (
    Notes,
    Served,
    format_notes,
    format_served,
    read_notes,
    read_served,
    takes_new_versions,
    write_served,
)
from kernorm.serving.server_files import CONFIG, MOUNTED, docker_command, write_server_files
from kernorm.serving.status import server_at, wait_until_loaded
from kernorm.serving.validation import validate_model, validation_problem
from kernorm.system.files import locked, make_folder, write_atomically

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

# The server of README reads models.config every 30 s, and a model of this size is loaded in a few more.
SETTLED_SECONDS = 120.0

_LOG = logging.getLogger("kernorm")


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
        card, digest = verify_integrity(path)
        if reason := blessing_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        if validation_problem(path, digest):
            validate_model(path)
        if reason := validation_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        write_server_files(self.folder)
        for name, why in ignored_reasons(self.base).items():
            _LOG.warning(f"{self.base / name}: {why}")
        with self._locked():
            served, config = self._read()
            with new_version(self.base) as version:
                _copy(path, version.folder)
                copied = tree_sha256(version.folder)
                if copied != digest:
                    raise UsageError(
                        "A copy must be what was blessed.",
                        f"{version.folder} with the hash {copied[:12]}… instead of {digest[:12]}…",
                        f"Was {path} changed meanwhile? Evaluate it and push again.",
                    )
            if not takes_new_versions(self._entry(config)):
                self._write(served, served.published(version.number), config)
            if not served.follows:
                _LOG.info(f"{version.number} is published and not served; --pin latest serves it")
        travelling = card.warmup or f"some images of {card.data.name}"
        _LOG.info(f"with the model travel, as warm-up requests that everybody can read: {travelling}")
        _LOG.info(f"serve by: {docker_command(self.folder)}")
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

    def served(self) -> Served:
        """Returns what models.config makes a server do."""
        return self._read()[0]

    def configured(self) -> bool:
        """Says whether models.config names the model; else no server serves it."""
        return any(entry.name == self.model for entry in self.read_config().model_config_list.config)

    def pin(self, number: int | None) -> None:
        """Serves a version to requests that name none, and no higher one; None follows the newest.

        Labels of higher versions, which are unloaded by that, are dropped.

        Raises:
            UsageError: there is no such version.
        """
        with self._locked():
            there = versions(self.base)
            if number is not None or not there:
                self._require_version(number)
            served, config = self._read()
            self._write(served, served.pinned(there[-1] if number is None else number, number is None), config)

    def rollback(self) -> None:
        """Serves the version before the one that requests without a version reach, as `pin`.

        Raises:
            UsageError: there is none.
        """
        now = self.served().top
        before = [number for number in versions(self.base) if now is not None and number < now]
        if not before:
            raise UsageError(
                "A rollback needs a version before the one that is served.",
                f"{self.base}, which serves {now or 'none'} and has none before it",
                "See python -m kernorm.push --list.",
            )
        self.pin(before[-1])

    def label(self, name: str, number: int, wait: Endpoint | None = None) -> bool:
        """Gives a version a label for clients, once it is served; returns whether it has it.

        A server that runs refuses the whole file for a label on a version that it has not loaded. So the version is
        listed first. The label is written when the server at `wait` has loaded it; without `wait` only if the version
        has been listed long enough.

        Raises:
            UsageError: there is no such version, or the server does not load it.
        """
        with self._locked():
            self._require_version(number)
            served, config = self._read()
            listed = number in served.listed and self.configured()
            if listed and served.labels.get(name) == number:
                return True
            if not wait and listed and time.time() - self._since(served, number) > SETTLED_SECONDS:
                self._write(served, served.labelled(name, number), config)
                return True
            if not listed:
                self._write(served, served.loading(number), config)
        if not wait:
            return False
        wait_until_loaded(server_at(wait, self.model, number))
        with self._locked():
            served, config = self._read()
            if number not in served.listed:
                raise UsageError(
                    "A version with a label stays served.", f"{number}, which was unlisted meanwhile", "Label it again."
                )
            self._write(served, served.labelled(name, number), config)
        return True

    def unlabel(self, name: str) -> None:
        """Takes a label away; its version is unloaded, if nothing else needs it.

        Raises:
            UsageError: there is no such label.
        """
        with self._locked():
            served, config = self._read()
            if name not in served.labels:
                raise UsageError("--unlabel takes a label.", f"{name!r}", nearest(name, served.labels))
            self._write(served, served.unlabelled(name), config)

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

    def _read(self) -> tuple[Served, "ModelServerConfig"]:
        config = self.read_config()
        entry = next((entry for entry in config.model_config_list.config if entry.name == self.model), None)
        return read_served(entry, self._notes().get(self.model, {}), versions(self.base)), config

    def _notes(self) -> Notes:
        path = self.folder / CONFIG
        return read_notes(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _write(self, before: Served, after: Served, config: "ModelServerConfig") -> None:
        """Writes what a server is to do, without labels that it would refuse; says what requests reach then."""
        from google.protobuf import text_format

        after = after.labelled_within(before.listed)
        notes = self._notes() | {self.model: write_served(after, self._entry(config), time.time())}
        path = self.folder / CONFIG
        make_folder(path.parent, "--saved-models-dir")
        write_atomically(path, (format_notes(notes) + text_format.MessageToString(config)).encode())
        for name, number in sorted(before.labels.items()):
            if name not in after.labels:
                _LOG.info(f"the label {name} of {number} is gone")
        _LOG.info(format_served(after))

    def _since(self, served: Served, number: int) -> float:
        """Returns since when a version has been listed; by the files' own times, if push did not note it."""
        files = [path for path in (self.folder / CONFIG, self.base / str(number)) if path.exists()]
        return served.since.get(number, max(path.stat().st_mtime for path in files))

    def _require_version(self, number: int | None) -> None:
        known = versions(self.base)
        if number not in known:
            raise UsageError(
                "A version must be a published one.",
                "latest" if number is None else number,
                f"Known: {', '.join(map(str, known)) or 'none'}.",
            )
        verify_integrity(self.base / str(number))


def ignored_reasons(base: Path) -> dict[str, str]:
    """Returns names in a model's folder that are numbers, but no versions, each with the reason."""
    zeros = "ignored: a version has no leading zeros, but a server may take it for one; rename or remove it"
    large = "ignored: a version is at most 2^63 - 1, as TF Serving takes it; rename or remove it"
    return {name: zeros if name.startswith("0") else large for name in ignored_versions(base)}


def _copy(source: Path, target: Path) -> None:
    """Copies a folder into an empty one; unlike shutil.copytree it stops at the first error, and with its number."""
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))
