"""The old place of `Published`, for study files of earlier releases; gone in the release after next.

Write `from kernorm import Published`, and `weight_decay=` for `l2=`.
"""

import warnings

from kernorm.studies import definition

warnings.warn("Write `from kernorm import Published`: kernorm.plan is going away.", FutureWarning, stacklevel=2)


def Published(*, l2: float = 0.0, **values: float | str) -> definition.Published:  # noqa: N802
    """Returns a published row whose weight decay is called l2, as it was."""
    return definition.Published(weight_decay=l2, **values)  # type: ignore[arg-type]
