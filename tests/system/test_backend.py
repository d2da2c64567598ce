import os
import subprocess
import sys

import pytest

from kernorm.errors import UsageError
from kernorm.system import backend


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
