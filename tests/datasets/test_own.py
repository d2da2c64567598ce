"""Own images by the commands, in processes of their own: the child that prepares them, its bar, its memory."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.photos import fill


def bytes_of(descriptor):
    """Reads a terminal until nobody writes to it any more."""
    found = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # on Linux the end of a terminal is an error
            part = b""
        if not part:
            return found
        found += part


def on_a_terminal(start, command, **environment):
    """Runs a command whose stderr is a terminal; returns its exit code, what it printed and what the terminal got."""
    mine, its = pty.openpty()
    process = start(command, stderr=its, TERM="xterm", COLUMNS="100", **environment)
    os.close(its)
    shown = bytes_of(mine)
    os.close(mine)
    return process.wait(), process.stdout.read(), shown.decode(errors="replace")


@pytest.mark.slow
def test_a_child_prepares_own_images_and_shows_a_bar(tmp_path, start):
    fill(tmp_path / "photos", count=30)
    words = ["kernorm.data", tmp_path / "photos", "--test-size", "0.3", "--reports-dir", tmp_path / "reports"]
    environment = {"KERNORM_CACHE_DIR": str(tmp_path / "cache")}
    code, printed, shown = on_a_terminal(start, [sys.executable, "-m", *words], **environment)
    assert code == 0
    assert re.match(r"photos@[0-9a-f]{12} 1\.0\.0: \d+ training and \d+ test images of 12x16x3, 2 classes", printed)
    assert f"Preparing {tmp_path / 'photos'} (once) ..." in shown
    assert "reading images" in shown
    assert "60/60" in shown
    # The second time nothing is prepared, and a broken file is named by the child in one line.
    code, again, shown = on_a_terminal(start, [sys.executable, "-m", *words], **environment)
    assert (code, again.splitlines()[0]) == (0, printed.splitlines()[0])
    assert "Preparing" not in shown
    (tmp_path / "photos" / "ant" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    code, printed, shown = on_a_terminal(start, [sys.executable, "-m", *words], **environment)
    assert (code, printed) == (2, "")
    assert "error: Own images are JPEG, PNG or BMP files of 8 bits, grey or RGB. Received: 1 of 61" in shown
    assert "ant/caf\\udce9.png: broken" in shown
    assert "Traceback" not in shown


def fabricate(root, count, classes=10):
    """Writes many small JPEG files, each of other content: a thousand pictures, and a comment in each file."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(1000):
        image, data = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)), io.BytesIO()
        image.save(data, "JPEG", quality=80)
        pictures.append(data.getvalue())
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
    for number in range(count):
        start, rest = pictures[number % 1000][:2], pictures[number % 1000][2:]
        comment = b"\xff\xfe\x00\x06" + number.to_bytes(4, "big")
        (root / f"class{number % classes}" / f"{number:05}.jpg").write_bytes(start + comment + rest)


@pytest.mark.slow
def test_fifty_thousand_images_are_prepared_and_trained_on_within_memory(tmp_path):
    """Once, and then an epoch of ten steps; 2.5 GB at most in any process, counted in 10⁹ bytes."""
    fabricate(tmp_path / "many", 50_000)
    words = ["--net=eva6", "--train-size=2560", "--validation-size=640", "--batch-size=256", "--epochs=1"]
    words += ["--no-export", "--no-report"]
    command = [sys.executable, "-m", "kernorm.train", "--dataset", tmp_path / "many", *words]
    command += ["--reports-dir", tmp_path / "reports"]
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    environment = {**os.environ, "KERNORM_CACHE_DIR": str(tmp_path / "cache")}
    run = [sys.executable, "-c", code, *map(str, command)]
    told = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    peak = int(told.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert peak < 2.5e9
    (path,) = (tmp_path / "reports" / "runs").glob("*/record.json")
    record = json.loads(path.read_bytes())
    assert record["environment"]["peak_memory"] <= peak
    data = record["data"]
    assert (data["train"], data["image_shape"]) == (2560, [64, 64, 3])
    assert data["duplicates"]["train"] > 0
