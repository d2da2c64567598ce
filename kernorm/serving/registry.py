"""Published models: versions in a folder, and which of them TF Serving serves.

What is served is said in serving_config/models.config, which TF Serving reads again while it runs
(--model_config_file_poll_wait_seconds).
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm.errors import Refused, UsageError, nearest
from kernorm.evaluation.result import blessing_problem
from kernorm.saved_model.integrity import remove_leftovers_of_writing, verify_integrity
from kernorm.saved_model.versions import PUBLISHED, ignored_versions, new_version, versions
from kernorm.serving.checks import (
    copy_blessed,
    require_name,
    require_not_above_pin,
    require_pushed,
    require_same_data,
    require_version,
)
from kernorm.serving.config_file import ConfigFile, add_entry, entry_of
from kernorm.serving.endpoint import Endpoint
from kernorm.serving.models_config import Served, format_served, read_served, takes_new_versions, write_served
from kernorm.serving.server_files import CONFIG, docker_command, write_server_files
from kernorm.serving.status import server_at, wait_until_loaded
from kernorm.serving.validation import validate_model, validation_problem
from kernorm.system.files import locked

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

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
        UsageError: no address could hold the name, or it is that of serving_config/.
    """

    folder: Path = Path("saved_models")
    model: str = PUBLISHED

    def __post_init__(self) -> None:
        """Refuses a name that no address can hold, or that is taken."""
        require_name(self.model, "--model", PUBLISHED)
        if self.model == CONFIG.parts[0]:
            raise UsageError(
                "--model is not the folder of a server's files.", self.model, f"Give for example {PUBLISHED}."
            )

    @property
    def base(self) -> Path:
        """The model's own folder, TF Serving's base path."""
        return self.folder / self.model

    @property
    def _file(self) -> ConfigFile:
        return ConfigFile(self.folder)

    def push(self, path: Path, *, other_data: bool = False) -> Path:
        """Publishes the model in `path`, all of it or nothing, and returns the new version's folder.

        It is validated in the runtimes of this machine first, if that has not been done; copied under a temporary
        name, verified, flushed to disk and renamed. A published version is never changed.

        Args:
            path: the model's folder.
            other_data: take a model whose labels or image shape differ from those of the version that is served.

        Raises:
            Refused: the model is not blessed, for exactly the files that it has, or fails in a runtime.
            UsageError: it is no model of kernorm's or was changed, it is of other labels or images than the version
                that is served, the published name is that of a run with exported models, another process is
                publishing, the folder cannot be written or the disk is full.
        """
        card, digest = verify_integrity(path)
        if reason := blessing_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        for number in versions(self.base):
            require_pushed(self.base, number)
        if not other_data:
            require_same_data(path, card, self.base, self.served().top)
        if validation_problem(path, digest):
            validate_model(path)
        if reason := validation_problem(path, digest):
            raise Refused(f"{path}: {reason}")
        remove_leftovers_of_writing(path)
        write_server_files(self.folder)
        for name, why in ignored_reasons(self.base).items():
            _LOG.warning(f"{self.base / name}: {why}")
        with locked(self.folder / f".{self.model}.push.lock", f"publish {self.model}"):
            with new_version(self.base) as version:
                copy_blessed(path, version.folder, digest)
            with self._changing(without=version.number) as (served, config):
                entry = entry_of(config, self.model)
                if entry is None or not takes_new_versions(entry):
                    self._write(served, served.published(version.number), config)
            if not served.follows:
                _LOG.info(f"{version.number} is published and not served; --pin latest serves it")
        travelling = card.warmup or f"some images of {card.data.name}"
        _LOG.info(f"with the model travel, as warm-up requests that everybody can read: {travelling}")
        _LOG.info(f"serve by: {docker_command(self.folder)}")
        return version.path

    def served(self) -> Served:
        """Returns what models.config makes a server do."""
        return self._read()[0]

    def configured(self) -> bool:
        """Says whether models.config names the model; else no server serves it."""
        return entry_of(self._file.read(), self.model) is not None

    def pin(self, number: int | None) -> None:
        """Serves a version to requests that name none, and no higher one; None follows the newest.

        Labels of higher versions, which are unloaded by that, are dropped.

        Raises:
            UsageError: there is no such version.
            Busy: another process holds models.config.
        """
        if number is not None or not versions(self.base):
            require_version(self.base, number)
        with self._changing() as (served, config):
            base = versions(self.base)[-1] if number is None else number
            require_pushed(self.base, base)
            self._write(served, served.pinned(base, number is None), config)

    def rollback(self, wait: Endpoint | None = None) -> bool:
        """Serves the version before the one that requests without a version reach, as `pin`; returns whether it does.

        Labels of the version that is left move to the one before. So a server must have loaded that: as with `label`,
        it is listed first where it is not, and served once it is loaded.

        Raises:
            UsageError: there is none, or the server at `wait` does not load it.
            Busy: another process holds models.config.
        """
        served = self.served()
        before = [number for number in versions(self.base) if served.top is not None and number < served.top]
        if not before:
            raise UsageError(
                "A rollback needs a version before the one that is served.",
                f"{self.base}, which serves {served.top or 'none'} and has none before it",
                "See python -m kernorm.push --list.",
            )
        if names := served.labels_above(before[-1]):
            return self._once_loaded(before[-1], names, lambda now: now.rolled_back(before[-1]), wait)
        self.pin(before[-1])
        return True

    def label(self, name: str, number: int, wait: Endpoint | None = None) -> bool:
        """Gives a version a label for clients, once it is served; returns whether it has it.

        A server that runs refuses the whole file for a label on a version that it has not loaded. So the version is
        listed first. The label is written when the server at `wait` has loaded it; without `wait` only if the version
        has been listed long enough. If the server does not load it, it is listed no more.

        Raises:
            UsageError: there is no such version, no address could hold the name, the version is above the one that is
                pinned, or the server does not load it.
            Busy: another process holds models.config.
        """
        require_name(name, "--label", "stable")
        require_not_above_pin(self.served(), name, number)
        return self._once_loaded(number, (name,), lambda now: now.labelled(name, number), wait)

    def unlabel(self, name: str) -> None:
        """Takes a label away, also one that waits; its version is unloaded, if nothing else needs it.

        Raises:
            UsageError: there is no such label.
            Busy: another process holds models.config.
        """
        with self._changing() as (served, config):
            known = {**served.labels, **served.pending}
            if name not in known:
                raise UsageError("--unlabel takes a label.", f"{name!r}", nearest(name, known))
            self._write(served, served.unlabelled(name), config)

    def _once_loaded(
        self, number: int, names: Collection[str], change: Callable[[Served], Served], wait: Endpoint | None
    ) -> bool:
        """Gives labels to a version by `change`, once it is loaded, and has it listed before; returns whether it has.

        Raises:
            UsageError: as `label`.
        """
        require_version(self.base, number)
        with self._changing() as (served, config):
            listed = number in served.listed and entry_of(config, self.model) is not None
            if listed and all(served.labels.get(name) == number for name in names):
                return True
            if not wait and listed and self._is_settled(served, number):
                self._write(served, change(served), config)
                return True
            loading = served.loading(number, names)
            if not listed or (not wait and loading != served):
                self._write(served, loading, config)
        if not wait:
            return False
        try:
            wait_until_loaded(server_at(wait, self.model, number))
        except BaseException:
            if not listed:
                with self._changing() as (served, config):
                    self._write(served, served.not_loading(names), config)
            raise
        with self._changing() as (served, config):
            if number not in served.listed:
                raise UsageError(
                    "A version with a label stays served.", f"{number}, which was unlisted meanwhile", "Run it again."
                )
            self._write(served, change(served), config)
        return True

    @contextlib.contextmanager
    def _changing(self, without: int | None = None) -> Iterator[tuple[Served, "ModelServerConfig"]]:
        """Yields what a server does, and the file that says so, which no other process changes meanwhile."""
        with self._file.locked():
            yield self._read(without)

    def _read(self, without: int | None = None) -> tuple[Served, "ModelServerConfig"]:
        config, known = self._file.read(), [number for number in versions(self.base) if number != without]
        note = self._file.notes().get(self.model, {})
        return read_served(entry_of(config, self.model), note, known), config

    def _write(self, before: Served, after: Served, config: "ModelServerConfig") -> None:
        """Writes what a server is to do, without labels that it would refuse; says what requests reach then."""
        after = after.labelled_within(before.listed)
        entry = entry_of(config, self.model) or add_entry(config, self.model)
        self._file.write(config, self._file.notes() | {self.model: write_served(after, entry, time.time())})
        for name, number in sorted(before.labels.items()):
            if name not in after.labels:
                _LOG.info(f"the label {name} of {number} is gone")
        _LOG.info(format_served(after))

    def _is_settled(self, served: Served, number: int) -> bool:
        """Says whether a server has loaded a listed version by now: it has a label already, or was listed long ago.

        Since when is known by the files' own times, if push did not note it.
        """
        files = [path for path in (self._file.path, self.base / str(number)) if path.exists()]
        since = served.since.get(number, max(path.stat().st_mtime for path in files))
        return number in served.labels.values() or time.time() - since > SETTLED_SECONDS


def ignored_reasons(base: Path) -> dict[str, str]:
    """Returns names in a model's folder that are numbers, but no versions, each with the reason."""
    zeros = "ignored: a version has no leading zeros, but a server may take it for one; rename or remove it"
    large = "ignored: a version is at most 2^63 - 1, as TF Serving takes it; rename or remove it"
    return {name: zeros if name.startswith("0") else large for name in ignored_versions(base)}
