"""Refuses settings of a run that contradict each other; behind config.py, which calls it for every TrainConfig."""

from collections.abc import Mapping, Sequence
from typing import Any

from kernorm.errors import UsageError, nearest
from kernorm.limits import file_and_function, flag_of, is_path, number_or_share, size_of


def check_contradictions(config: Any) -> None:
    """Refuses settings that exclude each other.

    Raises:
        UsageError: two do.
    """
    if config.push and not config.export:
        raise UsageError("--push publishes what is exported.", "--push with --no-export", "Remove one of them.")
    if config.format and not config.export:
        raise UsageError("--format converts what is exported.", "--format with --no-export", "Remove one of them.")
    _check_patience(config)
    if config.select == "validation" and config.validation_size == 0:
        fix = "Give --validation-size auto or --select last."
        raise UsageError("--select validation needs a validation split.", "validation_size=0", fix)
    if config.base_momentum is not None and config.schedule != "onecycle":
        raise UsageError(
            "--base-momentum belongs to --schedule onecycle.", f"schedule={config.schedule!r}", "Remove it."
        )
    if config.weight_decay and config.optimizer != "adamw":
        raise UsageError(
            "--weight-decay belongs to --optimizer adamw.",
            f"optimizer={config.optimizer!r}",
            f"Give --l2 {config.weight_decay / 2:g}, which is what PyTorch's SGD calls weight_decay.",
        )
    if config.warmup and config.schedule != "cosine":
        raise UsageError("--warmup belongs to --schedule cosine.", f"schedule={config.schedule!r}", "Remove it.")
    if config.warmup >= max(config.epochs, 1):
        raise UsageError(
            "--warmup ends before the last epoch.",
            f"warmup={config.warmup:g} of {config.epochs} epochs",
            "Give fewer epochs, or a share such as 0.05.",
        )
    if config.nesterov and config.momentum == 0 and config.optimizer != "adamw":
        raise UsageError("--nesterov needs momentum.", "momentum=0", "Give --no-nesterov.")


def _check_patience(config: Any) -> None:
    """Refuses to stop early where that cannot be decided by validation, or would leave the rate high."""
    if config.patience is None:
        if config.min_delta:
            raise UsageError("--min-delta belongs to --patience.", f"min_delta={config.min_delta:g}", "Give both.")
        return
    if config.validation_size == 0:
        fix = "Give --validation-size auto, or remove --patience."
        raise UsageError("--patience needs a validation split.", "validation_size=0", fix)
    if config.select == "test":
        raise UsageError("--patience looks at validation.", "select='test'", "Give --select validation.")
    if config.schedule == "onecycle":
        raise UsageError(
            "--patience needs a rate that is not planned over all epochs.",
            "schedule='onecycle', which would stop at a high rate",
            "Give --schedule constant, step or cosine, or fewer --epochs.",
        )


def check_net(net: str, source: str | None, known: Sequence[str]) -> None:
    """Refuses a net that is neither known nor a function of a file.

    Args:
        net: as given.
        source: the text of its file, once that has been read.
        known: kernorm's own nets.
    """
    if net in known or source is not None or file_and_function(net):
        return
    fix = "Give FILE.py:FUNCTION, the function that makes the net." if ".py" in net else nearest(net, known)
    raise UsageError("--net takes a known name, or FILE.py:FUNCTION.", f"{net!r}", fix)


def check_data(config: Any, reading: Mapping[str, Any]) -> None:
    """Refuses a set's name in capitals, sizes that are none, and settings of own images for another set.

    Args:
        config: whose sizes become whole numbers or shares.
        reading: how own images are read, with the defaults.
    """
    if config.image_size is not None:
        size_of(config.image_size)
    for name in ("validation_size", "train_size"):
        object.__setattr__(config, name, number_or_share(getattr(config, name), flag_of(name)))
    if is_path(config.dataset):
        return
    for name, default in reading.items():
        if getattr(config, name) != default:
            received = f"{flag_of(name)} {getattr(config, name)} with dataset={config.dataset!r}"
            fix = f"Write a path, such as ./{config.dataset}, or remove it."
            raise UsageError(f"{flag_of(name)} belongs to own images.", received, fix)
    if config.dataset.partition("/")[0] != config.dataset.partition("/")[0].lower() and "@" not in config.dataset:
        raise UsageError(
            "--dataset takes tensorflow-datasets' lower-case name.",
            f"{config.dataset!r}",
            f"Give {config.dataset.lower()}, or ./{config.dataset} for a folder.",
        )


if __name__ == "__main__":
    raise SystemExit("This module is no command. See python -m kernorm for those that are.")
