"""Corruptions: what each does to an image, and that severity grows."""

import numpy as np
import pytest
from PIL import Image

from kernorm.evaluation.robustness import CORRUPTIONS, SEVERITIES, corrupted


@pytest.fixture(scope="module")
def every(digits):
    images = digits[0][:64]
    return images, {(name, severity): changed for name, severity, changed in corrupted(images)}


def test_each_severity_is_further_from_the_image(every):
    images, found = every
    for name in CORRUPTIONS:
        far = [np.abs(found[name, severity].astype(int) - images).mean() for severity in SEVERITIES]
        assert far == sorted(far), name
        assert far[0] > 0, name
        assert all(found[name, severity].dtype == np.uint8 for severity in SEVERITIES)
    assert len(found) == len(CORRUPTIONS) * len(SEVERITIES)


def test_they_are_the_same_at_every_call(every):
    images, found = every
    for name, severity, changed in corrupted(images):
        assert (changed == found[name, severity]).all()


def test_a_rotation_is_pillows(every):
    images, found = every
    turned = np.array(Image.fromarray(images[0, ..., 0]).rotate(-45, Image.Resampling.BILINEAR), int)
    mine = found["rotate", 5][0, ..., 0].astype(int)
    other = np.array(Image.fromarray(images[0, ..., 0]).rotate(45, Image.Resampling.BILINEAR), int)
    assert min(np.abs(mine - turned).mean(), np.abs(mine - other).mean()) < 2.5


def test_a_shift_by_whole_pixels_moves_them(every):
    images, found = every
    # 0.2 of 28 pixels at full severity is 5.6; of 1/7 of that, in between: so only the mass is compared.
    rows = np.arange(28)
    before = (images.astype(float).sum((2, 3)) * rows).sum(1) / images.astype(float).sum((1, 2, 3))
    after = found["translate", 3].astype(float)
    middle = (after.sum((2, 3)) * rows).sum(1) / after.sum((1, 2, 3))
    assert np.median(middle - before) == pytest.approx(0.2 * 0.6 * 28, abs=0.1)
