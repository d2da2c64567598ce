"""Deletes prepared sets from the cache, after showing what they hold."""

import contextlib
from collections.abc import Sequence

from filelock import FileLock, Timeout

from kernorm.datasets.cache import cache_dir, cached_paths, identity_of, paths_of
from kernorm.errors import UsageError, nearest
from kernorm.system.removal import remove, require_within


def remove_sets(names: Sequence[str], *, yes: bool) -> bool:
    """Deletes sets, all their versions unless a name gives one; tells whether it did.

    Their next use prepares them again. What they were prepared from stays.

    Raises:
        UsageError: no such set is prepared, a process prepares it, a link leads to it, or nobody can be asked.
        OSError: something cannot be deleted.
    """
    paths = []
    for name in names:
        if not (found := paths_of(name)):
            known = sorted({identity_of(path)[0] for path in cached_paths()})
            raise UsageError("--remove takes sets that are prepared.", f"{name!r}", nearest(name, known))
        for path in found:
            require_within(path, cache_dir())
        paths += found
    with contextlib.ExitStack() as held:
        for base in {identity_of(path)[0] for path in paths}:
            try:
                held.enter_context(FileLock(cache_dir() / f"{base.replace('/', '+')}.lock", timeout=0))
            except Timeout:
                raise UsageError(
                    "A set that another process prepares is not deleted.", f"{base!r}", "Wait for it, or end it."
                ) from None
        return remove(list(dict.fromkeys(paths)), yes=yes)
