"""Paths that TensorFlow reads as they are: it takes the prefix of a model's variables for a pattern of file names."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PATTERN = set("*?[]\\")


@contextlib.contextmanager
def literal_path(path: Path) -> Iterator[Path]:
    """Yields a path to the model in `path` that holds no sign of a pattern, for the time of loading it.

    That is the path itself, or where one of its folders has `*`, `?`, `[`, `]` or a backslash in its name, a link to
    it in a temporary folder.
    """
    if not _PATTERN & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kernorm-") as folder:
        link = Path(folder) / ("model" if _PATTERN & set(path.name) else path.name)
        link.symlink_to(path.resolve(), target_is_directory=True)
        yield link
