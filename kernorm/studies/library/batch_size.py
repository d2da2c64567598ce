"""Which norm tolerates small batches, and how should the learning rate follow the batch size?

    python -m kernorm.study batch_size --only '*-sqrt' --until-resolved --time-budget 8h

Three norms by nine batch sizes from 2 to 512 by three rules for the learning rate, which is 0.03 at batch 128: left as
it is (none), in proportion to the square root of the batch size (sqrt), in proportion to it (linear). After Wu and He
2018 (arXiv:1803.08494), whose figure has one rule; the published study changed the batch alone. 10,000 training images,
so that batch 2 is affordable; 8 epochs whatever the batch, so small batches take more steps.

Each norm is compared with batch normalization at the same batch size and rule.

75 arms: a run is 10 CPU-seconds at batch 512 and several minutes at batch 2. Expected: batch normalization falls off
below batch 8, group and layer normalization do not. Without the flag, three seeds an arm, which see differences from
about 0.18 points if runs vary by 0.05.
"""

from kernorm.config import NormName, TrainConfig
from kernorm.studies.published import Statement

NORMS: tuple[NormName, ...] = ("bn", "gn", "ln")
BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
REFERENCE, RATE = 128, 0.03
RULES = {"none": lambda factor: 1.0, "sqrt": lambda factor: factor**0.5, "linear": lambda factor: factor}


def _arm(norm: NormName, batch_size: int, rule: str) -> TrainConfig:
    rate = RATE * RULES[rule](batch_size / REFERENCE)
    return TrainConfig(net="eva6", norm=norm, batch_size=batch_size, learning_rate=rate, train_size=10_000)


ARMS = {f"{norm}-b{REFERENCE}": _arm(norm, REFERENCE, "none") for norm in NORMS} | {
    f"{norm}-b{batch_size}-{rule}": _arm(norm, batch_size, rule)
    for rule in RULES
    for norm in NORMS
    for batch_size in BATCH_SIZES
    if batch_size != REFERENCE
}
BASELINE = {arm: arm.replace(arm.split("-")[0], "bn", 1) for arm in ARMS}
SEEDS = 3
STATEMENTS = tuple(
    Statement(
        text=f"GN performs better at lower batch sizes than BN and LN, at batch {batch_size}",
        arm=f"gn-b{batch_size}-sqrt",
        better_than=(f"bn-b{batch_size}-sqrt", f"ln-b{batch_size}-sqrt"),
        note="Published by EVA6 session 6, without a BN row.",
    )
    for batch_size in (4, 8, 16, 32)
)
