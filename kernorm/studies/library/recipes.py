"""How good are kernorm's own recipes? Its default flags and its recipes best and quick, five seeds each.

    python -m kernorm.study recipes --until-resolved

All have batch normalization and no penalty, train on 50,000 images, keep the last epoch and open the test split once.
They were chosen on validation images.

About 2 CPU-minutes a run of 5 epochs, 4 of 8 and 9 of 20; 40 minutes on two cores. Expected: 99.4, and 99.5 % of best.
Without the flag, five seeds an arm, which see differences from about 0.1 points if runs vary by 0.05.
"""

from kernorm.config import TrainConfig
from kernorm.recipes import recipe

ARMS = {"default": TrainConfig(), "best": recipe("best"), "quick": recipe("quick")}
