"""What a study leaves to kernorm, resolved from the test split's class counts: its primary metric, and its margin.

Both are resolved once, before the first run, and kept in design.json, so that no later look changes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kernorm.datasets.counts import count_test_classes
from kernorm.records.record import Record
from kernorm.stats.scores import is_uneven
from kernorm.studies.choices import AUTO
from kernorm.studies.definition import Study
from kernorm.studies.design import Design
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import MARGIN, METRICS, Metric

# Test images that a margin is worth, at least: 0.05 points of 10,000. And at most one point: more would
# call arms equivalent that differ by what matters.
MARGIN_IMAGES, MOST_MARGIN = 5, 0.01
# Accuracies whose time is shown of MNIST.
MNIST_TARGETS = (0.99, 0.994)
Sizes = tuple[int, ...]


def class_sizes(study: Study, results: Mapping[str, Result], *, prepare: bool) -> list[Sizes]:
    """Returns the test images of each class, set by set; what the records do not tell, the prepared sets do.

    Args:
        study: its arms.
        results: by run id.
        prepare: prepares sets that are not; else these are left out.

    Raises:
        UsageError: a set cannot be prepared.
    """
    found: dict[str, Sizes] = {}
    for run in study.runs():
        result = results.get(run.config.run_id)
        if result and result.record and result.record.test:
            found.setdefault(run.config.dataset, tuple(map(sum, result.record.test.confusion)))
    for config in study.arms.values():
        if config.dataset not in found:
            sizes = count_test_classes(
                config.dataset, manual_dir=config.manual_dir, data_dir=config.data_dir, prepare=prepare
            )
            if sizes:
                found[config.dataset] = sizes
    return list(found.values())


def asked_design(study: Study) -> Design:
    """Returns the design that a study asks for, not resolved yet."""
    return Design(metric=study.metric, margin=study.margin, targets=study.targets)


def resolved(design: Design, sizes: Sequence[Sizes]) -> Design:
    """Returns a design whose metric and margin are not `auto`.

    The metric is the balanced accuracy where the largest test class has 1.5 times the images of the smallest, else the
    accuracy. The margin of these two is 0.05 points, and at least what 5 test images are worth, which weigh in a
    balanced accuracy as its precision says, but at most one point; other metrics have none.
    """
    metric = design.metric
    if metric == AUTO:
        metric = "balanced_accuracy" if any(map(is_uneven, sizes)) else "accuracy"
    margin = margin_of_sizes(METRICS[metric], sizes) if design.margin == AUTO else design.margin
    return replace(design, metric=metric, margin=margin)


def margin_of_sizes(metric: Metric, sizes: Sequence[Sizes]) -> float | None:
    """Returns the margin that fits test splits of these class sizes; None for a metric without."""
    strata = [metric.strata(np.repeat(np.arange(len(one)), one)) for one in sizes]
    if metric.mean_over is None:
        return None
    worth = max((MARGIN_IMAGES / one.effective for one in strata if one), default=0.0)
    return max(MARGIN, min(MOST_MARGIN, float(f"{worth:.2g}")))


def metrics_of(design: Design, sizes: Sequence[Sizes]) -> dict[str, Metric]:
    """Returns the metrics of a study: the primary one with the study's margin, the others with one that fits."""
    return {
        name: primary_metric(design) if name == design.metric else replace(one, margin=margin_of_sizes(one, sizes))
        for name, one in METRICS.items()
    }


def primary_metric(design: Design) -> Metric:
    """Returns the primary metric with the study's margin; designs of before margins were kept have the metric's own."""
    metric = METRICS[design.metric]
    return metric if design.margin is None else replace(metric, margin=float(design.margin))


def targets_of(design: Design, records: Sequence[Record]) -> tuple[float, ...]:
    """Returns the accuracies on the monitored split whose time is shown, from the runs of all arms.

    As given; else 99.0 and 99.4 % on MNIST. On other sets, and with `auto`, the higher one is what half of the runs
    reach, and the lower one has 5/3 of its error, as on MNIST, if that is not less than half of it.
    """
    if design.targets and design.targets != AUTO:
        return design.targets
    if design.targets != AUTO and all(record.config.dataset == "mnist" for record in records):
        return MNIST_TARGETS
    best = [max((row.val_accuracy or 0.0 for row in record.history[1:]), default=0.0) for record in records]
    best = [accuracy for accuracy in best if accuracy > 0]
    if not best:
        return ()
    # In tenths of a point, rounded to what half of the runs reach.
    error = float(np.ceil(1000 * (1 - np.median(best)) - 1e-9)) / 1000
    high, low = round(1 - error, 3), round(1 - 5 / 3 * error, 3)
    return (low, high) if high / 2 <= low < high else (high,)
