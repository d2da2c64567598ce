"""What `python -m kernorm.study` prints: the plan with its cost, a line a run, and the verdicts."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from kernorm.config import TrainConfig
from kernorm.datasets.counts import train_shape
from kernorm.datasets.splits import images_of
from kernorm.reporting.format import concise
from kernorm.studies.definition import Planned, Study
from kernorm.studies.design import Design
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS
from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import ArmSummary, StudySummary, counted
from kernorm.studies.wording import (
    compared,
    decided_interval,
    failure_rate,
    half,
    headline_interval,
    plus_minus,
    score,
    unit,
)
from kernorm.system.terminal import table_console

# CPU-milliseconds of training an image of PIXELS and of a step, measured on one thread with batch normalization, and
# CPU-seconds of what surrounds the epochs of a run.
IMAGE_MS = {"eva6": 0.25, "eva4": 0.45, "resnet8": 0.9, "resnet20": 2.7}
PIXELS = 28 * 28
# Training images of MNIST, which need not be prepared to be planned.
MNIST = (60_000, 28, 28, 1)
STEP_MS = 4.0
AROUND = 8.0


def cost(config: TrainConfig) -> float | None:
    """Returns about how many CPU-seconds a run takes; within a factor of two, as machines differ more.

    None for a set that is not prepared yet, whose size is not known.
    """
    shape = train_shape(config.dataset) or (MNIST if config.dataset == "mnist" else None)
    if shape is None:
        return None
    every, height, width, _ = shape
    rest = every - (images_of(config.validation_size, every) or 0)
    images = images_of(config.train_size, rest) or rest
    steps = -(-images // config.batch_size)
    image = IMAGE_MS.get(config.net, IMAGE_MS["eva4"])  # a net that was not measured
    image *= height * width / PIXELS
    return AROUND + config.epochs * (image * images + STEP_MS * steps) / 1000


def show_plan(study: Study, missing: Iterable[Planned], workers: int) -> None:
    """Prints the arms with their settings, what is done, and about how long the rest takes."""
    missing = list(missing)
    table = Table(box=None, pad_edge=False)
    for name in ("arm", "net", "norm"):
        table.add_column(name)
    for name in ("λ1", "λ2", "batch", "rate", "epochs", "images", "done", "CPU-min a run"):
        table.add_column(name, justify="right")
    for arm, config in study.arms.items():
        left = sum(run.arm == arm for run in missing)
        table.add_row(
            arm,
            config.net,
            config.norm,
            concise(config.l1),
            concise(config.l2),
            str(config.batch_size),
            concise(config.peak_rate),
            str(config.epochs),
            _images(config.train_size),
            f"{len(study.seeds) - left}/{len(study.seeds)}",
            "?" if (seconds := cost(config)) is None else f"{seconds / 60:.1f}",
        )
    console = table_console()
    console.print(study.question + "\n", markup=False)
    console.print(table)
    print(f"\n{len(missing)} of {len(study.runs())} runs to do, {_time(_costs(missing), workers)}")


def show_trials(missing: Sequence[Planned], workers: int) -> None:
    """Prints how many runs find the arms' rates first, if any do, and about how long they take."""
    if missing:
        arms = counted(len({run.arm for run in missing}), "arm")
        print(f"before them {len(missing)} runs to find the rates of {arms}, {_time(_costs(missing), workers)}")


def _images(size: int | float | None) -> str:
    if size is None:
        return "all"
    return f"{size:,}" if isinstance(size, int) else f"{100 * size:g} %"


def _costs(runs: Iterable[Planned]) -> list[float | None]:
    return [cost(run.config) for run in runs]


def _time(costs: list[float | None], workers: int) -> str:
    """Says how long runs take; sets that are not prepared have no known size."""
    known = [one for one in costs if one is not None]
    if len(known) < len(costs):
        return "for which time is known once the set is prepared: python -m kernorm.data NAME"
    seconds = sum(known) / workers
    time = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
    return f"about {time} with {workers} workers"


def format_primary(design: Design) -> str:
    """Says which metric has verdicts, and what counts as no difference of it."""
    metric = primary_metric(design)
    margin = f"equivalent within {metric.show(metric.margin)}" if metric.margin else "without a margin (--margin)"
    return f"Verdicts are by {metric.label}, {margin}."


def format_result(result: Result) -> str:
    """Puts a run that has ended into one line."""
    text = f"{result.arm} seed {result.seed}: "
    if result.record is None or result.record.test is None:
        return text + (result.message or result.status)
    test = result.record.test
    return f"{text}{100 * test.accuracy:.2f} %, cross-entropy {test.cross_entropy:.4f}, {result.record.seconds:.0f} s"


def show_verdicts(summary: StudySummary) -> None:
    """Prints an arm a row: how many runs, mean accuracy with its interval, the difference to its baseline, verdicts."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    label = METRICS[summary.metric].label + (", %" if METRICS[summary.metric].in_percent else "")
    for name in ("n", label, "difference"):
        table.add_column(name, justify="right")
    table.add_column("95 % interval" if summary.chosen else "interval that decides")
    table.add_column("" if summary.chosen else "verdict", overflow="fold")
    for arm in summary.arms:
        table.add_row(
            arm.name,
            str(len(arm.seeds)),
            _score(arm, summary.metric),
            _difference(arm, summary.metric),
            _interval(arm, summary),
            _verdict(arm),
        )
    table_console().print(table)
    if any(arm.scores for arm in summary.arms):
        print(f"± {plus_minus(summary)}.")
    if summary.chosen:
        print("Chosen afterwards: no verdict, no p; intervals are not corrected for the number of arms.")
    if summary.provisional:
        print(f"{summary.missing:,} runs are missing; verdicts follow once all have ended.")
    for arm in summary.arms:
        if arm.unpredicted:
            print(f"caution  {arm.name}: {arm.unpredicted}")


def _score(arm: ArmSummary, metric: str) -> str:
    if metric not in arm.scores:
        return "–"
    return f"{score(arm.scores[metric].mean, metric)} {half(headline_interval(arm, metric), metric)}".rstrip()


def _difference(arm: ArmSummary, metric: str) -> str:
    found = compared(arm, metric)
    return unit(found.difference, metric) if found and found.difference is not None else "–"


def _interval(arm: ArmSummary, summary: StudySummary) -> str:
    """Returns the interval of a difference: the one that decided; of runs chosen afterwards a plain one."""
    if arm.decided and arm.decided.alpha is not None:
        return decided_interval(arm.decided, summary.metric)
    found = compared(arm, summary.metric)
    if not (summary.chosen and found and found.interval):
        return "–"
    return " to ".join(unit(end, summary.metric) for end in found.interval)


def _verdict(arm: ArmSummary) -> str:
    troubles = ", ".join(f"{count} {state}" for state, count in arm.states.items() if state != "finished" and count)
    rate = failure_rate(arm) if arm.failures.collapsed else ""
    words = arm.decided.sentence if arm.decided else "baseline" if arm.baseline is None else ""
    selected = "on the last epoch" if arm.last and arm.decided else ""
    return "; ".join(part for part in (words, selected, rate, troubles) if part)
