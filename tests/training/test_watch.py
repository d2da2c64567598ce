import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.nets.model import build_model_for
from kernorm.training.diagnostics import PROBE, Watch


@pytest.mark.parametrize(("net", "settings"), [("eva4", {}), ("eva6", {"standardize_kernels": True})])
def test_what_is_watched_equals_its_formula(mnist_info, digits, net, settings):
    config = TrainConfig(net=net, **settings)
    model = build_model_for(config, mnist_info)
    images, _ = digits
    watched = Watch(model, config, images).measure()
    kernels = np.concatenate([layer.kernel.numpy().ravel() for layer in model.layers if hasattr(layer, "kernel")])
    assert watched.kernel_norm == pytest.approx(np.linalg.norm(kernels), rel=1e-5)
    assert watched.near_zero == pytest.approx([np.mean(np.abs(kernels) < limit) for limit in (1e-4, 1e-3, 1e-2)])
    # The last 3x3 convolution's output, layer by layer, before its norm.
    x = images[:PROBE]
    for layer in model.layers[1:]:
        x = layer(x, training=False)
        if layer.name == watched.layer:
            break
    assert watched.layer == "conv6"
    # Both nets are chains. The norm behind has not touched it: after it, images would have a spread of about 1.
    assert watched.activations == pytest.approx(np.percentile(x.numpy(), (1, 20, 80, 99)), rel=1e-4, abs=1e-6)


def test_watching_changes_nothing_and_follows_the_weights(mnist_info, digits):
    config = TrainConfig(net="eva6")
    model = build_model_for(config, mnist_info)
    watch = Watch(model, config, digits[0])
    before = model.get_weights()
    first = watch.measure()
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    model.get_layer("conv6").kernel.assign(np.zeros((3, 3, 16, 16)))
    second = watch.measure()
    assert second.activations == (0, 0, 0, 0)
    assert second.kernel_norm < first.kernel_norm
    assert second.near_zero[0] == pytest.approx(2304 / 7128, abs=0.01)  # of all kernel weights
