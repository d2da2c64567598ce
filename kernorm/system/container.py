"""What a container lets its processes use: CPU time and memory, by control groups of either version.

A process is in one group for each controller (version 1) or in one for all (version 2); the limits of the groups above
it hold as well. Outside Linux there are none. See control groups v1 and v2 in the kernel's documentation.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

# Where /proc and the control groups are found.
ROOT = Path("/")


def cpu_quota() -> float | None:
    """Returns how many cores' time this process may use; None where nothing limits it."""
    found = [_quotient(text.split()) for text in _read("", "cpu.max")]
    for folder in _folders("cpu"):
        found.append(_quotient([_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]))
    return min((one for one in found if one), default=None)


def memory_limit() -> int | None:
    """Returns how many bytes of memory this process and those with it may use; None where nothing limits them."""
    found = [_whole(text) for text in [*_read("", "memory.max"), *_read("memory", "memory.limit_in_bytes")]]
    return min((one for one in found if one), default=None)


def _read(controller: str, name: str) -> list[str]:
    return [_text(folder / name) for folder in _folders(controller)]


def _folders(controller: str) -> Iterator[Path]:
    """Yields the folders of this process' group and of those above it; of version 2 if no controller is named."""
    groups: dict[str, str] = {}
    for line in _text(ROOT / "proc/self/cgroup").splitlines():
        _, names, group = line.split(":", 2)
        groups |= dict.fromkeys(names.split(","), group)
    if controller not in groups:
        return
    for line in _text(ROOT / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind != ("cgroup" if controller else "cgroup2") or (controller and controller not in options.split(",")):
            continue
        shown, at = before.split()[3:5]
        mount = ROOT / at.lstrip("/")
        # In a container the mount may show the process' own group, or one above it, as its root.
        own, top = Path(groups[controller]), Path(shown)
        folder = mount / own.relative_to(top) if own.is_relative_to(top) and ".." not in own.parts else mount
        for one in (folder, *folder.parents):
            yield one
            if one == mount:
                break


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _quotient(parts: list[str]) -> float | None:
    """Returns the share of a quota in its period; None for `max` and for −1, which mean no limit."""
    quota, period = (_whole(part) for part in parts) if len(parts) == 2 else (None, None)
    return quota / period if quota and period else None


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
