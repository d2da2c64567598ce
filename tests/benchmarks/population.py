"""What a population is worth: throughput by width and lowering, share of the device's limits, memory, and accuracy.

    KERAS_BACKEND=jax python -m tests.benchmarks.population [--nets eva4 eva6] [--norms bn ln gn] [--widths 1 8 32 128]
    KERAS_BACKEND=jax python -m tests.benchmarks.population --accuracy 20

Both write a table beside what they print, --out. The first one times the second epoch of each way, validation and
measurements included, as a user's run has them: `fit` is one run as kernorm.train trains it. Its last columns say which
share the training program has of what a large product of matrices and a large copy reach on the same device, just
before: arithmetic by the net's own multiplications (three times those of inference), bandwidth by the bytes that XLA
counts. The second one trains the same seeds by `fit` and as a population, and compares means and spreads of what they
reach. Without an accelerator take a few images: --images 640 --validation 250.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
from kernorm.parallel.groups import train_population
from kernorm.parallel.lowering import LOWERINGS, Lowering
from kernorm.parallel.members import on_the_host
from kernorm.parallel.population import Population
from kernorm.recipes import recipe
from kernorm.system.backend import require_jax
from kernorm.training.callbacks import TrainingState
from kernorm.training.run import start_or_resume, train
from kernorm.training.trainer import Trainer
from tests.benchmarks.tables import write

MNIST = 50_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of training; shares are of what the device reaches by itself."""

    device: str
    net: str
    norm: str
    batch_size: int
    way: str
    lowering: str
    width: int
    member_epochs_per_s: float
    against_fit: float
    member_mib: float | None
    arithmetic_share: float | None
    bandwidth_share: float | None


def seconds(work: object, *arguments: object) -> float:
    """Returns the shortest of three calls of a compiled program, once it is warm."""
    jax.block_until_ready(work(*arguments))  # type: ignore[operator]
    found = []
    for _ in range(3):
        begun_at = time.perf_counter()
        jax.block_until_ready(work(*arguments))  # type: ignore[operator]
        found.append(time.perf_counter() - begun_at)
    return min(found)


def limits() -> tuple[float, float]:
    """Measures what the device reaches: floating-point operations and bytes, both a second."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    matrix, long = jnp.ones((size, size)), jnp.ones(size * size)
    product, copied = seconds(jax.jit(jnp.dot), matrix, matrix), seconds(jax.jit(lambda x: x + 1), long)
    return 2 * size**3 / product, 2 * long.nbytes / copied


def multiplications(model: keras.Model) -> int:
    """Counts the multiplications that one image takes through the convolutions."""
    found = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            height, width = layer.output.shape[1:3]
            found += height * width * int(jnp.prod(jnp.array(layer.kernel.shape)))
    return found


def config_of(asked: argparse.Namespace, net: str, norm: str, seed: int, folder: str) -> TrainConfig:
    """Returns the published recipe of the net, on as many images as asked for."""
    return recipe(
        net,
        norm=norm,
        batch_size=asked.batch_size,
        epochs=2,
        train_size=asked.images,
        select="last",
        validation_size=asked.validation,
        seed=seed,
        l2=1e-4,
        export=False,
        report=False,
        reports_dir=Path(folder),
    )


def runs_of(configs: list[TrainConfig]) -> list[Trainer]:
    """Begins runs."""
    data = load(configs[0])
    found = []
    for config in configs:
        folder = config.reports_dir / "runs" / config.run_id
        folder.mkdir(parents=True)
        with on_the_host():
            found.append(start_or_resume(config, folder, data._replace(test=data.test.sealed_again()))[0])
    return found


def throughput(asked: argparse.Namespace, net: str, norm: str, peaks: tuple[float, float]) -> list[Row]:
    """Measures every way of training one net."""
    device, share = jax.devices()[0].device_kind, asked.images / MNIST
    rows: list[Row] = []

    def add(way: str, lowering: str, width: int, taken: float, **more: float | None) -> None:
        speed = width * share / taken
        base = rows[0].member_epochs_per_s if rows else speed
        none = {"member_mib": None, "arithmetic_share": None, "bandwidth_share": None}
        row = Row(
            device=device,
            net=net,
            norm=norm,
            batch_size=asked.batch_size,
            way=way,
            lowering=lowering,
            width=width,
            member_epochs_per_s=speed,
            against_fit=speed / base,
            **(none | more),
        )
        rows.append(row)
        print(shown(row), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        (run,) = runs_of([config_of(asked, net, norm, 0, folder)])
        run.fit(0)
        add("fit", "", 1, run.reached.history[2].seconds)
    for width in asked.widths:
        with tempfile.TemporaryDirectory() as folder:
            runs = runs_of([config_of(asked, net, norm, seed, folder) for seed in range(width)])
            for lowering in asked.lowerings:
                for run in runs:
                    run.reached = TrainingState(history=run.reached.history[:1])
                population = Population(runs, 0, width=width, lowering=lowering)
                program = compiled(population)
                population._epoch(0)
                taken = one_epoch(population)
                images = width * asked.images / taken
                moved = program.pop("bytes") / asked.batch_size / width
                add(
                    "population",
                    lowering,
                    width,
                    taken,
                    **program,
                    arithmetic_share=6 * multiplications(runs[0].model) * images / peaks[0],
                    bandwidth_share=moved * images / peaks[1],
                )
    return rows


def compiled(population: Population) -> dict[str, float]:
    """Asks XLA for a member's memory in MiB and the bytes that one step of all members moves."""
    programs = population.programs
    memory = population.needs(programs.lowering)
    _, feed = next(population._feeds(0))
    arguments = (population.state, population.hyper, feed, 1, programs.images, programs.labels)
    cost = programs.train.lower(*arguments).compile().cost_analysis() or {}
    return {"member_mib": memory.member / 2**20 if memory else float("nan"), "bytes": cost.get("bytes accessed", 0.0)}


