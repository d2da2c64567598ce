"""Small own images for tests: noise, a folder a class."""

import numpy as np
from PIL import Image


def picture(seed, height=12, width=16, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def fill(root, classes=("bee", "ant"), count=12, kind="png", start=0, **words):
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(1000 * place + number + start, **words).save(root / name / f"{number:03}.{kind}")
    return root


def npz(path, **changes):
    generator = np.random.default_rng(0)
    held = {
        "x_train": generator.integers(0, 256, (20, 8, 8), dtype=np.uint8),
        "y_train": np.arange(20) % 3,
        "x_test": generator.integers(0, 256, (9, 8, 8), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    }
    held = {key: value for key, value in (held | changes).items() if value is not None}
    np.savez(path, **held)
    return held
