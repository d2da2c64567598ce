"""The help of a command: tyro's text, its options in groups and wrapped to the terminal's width.

tyro has no groups for the fields of one dataclass. A settings class names them in GROUPS, a dict from titles to names
of fields; options of settings nested in it follow under the title of theirs.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

REST = "other options"
_INDENT = 24


@dataclass(frozen=True)
class Option:
    """One option: its flags with their values, and what it does, a line a paragraph or list item."""

    invocation: str
    text: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of its flags, without dashes; of an argument without a flag its own."""
        return re.findall(r"(?<![\w-])--?([a-z][a-z0-9-]*)", self.invocation) or [self.invocation]


# What cli.py takes for every command.
_EVERYWHERE = (
    Option("-q, --quiet", ("Show warnings and errors alone.",)),
    Option("-v, --verbose", ("Show every detail.",)),
)


def grouped_help(text: str, groups: Mapping[str, Sequence[str]], width: int) -> str:
    """Returns a command's help with its options in groups.

    Args:
        text: what tyro prints, without boxes, where it is so wide that nothing is wrapped.
        groups: names of fields by title, in order; flags that none has come last.
        width: of the terminal, in columns.
    """
    head, *boxes = re.split(r"^ [a-z ]+\n -+$", re.sub(r" +$", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    options = [*(option for box in boxes for option in _options(box)), *_EVERYWHERE]
    title_of = {name.replace("_", "-"): title for title, names in groups.items() for name in names}
    found: dict[str, list[Option]] = {title: [] for title in groups}
    for option in options:
        title = next((title_of[name] for name in option.names if name in title_of), "")
        if not option.invocation.startswith("-"):
            title = title or "arguments"
        found.setdefault(title or (REST if groups else "options"), []).append(option)
    order = sorted(found, key=lambda title: (title != "arguments", title == REST))
    shown = [_paragraphs(head, width)]
    for title in order:
        if found[title]:
            shown.append("\n".join([f"{title}:", *(_format(option, width) for option in found[title])]))
    return "\n\n".join(shown) + "\n"


def _options(box: str) -> Iterator[Option]:
    """Yields the options of one of tyro's boxes."""
    entries: list[tuple[str, list[str]]] = []
    for line in box.splitlines():
        if re.match(r"  \S", line):
            invocation, _, rest = line.strip().partition("  ")
            entries.append((invocation, [rest.strip()] if rest.strip() else []))
        elif entries and line.strip():
            entries[-1][1].append(line.strip())
    for invocation, lines in entries:
        joined: list[str] = []
        for line in lines:
            if joined and not line.startswith("- ") and not joined[-1].endswith(":"):
                joined[-1] += f" {line}"
            else:
                joined.append(line)
        yield Option(_short(invocation), tuple(line.removesuffix(" (default: )") for line in joined))


def _short(invocation: str) -> str:
    """Writes {None}|X as X, since the text says what None means."""
    return invocation.replace("{None}|", "").replace("|{auto}", "|auto")


def _format(option: Option, width: int) -> str:
    lines = [
        piece
        for line in option.text
        for piece in textwrap.wrap(
            line,
            max(width - _INDENT, 30),
            subsequent_indent="  " if line.startswith("- ") else "",
            break_on_hyphens=False,
        )
    ]
    first = f"  {option.invocation}"
    if lines and len(first) < _INDENT - 1:
        first += " " * (_INDENT - len(first)) + lines.pop(0)
    return "\n".join([first, *(" " * _INDENT + line for line in lines)])


def _paragraphs(text: str, width: int) -> str:
    """Wraps prose; lines that are indented or items of a list stay lines."""
    shown = []
    for line in text.strip().splitlines():
        indent = re.match(r"\s*(- )?", line)
        hanging = " " * (len(indent[0]) if indent else 0)
        shown += textwrap.wrap(line, width, subsequent_indent=hanging, break_on_hyphens=False) or [""]
    return "\n".join(shown)