def one_epoch(population: Population) -> float:
    """Times the second epoch."""
    begun_at = time.perf_counter()
    population._epoch(1)
    jax.block_until_ready(population.state)
    return time.perf_counter() - begun_at


def shown(row: Row) -> str:
    """Puts a row into a line."""
    shares = "".join(
        f"  {name} {100 * value:5.1f} %"
        for name, value in (("arithmetic", row.arithmetic_share), ("bandwidth", row.bandwidth_share))
        if value is not None
    )
    memory = f"  {row.member_mib:6.1f} MiB a member" if row.member_mib is not None else ""
    return (
        f"{row.net} {row.norm:3} {row.way:10} {row.lowering:8} {row.width:4} wide  {row.member_epochs_per_s:9.4f} "
        f"member-epochs/s  {row.against_fit:6.2f} of fit{memory}{shares}"
    )


def accuracy(asked: argparse.Namespace) -> None:
    """Trains the same seeds in both ways and compares them."""
    base = TrainConfig(
        net=asked.nets[0],
        norm=asked.norms[0],
        epochs=asked.epochs,
        train_size=asked.images,
        validation_size=asked.validation,
        batch_size=asked.batch_size,
        export=False,
        report=False,
    )
    rows: list[dict] = []
    ways = ("fit", "population")
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            configs = [replace(base, seed=seed, reports_dir=Path(folder) / way) for seed in range(asked.accuracy)]
            width = max(asked.widths)
            records = [train(config) for config in configs] if way == "fit" else train_population(configs, width=width)
            for record in records:
                if record.test:
                    rows.append(
                        {
                            "way": way,
                            "seed": record.config.seed,
                            "test_accuracy": record.test.accuracy,
                            "test_cross_entropy": record.test.cross_entropy,
                        }
                    )
    for name in ("test_accuracy", "test_cross_entropy"):
        found = {way: [row[name] for row in rows if row["way"] == way] for way in ways}
        for way, values in found.items():
            print(
                f"{name:18} {way:10} n {len(values)}  mean {statistics.mean(values):.5f}  "
                f"sd {statistics.stdev(values):.5f}"
            )
        means, spread = stats.ttest_ind(*found.values(), equal_var=False), stats.levene(*found.values())
        print(f"{name:18} means alike: p {means.pvalue:.2f} (Welch)  spreads alike: p {spread.pvalue:.2f} (Levene)")
    write(rows, asked.out / "population_accuracy.csv")


def main() -> None:
    """Prints and writes the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["eva4", "eva6"])
    parser.add_argument("--norms", nargs="+", default=["bn", "ln", "gn"])
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--lowerings", nargs="+", default=list[Lowering](LOWERINGS))
    parser.add_argument("--images", type=int, default=MNIST)
    parser.add_argument("--validation", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--accuracy", type=int, metavar="SEEDS")
    parser.add_argument("--epochs", type=int, default=8, help="of --accuracy")
    parser.add_argument("--out", type=Path, default=Path("reports/populations"))
    asked = parser.parse_args()
    require_jax()
    if asked.accuracy:
        accuracy(asked)
        return
    peaks = limits()
    print(
        f"{jax.devices()[0].device_kind}: {peaks[0] / 1e12:.2f} TFLOP/s of a product, {peaks[1] / 1e9:.0f} GB/s of a "
        f"copy; epochs of {MNIST:,} images, measured on {asked.images:,}"
    )
    rows: list[Row] = []
    for net in asked.nets:
        for norm in asked.norms:
            rows += throughput(asked, net, norm, peaks)
            write([asdict(row) for row in rows], asked.out / "population.csv")


if __name__ == "__main__":
    main()
