"""The points that a search tries first: those of a file, or the rows of the published tables."""

import json
import logging
import os

from kernorm.errors import UsageError
from kernorm.limits import expanded
from tuner.config import SearchConfig
from tuner.space import point

_LOG = logging.getLogger("kernorm")


def first_points(config: SearchConfig) -> list[dict]:
    """Reads the points to try first."""
    if config.enqueue is None:
        return []
    if config.enqueue == "published":
        return published_points(config)
    try:
        given = json.loads(expanded(config.enqueue).read_bytes())
    except OSError as error:
        raise UsageError(
            "--enqueue takes 'published' or a file.",
            f"{config.enqueue}: {os.strerror(error.errno or 0)}",
            "Give the path of a JSON file.",
        ) from None
    except ValueError as error:
        raise UsageError("--enqueue takes JSON.", f"{config.enqueue}: {error}", "Fix it.") from None
    if not (isinstance(given, list) and all(isinstance(item, dict) for item in given)):
        raise UsageError("--enqueue takes a list of objects.", config.enqueue, 'Write for example [{"l2": 0.0066}].')
    return [point(config.space, item) for item in given]


def published_points(config: SearchConfig) -> list[dict]:
    """Returns the rows of both published tables as far as the space holds them."""
    from kernorm.studies.loading import load_study

    found: list[dict] = []
    outside = 0
    for study in (load_study("eva4"), load_study("eva6")):
        for arm in study.arms.values():
            row = {name: getattr(arm, name) for name, _ in config.space.described() if name != "learning_rate"}
            try:
                values = point(config.space, row)
            except UsageError:
                outside += 1
                continue
            if values not in found:
                found.append(values)
    told = f"; {outside} rows lie outside of the space" if outside else ""
    _LOG.info("enqueued: %d points of the published tables%s", len(found), told)
    return found
