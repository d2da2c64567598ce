"""Which norm tolerates small batches?

    python -m kernorm.study batch_size --until-resolved --time-budget 3h

Three norms by six batch sizes from 4 to 128, by one rule: the learning rate is 0.03 at batch 128 and follows the square
root of the batch size (Krizhevsky 2014, arXiv:1404.5997). The published study changed the batch alone, and had no batch
normalization. After Wu and He 2018 (arXiv:1803.08494). 10,000 training images, so that batch 4 is affordable; 8 epochs
whatever the batch, so small batches take more steps.

Each norm is compared with batch normalization at the same batch size. 18 arms: a run is 40 CPU-seconds at batch 128 and
two to four minutes at batch 4, measured next to other work. Expected: batch normalization falls off at batch 4, group
and layer normalization do not.
"""

from kernorm.config import NormName, TrainConfig
from kernorm.studies.published import Statement

NORMS: tuple[NormName, ...] = ("bn", "gn", "ln")
BATCH_SIZES = (4, 8, 16, 32, 64, 128)
REFERENCE, RATE = 128, 0.03


def _arm(norm: NormName, batch_size: int) -> TrainConfig:
    rate = RATE * (batch_size / REFERENCE) ** 0.5
    return TrainConfig(net="eva6", norm=norm, batch_size=batch_size, learning_rate=rate, train_size=10_000)


ARMS = {f"{norm}-b{batch_size}": _arm(norm, batch_size) for norm in NORMS for batch_size in BATCH_SIZES}
BASELINE = {arm: arm.replace(arm.split("-")[0], "bn", 1) for arm in ARMS}
SEEDS = 3
STATEMENTS = tuple(
    Statement(
        text=f"GN performs better at lower batch sizes than BN and LN, at batch {batch_size}",
        arm=f"gn-b{batch_size}",
        better_than=(f"bn-b{batch_size}", f"ln-b{batch_size}"),
        note="Published by EVA6 session 6, without a BN row.",
    )
    for batch_size in (4, 8, 16, 32)
)
