"""An own net's file: read once, known by its text alone, and run only where its user has named it."""

import dataclasses
import logging

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets import source
from kernorm.nets.source import allow_code, is_trusted, load_function, trust, with_net
from tests.builders import own_net

TEXT = "def net(image_shape, num_classes, conv):\n    return None\n"


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch):
    monkeypatch.setattr(source, "_TRUSTED", set())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(TEXT)
    return path


def test_a_run_is_known_by_the_text_and_not_by_the_path(file, tmp_path):
    config = with_net(TrainConfig(net=f"{file}:net", norm="gn"))
    assert (config.net, config.net_source) == ("net", TEXT)
    assert config.run_id.startswith("net-gn-bs64-s0-")
    assert with_net(config) is config
    elsewhere = tmp_path / "other" / "renamed.py"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert with_net(TrainConfig(net=f"{elsewhere}:net", norm="gn")) == config
    file.write_text(TEXT + "# other\n")
    assert with_net(TrainConfig(net=f"{file}:net", norm="gn")).run_id != config.run_id
    assert str(tmp_path) not in str(config.identity)


def test_a_net_of_kernorms_stays_as_it_is():
    config = TrainConfig(net="resnet8")
    assert with_net(config) is config
    assert is_trusted(config)
    allow_code(config)


MISSING = r"--net takes FILE\.py:FUNCTION\. Received: .*nowhere\.py, which is not there\. Give another file\."


@pytest.mark.parametrize(
    ("content", "net", "message"),
    [
        (None, "nowhere.py:net", MISSING),
        (
            b"",
            "nets.py:net",
            r"function of its file\. Received: .*nets\.py, which has no net\. Write def net\(",
        ),
        (TEXT.encode(), "nets.py:nett", r"Received: .*nets\.py, which has no nett\. Did you mean 'net'\? Known: net\."),
        (b"def net(:", "nets.py:net", r"A net's file is Python\. Received: .*nets\.py, line 1: invalid syntax"),
        (b"\xff\xfe", "nets.py:net", r"A net's file is Python\. Received: .*nets\.py, which is not text in UTF-8\."),
        (b"net = 1\0", "nets.py:net", r"A net's file is Python\. Received: .*nets\.py, (which is|line)"),
        (
            b"import helper\nnet = 1",
            "nets.py:net",
            r"A net is one file\. Received: .*nets\.py, which imports helper",
        ),
        (
            b"from pack.x import net",
            "nets.py:net",
            r"which imports pack next to it\. Put that into the file",
        ),
    ],
)
def test_a_file_that_is_no_net_is_refused_in_one_line(content, net, message, tmp_path):
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    if content is not None:
        (tmp_path / "nets.py").write_bytes(content)
    with pytest.raises(UsageError, match=message) as refused:
        with_net(TrainConfig(net=str(tmp_path / net)))
    assert "\n" not in str(refused.value)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "nets.py").mkdir()
    with pytest.raises(UsageError, match=r"nets\.py: Is a directory\. Give another file\."):
        with_net(TrainConfig(net=f"{tmp_path}/nets.py:net"))


def test_installed_packages_and_names_bound_in_other_ways_are_taken(tmp_path):
    (tmp_path / "numpy.py").write_text("")  # as a folder of a user's may hold; the package is what is meant
    (tmp_path / "a.py").write_text("import numpy\nif True:\n    net = lambda image_shape, num_classes: None\n")
    assert callable(load_function(with_net(TrainConfig(net=f"{tmp_path}/a.py:net"))))
    (tmp_path / "b.py").write_text("from keras.applications import *\n")
    assert callable(load_function(with_net(TrainConfig(net=f"{tmp_path}/b.py:MobileNetV2"))))


UNTRUSTED = r"^The Python of a stored net runs only if its user says so\. Received: net of a stored run\. Read its net"


def test_a_text_that_came_with_a_run_does_not_run_until_its_user_says_so(file, caplog):
    stored = dataclasses.replace(TrainConfig(), net="net", net_source=TEXT)
    for refused in (with_net, load_function, allow_code):
        with pytest.raises(UsageError, match=UNTRUSTED):
            refused(stored)
    with caplog.at_level(logging.INFO, "kernorm"):
        allow_code(stored, trust_code=True)
    assert caplog.messages == ["Running the Python of the net net."]
    assert load_function(stored)(None, None, None) is None


def test_the_file_that_a_run_was_trained_with_may_run_and_no_other(file):
    stored = dataclasses.replace(TrainConfig(), net="net", net_source=TEXT)
    file.write_text(TEXT + "\n")
    with pytest.raises(
        UsageError, match=r"^--net names the file that the run was trained with\. .*Give the run's net\.py:net"
    ):
        allow_code(stored, f"{file}:net")
    with pytest.raises(UsageError, match=r"^--net takes FILE\.py:FUNCTION\. Received: 'eva4'\."):
        allow_code(stored, "eva4")
    assert not is_trusted(stored)
    file.write_text(TEXT)
    allow_code(stored, f"{file}:net")
    assert is_trusted(stored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", r"net, line 1: ModuleNotFoundError: No module named 'no_such_package'\. Fix it\."),
        ("x = 1\nraise SystemExit(3)\n", r"net, line 2: SystemExit: 3\. Fix it\."),
        ("raise ValueError('two\\nlines ' * 200)", r"net, line 1: ValueError: two lines .* …\. Fix it\."),
        ("net = 3\n", r"^A net is a function of its file\. Received: net, which is none\."),
    ],
)
def test_what_a_file_raises_is_told_with_its_line(text, message):
    with pytest.raises(UsageError, match=message) as refused:
        load_function(own_net(text))
    assert "\n" not in str(refused.value)


def test_a_file_may_hold_dataclasses_and_layers_of_its_own():
    text = """
    import dataclasses, keras

    @dataclasses.dataclass
    class Block:
        filters: "int"

    @keras.saving.register_keras_serializable()
    class Own(keras.layers.Layer):
        pass

    def net(image_shape, num_classes):
        return Block(3)
    """
    config = own_net(text)
    assert load_function(config)(None, None).filters == 3
    assert load_function(config)(None, None).filters == 3


def test_a_value_for_net_that_is_neither(tmp_path):
    with pytest.raises(UsageError, match=r"Received: 'nets\.py'\. Give FILE\.py:FUNCTION, the function that makes"):
        TrainConfig(net="nets.py")
    with pytest.raises(UsageError, match=r"Received: 'nets\.py:my-net'\. Give FILE\.py:FUNCTION"):
        TrainConfig(net="nets.py:my-net")
    trust(None)
