"""Reads studies from their files: those that come with kernorm, and a user's own.

Between their definition and the runner.
"""

import ast
import contextlib
import difflib
import hashlib
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded
from kernorm.nets.source import trust
from kernorm.studies.definition import Study, study_of


def packaged() -> dict[str, Path]:
    """Returns the files of the package's own studies by name."""
    folder = Path(__file__).parent / "library"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load_study(name: str) -> Study:
    """Reads a study of the package by its name, or a user's own by the path of its file.

    Raises:
        UsageError: there is none of that name, or the file is not a study; it says what is wrong and where.
    """
    known = packaged()
    path = known.get(name) or expanded(name)
    if name not in known and path.suffix != ".py":
        raise UsageError("A study is a known name or a Python file.", f"{name!r}", nearest(name, known))
    if not path.is_file():
        raise UsageError("A study file must be there.", f"{name}, which is not", f"Known: {', '.join(known)}.")
    study = _study(path.stem, path, _values(path))
    for config in study.arms.values():
        trust(config.net_source)  # it stands in the file, which has run
    return replace(study, file=f"kernorm:{name}" if name in known else _file_name(path))


def _file_name(path: Path) -> str:
    """Names a study file by its path from the current folder; one elsewhere without the folders of this machine."""
    relative = os.path.relpath(path)
    if not relative.startswith(os.pardir):
        return relative
    return f"{path.name} ({hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]})"


def _values(path: Path) -> dict[str, Any]:
    """Runs a study file and returns what it defines; it may import its neighbours, as any script."""
    try:
        ast.parse(path.read_bytes(), str(path))
        with _neighbours_importable(path.resolve().parent):
            return runpy.run_path(str(path))
    except SyntaxError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        reason = f"{type(error).__name__}: {error}"
    raise UsageError("A study file must run as Python.", f"{path}, {reason}", "Fix it.")


@contextlib.contextmanager
def _neighbours_importable(folder: Path) -> Iterator[None]:
    """Lets the body import modules of the folder; what it imported from there is forgotten after."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder in Path(file).parents:
                del sys.modules[name]


# What a study file may define, and the argument of `study_of` that it is.
_NAMES = {
    "ARMS": "arms",
    "BASELINE": "baseline",
    "SEEDS": "seeds",
    "PUBLISHED": "published",
    "STATEMENTS": "statements",
    "PRIMARY": "metric",
    "MARGIN": "margin",
    "TARGETS": "targets",
}


def _study(name: str, path: Path, values: Mapping[str, Any]) -> Study:
    for written in values:
        meant = difflib.get_close_matches(written, _NAMES, n=1, cutoff=0.8) if written.isupper() else []
        if meant and written not in _NAMES and meant[0] not in values:
            raise UsageError("A study file has names of its own.", f"{written} in {path}", f"Did you mean {meant[0]}?")
    given = {argument: values[known] for known, argument in _NAMES.items() if known in values}
    return study_of(name, given.pop("arms", None), text=str(values.get("__doc__") or name), source=str(path), **given)
