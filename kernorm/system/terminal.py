"""What commands show as tables, and ask before they remove something."""

import sys

from rich.console import Console

from kernorm.errors import UsageError


def table_console() -> Console:
    """Returns a console whose tables are not folded into a pipe's 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=300)


def confirmed(question: str, *, yes: bool) -> bool:
    """Asks on the terminal, and tells whether the answer is yes; `yes` is the answer that a flag gave.

    Raises:
        UsageError: there is no terminal to ask on, and no flag.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("Removing asks first.", "no terminal to ask on", "Add --yes if you mean it.")
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
