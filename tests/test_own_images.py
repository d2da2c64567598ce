"""From photos and a net of one's own to an answer, by README's commands as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

README = Path(__file__).parents[1] / "README.md"
SHAPES = ("circle", "cross", "square")


def section(title):
    return re.search(rf"^### {title}\n(.*?)(?=^##)", README.read_text(), re.M | re.S)[1]


def photo(rng, shape):
    """A light shape on noise, of any size from 60 to 140 pixels."""
    width, height = rng.integers(60, 140, 2)
    image = Image.fromarray(rng.integers(0, 120, (height, width, 3), dtype=np.uint8))
    draw, colour = ImageDraw.Draw(image), tuple(map(int, rng.integers(150, 255, 3)))
    radius = int(min(width, height) * rng.uniform(0.2, 0.4))
    x, y = int(width) // 2 + int(rng.integers(-8, 8)), int(height) // 2 + int(rng.integers(-8, 8))
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        for ends in (box, (x - radius, y + radius, x + radius, y - radius)):
            draw.line(ends, fill=colour, width=radius // 3 + 2)
    return image


@pytest.mark.slow
def test_five_commands_lead_from_photos_to_an_answer(tmp_path, rng):
    for shape in SHAPES:
        (tmp_path / "photos" / shape).mkdir(parents=True)
        for number in range(200):
            photo(rng, shape).save(tmp_path / "photos" / shape / f"{number:03}.jpg")
    photo(rng, "square").save(tmp_path / "photo.jpg")
    net = re.search(r"```python\n# nets.py\n(.*?)```", section("Your own net"), re.S)[1]
    assert len(net.splitlines()) <= 25
    (tmp_path / "nets.py").write_text(net)
    commands = re.search(r"```\n(.*?)```", section("Your own images"), re.S)[1].splitlines()
    assert len(commands) == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KERNORM_CACHE_DIR": str(tmp_path / "cache")}
    for command in commands:
        ran = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    assert re.fullmatch(r"photo\.jpg  square  [01]\.\d{4}\n", ran.stdout)
