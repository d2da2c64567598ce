"""The machine and the software that a run is computed with."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Returns the processor's model and how many cores the machine has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"


def peak_memory() -> int:
    """Returns the most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those of the packages that are installed, by name."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Returns the commit of the checkout that kernorm runs from; None if it runs from none, or git is missing.

    A copy of a checkout without .git may have it in KERNORM_COMMIT, or in a file .accelerator/commit.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        packed = root / ".accelerator" / "commit"
        return os.environ.get("KERNORM_COMMIT") or (packed.read_text().strip() if packed.is_file() else None)
    try:
        asked = subprocess.run(
            ["git", "-C", root, "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
