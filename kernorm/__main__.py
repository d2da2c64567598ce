"""Lists kernorm's commands, and runs one of them: `python -m kernorm train --norm ln`, or `kernorm train --norm ln`."""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

# In the order in which a user meets them.
COMMANDS = {
    "train": "kernorm.train",
    "study": "kernorm.study",
    "search": "tuner.search",
    "evaluate": "kernorm.evaluate",
    "export": "kernorm.export",
    "convert": "kernorm.convert",
    "validate": "kernorm.validate",
    "push": "kernorm.push",
    "predict": "kernorm.predict",
    "data": "kernorm.data",
    "net": "kernorm.net",
    "runs": "kernorm.runs",
}


def summary(module: str) -> str:
    """Returns what a command does: the first sentence of its module, which is not imported."""
    if file := foreign(module):
        return f"hidden by {file}, which has the same name"
    spec = importlib.util.find_spec(module)
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_bytes())) if spec and spec.origin else None
    first = " ".join((text or "").split("\n\n")[0].split())
    return first.rpartition(": `")[0] or first.rstrip(".:")


def foreign(module: str) -> str | None:
    """Returns the file that hides a command's package, such as a user's own tuner.py."""
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if any(Path(folder, f"{module.partition('.')[2]}.py").is_file() for folder in folders):
        return None
    return (spec and spec.origin) or ", ".join(folders) or package


def listed(commands: dict[str, str], prog: str) -> str:
    """Returns a line a command, and how to see its help."""
    lines = [f"  {name:10}{summary(module)}" for name, module in commands.items()]
    return "\n".join([f"usage: {prog} COMMAND …", "", *lines, "", f"Its settings: {prog} COMMAND --help"])


def run(commands: dict[str, str], prog: str, argv: list[str]) -> int:
    """Lists commands, or runs the one that is named, as if it were called by its module."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(listed(commands, prog))
        return 0
    if name not in commands:
        from kernorm.errors import nearest

        print(f"error: A command must be a known one. Received: {name!r}. {nearest(name, commands)}", file=sys.stderr)
        return 2
    if file := foreign(commands[name]):
        print(
            f"error: {commands[name]} must be kernorm's own. Received: {file}, which has the same name. "
            "Rename that file, or start in another folder.",
            file=sys.stderr,
        )
        return 2
    sys.argv = [f"{prog} {name}", *argv[1:]]
    runpy.run_module(commands[name], run_name="__main__", alter_sys=True)
    return 0


def main() -> int:
    """Runs the console script `kernorm`."""
    return run(COMMANDS, "kernorm", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run(COMMANDS, "python -m kernorm", sys.argv[1:]))
