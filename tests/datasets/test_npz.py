"""Own images in .npz files: what is read, and what is refused."""

import numpy as np
import pytest

from kernorm.datasets.npz import read_npz
from kernorm.errors import UsageError
from tests.photos import npz


def test_npz_files_of_keras_and_of_medmnist(tmp_path):
    held = npz(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz", "a")
    np.testing.assert_array_equal(arrays.train_images[..., 0], held["x_train"])
    np.testing.assert_array_equal(arrays.test_labels, held["y_test"])
    assert arrays.labels == ("0", "1", "2")
    medical = {
        f"{part}_images": np.full((size, 4, 4, 3), size, np.uint8)
        for part, size in (("train", 9), ("val", 6), ("test", 3))
    } | {f"{part}_labels": (np.arange(size) % 3)[:, None] for part, size in (("train", 9), ("val", 6), ("test", 3))}
    np.savez(tmp_path / "m.npz", **medical)
    arrays = read_npz(tmp_path / "m.npz", "m")
    assert (len(arrays.train_labels), arrays.given_validation) == (15, 6)
    assert set(arrays.train_images[-6:].ravel()) == {6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, r"has x_train, y_train, x_test and y_test, or .* with x_train, y_test, y_train\."),
        (
            {"x_train": np.zeros((20, 8, 8)) + 0.5},
            r"^Images are whole numbers from 0 to 255\. Received: x_train .* float64",
        ),
        ({"x_train": np.full((20, 8, 8), np.nan)}, r"^Images are whole numbers from 0 to 255\."),
        ({"x_train": np.full((20, 8, 8), 300.0)}, r"float64 from 300 to 300\. Save them as uint8\."),
        ({"y_test": np.arange(9) % 3 - 1}, r"^Labels are whole numbers from 0, one an image\. Received: y_test"),
        ({"y_train": np.arange(20) % 3 + 0.5}, r"^Labels are whole numbers from 0, one an image\."),
        ({"y_train": np.arange(19) % 3}, r"^Images and labels are as many\. Received: 20 and 19 of x_train"),
        # As many as labels in all, but not of each split.
        (
            {"y_train": np.arange(19) % 3, "x_val": np.zeros((4, 8, 8), np.uint8), "y_val": np.arange(5) % 3},
            r"^Images and labels are as many\. Received: 20 and 19 of x_train",
        ),
        (
            {"x_val": np.zeros((5, 6, 8), np.uint8), "y_val": np.arange(5) % 3},
            r"^Images of a set have one size\. Received: .*, whose x_val are of the shape \(5, 6, 8, 1\)\.",
        ),
        (
            {"y_train": np.arange(20) % 2},
            r"^Every class has images in train and test\. Received: label 2 of 3 without one",
        ),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(9, int)}, r"^Own images are of two or more classes"),
        ({"x_test": np.zeros((9, 6, 6), np.uint8)}, r"^Images of a set have one size\."),
        (
            {"x_train": np.zeros((20, 8, 8, 2), np.uint8)},
            r"^Images are \(N, H, W\), \(N, H, W, 1\) or \(N, H, W, 3\)\.",
        ),
    ],
)
def test_refuses_arrays_that_are_no_images(tmp_path, changes, message):
    npz(tmp_path / "a.npz", **changes)
    with pytest.raises(UsageError, match=message):
        read_npz(tmp_path / "a.npz", "a")


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", b"garbage", b""])
def test_refuses_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(
        UsageError, match=r"^An \.npz file holds arrays\. Received: .*a\.npz, which is no \.npz file, or"
    ):
        read_npz(tmp_path / "a.npz", "a")


def test_refuses_objects(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.array([{}]))
    with pytest.raises(
        UsageError, match=r"a\.npz: Object arrays cannot be loaded when allow_pickle=False\. Write it by"
    ):
        read_npz(tmp_path / "a.npz", "a")
