"""What runs need before they are handed to workers: their data in the cache, and a first step of their own nets."""

from collections.abc import Iterable

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
from kernorm.parallel.grouping import static_key
from kernorm.records.data import Data
from kernorm.training.first_step import try_nets


def prepare(configs: Iterable[TrainConfig]) -> None:
    """Loads every set and tries every own net once.

    So a wrong size or net is refused at once, and workers find the cache.
    """
    infos: dict[tuple, Data] = {}
    nets: dict[tuple, tuple[TrainConfig, Data]] = {}
    for config in configs:
        sizes = (config.validation_size, config.train_size, config.batch_size)
        key = (config.dataset, config.manual_dir, config.data_dir, *sizes)
        if key not in infos:
            infos[key] = load(config).info
        if config.net_source is not None:
            penalties = config.l1 > 0, config.l2 > 0, config.penalize, config.penalty_at
            nets.setdefault((static_key(config), *penalties), (config, infos[key]))
    if nets:
        try_nets(list(nets.values()))
