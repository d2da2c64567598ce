"""The published versions of a model as a table in text: what each is, and what a server does with it."""

import contextlib
import datetime
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.evaluation.result import blessing_problem, read_evaluation
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.versions import versions
from kernorm.serving.models_config import Served, format_served
from kernorm.serving.registry import Registry, ignored_reasons


def format_versions(registry: Registry) -> list[str]:
    """Returns a line a published version, the newest first, and what models.config makes a server do."""
    served, there = registry.served() if registry.configured() else Served(), versions(registry.base)
    lines = [_line(registry.base / str(number), _marks(served, number)) for number in reversed(there)]
    if there and registry.configured():
        lines.append(format_served(served, there[-1]))
    elif there:
        lines.append(f"models.config does not name {registry.model}, so no server serves it; --pin latest adds it")
    lines += [
        f"{number} is published and not served yet; --pin latest serves it" for number in served.overlooked(there)
    ]
    lines += [f"{name}  {why}" for name, why in ignored_reasons(registry.base).items()]
    for name, number in sorted(served.refused.items()):
        lines.append(
            f"label {name} is on {number}, which is not loaded: a server refuses models.config for it, or answers 404; "
            f"--label {name}={number} loads it, --unlabel {name} drops it"
        )
    return lines


def _marks(served: Served, number: int) -> list[str]:
    place = "served" if number == served.top else "loaded" if number in served.listed else ""
    labels = [f"{name} (refused)" if name in served.refused else name for name in served.named(number)]
    pending = [f"{name} (not written yet)" for name, of in served.pending.items() if of == number]
    return [*([place] if place else []), *labels, *pending]


def _line(path: Path, marks: list[str]) -> str:
    when = _when(path.name)
    try:
        card, digest = verify_integrity(path)
        found, reason = read_evaluation(path), blessing_problem(path, digest)
    except UsageError as error:
        return "  ".join([path.name, when, f"UNUSABLE: {error}", *marks])
    accuracy = f"{100 * found.measured('accuracy').value:.2f} %" if found else "not evaluated"
    blessing = "not blessed" if reason else "blessed"
    return f"{path.name}  {when}  {blessing:11}  {accuracy:13}  {card.run_id}  {', '.join(marks)}"


def _when(name: str) -> str:
    """Returns the time that a version stands for: kernorm's are unix seconds; others write a date by its digits."""
    for digits, form in ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (8, "%Y%m%d")):
        with contextlib.suppress(ValueError):
            if len(name) == digits:
                return f"{datetime.datetime.strptime(name, form):%Y-%m-%d %H:%M:%S}"
    try:
        return f"{datetime.datetime.fromtimestamp(int(name), datetime.UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # after the year 9999
        return f"{'no time':19}"
