"""tensorflow-datasets as the source of a data set: by name, from --manual-dir or the net, into checked arrays.

The only module that imports tensorflow-datasets, and only when a set is not cached yet.
"""

import atexit
import contextlib
import difflib
import errno
import importlib
import importlib.resources
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kernorm.datasets import cache, idx
from kernorm.datasets.arrays import Arrays, DamagedError, check_layout
from kernorm.datasets.origin import origin_of
from kernorm.errors import UsageError
from kernorm.system.backend import import_tensorflow

_MAX_BYTES = 4 * 2**30
_RETRIES = 3  # of tensorflow-datasets' 10, whose pauses take over three minutes to tell that there is no network
_BATCH = 1000
_EXTRACTED = ".kernorm-extracted-"
_LOG = logging.getLogger("kernorm")
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def prepare(name: str, manual_dir: Path | None = None, data_dir: Path | None = None) -> Arrays:
    """Lets tensorflow-datasets prepare a set in `data_dir` (None: its default) and decodes it.

    tensorflow-datasets keeps what it extracts by the archive's file name alone, and MNIST, Fashion-MNIST, KMNIST call
    their archives alike. So each set is extracted into a folder of its own. A set that was prepared before is compared
    with its archives where `manual_dir` holds them, and prepared again if it is not theirs.

    Raises:
        UsageError: no such set, not an image classification set of one size, files missing, damaged or without
            network, no room in `data_dir`, or tensorflow-datasets is not installed.
    """
    base, _ = cache.parse_name(name)
    if base == "mnist" and manual_dir is None:
        manual_dir = Path(str(importlib.resources.files("kernorm.datasets") / "mnist"))
    _import("tensorflow_datasets", name)
    builder = _builder(name, data_dir)
    image, label = _features(name, builder.info)
    _import("tensorflow", name)
    _download(name, builder, manual_dir)
    splits = builder.info.splits
    _require({"train", "test"} <= set(splits), name, f"which has the splits {', '.join(sorted(splits)) or 'none'}")
    shape = builder.info.features[image].shape
    size = sum(splits[part].num_examples for part in ("train", "test")) * int(np.prod(shape))
    _require(size <= _MAX_BYTES, name, f"which takes {size / 2**30:.1f} GiB")
    labels = tuple(str(text) for text in builder.info.features[label].names)
    values = _values(builder, image, label)
    wrong = _not_of_archives(builder, manual_dir, values)
    if wrong:
        told = "%s holds %s examples that are not in its archives; it is prepared again."
        _LOG.warning(told, builder.data_dir, wrong)
        _download(name, builder, manual_dir, again=True)
        values = _values(builder, image, label)
        wrong = _not_of_archives(builder, manual_dir, values)
        if wrong:
            raise UsageError(
                "A prepared set holds what stands in its archives.",
                f"{builder.data_dir}, {wrong} examples of which are not in those of {manual_dir}",
                "Delete that folder, or give the folder of this set's own files as --manual-dir.",
            )
    try:
        check_layout(labels, values)
    except DamagedError as error:
        _require(False, name, f"whose {error}")
    origin = origin_of(Path(builder.data_dir), manual_dir, data_dir, verified=wrong == 0)
    return Arrays.of(base, str(builder.version), labels, values, origin)


def _values(builder: Any, image: str, label: str) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        values[f"{part}_images"], values[f"{part}_labels"] = _decode(builder, part, image, label)
    return values


def _not_of_archives(builder: Any, manual_dir: Path | None, values: dict[str, np.ndarray]) -> int | None:
    """Returns how many examples are not in the IDX archives that lie in `manual_dir`; None if none lie there.

    Raises:
        UsageError: they are not the official ones.
    """
    from tensorflow_datasets.core.download import checksums

    infos = getattr(builder, "url_infos", None) or {}
    paths = {manual_dir / info.filename: info for info in infos.values() if manual_dir and info.filename}
    there = [path for path in paths if path.is_file()]
    archive = idx.pairs(there)
    if archive and (wrong := [path for path in there if checksums.compute_url_info(path) != paths[path]]):
        raise _unofficial(wrong[0])
    return idx.difference(archive, values) if archive else None


def _import(module: str, name: str) -> None:
    try:
        if module == "tensorflow":
            import_tensorflow()
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            "Preparing a data set needs tensorflow and tensorflow-datasets.",
            f"dataset={name!r}, {_line(error)}",
            f"Install them, or copy the set's .npz from {cache.cache_dir()} of a machine that has them.",
        ) from None


