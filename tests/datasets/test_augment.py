import numpy as np
import pytest
from scipy import ndimage

from kernorm.datasets.augment import BLEND, GRID, VALUES, Affine, _within, augment, inverse_maps, maps_of, warp

RANGES = Affine(rotation=10, shift=0.1, zoom=0.15, shear=8)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (16, 28, 24, 2), dtype=np.uint8)


@pytest.mark.parametrize(("interpolation", "order"), [("bilinear", 1), ("nearest", 0)])
def test_warp_equals_scipy(images, rng, interpolation, order):
    maps = inverse_maps(RANGES, len(images), (28, 24), rng)
    warped = warp(images, maps, interpolation)
    centre = np.array([13.5, 11.5])
    for image, matrix, ours in zip(images, maps, warped, strict=True):
        linear, offset = matrix[:, :2].astype(float), matrix[:, 2].astype(float)
        for channel in range(2):
            theirs = ndimage.affine_transform(
                image[..., channel].astype(float),
                linear,
                offset=centre - linear @ centre + offset,
                order=order,
                mode="grid-constant",
            )
            difference = np.abs(ours[..., channel] - theirs)
            if order:
                # Rounding to a whole value, and of both weights to whole multiples of 1/BLEND.
                assert difference.max() <= 0.5 + 2 * 255 / (2 * BLEND)
            else:
                assert np.mean(difference > 0) < 0.005  # half-way between two pixels


def test_no_map_changes_nothing(images):
    identity = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (len(images), 1, 1))
    np.testing.assert_array_equal(warp(images, identity), images)
    assert augment(images, Affine(), np.random.default_rng(0)) is images


def test_whole_pixel_shift_moves_and_fills_with_zero(images):
    down_and_left = np.tile(np.array([[1, 0, -3], [0, 1, 2]], np.float32), (len(images), 1, 1))
    moved = warp(images, down_and_left)
    np.testing.assert_array_equal(moved[:, 3:, :-2], images[:, :-3, 2:])
    assert not moved[:, :3].any()
    assert not moved[:, :, -2:].any()


def test_rotation_by_a_quarter_turn_is_exact(rng):
    images = rng.integers(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    quarter = np.tile(np.array([[0, 1, 0], [-1, 0, 0]], np.float32), (2, 1, 1))
    np.testing.assert_array_equal(warp(images, quarter, "nearest"), np.rot90(images, axes=(1, 2)))


def test_maps_stay_within_their_ranges_and_fill_them(rng):
    maps = inverse_maps(Affine(rotation=10, shift=0.1), 4000, (28, 24), rng)
    angles = np.degrees(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert 9.9 < np.abs(angles).max() <= 10
    assert abs(angles.mean()) < 0.3
    assert 2.7 < np.abs(maps[:, 0, 2]).max() <= 2.8
    assert 2.3 < np.abs(maps[:, 1, 2]).max() <= 2.4


def test_zoom_and_shear_have_their_determinant(rng):
    maps = inverse_maps(Affine(zoom=0.2), 4000, (28, 28), rng)
    assert 1 / 1.2 <= maps[:, 0, 0].min() < 0.84
    assert 1.24 < maps[:, 0, 0].max() <= 1 / 0.8
    sheared = inverse_maps(Affine(shear=20), 50, (28, 28), rng)
    np.testing.assert_allclose(np.linalg.det(sheared[:, :, :2]), 1, rtol=1e-5)
    assert np.abs(sheared[:, 1, 0]).max() <= np.tan(np.deg2rad(20)) + 1e-6


def test_same_generator_same_images(images):
    first, second = (augment(images, RANGES, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != augment(images, RANGES, np.random.default_rng(4))).any()


def test_coordinates_are_exact_in_single_precision(rng):
    maps = inverse_maps(RANGES, 50, (28, 24), rng)
    np.testing.assert_array_equal(maps, np.rint(maps * GRID) / GRID)
    grid = np.mgrid[-13.5:14.5, -11.5:12.5]
    exact = [np.tensordot(maps[:, axis, :2].astype(np.float64), grid, 1) for axis in (0, 1)]
    single = [np.tensordot(maps[:, axis, :2], grid.astype(np.float32), 1) for axis in (0, 1)]
    np.testing.assert_array_equal(single, exact)


def test_values_are_drawn_as_numpy_draws_them():
    for limit in (0.0, 0.08, 7.0):
        drawn = np.random.default_rng(3).random(1000)
        np.testing.assert_array_equal(_within(limit, drawn), np.random.default_rng(3).uniform(-limit, limit, 1000))


def test_many_batches_of_maps_are_those_of_each_batch():
    generators = [np.random.default_rng(seed) for seed in range(3)]
    alone = [inverse_maps(RANGES, 16, (28, 24), generator) for generator in generators]
    drawn = np.stack([np.random.default_rng(seed).random(VALUES * 16) for seed in range(3)])
    np.testing.assert_array_equal(maps_of(RANGES, drawn, (28, 24)), alone)
