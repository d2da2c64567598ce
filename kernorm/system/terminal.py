"""The terminal on which commands show tables."""

from rich.console import Console


def table_console() -> Console:
    """Returns a console whose tables are not folded into a pipe's 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=300)
