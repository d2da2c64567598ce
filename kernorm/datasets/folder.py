"""Own images: a folder with a folder a class, or an .npz file, read into the arrays of a data set.

Layouts: `ROOT/train/CLASS/*`, `ROOT/test/CLASS/*` and perhaps `ROOT/val/CLASS/*`; or `ROOT/CLASS/*`, of which the share
`test_size` becomes the test split by the hash of each file's content, so that added and renamed files move no other
one, and equal files stay on one side; or an .npz with the keys of keras.datasets or of MedMNIST.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kernorm.config import Color, Resize
from kernorm.datasets.arrays import Arrays
from kernorm.datasets.decode import ORIENTATION, decoder, upright
from kernorm.datasets.layout import NAMED, ImageFile, scan
from kernorm.errors import UsageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile as Opened

# Files that are decoded by one call.
_TOGETHER = 32
_MODES = {
    "CMYK": "CMYK colours",
    "I;16": "16 bits a channel",
    "I;16B": "16 bits a channel",
    "I": "32 bits a pixel",
    "F": "float pixels",
    "LAB": "LAB colours",
}
_LOG = logging.getLogger("kernorm")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How own images are read; see the settings of the same names."""

    image_size: Sequence[int] | None = None
    resize: Resize = "stretch"
    color: Color | None = None
    test_size: float = 0.2


def read_folder(root: Path, name: str, reading: Reading, report: Callable[[int, int], None] | None = None) -> Arrays:
    """Reads a folder of images.

    Args:
        root: see the module.
        name: of the set.
        reading: size, colours and share of the test split.
        report: called with the number of files read so far, and of all files.

    Raises:
        UsageError: the folder is not laid out so, files are not what can be read, sizes differ and none is given, or
            a class has no image in a split.
    """
    found = scan(root)
    if found.others:
        told = ", ".join(f"{count:,} {kind}" for kind, count in found.others.most_common(NAMED))
        _LOG.info("Files that are no images were not read: %s.", told)
    before = found.state(root)
    kinds = inspect(found.files(), root)
    height, width = reading.image_size or _common_size(kinds, root)
    grey = reading.color == "grayscale" or (reading.color is None and all(kind[2] for kind in kinds.values()))
    shape = (height, width, 1 if grey else 3)
    train, test = found.train, found.test
    if test is None:
        train, test = _split(found.train, reading.test_size)
    _require_images(found.labels, {"train": train, "test": test}, root)
    parts = {"train": (*train, *found.validation), "test": test}
    values: dict[str, np.ndarray] = {}
    done, total = 0, sum(map(len, parts.values()))
    decode = decoder(shape, reading.resize)
    for part, files in parts.items():
        images = np.empty((len(files), *shape), np.uint8)
        for first in range(0, len(files), _TOGETHER):
            some = files[first : first + _TOGETHER]
            images[first : first + len(some)] = decode([upright(file.path.read_bytes()) for file in some])
            done += len(some)
            if report:
                report(done, total)
        values[f"{part}_images"] = images
        values[f"{part}_labels"] = np.array([file.label for file in files], np.int32)
    if scan(root).state(root) != before:
        raise UsageError("A folder must not change while it is read.", f"{root}, which did", "Run the command again.")
    return Arrays.of(name, "1.0.0", found.labels, values, resize=reading.resize, given_validation=len(found.validation))


def inspect(files: Sequence[Path], root: Path) -> dict[Path, tuple[int, int, bool]]:
    """Returns height, width and whether it is grey of every image file, as it is to be looked at.

    Raises:
        UsageError: files cannot be read, with what is wrong with each, on one screen.
    """
    from PIL import Image

    kinds, wrong = {}, {}
    for path in files:
        try:
            with Image.open(path) as image:
                if problem := _problem(image):
                    wrong[path] = problem
                    continue
                image.load()
                turned = image.getexif().get(ORIENTATION, 1) >= 5
                height, width = (image.width, image.height) if turned else (image.height, image.width)
                kinds[path] = height, width, image.mode in ("1", "L")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            wrong[path] = "empty" if not path.stat().st_size else f"broken ({short_reason(error)})"
    if wrong:
        reasons = Counter(wrong.values())
        shown = [f"{path.relative_to(root)}: {reason}" for path, reason in list(wrong.items())[:NAMED]]
        more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
        most = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
        raise UsageError(
            "Own images are JPEG, PNG or BMP files of 8 bits, grey or RGB.",
            f"{len(wrong):,} of {len(files):,} that are not ({most}): {'; '.join(shown)}{more}",
            "Convert or remove them.",
        )
    return kinds


def _problem(image: "Opened") -> str:
    # A camera's file may hold several pictures; the first one is the photo.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        return "animated"
    if image.format not in ("JPEG", "PNG", "BMP", "MPO"):
        return f"a {image.format} file"
    if image.mode in _MODES:
        return _MODES[image.mode]
    # Pillow gives a PNG of 16 bits a colour the same mode as one of 8.
    if any(isinstance(part.args, str) and ";16" in part.args for part in image.tile):
        return "16 bits a channel"
    if "A" in image.mode or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        return "transparency" if alpha.min() < 255 else ""
    return ""


def _split(files: Iterable[ImageFile], share: float) -> tuple[tuple[ImageFile, ...], tuple[ImageFile, ...]]:
    """Puts a file into the test split if the hash of its content is below the share."""
    parts: tuple[list[ImageFile], list[ImageFile]] = ([], [])
    for file in files:
        digest = hashlib.sha256(file.path.read_bytes()).digest()
        parts[int.from_bytes(digest[:8], "big") < share * 2**64].append(file)
    return tuple(parts[0]), tuple(parts[1])


def _require_images(labels: Sequence[str], parts: dict[str, tuple[ImageFile, ...]], root: Path) -> None:
    for part, files in parts.items():
        counts = Counter(file.label for file in files)
        if empty := [label for place, label in enumerate(labels) if not counts[place]]:
            raise UsageError(
                "Every class has images in train and test.",
                f"{', '.join(empty[:NAMED])} without one in {part} of {root}",
                "Add images, or give another --test-size.",
            )


def _common_size(kinds: dict[Path, tuple[int, int, bool]], root: Path) -> tuple[int, int]:
    sizes = Counter(kind[:2] for kind in kinds.values())
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in sizes.most_common(3))
        raise UsageError(
            "Images of different sizes are brought to one.",
            f"{len(sizes):,} sizes in {root}, as {shown}",
            "Give --image-size, for example 64 or 48x64.",
        )
    return next(iter(sizes))


def short_reason(error: Exception) -> str:
    """Returns the first line of an error, short and without paths."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"""(['"])[^'"]*/.*?\1|/\S*""", "", line)[:60].strip(" :")
