"""Settings of single layers, LAYER=VALUE: what --norm-at and --penalty-at take."""

import math
from collections.abc import Iterable, Sequence

from kernorm.errors import UsageError, nearest
from kernorm.limits import flag_of

# The largest λ.
LAMBDA = 1e3
_EXAMPLES = {"norm_at": "conv1=none", "penalty_at": "conv1=0,0.001"}


def layer_settings(name: str, settings: Iterable[str]) -> dict[str, str]:
    """Splits LAYER=VALUE settings of the field `name` into a dict by layer.

    Raises:
        UsageError: a setting has no `=`, or one layer is named twice.
    """
    by_layer: dict[str, str] = {}
    for setting in settings:
        layer, equals, value = setting.partition("=")
        if not (layer and equals and value):
            raise UsageError(
                f"{flag_of(name)} takes LAYER=VALUE.", f"{setting!r}", f"Give for example {_EXAMPLES[name]}."
            )
        if layer in by_layer:
            raise UsageError(f"{flag_of(name)} takes each layer once.", f"{layer!r} twice", "Remove one of them.")
        by_layer[layer] = value
    return by_layer


def parse_penalty(setting: str) -> tuple[float, float]:
    """Reads the L1,L2 of a `--penalty-at` setting.

    Raises:
        UsageError: it is not two finite numbers of at least 0.
    """
    try:
        l1, l2 = (float(value) for value in setting.split(","))
    except ValueError:
        l1 = l2 = math.nan
    if not (0 <= l1 <= LAMBDA and 0 <= l2 <= LAMBDA):
        raise UsageError(
            f"--penalty-at takes LAYER=L1,L2, two numbers from 0 to {LAMBDA:g}.",
            f"{setting!r}",
            f"Give for example {_EXAMPLES['penalty_at']}.",
        )
    return l1, l2


def check_layer_settings(name: str, settings: Iterable[str], norms: Sequence[str]) -> None:
    """Refuses settings of the field `name` that cannot be read, and norms that are not among those given.

    Raises:
        UsageError: as `layer_settings` and `parse_penalty`, or a norm is unknown.
    """
    for value in layer_settings(name, settings).values():
        if name == "penalty_at":
            parse_penalty(value)
        elif value not in norms:
            raise UsageError("--norm-at takes a known norm.", f"{value!r}", nearest(value, norms))


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
