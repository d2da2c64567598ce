"""An own net's file: its text is read once, where a command or call begins, and runs only where the user has named it.

`--net nets/small.py:net` becomes `net` with the text in `net_source`, so that no path decides a run's identity and a
worker without the file agrees. A text that came with a stored run or model is not trusted until its user says so.
Imports no Keras.
"""

import ast
import hashlib
import importlib.metadata
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import expanded, file_and_function

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRUSTED: set[str] = set()
# The initial weights of models that were brought from Python, by their sha256.
_WEIGHTS: "dict[str, list[NDArray]]" = {}

_LOG = logging.getLogger("kernorm")


def with_net(config: TrainConfig) -> TrainConfig:
    """Returns the config of an own net with its function and the text of its file; any other config as it is.

    Raises:
        UsageError: the file cannot be read, is no Python, needs a neighbour or has no such function; or the text came
            from a stored run and its user has not said that it may run.
    """
    if config.net_weights is not None and given_weights(config) is None:
        raise UsageError(
            "A model that was brought from Python is given once more to be trained.",
            f"{config.net}, whose initial weights are not there",
            "Call kernorm.train_model(model=…) with it.",
        )
    if config.net_source is not None:
        require_trusted(config)
        return config
    named = file_and_function(config.net)
    if named is None:
        return config
    text = _read(expanded(named[0]), named[1])
    trust(text)
    return replace(config, net=named[1], net_source=text)


def net_file(config: TrainConfig) -> str:
    """Returns the name of the file in a run's folder, and in an exported model, that holds `net_source`."""
    return "net.json" if config.net_weights is not None else "net.py"


def give_weights(digest: str, weights: "list[NDArray]") -> None:
    """Gives this process the initial weights of a model that was brought from Python."""
    _WEIGHTS[digest] = weights


def given_weights(config: TrainConfig) -> "list[NDArray] | None":
    """Returns the initial weights of a config's model; None where there are none in this process."""
    return _WEIGHTS.get(config.net_weights or "")


def trust(text: str | None) -> None:
    """Lets a text run in this process: its user has named the file, or has said that it may."""
    if text is not None:
        _TRUSTED.add(_digest(text))


def is_trusted(config: TrainConfig) -> bool:
    """Tells whether the net of a config may be built here: one whose Python its user has named, or that has none."""
    return config.net_source is None or config.net_weights is not None or _digest(config.net_source) in _TRUSTED


def require_trusted(config: TrainConfig) -> None:
    """Refuses to run the Python that came with a stored run or model.

    Raises:
        UsageError: its user has not said that it may.
    """
    if not is_trusted(config):
        raise UsageError(
            "The Python of a stored net runs only if its user says so.",
            f"{config.net} of a stored run",
            "Read its net.py, then give --trust-code (in Python trust_code=True), or name the same file by --net.",
        )


def allow_code(config: TrainConfig, net: str | None = None, *, trust_code: bool = False) -> None:
    """Lets the Python of a stored net run, if its user says so in one of two ways; nothing for kernorm's own nets.

    Args:
        config: of the stored run.
        net: names the file that it was trained with, FILE.py:FUNCTION.
        trust_code: the text in the run may run.

    Raises:
        UsageError: the file cannot be read, holds another text or function, or neither was said.
    """
    if config.net_source is None or config.net_weights is not None:
        return
    if net is not None:
        _require_same_text(config, net)
    if net is not None or trust_code:
        _LOG.info("Running the Python of the net %s.", config.net)
        trust(config.net_source)
    require_trusted(config)


def _require_same_text(config: TrainConfig, net: str) -> None:
    named = file_and_function(net)
    if named is None:
        raise UsageError("--net takes FILE.py:FUNCTION.", f"{net!r}", "Give the file of the run's own net.")
    if (named[1], _read(expanded(named[0]), named[1])) != (config.net, config.net_source):
        raise UsageError(
            "--net names the file that the run was trained with.",
            f"{net}, which is not {config.net} with the same text",
            f"Give the run's net.py:{config.net}.",
        )


def load_function(config: TrainConfig) -> Callable[..., Any]:
    """Runs the file of an own net and returns its function.

    Raises:
        UsageError: the text is not trusted, raises, or has no such function.
    """
    require_trusted(config)
    text = config.net_source or ""
    module = ModuleType(f"kernorm_net_{_digest(text)[:12]}")
    sys.modules[module.__name__] = module  # where dataclasses and Keras look for what a class belongs to
    try:
        exec(compile(text, _file_name(text), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise failed(config, error) from None
    function = module.__dict__.get(config.net)
    if not callable(function):
        raise UsageError("A net is a function of its file.", f"{config.net}, which is none", "Name a function.")
    return function


def failed(config: TrainConfig, error: BaseException) -> UsageError:
    """Returns what to say of an error that the file of an own net has raised: the line in it, and the message."""
    if isinstance(error, UsageError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == _file_name(config.net_source or "")]
    said = textwrap.shorten(f"{type(error).__name__}: {error}", width=300, placeholder=" …")
    place = f"line {lines[-1]}: " if lines else ""
    return UsageError("A net's file must run as Python.", f"{config.net}, {place}{said}", "Fix it.")


def _file_name(text: str) -> str:
    return f"<net {_digest(text)[:12]}>"


def _read(path: Path, function: str) -> str:
    """Returns the text of a file that has such a function, and needs no other file next to it."""
    if not path.exists():
        raise UsageError("--net takes FILE.py:FUNCTION.", f"{path}, which is not there", "Give another file.")
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except OSError as error:
        raise UsageError(
            "--net takes FILE.py:FUNCTION.", f"{path}: {os.strerror(error.errno or 0)}", "Give another file."
        ) from None
    except SyntaxError as error:
        raise UsageError("A net's file is Python.", f"{path}, line {error.lineno}: {error.msg}", "Fix it.") from None
    except ValueError:  # not UTF-8, or bytes of zero
        raise UsageError("A net's file is Python.", f"{path}, which is not text in UTF-8", "Give another.") from None
    names = set(_bound(tree))
    if function not in names and "*" not in names:
        functions = sorted(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
        fix = nearest(function, functions) if functions else "Write def net(image_shape, num_classes, conv)."
        raise UsageError("A net is a function of its file.", f"{path}, which has no {function}", fix)
    if neighbour := next((name for name in _imported(tree) if _is_neighbour(name, path.parent)), None):
        raise UsageError(
            "A net is one file.",
            f"{path}, which imports {neighbour} next to it",
            "Put that into the file, or install it as a package.",
        )
    return text


def _is_neighbour(name: str, folder: Path) -> bool:
    """Tells whether an import means a module in a folder, and no package that is installed."""
    there = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
    return there and name != __name__.partition(".")[0] and name not in importlib.metadata.packages_distributions()


def _bound(node: ast.AST) -> Iterator[str]:
    """Yields the names that a module binds; * where it takes all of another one."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield child.name
            case ast.Lambda():
                continue
            case ast.alias():
                yield child.asname or child.name
            case ast.Name(ctx=ast.Store()):
                yield child.id
            case _:
                yield from _bound(child)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yields the first names of what a module imports anywhere in it."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom(level=0, module=str(name)):
                yield name.partition(".")[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