def _builder(name: str, data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        raise UsageError(
            "--dataset takes a set that tensorflow-datasets knows.",
            f"dataset={name!r}",
            f"Write ./{name} for the folder of that name."
            if Path(name).exists()
            else f"{'Nearest: ' + ', '.join(close) if close else 'Give for example mnist'}.",
        ) from None
    except (ValueError, AssertionError):
        kind = tfds.builder_cls(re.split("[/:]", name)[0])
        configs = ", ".join(list(kind.builder_configs)[:20])
        raise UsageError(
            "--dataset takes a configuration and a version that tensorflow-datasets knows.",
            f"dataset={name!r}",
            f"Known: {configs or 'no configuration'}, version {kind.VERSION}.",
        ) from None


def _features(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the image and of the label, before anything is downloaded."""
    import tensorflow_datasets as tfds

    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key in features if type(features[key]) is tfds.features.Image]
    labels = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    if isinstance(info.supervised_keys, tuple) and len(info.supervised_keys) == 2:
        first, second = info.supervised_keys
        images, labels = ([first] if first in images else images), ([second] if second in labels else labels)
    _require(len(images) == 1, name, f"which has {len(images) or 'no'} images an example")
    _require(len(labels) == 1, name, f"which has {len(labels) or 'no'} class labels an example")
    image, label = features[images[0]], features[labels[0]]
    _require(image.np_dtype == np.uint8, name, f"whose images are {np.dtype(image.np_dtype)}")
    _require(None not in image.shape, name, "whose images vary in size")
    _require((label.num_classes or 0) >= 2, name, f"which has {label.num_classes or 'no'} class")
    return images[0], labels[0]


def _download(name: str, builder: Any, manual_dir: Path | None, *, again: bool = False) -> None:
    """Prepares a set that is not prepared yet, or any with `again`; extracts into a folder that is removed after."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, downloader

    downloader.MAX_RETRIES = _RETRIES
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    if not sys.stderr.isatty() or name.partition(":")[0] == "mnist":
        tfds.disable_progress_bar()
    mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS if again else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    settings = {"manual_dir": manual_dir, "try_download_gcs": False, "download_mode": mode}
    try:
        with contextlib.redirect_stdout(None), _extraction_folder(Path(builder.data_dir).parent) as extracted:
            config = tfds.download.DownloadConfig(extract_dir=extracted, **settings)
            builder.download_and_prepare(download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        match = re.search(r"downloaded to (.+?), has wrong checksum", str(error))
        raise _unofficial(match[1] if match else _line(error)) from None
    except (requests.exceptions.RequestException, tfds.download.DownloadError) as error:
        raise UsageError(
            "A set's files come from the net or from --manual-dir.",
            f"dataset={name!r}, manual_dir={str(manual_dir) if manual_dir else None}, {_refusal(error)}",
            f"Connect, or put {_missing(builder, manual_dir)} into a folder and give it as --manual-dir.",
        ) from None
    except Exception as error:  # each of the 445 sets has its own code, with its own failures
        full = [f"{text}." for text in _FULL if text in str(error)]
        if full or isinstance(error, OSError):
            raise UsageError(
                "tensorflow-datasets' folder must be writable and have room.",
                f"{builder.data_dir}: {(full or [_line(error)])[0]}",
                "Give another one as --data-dir.",
            ) from None
        raise UsageError(
            "tensorflow-datasets must be able to prepare the set.",
            f"dataset={name!r}: {type(error).__name__}: {_line(error)}",
            "See its page in the catalogue for the files that --manual-dir needs.",
        ) from None


@contextlib.contextmanager
def _extraction_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder for one extraction and removes it, with those that killed processes left.

    A refused archive does not end the threads that extract the others. What they write meanwhile must not hide the
    refusal, and is removed at the end of the process, which waits for them.
    """
    made = [part for part in (parent, *parent.parents) if not part.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_EXTRACTED}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=_EXTRACTED, dir=parent, ignore_cleanup_errors=True) as folder:
            try:
                yield Path(folder)
            except BaseException:
                atexit.register(shutil.rmtree, folder, ignore_errors=True)
                raise
    finally:
        with contextlib.suppress(OSError):  # not empty: the set is there
            for part in made:
                part.rmdir()


def _decode(builder: Any, part: str, image: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 (N, H, W, C) and labels int32 (N,) in the order of the prepared files."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    count = builder.info.splits[part].num_examples
    images = np.empty((count, *builder.info.features[image].shape), np.uint8)
    labels = np.empty(count, np.int32)
    done = 0
    try:
        batches = builder.as_dataset(
            split=part,
            batch_size=_BATCH,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding({image: True, label: True}),
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        for batch in batches.as_numpy_iterator():
            here = slice(done, done + len(batch[label]))
            images[here], labels[here], done = batch[image], batch[label], here.stop
    except (tf.errors.OpError, OSError, ValueError) as error:
        done, reason = -1, _line(error)
    else:
        reason = f"{done} of {count} examples."
    if done != count:
        raise UsageError(
            "A set that tensorflow-datasets has prepared must be whole.",
            f"{builder.data_dir}, split {part!r}: {reason}",
            "Delete that folder.",
        )
    return images, labels


def _unofficial(path: object) -> UsageError:
    return UsageError(
        "The files of a data set must be the official ones, byte for byte.",
        f"{path}, whose size or sha256 is wrong",
        "Fetch it again, or give the folder of this set as --manual-dir.",
    )


def _missing(builder: Any, manual_dir: Path | None) -> str:
    names = [name for name in _file_names(builder) if not (manual_dir and (manual_dir / name).exists())]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "its files"


def _file_names(builder: Any) -> list[str]:
    """Returns the names of a set's original files; none for one that was prepared by other code than is here."""
    infos = getattr(builder, "url_infos", None) or {}
    return sorted({info.filename or url.rpartition("/")[2] for url, info in infos.items()})


def _refusal(error: Exception) -> str:
    host = re.search(r"host='([^']+)'", str(error))
    return f"no answer from {host[1]}" if host else _line(error).rstrip(".")


def _require(holds: bool, name: str, found: str) -> None:
    if not holds:
        raise UsageError(
            "A data set must be image classification: one uint8 image of fixed size and one label of "
            "two or more classes an example, splits train and test, at most 4 GiB.",
            f"dataset={name!r}, {found}",
            "Give for example mnist, fashion_mnist or cifar10.",
        )


def _line(error: Exception) -> str:
    """Returns the first line of an error's text, ended by a full stop."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
    return text[:300] + ("" if text[:300].endswith((".", "!", "?")) else ".")
