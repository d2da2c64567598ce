"""Does MNIST's answer carry over to clothes? Three norms by L2, on Fashion-MNIST.

    python -m kernorm.data fashion_mnist --manual-dir DIR
    python -m kernorm.study fashion --until-resolved --time-budget 3h

Batch, layer and group normalization, each without a penalty, with λ2 = 1e-4 and with λ2 = 1e-3, against batch
normalization without one. All else is the default recipe on the smaller net, as for MNIST: rates by norm, no mirroring.

About 2 CPU-minutes a run. Expected: 90 to 92 %, and differences between norms that are larger than MNIST's, whose test
accuracies lie within 0.1 points.
"""

from kernorm.config import NormName, TrainConfig

NORMS: tuple[NormName, ...] = ("bn", "ln", "gn")

ARMS = {
    f"{norm}-l2_{l2:g}" if l2 else norm: TrainConfig(net="eva6", dataset="fashion_mnist", norm=norm, l2=l2)
    for norm in NORMS
    for l2 in (0.0, 1e-4, 1e-3)
}
SEEDS = 5
