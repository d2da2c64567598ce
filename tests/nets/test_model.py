"""The nets against twins in PyTorch, their parameter counts, and what a user can set at single layers."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.model import build_model_for
from kernorm.recipes import recipe


def build(info, **settings):
    return build_model_for(TrainConfig(**{"net": "eva6", **settings}), info, fused=True)


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    ("net", "norm", "count"),
    [
        ("eva4", "bn", 9962),
        ("eva4", "gn", 9962),
        ("eva4", "ln", 9962),
        ("eva4", "cln", 9962),
        ("eva4", "none", 9756),
        ("eva4", "rms", 9859),
        ("eva6", "bn", 7288),
        ("eva6", "gn", 7288),
        ("eva6", "ln", 7288),
        ("eva6", "gbn", 7288),
        ("eva6", "brn", 7288),
        ("eva6", "in", 7288),
        ("eva6", "none", 7144),
        ("eva6", "rms", 7216),
        ("eva6", "frn", 7360),
    ],
)
def test_parameter_counts(mnist_info, net, norm, count):
    assert trainable(build(mnist_info, net=net, norm=norm)) == count


def test_map_sizes_and_block_order_are_the_published_ones(mnist_info):
    eva4 = build(mnist_info, net="eva4", dropout=0.08)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in eva4.layers}
    assert [shapes[f"conv{i}"] for i in range(1, 9)] == [
        (26, 26, 14),
        (24, 24, 30),
        (24, 24, 10),
        (10, 10, 14),
        (8, 8, 15),
        (6, 6, 15),
        (1, 1, 15),
        (1, 1, 10),
    ]
    names = [layer.name for layer in eva4.layers]
    assert names[2:6] == ["conv1", "conv1_norm", "conv1_relu", "conv1_dropout"]
    assert names[names.index("conv7") :][:4] == ["conv7", "conv7_relu", "conv7_norm", "conv7_dropout"]
    assert not {"conv3_norm", "conv3_relu", "conv3_dropout", "conv8_norm"} & set(names)
    eva6 = build(mnist_info, net="eva6", dropout=0.069)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in eva6.layers}
    assert [shapes[f"conv{i}"] for i in range(1, 8)] == [
        (28, 28, 8),
        (28, 28, 8),
        (14, 14, 8),
        (14, 14, 16),
        (7, 7, 16),
        (7, 7, 16),
        (1, 1, 10),
    ]
    names = [layer.name for layer in eva6.layers]
    assert names[2:6] == ["conv1", "conv1_relu", "conv1_norm", "conv1_dropout"]
    assert names[-5:] == ["pool_after_conv6", "conv6_dropout", "mean_of_map", "conv7", "logits"]


def torch_twin(torch, net, norm, groups):
    """The published modules, spelled out in PyTorch, without dropout."""
    nn = torch.nn

    def normed(channels):
        if norm == "bn":
            return nn.BatchNorm2d(channels, momentum=0.1, eps=1e-5)
        return nn.GroupNorm(1 if norm == "ln" else groups(channels), channels, eps=1e-5)

    def conv(i, o, size, padding=0):
        return nn.Conv2d(i, o, size, padding=padding, bias=False)

    def first(i, o):
        return [conv(i, o, 3), normed(o), nn.ReLU()]

    def second(i, o):
        return [conv(i, o, 3, 1), nn.ReLU(), normed(o)]

    if net == "eva4":
        blocks = [*first(1, 14), *first(14, 30), conv(30, 10, 1), nn.MaxPool2d(2), *first(10, 14), *first(14, 15)]
        blocks += [*first(15, 15), nn.AvgPool2d(6), conv(15, 15, 1), nn.ReLU(), normed(15), conv(15, 10, 1)]
    else:
        blocks = [*second(1, 8), *second(8, 8), nn.MaxPool2d(2), *second(8, 8), *second(8, 16), nn.MaxPool2d(2)]
        blocks += [*second(16, 16), *second(16, 16), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), conv(16, 10, 1)]
    return nn.Sequential(*blocks, nn.Flatten())


@pytest.mark.extra
@pytest.mark.parametrize(
    ("norm", "training"),
    [
        ("bn", False),
        ("bn", True),
        ("gn", False),
        ("ln", False),
        pytest.param("gn", True, marks=pytest.mark.slow),
        pytest.param("ln", True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("net", ["eva4", "eva6"])
def test_outputs_equal_a_pytorch_twin(mnist_info, digits, rng, net, norm, training):
    torch = pytest.importorskip("torch")
    model = build(mnist_info, net=net, norm=norm)
    twin = torch_twin(torch, net, norm, lambda channels: max(g for g in (1, 2, 3, 4) if channels % g == 0))
    with torch.no_grad():
        for layer, module in zip(
            [layer for layer in model.layers if layer.weights],
            [module for module in twin if list(module.parameters())],
            strict=True,
        ):
            if hasattr(layer, "kernel"):
                module.weight.copy_(torch.from_numpy(to_numpy(layer.kernel).transpose(3, 2, 0, 1)))
                continue
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.uniform(-0.5, 0.5, layer.beta.shape))
            module.weight.copy_(torch.from_numpy(to_numpy(layer.gamma)))
            module.bias.copy_(torch.from_numpy(to_numpy(layer.beta)))
            if norm == "bn":
                layer.moving_mean.assign(rng.uniform(-0.5, 0.5, layer.moving_mean.shape))
                layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
                module.running_mean.copy_(torch.from_numpy(to_numpy(layer.moving_mean)))
                module.running_var.copy_(torch.from_numpy(to_numpy(layer.moving_variance)))
        images = digits[0][:48]
        scaled = ((images - mnist_info.mean[0]) / mnist_info.std[0]).astype(np.float32).transpose(0, 3, 1, 2)
        # In double precision: PyTorch's own single-precision batch norm is off by 1e-3 on channels-last input.
        expected = twin.double().train(training)(torch.from_numpy(scaled).double()).numpy()
    np.testing.assert_allclose(model(images, training=training), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("initializer", ["torch", "he_normal", "glorot_uniform"])
def test_kernels_begin_with_the_variance_of_their_initializer(mnist_info, initializer):
    kernel = to_numpy(build(mnist_info, net="eva4", initializer=initializer).get_layer("conv2").kernel)
    fan_in, fan_out = 9 * 14, 9 * 30
    variance = {"torch": 1 / (3 * fan_in), "he_normal": 2 / fan_in, "glorot_uniform": 2 / (fan_in + fan_out)}
    assert kernel.var() == pytest.approx(variance[initializer], rel=0.05)
    if initializer == "torch":
        assert np.abs(kernel).max() <= 1 / np.sqrt(fan_in)


def test_equal_seeds_give_equal_kernels_in_every_arm(mnist_info):
    first, second = (build(mnist_info, norm=norm, l2=l2) for norm, l2 in (("bn", 0.0), ("gn", 1e-3)))
    for index in range(1, 8):
        np.testing.assert_array_equal(first.get_layer(f"conv{index}").kernel, second.get_layer(f"conv{index}").kernel)
    other = build(mnist_info, seed=1)
    assert (to_numpy(first.get_layer("conv2").kernel) != to_numpy(other.get_layer("conv2").kernel)).all()
    assert (to_numpy(first.get_layer("conv2").kernel) != to_numpy(first.get_layer("conv3").kernel)).any()


def test_norm_and_penalty_of_single_layers(mnist_info):
    model = build(mnist_info, norm="gn", norm_at=("conv1=none", "conv5=ln"), l2=0.01, penalty_at=("conv2=0.001,0",))
    names = [layer.name for layer in model.layers]
    assert "conv1_norm" not in names
    assert isinstance(model.get_layer("conv5_norm"), keras.layers.LayerNormalization)
    assert model.get_layer("conv2").kernel_regularizer.get_config() == {"l1": pytest.approx(0.001), "l2": 0.0}
    assert model.get_layer("conv3").kernel_regularizer.get_config() == {"l1": 0.0, "l2": pytest.approx(0.01)}


def test_groups_and_standardized_kernels_show_in_the_layers(mnist_info):
    model = build(mnist_info, net="eva4", norm="gn", standardize_kernels=True)
    assert [model.get_layer(f"conv{i}_norm").groups for i in (1, 2, 4, 5, 6, 7)] == [2, 3, 2, 3, 3, 3]
    standardized = [i for i in range(1, 9) if type(model.get_layer(f"conv{i}")).__name__ == "StandardizedConv2D"]
    assert standardized == [1, 2, 4, 5, 6, 7]


def test_other_sizes_channels_and_classes(mnist_info):
    from dataclasses import replace

    info = replace(
        mnist_info, image_shape=(32, 32, 3), labels=tuple("abcdefg"), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)
    )
    model = build(info, net="eva4")
    assert model.output_shape == (None, 7)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        model.get_layer("scale")(image)[0], (image[0] - np.array([1, 2, 3])) / np.array([4, 5, 6]), rtol=1e-5
    )


def test_presets_build_and_standard_keras_layers_are_used(mnist_info):
    for name, count in (("eva4", 9962), ("eva6", 7288)):
        model = build_model_for(recipe(name), mnist_info)
        assert trainable(model) == count
        assert model.get_layer("conv1_dropout").rate == {"eva4": 0.08, "eva6": 0.069}[name]
    assert isinstance(model.get_layer("conv1_norm"), keras.layers.BatchNormalization)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "gn", "groups": 3}, r"groups=3, conv1 has 8 channels\. Give auto, or one of 1, 2, 4, 8"),
        (
            {"norm_at": ("conv9=ln",)},
            r"--norm-at takes a layer that has a norm\. Received: 'conv9'\. Did you mean 'conv",
        ),
        ({"net": "eva4", "norm_at": ("conv3=ln",)}, "--norm-at takes a layer that has a norm"),
        (
            {"penalty_at": ("con1=0,1",)},
            r"--penalty-at takes a layer with a kernel\. Received: 'con1'\. Did you mean 'c",
        ),
        ({"net": "eva4", "norm": "in"}, "--norm-at conv7=none"),
        ({"net": "eva4", "norm": "bn", "batch_size": 1}, "at conv7.* at batch size 1"),
    ],
)
def test_what_does_not_fit_the_net_is_refused(mnist_info, settings, message):
    with pytest.raises(UsageError, match=message):
        build(mnist_info, **settings)


@pytest.mark.parametrize(("net", "size"), [("eva4", 12), ("eva6", 3)])
def test_images_too_small_for_the_net_are_refused(mnist_info, net, size):
    from dataclasses import replace

    with pytest.raises(UsageError, match=f"must be large enough.*{net}"):
        build(replace(mnist_info, image_shape=(size, size, 1)), net=net)
