"""The machine and the software that a run is computed with."""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.system import container

# What a process that trains one run after another holds, with room for what TensorFlow keeps of each.
WORKER_BYTES = 1_400_000_000


def require_posix() -> None:
    """Makes sure that the system has what kernorm locks files with.

    Raises:
        UsageError: it is Windows.
    """
    if importlib.util.find_spec("fcntl") is None:
        raise UsageError("kernorm runs on Linux, macOS or WSL.", sys.platform, "On Windows, install WSL and use it.")


def cores() -> int:
    """Returns the number of cores this process may use: those it may run on, as far as its container's quota goes."""
    quota = container.cpu_quota()
    return max(1, min(visible_cores(), math.ceil(quota) if quota else sys.maxsize))


def visible_cores() -> int:
    """Returns the number of cores this process may run on, which libraries start a thread for."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Returns the bytes of memory that this process and those with it may use; None where the system does not say."""
    found = [container.memory_limit()]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((one for one in found if one), default=None)


def default_workers(threads: int = 1) -> int:
    """Returns how many processes of so many threads train at once: as many as cores and memory hold, at least one."""
    held = memory()
    return max(1, min(cores() // threads, held // WORKER_BYTES if held else sys.maxsize))


def home() -> Path | None:
    """Returns the user's home folder; None where there is none, as for a bare user id in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def processor() -> str:
    """Returns the processor's model and how many cores the machine has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"


def peak_memory() -> int:
    """Returns the most memory this process has held so far, in bytes."""
    import resource  # which Windows lacks

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
        given = os.environ.get("KERNORM_COMMIT")
        return given or (packed.read_text(encoding="utf-8").strip() if packed.is_file() else None)
    try:
        asked = subprocess.run(
            ["git", "-C", root, "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
