"""Where own images lie: in a folder a class, in splits or not, by names alone; no image is opened.

Layouts: `ROOT/train/CLASS/*`, `ROOT/test/CLASS/*` and perhaps `ROOT/val/CLASS/*`; or `ROOT/CLASS/*`.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.records.data import OVERALL

READ = (".jpg", ".jpeg", ".png", ".bmp")
# Image files that TensorFlow does not decode.
_UNREAD = (".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif", ".svg", ".jp2")
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("val", "valid", "validation")}
# Names, or files, that a message holds.
NAMED = 8


@dataclass(frozen=True)
class ImageFile:
    """A file of a split: its path, and the place of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class Found:
    """What lies in a folder: class names, and files by split, sorted by path; `test` is None where none is given.

    `parents` are the folders that hold the classes, and `others` counts files that are no images by their kind.
    """

    labels: tuple[str, ...]
    parents: tuple[Path, ...]
    train: tuple[ImageFile, ...]
    test: tuple[ImageFile, ...] | None
    validation: tuple[ImageFile, ...]
    others: Counter[str]

    def files(self) -> list[Path]:
        """All files."""
        return [file.path for part in (self.train, self.test or (), self.validation) for file in part]

    def state(self, root: Path) -> tuple[object, ...]:
        """Returns class names, and names, sizes and times of all files: other ones mean that they have changed."""
        states = ((path.relative_to(root), path.stat()) for path in self.files())
        return self.labels, *((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def scan(root: Path) -> Found:
    """Lists the image files of a folder by class and split; hidden files and folders are left out.

    Raises:
        UsageError: there are no two classes, they differ between splits, a split is there without its partner, or a
            link leaves the folder or leads nowhere.
    """
    splits, parents = _splits(root), class_folders(root)
    classes = {part: _folders(folder) for part, folder in zip(splits or ("",), parents, strict=True)}
    for folder in (*splits.values(), *(path for paths in classes.values() for path in paths)):
        _require_inside(folder, root)
    labels = tuple(path.name for path in next(iter(classes.values())))
    require_classes(labels, parents[0])
    if odd := [label for label in labels if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label)]:
        raise UsageError(
            "Class names are text in UTF-8, in one line.", f"{odd[0]!r} in {parents[0]}", "Rename the folder."
        )
    if OVERALL in labels:
        raise UsageError(
            f"A class is not named {OVERALL}, as evaluations name the whole split.",
            f"{parents[0] / OVERALL}",
            "Rename the folder.",
        )
    for folder, theirs in zip(parents[1:], list(classes.values())[1:], strict=True):
        if odd := sorted({*labels} ^ {path.name for path in theirs}):
            raise UsageError(
                "The splits of own images have the same classes.",
                f"{', '.join(odd[:NAMED])} only in {parents[0].name} or {folder.name} of {root}",
                "Make or remove these folders.",
            )
    others = Counter[str]()
    found = {part: _files(folders, root, others) for part, folders in classes.items()}
    if not splits:
        return Found(labels, parents, found[""], None, (), others)
    return Found(labels, parents, found["train"], found["test"], found.get("validation", ()), others)


def class_folders(root: Path) -> tuple[Path, ...]:
    """Returns the folders whose folders are classes: those of the splits, the one for training first, or the root.

    Raises:
        UsageError: a split is there without its partner.
    """
    return tuple(_splits(root).values()) or (root,)


def _splits(root: Path) -> dict[str, Path]:
    """Returns the folders of the splits, the one for training first; empty if the folder holds classes."""
    folders = _folders(root)
    named = {part: [path for path in folders if path.name.lower() in known] for part, known in _SPLITS.items()}
    named = {part: paths for part, paths in named.items() if paths}
    # One folder of such a name among others may be a class, as of pictures of trains.
    if not named or (len(named) == 1 and len(folders) > len(named[next(iter(named))])):
        return {}
    if not {"train", "test"} <= named.keys() or any(len(paths) > 1 for paths in named.values()):
        raise UsageError(
            "Splits of own images are a folder train, one test, and perhaps one val.",
            f"{', '.join(path.name for paths in named.values() for path in paths)} in {root}",
            "Add or remove a folder; without splits, a folder a class lies in the folder itself.",
        )
    return {part: paths[0] for part, paths in named.items()}


def require_classes(labels: Sequence[str], root: Path) -> None:
    """Refuses a set of fewer than two classes.

    Raises:
        UsageError: so.
    """
    if len(labels) < 2:
        raise UsageError(
            "Own images are of two or more classes, a folder each.",
            f"{root} with {f'the class {labels[0]}' if labels else 'no class'} alone",
            "See python -m kernorm.data --help for the layouts.",
        )


def _entries(folder: Path) -> list[Path]:
    """Returns what lies in a folder and is not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _require_inside(path: Path, root: Path, around: tuple[Path, ...] = ()) -> None:
    """Refuses a link that leads nowhere, out of the data set, or to a folder that it lies in or one `around`."""
    if not path.is_symlink():
        return
    there = path.resolve() if path.exists() else None
    if there is None:
        reason = "leads nowhere"
    elif not there.is_relative_to(root.resolve()):
        reason = "leaves it"
    elif any(folder.is_relative_to(there) for folder in (path.parent.resolve(), *around)):
        reason = "leads to a folder around itself"
    else:
        return
    raise UsageError(
        "Links of own images stay in their folder.",
        f"{path}, which {reason}",
        "Copy the files, or remove the link.",
    )


def _walk(folder: Path, root: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yields the files in a folder and in all folders in it, linked ones too, sorted; `around` are links' targets."""
    for path in _entries(folder):
        _require_inside(path, root, around)
        if path.is_dir():
            yield from _walk(path, root, (*around, path.parent.resolve()) if path.is_symlink() else around)
        else:
            yield path


def _files(folders: Sequence[Path], root: Path, others: Counter[str]) -> tuple[ImageFile, ...]:
    """Returns the image files of classes, a folder each; counts files that are no images in `others`."""
    found, unread = [], []
    for label, folder in enumerate(folders):
        for path in _walk(folder, root):
            kind = path.suffix.lower()
            if kind in READ:
                found.append(ImageFile(path, label))
            elif kind in _UNREAD:
                unread.append(path)
            else:
                others[kind or path.name] += 1
    if unread:
        shown = ", ".join(str(path.relative_to(root)) for path in unread[:NAMED])
        raise UsageError(
            "Own images are JPEG, PNG or BMP files.",
            f"{len(unread):,} others: {shown}{' …' if len(unread) > NAMED else ''}",
            "Convert or remove them.",
        )
    return tuple(found)
