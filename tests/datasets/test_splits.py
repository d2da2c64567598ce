import numpy as np
import pytest

from kernorm.datasets.splits import split_indices, stratified_order
from kernorm.errors import UsageError


@pytest.fixture
def labels(rng):
    """6,000 labels in 5 classes, the rarest of about 1 %."""
    return rng.choice(5, 6000, p=[0.4, 0.3, 0.2, 0.09, 0.01])


def shares(labels, indices):
    return np.bincount(labels[indices], minlength=5)


def test_splits_are_disjoint_exact_and_together_everything(labels):
    train, validation = split_indices(labels, validation_size=1000)
    assert len(validation) == 1000
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(6000))
    assert (np.diff(train) > 0).all()


@pytest.mark.parametrize("size", [1, 7, 333, 1000, 2999, 5990])
def test_each_class_gets_its_proportion_to_within_one_image(labels, size):
    _, validation = split_indices(labels, validation_size=size)
    assert len(validation) == size
    assert np.abs(shares(labels, validation) - size * np.bincount(labels) / 6000).max() <= 1


def test_smaller_training_sets_lie_in_larger_ones_and_are_stratified(labels):
    previous = np.array([], int)
    for size in [5, 6, 50, 51, 500, 4999, 5000]:
        train, validation = split_indices(labels, validation_size=1000, train_size=size)
        assert len(train) == size
        assert set(previous) <= set(train)
        assert not set(train) & set(validation)
        proportion = size * shares(labels, split_indices(labels, validation_size=1000)[0]) / 5000
        assert (shares(labels, train) >= 1).all()
        assert (np.abs(shares(labels, train) - np.maximum(proportion, 1)) <= 1.1).all()
        previous = train
    assert np.array_equal(train, split_indices(labels, validation_size=1000)[0])


def test_the_smallest_training_set_has_one_image_of_each_class(labels):
    train, _ = split_indices(labels, validation_size=0, train_size=5)
    assert sorted(labels[train]) == [0, 1, 2, 3, 4]


def test_validation_does_not_depend_on_train_size(labels):
    whole, part = (split_indices(labels, validation_size=900, train_size=size)[1] for size in (None, 77))
    assert np.array_equal(whole, part)


def test_no_validation(labels):
    train, validation = split_indices(labels, validation_size=0)
    assert np.array_equal(train, np.arange(6000))
    assert len(validation) == 0


def test_the_order_is_the_same_in_every_numpy():
    # By hand: SplitMix64 of seed 0 begins e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec,
    # 1b39896a51a8749b, 53cb9f0c747ea2ea; class 0 is 0 2 4, class 1 is 1 3 5.
    assert stratified_order(np.array([0, 1, 0, 1, 0, 1])).tolist() == [2, 5, 4, 1, 0, 3]


def test_images_are_taken_from_all_over(labels):
    _, validation = split_indices(labels, validation_size=1000)
    assert np.abs(np.histogram(validation, bins=10, range=(0, 6000))[0] - 100).max() < 40


@pytest.mark.parametrize("size", [5996, 6000, 7000])
def test_validation_that_leaves_too_little_is_refused(labels, size):
    with pytest.raises(UsageError, match=rf"validation_size={size} of 6000 images in 5 classes\. Give at most 5995\."):
        split_indices(labels, validation_size=size)


@pytest.mark.parametrize("size", [1, 4, 5001])
def test_train_size_that_does_not_fit_is_refused(labels, size):
    with pytest.raises(UsageError, match=rf"Received: train_size={size}\. Give a value from 5 to 5000\."):
        split_indices(labels, validation_size=1000, train_size=size)
