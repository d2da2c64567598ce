"""Do penalties help when there are few training images?

    python -m kernorm.study small_data --until-resolved

1,000, 5,000 and 50,000 training images by four penalties on the kernels. The smaller the set, the more epochs, so that
smaller sets take enough steps; each size is compared with its own arm without penalty. All else is the default recipe.

About 20 CPU-seconds a run at 1,000 images, 2 CPU-minutes at 50,000. Expected: 96 to 97 %, 98.5 % and 99.3 %,
differences between penalties below what five seeds see at 50,000, about 0.12 points.
"""

from kernorm.config import TrainConfig

EPOCHS = {1_000: 40, 5_000: 20, 50_000: 8}
PENALTIES = {"none": (0.0, 0.0), "l1": (1e-4, 0.0), "l2": (0.0, 1e-3), "l1_l2": (1e-4, 1e-3)}

ARMS = {
    f"{size}-{penalty}": TrainConfig(net="eva6", train_size=size, epochs=epochs, l1=l1, l2=l2)
    for size, epochs in EPOCHS.items()
    for penalty, (l1, l2) in PENALTIES.items()
}
BASELINE = {f"{size}-{penalty}": f"{size}-none" for size in EPOCHS for penalty in PENALTIES}
