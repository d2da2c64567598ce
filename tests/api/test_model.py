import keras
import numpy as np
import pytest

import kernorm
from kernorm import UsageError


def test_a_net_for_images_of_ones_own():
    model = kernorm.build_model(net="eva6", norm="gn", l2=1e-4, image_shape=(20, 24, 3), num_classes=5)
    assert isinstance(model, keras.Model)
    assert (model.input_shape, model.output_shape) == ((None, 20, 24, 3), (None, 5))
    assert model.get_layer("conv1").kernel_regularizer.l2 == pytest.approx(1e-4)
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), np.uint8)
    scaled = keras.Model(model.input, model.get_layer("scale").output)(images)
    np.testing.assert_allclose(scaled, images / 255, rtol=1e-6)


def test_pixels_are_scaled_by_mean_and_deviation():
    model = kernorm.build_model(net="eva6", image_shape=(16, 16, 3), mean=(10, 20, 30), std=(1, 2, 4))
    images = np.full((1, 16, 16, 3), 40, np.uint8)
    scaled = keras.Model(model.input, model.get_layer("scale").output)(images)
    np.testing.assert_allclose(scaled[0, 0, 0], [30, 10, 2.5], rtol=1e-6)


def test_one_number_scales_all_channels():
    model = kernorm.build_model(net="eva6", image_shape=(16, 16, 3), mean=3.0, std=np.array(2))
    scaled = keras.Model(model.input, model.get_layer("scale").output)(np.full((1, 16, 16, 3), 5, np.uint8))
    np.testing.assert_allclose(scaled, np.ones((1, 16, 16, 3)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernorm.swap_norm(3, "gn"),
        lambda: kernorm.add_penalties(3, l2=1e-3),
        lambda: kernorm.prove_penalty(3, None, None),
    ],
)
def test_refuses_what_is_no_model(call):
    with pytest.raises(UsageError, match=r"^This takes a Keras model\. Received: 3 \(int\)\. Give a keras\.Model"):
        call()


def test_sizes_of_numpy_are_sizes():
    shape = np.array([16, 20, 3])
    model = kernorm.build_model(net="eva6", image_shape=shape, num_classes=np.int64(5), mean=np.ones(3), std=np.ones(3))
    assert (model.input_shape, model.output_shape) == ((None, 16, 20, 3), (None, 5))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"image_shape": (28, 28)}, r"An image shape is \(height, width, channels\)\. Received: \(28, 28\)\."),
        ({"image_shape": (28.0, 28, 1)}, r"An image shape is \(height, width, channels\)\. Received: \(28\.0, 28"),
        ({"num_classes": 1}, r"A classifier has at least two classes, a whole number\. Received: num_classes=1\."),
        ({"num_classes": 5.0}, r"A classifier has at least two classes, a whole number\. Received: num_classes=5\.0\."),
        ({"mean": (1, 2), "std": (1, 1)}, r"one a channel.* Received: mean=\(1, 2\), std=\(1, 1\) for 1 channels\."),
        ({"mean": (1,), "std": (0,)}, r"with std above 0\. Received: mean=\(1,\), std=\(0,\)"),
        ({"num_classes": "10"}, r"at least two classes, a whole number\. Received: num_classes='10'\."),
        ({"image_shape": 28}, r"An image shape is \(height, width, channels\)\. Received: 28\."),
        ({"mean": "dark"}, r"^mean and std are one number, or one a channel, .* Received: mean=dark, std=\(255\.0,\)"),
        ({"mean": [[1], [1, 2]]}, r"^mean and std are one number, or one a channel"),
        (
            {"config": "ln"},
            r"^All settings at once are a TrainConfig\. Received: 'ln' \(str\)\. Give single ones by name",
        ),
        ({"nrom": "ln"}, r"A setting is a field of TrainConfig\. Received: 'nrom'\. Did you mean 'norm'\?"),
        ({"norm": "lnn"}, r"--norm takes a known name\. Received: 'lnn'\."),
    ],
)
def test_refuses_what_is_no_net(words, message):
    with pytest.raises(UsageError, match=message):
        kernorm.build_model(**{"net": "eva6", **words})


def test_a_model_of_anybody_is_swapped_penalized_and_proven():
    model = kernorm.build_model(net="eva6", image_shape=(14, 14, 1), num_classes=3)
    swapped = kernorm.add_penalties(kernorm.swap_norm(model, "gn", groups=4), l2=1e-3)
    assert isinstance(swapped.get_layer("conv1_norm"), keras.layers.GroupNormalization)
    swapped.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(0, 256, (6, 14, 14, 1), np.uint8)
    proof = kernorm.prove_penalty(swapped, images, np.arange(6) % 3, l1=0.0, l2=1e-3)
    assert (proof.holds, proof.problems) == (True, ())
    kernel = swapped.get_layer("conv1").kernel.numpy().astype(float)
    row = proof.table.loc["conv1/kernel"]
    assert (row["l2"], row["penalty"]) == (1e-3, pytest.approx(1e-3 * np.square(kernel).sum(), rel=1e-5))
    assert repr(proof).endswith("The penalty is on.")
    assert "The penalty is on." in proof._repr_html_()
    wrong = kernorm.prove_penalty(swapped, images, np.arange(6) % 3, l2=1e-4)
    assert "conv1/kernel: λ2 = 0.0001 is stated, 0.001 is on." in wrong._repr_html_()
