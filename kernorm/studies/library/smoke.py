"""Does a study work on this machine? Two arms, two seeds, 2,000 images: half a minute.

    python -m kernorm.study smoke

Expected: about 90 %, and nothing resolved.
"""

from kernorm.config import NormName, TrainConfig


def _tiny(norm: NormName, l2: float) -> TrainConfig:
    return TrainConfig(net="eva6", norm=norm, l2=l2, epochs=3, train_size=2_000, validation_size=1_000, batch_size=50)


ARMS = {"bn": _tiny("bn", 0.0), "ln-l2": _tiny("ln", 1e-3)}
SEEDS = 2
