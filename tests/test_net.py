"""python -m kernorm.net: the layers of a net, before anything is trained."""

import pytest

from kernorm.config import TrainConfig
from kernorm.net import PROG, NetConfig, default, describe, main
from kernorm.records.record import Layer
from kernorm.system.cli import run
from kernorm.training.first_step import Tried
from tests.builders import RESIDUAL_NET


def shown(*words):
    return run(NetConfig, main, prog=PROG, argv=list(words), default=default)


def test_a_table_tells_norms_penalties_and_the_time_of_a_step(mnist_info):
    layers = (
        Layer(name="conv1", kind="Conv2D", output_shape=(9, 9, 8), parameters=1072, l1=0.0, l2=1e-4, kernel_norm=1.0),
        Layer(
            name="conv1_norm",
            kind="GroupNormalization",
            note="was BatchNormalization",
            output_shape=(9, 9, 8),
            parameters=16,
            norm="gn",
            axes="H,W,C/groups",
            groups=2,
        ),
    )
    tried = Tried(layers=layers, parameters=1088, parameters_total=1100, seconds=0.0123)
    table, _, told = describe(tried, TrainConfig(batch_size=32), mnist_info).rpartition("\n\n")
    head, first, second = (line.split() for line in table.splitlines())
    assert head == ["layer", "kind", "output", "parameters", "norm", "λ1", "λ2"]
    assert first == ["conv1", "Conv2D", "Nx9x9x8", "1,072", "0", "0.0001"]
    assert " ".join(second) == (
        "conv1_norm GroupNormalization (was BatchNormalization) Nx9x9x8 16 gn over H,W,C/groups, 2 groups"
    )
    assert len({line.index("Nx9x9x8") for line in table.splitlines()[1:]}) == 1  # in columns
    assert told == (
        "1,088 parameters, 12 more that are not trained; a training step of 32 images of 28x28x1: 12.3 ms here, "
        "median of 10"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eva7"], "--net takes a known name, or FILE.py:FUNCTION. Received: 'eva7'. Did you mean 'eva6'?"),
        (["no.py:net"], "--net takes FILE.py:FUNCTION. Received: no.py, which is not there. Give another file."),
        (
            ["--image-shape", "28x28"],
            "--image-shape is HEIGHTxWIDTHxCHANNELS. Received: '28x28'. Give for example 32x32x3.",
        ),
        (["--image-shape", "0x28x1"], "Received: '0x28x1'."),
        (["--image-shape", "axbxc"], "Received: 'axbxc'."),
        (["--classes", "1"], "--classes must be at least 2. Received: classes=1."),
        (["--norm", "bm"], "--norm takes a known name. Received: 'bm'. Did you mean 'bn'?"),
        (["--nrom", "bn"], "An option must be a known one. Received: --nrom. Did you mean --norm?"),
        (["--net", "eva6"], "This command sets --net itself. Received: --net. See the first word."),
    ],
)
def test_what_is_typed_wrong_is_one_line(words, message, capfd):
    assert shown(*words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
def test_an_own_net_is_shown_for_images_and_for_a_data_set(tmp_path, boxes_cache, capfd):
    (tmp_path / "nets.py").write_text(RESIDUAL_NET)
    net = f"{tmp_path / 'nets.py'}:net"
    words = ["--norm", "gn", "--l2", "1e-3", "--penalty-at", "hidden=0,0", "--batch-size", "8"]
    assert shown(net, "--image-shape", "12x10x3", "--classes", "7", *words) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[:-2]}
    assert rows["conv1"][1:] == ["Conv2D", "Nx6x5x4", "108", "0", "0.001"]
    assert rows["hidden"][1:] == ["Dense", "(own", "L1)", "Nx6", f"{120 * 6 + 6}", "0", "0"]
    assert rows["head"][2] == "Nx7"
    assert "a training step of 8 images of 12x10x3: " in lines[-1]
    assert shown(net, "--dataset", "boxes", "--validation-size", "32", *words) == 0
    assert "a training step of 8 images of 20x20x1: " in capfd.readouterr().out
