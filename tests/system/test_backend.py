import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kernorm.errors import UsageError
from kernorm.system import backend
from tests.builders import SHOWN


def test_tensorflow_is_the_backend_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    assert backend.choose_backend() == "tensorflow"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize("name", ["torch", "tensorfow", "", "TensorFlow"])
def test_another_backend_is_refused(monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(UsageError, match=rf"must be tensorflow or jax\. Received: KERAS_BACKEND={name}\. Set one"):
        backend.choose_backend()


def test_a_backend_that_is_not_installed_is_refused():
    code = (
        "import sys; from kernorm import errors; from kernorm.system import backend; sys.path.clear()\n"
        "try: backend.choose_backend()\n"
        "except errors.UsageError as error: print(error)"
    )
    settings = {"env": {**os.environ, "KERAS_BACKEND": "jax"}, "capture_output": True, "text": True, "check": True}
    told = subprocess.run([sys.executable, "-c", code], **settings).stdout
    assert told.startswith("The backend must be installed. Received: KERAS_BACKEND=jax, which is not. pip install jax")


NOSY = """
import gc, os, sys

import keras

with open(os.environ["TOLD"], "a") as file:
    print(*sorted({"sklearn", "pandas", "jax", "matplotlib", "IPython"} & sys.modules.keys()), file=file, end="")
    print("collects" * gc.isenabled(), "many objects left alone" * (gc.get_freeze_count() > 1e5), sep=", ", file=file)
import pandas, sklearn.base


def net(image_shape, num_classes, conv):
    image = keras.Input(image_shape)
    return keras.Model(image, keras.layers.Dense(num_classes)(keras.layers.GlobalAveragePooling2D()(conv(image, 2))))
"""


def test_a_command_imports_less_of_keras_and_its_collector_leaves_that_alone(tmp_path):
    (tmp_path / "nosy.py").write_text(NOSY)
    command = [sys.executable, "-m", "kernorm.net", f"{tmp_path / 'nosy.py'}:net", "--image-shape=4x4x1"]
    environment = os.environ | {"TOLD": str(tmp_path / "told.txt")}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    # By the child that has Keras, where what was not imported still can be.
    assert (tmp_path / "told.txt").read_text() == "collects, many objects left alone\n"


def test_a_users_own_process_is_left_as_it_is():
    code = "import gc, sys; from kernorm.system import backend; backend.choose_backend()\n"
    code += "print('pandas' in sys.modules, gc.isenabled(), gc.get_freeze_count())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"True True 0\n"


AT_ONCE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor

from kernorm.system.backend import choose_backend

begun = threading.Event()


class Begun:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "tensorflow.python":
            begun.set()


def first_call(second):
    if second:
        begun.wait()
    choose_backend()
    import keras

    return float(keras.ops.sum([1.0, 2.0]))


sys.meta_path.insert(0, Begun)
with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(first_call, range(2))))
"""


@pytest.mark.slow
def test_a_second_thread_waits_until_the_first_has_imported_the_backend():
    assert subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, check=True).stdout == b"[3.0, 3.0]\n"


@pytest.mark.parametrize(
    "words",
    [
        ["push", "--list"],
        pytest.param(["predict", "--model-path", SHOWN, "{png}"], marks=pytest.mark.slow),
        pytest.param(["predict", "--endpoint=localhost:1", "--retries=0", "{png}"], marks=pytest.mark.slow),
        pytest.param(["evaluate", "{folder}"], marks=pytest.mark.slow),
        pytest.param(["validate", "{folder}"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_commands_start_tensorflow_without_its_noise(words, tmp_path):
    png = tmp_path / "0.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(png)
    words = [str(word).format(png=png, folder=tmp_path) for word in words]
    command = [sys.executable, "-m", f"kernorm.{words[0]}", *words[1:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr
    assert re.fullmatch(r"(error: .*\n)?", told), told
