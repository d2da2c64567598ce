"""Where a prepared set came from, and whether the files that it was read from have changed since."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where and when a set was prepared.

    Attributes:
        time: ISO 8601, UTC.
        folder: tensorflow-datasets' folder of the set and its version, which was read.
        manual_dir: the folder of original files that was given, or "".
        data_dir: tensorflow-datasets' folder of all sets that was given, or "" for its default.
        files: size in bytes and modification time in ns of the files that were read, by name.
        sha256: of these files.
        verified: whether the set was compared with its archives, which lay in `manual_dir`.
    """

    time: str
    folder: str
    manual_dir: str = ""
    data_dir: str = ""
    files: dict[str, tuple[int, int]]
    sha256: str
    verified: bool = False

    @property
    def day(self) -> str:
        """The day of `time`."""
        return self.time[:10]

    def has_changed(self) -> bool:
        """Looks at the files: whether others are there now than were read; a folder that is gone has not changed."""
        folder = Path(self.folder)
        try:
            now = _files(folder)
            return bool(now) and now != self.files and _sha256(folder, now) != self.sha256
        except OSError:
            return False

    def unused(self, manual_dir: Path | None, data_dir: Path | None) -> Path | None:
        """Returns the first of two named folders that is not where the set came from."""
        for given, known in ((manual_dir, self.manual_dir), (data_dir, self.data_dir)):
            if given is not None and str(given.absolute()) != known:
                return given
        return None

    def folders(self, manual_dir: Path | None, data_dir: Path | None) -> tuple[Path | None, Path | None]:
        """Returns the two named folders, or where none is named those of the set's source that are still there."""
        known = [Path(text) if text and Path(text).is_dir() else None for text in (self.manual_dir, self.data_dir)]
        return manual_dir or known[0], data_dir or known[1]


def origin_of(folder: Path, manual_dir: Path | None, data_dir: Path | None, *, verified: bool) -> Origin:
    """Describes where a set has just been read from.

    Raises:
        OSError: its files cannot be read.
    """
    files = _files(folder)
    return Origin(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        folder=str(folder),
        manual_dir=str(manual_dir.absolute()) if manual_dir else "",
        data_dir=str(data_dir.absolute()) if data_dir else "",
        files=files,
        sha256=_sha256(folder, files),
        verified=verified,
    )


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Examples and class names; tensorflow-datasets may rewrite its .json without another example."""
    found = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".json"}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}


def _sha256(folder: Path, files: dict[str, tuple[int, int]]) -> str:
    total = hashlib.sha256()
    for name in files:
        with (folder / name).open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
