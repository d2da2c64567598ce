"""Files that hold a typed record a line: appended whole, read without the lines that are damaged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from kernorm.records.schema import dumped
from kernorm.system.files import append_whole, write_atomically

T = TypeVar("T")


class JsonLines(Generic[T]):
    """The form of the lines of one kind of file: a dataclass."""

    def __init__(self, kind: type[T]) -> None:
        self._adapter = TypeAdapter(kind)

    def line(self, value: T) -> bytes:
        """Returns the line of a value, with its end."""
        return dumped(self._adapter, value) + b"\n"

    def parse(self, line: bytes) -> T | None:
        """Returns the value of a line; None if it is damaged, or another process is just writing it."""
        try:
            return self._adapter.validate_json(line)
        except ValidationError:
            return None

    def append(self, path: Path, value: T) -> None:
        """Appends a value: on disk when this returns, or not there at all."""
        append_whole(path, self.line(value))

    def load(self, path: Path, *, mend: bool) -> tuple[list[T], list[int]]:
        """Returns the values of a file, and the numbers of its lines, from 1, that cannot be read.

        With `mend`, which is for a process that alone appends, such lines are moved to `<name>.damaged.jsonl`, and a
        last line without its end gets it.
        """
        kept, values, aside, numbers = [], [], [], []
        for number, (line, value) in enumerate(self.read(path), 1):
            if value is None:
                aside.append(line)
                numbers.append(number)
            else:
                kept.append(line)
                values.append(value)
        if mend and aside:
            append_whole(path.with_suffix(".damaged.jsonl"), b"".join(aside))
        if mend and path.exists() and path.read_bytes() != b"".join(kept):
            write_atomically(path, b"".join(kept))
        return values, numbers

    def read(self, path: Path) -> Iterator[tuple[bytes, T | None]]:
        """Yields every line of a file with its end, and its value; nothing if there is no file."""
        for line in path.read_bytes().splitlines() if path.exists() else ():
            yield line + b"\n", self.parse(line)
