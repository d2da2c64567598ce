"""For TFX's Trainer: `run_fn`; give this file as its `module_file`. tuner/tfx.py serves Trainer and Tuner.

TFX itself is not needed here. Examples are tf.Example records in the
layout of tensorflow-datasets, a PNG under `image` and a number under `label`, in TFRecord files, gzipped or not. What
`eval_files` hold is kernorm's test split, opened once; validation images are drawn from `train_files`.
"""

import glob
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernorm.config import TrainConfig
from kernorm.datasets.arrays import Arrays, DamagedError, check_layout, content_sha256
from kernorm.datasets.splits import images_of
from kernorm.errors import UsageError, nearest
from kernorm.recipes import recipe_of_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DATASET = "tfx_examples"
_GZIP = b"\x1f\x8b"
_BATCH = 1000


def run_fn(fn_args: Any) -> None:
    """Trains on TFX's examples and writes a SavedModel into `fn_args.serving_model_dir`, as its Trainer asks for.

    Args:
        fn_args: TFX's FnArgs. Used are train_files, eval_files, serving_model_dir, model_run_dir (the run's records
            and report), train_steps (0 or None: the recipe's epochs; else rounded up to whole epochs), hyperparameters
            (of a Tuner: HyperParameters.get_config()) and custom_config: fields of TrainConfig, and `labels`, the
            classes' names. A hyperparameter goes before custom_config.

    Raises:
        UsageError: no example can be read, or a field or a value is wrong.
        RuntimeError: the run diverged.
    """
    import shutil

    from kernorm.training.run import train

    settings = settings_of(fn_args) | _tuned(fn_args)
    with examples(fn_args) as count:
        run_dir = Path(fn_args.model_run_dir)
        places = {"dataset": DATASET, "reports_dir": run_dir, "saved_models_dir": run_dir / "saved_models"}
        config = recipe_of_settings(settings | places)
        if fn_args.train_steps:
            steps = math.ceil(_training_images(config, count) / config.batch_size)
            config = replace(config, epochs=math.ceil(fn_args.train_steps / steps))
        record = train(config)
    if record.status != "finished" or not (record.export and record.export.path):
        raise RuntimeError(f"The run ended as {record.status}: {record.message}. See {run_dir}.")
    shutil.copytree(record.export.path, fn_args.serving_model_dir, dirs_exist_ok=True)


def _training_images(config: TrainConfig, count: int) -> int:
    """Returns how many of `count` examples train."""
    validation = images_of(config.validation_size, count) or 0
    if validation >= count:
        raise UsageError(
            "validation_size must leave images to train on.",
            f"validation_size={config.validation_size} of {count} examples",
            f"Give less than {count}, or a share, in custom_config.",
        )
    return images_of(config.train_size, count - validation) or count - validation


def settings_of(fn_args: Any) -> dict[str, Any]:
    """Returns the fields of TrainConfig that TFX's custom_config sets.

    Raises:
        UsageError: a name is none of them.
    """
    given = dict(fn_args.custom_config or {})
    for name in ("labels", "search"):
        given.pop(name, None)
    held = {"dataset", "reports_dir", "saved_models_dir", "export", "net_source", "net_weights"}
    known = {field.name for field in fields(TrainConfig)} - held
    for name in given:
        if name not in known:
            raise UsageError(
                "custom_config names settings of kernorm.train.", f"{name!r}", nearest(name, sorted(known))
            )
    return given


def _tuned(fn_args: Any) -> dict[str, Any]:
    """Returns the settings that a Tuner found."""
    if not fn_args.hyperparameters:
        return {}
    values: Mapping[str, Any] = fn_args.hyperparameters["values"]
    known = {field.name for field in fields(TrainConfig)}
    found = {name: value for name, value in values.items() if name in known}
    for name in ("l1", "l2"):
        if values.get(f"{name}_on") is False:
            found[name] = 0.0
    return found


@contextmanager
def examples(fn_args: Any) -> "Iterator[int]":
    """Makes TFX's examples the data set DATASET while the body runs; yields how many training examples there are."""
    from kernorm.datasets import cache

    folder = Path(getattr(fn_args, "model_run_dir", None) or fn_args.working_dir) / "examples"
    before = os.environ.get("KERNORM_CACHE_DIR")
    os.environ["KERNORM_CACHE_DIR"] = str(folder)
    try:
        values: dict[str, NDArray[Any]] = {}
        for part, patterns in (("train", fn_args.train_files), ("test", fn_args.eval_files)):
            values[f"{part}_images"], values[f"{part}_labels"] = _decoded(part, patterns)
        most = max(int(values[f"{part}_labels"].max()) for part in ("train", "test"))
        names = tuple((fn_args.custom_config or {}).get("labels", map(str, range(most + 1))))
        try:
            check_layout(names, values)
        except DamagedError as error:
            raise UsageError(
                "TFX's examples must be images of one size, each with a label.",
                error,
                "Give the names of all classes as custom_config['labels'].",
            ) from None
        digest = content_sha256(names, values)
        # A version of its own for other content, so that a run's config names what it was trained on.
        version = f"1.0.{int(hashlib.sha256(digest.encode()).hexdigest()[:6], 16)}"
        for path in cache.cached_paths():
            path.unlink()
        cache.write(Arrays.of(DATASET, version, names, values))
        yield len(values["train_labels"])
    finally:
        if before is None:
            del os.environ["KERNORM_CACHE_DIR"]
        else:
            os.environ["KERNORM_CACHE_DIR"] = before


def _matching(pattern: str) -> list[str]:
    """Returns the files of a pattern; the name of a file that is there stands for itself, whatever signs it holds."""
    return [pattern] if os.path.isfile(pattern) else glob.glob(pattern)


def _decoded(part: str, patterns: Sequence[str]) -> "tuple[NDArray[np.uint8], NDArray[np.int32]]":
    """Returns images uint8 (N, H, W, C) and labels int32 (N,) of all record files that the patterns name."""
    import numpy as np
    import tensorflow as tf

    found = sorted({path for pattern in map(str, patterns) for path in _matching(pattern)})
    layout = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    images, labels = [], []
    try:
        for path in found:
            with open(path, "rb") as file:
                kind = "GZIP" if file.read(2) == _GZIP else ""
            for batch in tf.data.TFRecordDataset(path, kind).batch(_BATCH):
                parsed = tf.io.parse_example(batch, layout)
                images += [tf.io.decode_png(png).numpy() for png in parsed["image"]]
                labels.append(parsed["label"].numpy())
        return np.stack(images), np.concatenate(labels).astype(np.int32)
    except (tf.errors.OpError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[0][:200].rstrip(".")
        raise UsageError(
            (
                f"{part} examples are tf.Example records with a PNG under image and a number under label, "
                "all of one size."
            ),
            f"{', '.join(map(str, patterns)) or 'no file'}, {len(found)} files: {line}",
            "Give files as tensorflow-datasets writes them.",
        ) from None
