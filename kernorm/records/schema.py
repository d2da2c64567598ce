"""Typed JSON files with a version: one way to write them, and one to read them or to say what is wrong.

Used for records, model cards, evaluations, validations and latencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json

from kernorm.errors import UsageError
from kernorm.system.files import write_atomically

T = TypeVar("T")

# Marks a dataclass of a file: unknown fields are refused, infinities and NaN are kept.
strict = with_config(ConfigDict(extra="forbid", ser_json_inf_nan="constants"))


def _rows(value: Any) -> Any:
    """Turns the columns of a table back into rows; rows, as older files have them, stay."""
    if not isinstance(value, dict):
        return value
    count = max((len(column) for column in value.values() if isinstance(column, list)), default=0)
    columns = [column if isinstance(column, list) else [column] * count for column in value.values()]
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _columns(rows: Sequence[Any]) -> Any:
    if not rows:
        return []
    names = [field.name for field in fields(rows[0])]
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    constant = {name: column[0] for name, column in columns.items() if _is_constant(column)}
    if len(constant) == len(names):  # one column tells how many rows there are
        del constant[names[0]]
    return columns | constant


def _is_constant(column: list) -> bool:
    """Tells whether all values of a column, two or more, are the same number or text, or are missing."""
    first = column[0]
    plain = first is None or isinstance(first, bool | int | float | str)
    return plain and len(column) > 1 and all(type(value) is type(first) and value == first for value in column)


# Marks a tuple of dataclasses that a file holds by columns, where a value is written once if all rows have it: a third
# of the size, or less where a run has thousands of mistakes.
BY_COLUMNS = (BeforeValidator(_rows), PlainSerializer(_columns))


def dumped(adapter: TypeAdapter[T], value: T, indent: int | None = None) -> bytes:
    """Writes a value as JSON; numbers that are not finite stay, in tables by columns too."""
    return to_json(adapter.dump_python(value), indent=indent, inf_nan_mode="constants")


@dataclass(frozen=True)
class _Versioned:
    """What is read of a file before its fields can be known."""

    schema_version: int


_VERSION = TypeAdapter(_Versioned)


class Schema(Generic[T]):
    """The form of one kind of file: a dataclass, with a field `schema_version` if it has versions.

    Args:
        name: of the file, as messages begin: `A record.json`.
        kind: the dataclass.
        version: of the schema that is read and written; None: the files hold none.
        fix: what to do about a damaged file.
    """

    def __init__(self, name: str, kind: type[T], *, version: int | None, fix: str) -> None:
        self.name, self.version, self.fix = name, version, fix
        self._adapter = TypeAdapter(kind)

    def write(self, value: T, path: Path) -> None:
        """Writes the file atomically.

        Raises:
            OSError: the disk is full or the folder cannot be written; the old file stays as it was.
        """
        write_atomically(path, dumped(self._adapter, value, indent=1) + b"\n")

    def read(self, path: Path) -> T | None:
        """Reads the file; None if there is none.

        Raises:
            UsageError: it is damaged, or of another schema.
        """
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            version = None if self.version is None else _VERSION.validate_json(content).schema_version
            if version == self.version:
                return self._adapter.validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "file"
            rule = f"{self.name} must be whole" + (f" and of schema {self.version}." if self.version else ".")
            raise UsageError(rule, f"{path}, {where}: {first['msg']}", self.fix) from None
        raise UsageError(
            f"{self.name} must be of schema {self.version}.",
            f"{path} of schema {version}",
            "Read it with the kernorm that wrote it.",
        )
