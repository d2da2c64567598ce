import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from kernorm.datasets.augment import (
    BLEND,
    GRID,
    VALUES,
    Augmentation,
    _within,
    augment,
    displacements,
    inverse_maps,
    maps_of,
    tone,
    tones_of,
    warp,
)

RANGES = Augmentation(rotation=10, shift=0.1, zoom=0.15, shear=8)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (16, 28, 24, 2), dtype=np.uint8)


@pytest.mark.parametrize(("fill", "mode"), [("constant", "grid-constant"), ("reflect", "reflect"), ("nearest",) * 2])
@pytest.mark.parametrize(("interpolation", "order"), [("bilinear", 1), ("nearest", 0)])
def test_warp_equals_scipy(images, rng, interpolation, order, fill, mode):
    # Up to three times an image's size away from it.
    ranges = Augmentation(rotation=180, shift=0.9, zoom=0.5, shear=8)
    maps = inverse_maps(RANGES if fill == "constant" else ranges, len(images), (28, 24), rng)
    warped = warp(images, maps, interpolation, fill)
    centre = np.array([13.5, 11.5])
    for image, matrix, ours in zip(images, maps, warped, strict=True):
        linear, offset = matrix[:, :2].astype(float), matrix[:, 2].astype(float)
        for channel in range(2):
            theirs = ndimage.affine_transform(
                image[..., channel].astype(float),
                linear,
                offset=centre - linear @ centre + offset,
                order=order,
                mode=mode,
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
    assert augment(images, Augmentation(), np.random.default_rng(0)) is images


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
    maps = inverse_maps(Augmentation(rotation=10, shift=0.1), 4000, (28, 24), rng)
    angles = np.degrees(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert 9.9 < np.abs(angles).max() <= 10
    assert abs(angles.mean()) < 0.3
    assert 2.7 < np.abs(maps[:, 0, 2]).max() <= 2.8
    assert 2.3 < np.abs(maps[:, 1, 2]).max() <= 2.4


def test_zoom_and_shear_have_their_determinant(rng):
    maps = inverse_maps(Augmentation(zoom=0.2), 4000, (28, 28), rng)
    assert 1 / 1.2 <= maps[:, 0, 0].min() < 0.84
    assert 1.24 < maps[:, 0, 0].max() <= 1 / 0.8
    sheared = inverse_maps(Augmentation(shear=20), 50, (28, 28), rng)
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


def flipped(images, mirrored):
    """Mirrors each image along y and x as its two truth values say."""
    return np.stack(
        [np.flip(image, [axis for axis in (0, 1) if on[axis]]) for image, on in zip(images, mirrored, strict=True)]
    )


@pytest.mark.parametrize(
    ("flip", "kinds"),
    [("horizontal", {(0, 0), (0, 1)}), ("vertical", {(0, 0), (1, 0)}), ("both", {(0, 0), (0, 1), (1, 0), (1, 1)})],
)
def test_half_of_the_images_are_mirrored_along_each_axis(images, flip, kinds):
    images = np.repeat(images, 20, axis=0)
    found = augment(images, Augmentation(flip=flip), np.random.default_rng(5))
    drawn = np.random.default_rng(5).random(VALUES * len(images)).reshape(VALUES // 2, -1, 2)[3] < 0.5
    mirrored = drawn & [flip != "horizontal", flip != "vertical"]
    np.testing.assert_array_equal(found, flipped(images, mirrored))
    assert {tuple(int(on) for on in one) for one in mirrored} == kinds
    assert mirrored[:, int(flip != "vertical")].mean() == pytest.approx(0.5, abs=0.1)


def test_an_image_is_mirrored_and_then_mapped_as_it_would_have_been(images):
    both = Augmentation(rotation=20, shift=0.2, flip="both")
    drawn = np.random.default_rng(5).random(VALUES * len(images))
    mirrored = drawn.reshape(VALUES // 2, -1, 2)[3] < 0.5
    alone = warp(flipped(images, mirrored), maps_of(Augmentation(rotation=20, shift=0.2), drawn, (28, 24)))
    np.testing.assert_array_equal(augment(images, both, np.random.default_rng(5)), alone)


def test_contrast_is_that_of_pillow_in_each_channel(images, rng):
    tones = tones_of(Augmentation(contrast=0.8), rng.random(VALUES * len(images)))
    assert not tones[:, 1].any()
    for image, (factor, _), ours in zip(images, tones, tone(images, tones), strict=True):
        assert 0.2 * 1024 <= factor <= 1.8 * 1024
        for channel in range(2):
            theirs = ImageEnhance.Contrast(Image.fromarray(image[..., channel])).enhance(factor / 1024)
            # Pillow cuts off, and does not round.
            assert np.abs(ours[..., channel].astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_brightness_is_added_and_fills_its_range(rng):
    images = np.repeat(rng.integers(0, 256, (1, 6, 6, 3), dtype=np.uint8), 400, axis=0)
    tones = tones_of(Augmentation(brightness=0.5), rng.random(VALUES * len(images)))
    added = tones[:, 1]
    np.testing.assert_array_equal(tones[:, 0], 1024)
    assert -128 <= added.min() < -125
    assert 125 < added.max() <= 128
    expected = np.clip(images + added[:, None, None, None].astype(float), 0, 255)
    np.testing.assert_array_equal(tone(images, tones), expected)


def test_contrast_and_brightness_are_about_the_mean_of_each_channel(images, rng):
    ranges = Augmentation(contrast=0.5, brightness=0.2)
    ours = augment(images, ranges, np.random.default_rng(5))
    contrast, brightness = 2 * np.random.default_rng(5).random(VALUES * len(images)).reshape(VALUES, -1)[8:] - 1
    values = images.astype(float)
    mean = values.mean(axis=(1, 2), keepdims=True)
    expected = mean + (values - mean) * (1 + 0.5 * contrast[:, None, None, None])
    expected += 255 * 0.2 * brightness[:, None, None, None]
    # The mean, what is added and the result are rounded to whole values.
    assert np.abs(ours - np.clip(expected, 0, 255)).max() <= 0.25 + 0.5 + 0.5 + 0.2


def test_displacements_are_smoothed_as_scipy_does(rng):
    ranges = Augmentation(elastic=34, elastic_sigma=4)
    ours = displacements(ranges, 3, (28, 24), np.random.default_rng(5))
    drawn = 2 * np.random.default_rng(5).random((3, 2, 28, 24)) - 1
    theirs = 34 * ndimage.gaussian_filter(drawn, (0, 0, 4, 4), mode="constant", truncate=8)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    np.testing.assert_array_equal(ours, np.rint(ours * GRID) / GRID)
    assert 0.5 < ours.std() < 2


def test_elastic_distortion_moves_pixels_by_its_displacements(images):
    ranges = Augmentation(elastic=34, fill="reflect")
    ours = augment(images, ranges, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    generator.random(VALUES * len(images))
    moved = displacements(ranges, len(images), (28, 24), generator) + np.mgrid[:28, :24]
    for image, places, found in zip(images, moved, ours, strict=True):
        for channel in range(2):
            theirs = ndimage.map_coordinates(image[..., channel].astype(float), places, order=1, mode="reflect")
            assert np.abs(found[..., channel] - theirs).max() <= 0.5 + 2 * 255 / (2 * BLEND)
