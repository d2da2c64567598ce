"""What did the published runs of TSAI EVA4 session 6 really compare? The same table with its faults.

    python -m kernorm.study eva4_as_run

The notebook adds the L1 norm times the *L2* coefficient. So its `l1` run (λ1 5e-4, λ2 0) had no penalty at all and is
the baseline once more from another state of the random generator; its `l1_l2` run had an L1 coefficient of 5e-3, ten
times the stated one. The `l1` arm below is therefore the config of `none` with seeds of its own.

40 epochs: about 15 CPU-minutes a run, 5 hours for 4 arms and 5 seeds. Expected: `l1` is not distinguishable from
`none`, and `l1_l2` is worse.
"""

from kernorm.recipes import recipe
from kernorm.studies.library.eva4 import PUBLISHED as CLAIMED
from kernorm.studies.library.eva4 import STATEMENTS as CONCLUDED
from kernorm.studies.published import Published, Statement

ARMS = {
    "none": recipe("eva4"),
    "l1": recipe("eva4", seed=1000),
    "l2": recipe("eva4", l2=2.5e-3, penalize="all"),
    "l1_l2": recipe("eva4", l1=5e-3, l2=2.5e-3, penalize="all"),
}
PUBLISHED: dict[str, Published] = CLAIMED
STATEMENTS: tuple[Statement, ...] = CONCLUDED
