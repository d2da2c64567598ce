"""Whatever a user can get wrong ends in one line and a code, without a traceback and without a byte changed on disk."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kernorm
from kernorm import train as command
from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.datasets.arrays import Arrays, content_sha256
from kernorm.recipes import recipe_of_words
from kernorm.records.data import Data
from kernorm.records.record import REVISION, Environment, Record, read_record, write_record
from kernorm.system import cli
from kernorm.system.files import locked

ROOT = Path(kernorm.__file__).parents[1]
SMALL = ["--dataset", "small", "--validation-size", "100", "--batch-size", "50", "--epochs", "1"]
# <rule>. Received: …. <fix>
FORM = re.compile(r"error: \S.*[.] Received: .+\. \S.*[.]")


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory):
    """A cache with sets that cost nothing: `small` as MNIST is shaped, `specks` of 4x4, `wide` of 2x40x3."""
    folder = tmp_path_factory.mktemp("sets") / "cache"
    values = np.random.default_rng(0)
    labels = tuple("0123456789")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder))
        for name, shape in {"small": (28, 28, 1), "specks": (4, 4, 1), "wide": (2, 40, 3)}.items():
            arrays = {
                "train_images": values.integers(0, 256, (300, *shape), np.uint8),
                "train_labels": np.arange(300, dtype=np.int32) % 10,
                "test_images": values.integers(0, 256, (20, *shape), np.uint8),
                "test_labels": np.arange(20, dtype=np.int32) % 10,
            }
            digest = content_sha256(labels, arrays)
            cache.write(Arrays(name=name, version="1.0.0", sha256=digest, labels=labels, **arrays))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, small_sets):
    """The current folder of a command, with the small sets in its cache and what it must not touch."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_sets, "cache")
    monkeypatch.setenv("KERNORM_CACHE_DIR", "cache")
    for other in ("reports/runs/other/report.html", "saved_models/other/1/saved_model.pb"):
        Path(other).parent.mkdir(parents=True)
        Path(other).write_text("finished")
    return tmp_path


def config_of(words):
    return cli.parse(TrainConfig, prog=command.PROG, argv=[*SMALL, *words], default=recipe_of_words(words))


def run(words):
    return cli.run(TrainConfig, command.main, prog=command.PROG, argv=words, default=command.default)


def tree(folder):
    """Everything below a folder: links by target, files by content.

    Without the cache's lock files, which are empty and stay, and the folder that is tensorflow-datasets' own.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if folder / "tfds" in (path, *path.parents):
            continue
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif not (path.parent == folder / "cache" and path.suffix == ".lock"):
            found[path] = path.read_bytes() if path.is_file() else None
    return found


def run_folder(*words):
    return Path("reports/runs") / config_of(words).run_id


def record_of(config, **values):
    digest = cache.prepared_sha256("small") or "0" * 64
    data = Data(
        name="small",
        version="1.0.0",
        sha256=digest,
        labels=("0", "1"),
        image_shape=(28, 28, 1),
        mean=(1.0,),
        std=(1.0,),
        train=200,
        validation=100,
        test=20,
    )
    environment = Environment(backend="tensorflow", device="cpu", threads=1, versions={})
    return Record(
        run_id=config.run_id,
        revision=REVISION,
        config=config,
        data=data,
        environment=environment,
        parameters=1,
        parameters_total=1,
        started="2024-01-01T00:00:00+00:00",
        **values,
    )


def half_a_record():
    folder = run_folder()
    write_record(record_of(config_of([]), status="finished"), made(folder) / "record.json")
    content = (folder / "record.json").read_bytes()
    (folder / "record.json").write_bytes(content[: len(content) // 2])


def record_of_another_schema():
    write_record(record_of(config_of([]), status="finished"), made(run_folder()) / "record.json")
    written = json.loads((run_folder() / "record.json").read_text())
    (run_folder() / "record.json").write_text(json.dumps({**written, "schema_version": 99}))


def record_of_another(status):
    def prepare():
        config = dataclasses.replace(config_of([]), learning_rate=0.2)
        write_record(record_of(config, status=status), made(run_folder()) / "record.json")

    return prepare


def finished_without_candidate():
    write_record(record_of(config_of([]), status="finished"), made(run_folder()) / "record.json")


def made(folder):
    folder.mkdir(parents=True)
    return folder


def damaged_checkpoint():
    (made(run_folder()) / "checkpoint.npz").write_bytes(b"PK" + bytes(5000))


def empty_checkpoint():
    (made(run_folder()) / "checkpoint.npz").touch()


def checkpoint_folder():
    (made(run_folder()) / "checkpoint.npz").mkdir()


def checkpoint_of_another_config():
    import keras

    from kernorm.training import checkpoint

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd")
    (made(run_folder()) / "config.json").write_text("{}")
    checkpoint.save(run_folder() / "checkpoint.npz", model, [], {"identity": {"learning_rate": 0.2}})


def checkpoint_of_another_net():
    import keras

    from kernorm.training import checkpoint

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd")
    notes = {"identity": config_of([]).identity, "history": [], "selected": 0, "openings": [], "started": ""}
    checkpoint.save(made(run_folder()) / "checkpoint.npz", model, [], notes)


def file_at(path):
    def prepare():
        shutil.rmtree(path, ignore_errors=True)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("a file")

    return prepare


def link_at(path, target):
    def prepare():
        shutil.rmtree(path, ignore_errors=True)
        Path(path).symlink_to(target)

    return prepare


def damaged_files():
    Path("files").mkdir()
    for path in (ROOT / "kernorm" / "datasets" / "mnist").glob("*.gz"):
        (Path("files") / path.name).write_bytes(path.read_bytes()[:-100])


@dataclasses.dataclass
class Case:
    """A mistake: the words of the command, what is said, and what else is so."""

    words: str | list[str]
    said: str
    prepare: Callable[[], None] = lambda: None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def argv(self):
        return self.words.split() if isinstance(self.words, str) else self.words


HELP = "See python -m kernorm.train --help."
LAYERS = "Known: conv1, conv2, conv3, conv4, conv5, conv6."
NORMS = "Known: none, bn, gbn, brn, ln, cln, gn, in, rms, frn."

WORDS = [
    # what cannot be read
    Case("--nrom ln", f"An option must be a known one. Received: --nrom. Did you mean --norm? {HELP}"),
    Case("--L2 1", f"Received: --L2. Did you mean --l2? {HELP}"),
    Case("--xyzzy 1", f"Received: --xyzzy. {HELP}"),
    Case("-norm ln", "Received: -norm. Did you mean --norm?"),
    Case("ln", f"Received: ln. {HELP}"),
    Case("-", f"An option must be a known one. Received: -. {HELP}"),
    Case("---", "Received: -. "),
    Case("--no-norm", "Received: --no-norm. Did you mean --norm?"),
    Case("--export yes", "Received: yes."),
    Case("--no-retrain=1", "Received: 1."),
    Case("--l2", "Missing value for argument '--l2'. Received: no value. Give one; see"),
    Case("--dataset -x", "Missing value for argument '--dataset'. Received: no value."),
    Case("--l2 much", f"--l2 could not be read. Received: 'much'. {HELP}"),
    Case("--l2 1,5", "--l2 could not be read. Received: '1,5'."),
    Case("--l2=-0.0 --l2 0x10", "--l2 could not be read. Received: '0x10'."),
    Case("--seed 1e3", "--seed could not be read. Received: '1e3'."),
    Case("--threads 2.5", "--threads could not be read. Received: '2.5'."),
    Case("--groups some", "--groups could not be read. Received: 'some'."),
    Case("--train-size none", "--train-size could not be read. Received: 'none'."),
    Case(["--epochs", "9" * 5000], "--epochs could not be read. Received: 'Exceeds the limit"),
    Case(["--l2", "9.x" * 300], "--l2 could not be read. Received: '9.x9.x"),
    # what an unset variable leaves
    Case(["--norm", ""], "A value must not be empty. Received: '' after --norm. Give one; see"),
    Case(["--reports-dir", ""], "A value must not be empty. Received: '' after --reports-dir."),
    Case("--saved-models-dir=", "A value must not be empty. Received: '' after --saved-models-dir."),
    Case([""], "A value must not be empty. Received: '' after 1."),
    # what the config refuses
    Case("--norm LN", f"--norm takes a known name. Received: 'LN'. Did you mean 'ln'? {NORMS}"),
    Case("--norm λ", f"--norm takes a known name. Received: 'λ'. {NORMS}"),
    Case(["--norm", "layer\nnorm"], r"--norm takes a known name. Received: 'layer\nnorm'."),
    Case("--epochs 2 --epochs 3 --norm xx", "--norm takes a known name. Received: 'xx'."),
    Case("--net resnet", "--net takes a known name, or FILE.py:FUNCTION. Received: 'resnet'. Did you mean 'resnet8'?"),
    Case("--select best", "--select takes a known name. Received: 'best'. Did you mean 'test'?"),
    Case("--track tensorboard", "--track takes a known name. Received: 'tensorboard'. Known: none, wandb, mlflow."),
    Case("--recipe eva7", "--recipe takes a known name. Received: 'eva7'. Did you mean 'eva6'?"),
    Case("--recipe", "--recipe takes a known name. Received: ''."),
    Case("--l2 1e400", "--l2 must be a finite number of at least 0 and at most 1000. Received: l2=inf."),
    Case("--l1 nan", "--l1 must be a finite number of at least 0 and at most 1000. Received: l1=nan."),
    Case("--l2 -0.0066", "--l2 must be a finite number of at least 0 and at most 1000. Received: l2=-0.0066."),
    Case("--epochs 99999999999999999999", "--epochs must be from 1 to 100000. Received: epochs=99999999999999999999."),
    Case("--batch-size 0", "--batch-size must be at least 1. Received: batch_size=0."),
    Case("--seed -1", "--seed must be from 0 to 2147483647. Received: seed=-1."),
    Case("--groups 0 --norm gn", "--groups must be auto or at least 1. Received: groups=0. Give a value"),
    Case("--select validation --validation-size 0", "--select validation needs a validation split. Received:"),
    Case("--base-momentum 0.5 --schedule step", "--base-momentum belongs to --schedule onecycle. Received:"),
    Case("--schedule cosine --pct-start 0.1", "--pct-start belongs to --schedule onecycle. Received: pct_start=0.1."),
    Case("--norm bn --groups 8", "--groups belongs to --norm gn. Received: groups=8. Remove it."),
    Case("--norm-at conv1", "--norm-at takes LAYER=VALUE. Received: 'conv1'. Give for example conv1=none."),
    Case("--norm-at conv1=ln conv1=bn", "--norm-at takes each layer once. Received: 'conv1' twice."),
    Case("--norm-at conv1=ln --norm-at conv2=zz", "--norm-at takes a known norm. Received: 'zz'."),
    Case("--penalty-at conv1=1", "--penalty-at takes LAYER=L1,L2, two numbers from 0 to 1000. Received: '1'."),
    Case("--penalty-at conv1=nan,0", "--penalty-at takes LAYER=L1,L2, two numbers from 0 to 1000. Received: 'nan,0'."),
]

NET = [
    Case(
        "--net eva6 --norm-at conv99=ln",
        f"--norm-at takes a layer that has a norm. Received: 'conv99'. Did you mean 'conv6'? {LAYERS}",
    ),
    Case("--penalty-at fc=0,0", "--penalty-at takes a layer with a kernel. Received: 'fc'. Known: conv1,"),
    Case(
        "--net eva6 --norm gn --groups 3",
        "--groups must divide the channels of every layer. Received: groups=3, conv1 has 8 "
        "channels. Give auto, or one of 1, 2, 4, 8.",
    ),
    Case(
        "--net eva6 --dataset specks --norm in",
        "A norm needs at least two values a statistic. Received: in over H,W at conv5, "
        "a map of 1x1x16 at batch size 50. Give --norm-at conv5=none, or ln, there.",
    ),
    Case(
        "--net eva6 --dataset specks --batch-size 1",
        "A norm needs at least two values a statistic. Received: bn over N,H,W",
    ),
    Case(
        "--net eva6 --dataset specks --norm ln",
        "An image must be large enough for the net. Received: a map of 1x1 before a 2x2 "
        "pooling of eva6. Use larger images.",
    ),
    Case("--dataset wide --net eva4", "An image must be large enough for the net. Received: a map of 2x40 at conv1"),
    Case(
        "--net nowhere.py:net", "--net takes FILE.py:FUNCTION. Received: nowhere.py, which is not there. Give another"
    ),
    Case("--net nets.py", "Received: 'nets.py'. Give FILE.py:FUNCTION, the function that makes the net."),
    Case(
        "--net nets.py:net",
        "A net is a function of its file. Received: nets.py, which has no net. Did you mean 'nett'? Known: nett.",
        lambda: Path("nets.py").write_text("def nett(image_shape, num_classes): ..."),
    ),
    Case("--threads 63", "The number of threads is fixed at the first operation of a process. Received: threads=63"),
]

DATA = [
    Case(
        "--dataset ../../etc",
        "--dataset takes a folder or an .npz file. Received: ../../etc, which is not there. Give another.",
    ),
    Case(["--dataset", "my set"], "Received: dataset='my set'. Give for example mnist or emnist/balanced."),
    Case("--dataset 数字", "Received: dataset='数字'."),
    Case("--dataset mnist/", "Received: dataset='mnist/'."),
    Case(
        "--dataset mnsit",
        "--dataset takes a set that tensorflow-datasets knows. Received: dataset='mnsit'. Nearest: mnist",
    ),
    Case(
        "--dataset mnist:9.9.9",
        "--dataset takes a configuration and a version that tensorflow-datasets knows. "
        "Received: dataset='mnist:9.9.9'. Known: no configuration, version 3.0.1.",
    ),
    Case("--dataset imdb_reviews", "A data set must be image classification:"),
    Case("--manual-dir nowhere", "--manual-dir takes a folder. Received: nowhere, which is not there."),
    Case(
        "--manual-dir cache/small-1.0.0.npz",
        "--manual-dir takes a folder. Received: cache/small-1.0.0.npz, which is a file.",
    ),
    Case("--data-dir cache/small-1.0.0.npz", "--data-dir takes a folder. Received:"),
    Case(
        "--dataset mnist --manual-dir files --data-dir tfds",
        "The files of a data set must be the official ones, byte for byte. Received:",
        damaged_files,
    ),
    Case(
        "--batch-size 201",
        "--batch-size must not be larger than the training split. Received: batch_size=201 for "
        "200 images. Give at most 200.",
    ),
    Case("--train-size 9", "Received: train_size=9. Give a value from 10 to 200."),
    Case("--train-size 201", "Received: train_size=201. Give a value from 10 to 200."),
    Case(
        "--validation-size 291",
        "--validation-size must leave at least one training image a class. Received: "
        "validation_size=291 of 300 images in 10 classes. Give at most 290.",
    ),
    Case("--validation-size 99999999999999999999", "Received: validation_size=99999999999999999999 of 300 images"),
]

WRITE = "takes a folder that can be written. Received:"
DISK = [
    Case("", f"--reports-dir {WRITE} reports, which is a file. Give another one.", file_at("reports")),
    Case("", f"--reports-dir {WRITE} reports/runs, which is a file.", file_at("reports/runs")),
    Case("--reports-dir /dev/null", f"--reports-dir {WRITE} /dev/null, which is a file."),
    Case("", f"--reports-dir {WRITE} reports, No such file or directory.", link_at("reports", "/nowhere/at/all")),
    Case("", f"--reports-dir {WRITE} reports/runs, Too many levels of symbolic links.", link_at("reports", "reports")),
    Case(["--reports-dir", "a" * 300], f"--reports-dir {WRITE} {'a' * 300}/runs, File name too long."),
    Case(["--reports-dir", "caf\udce9"], rf"--reports-dir {WRITE} caf\udce9/runs, a name that is not UTF-8."),
    Case("--reports-dir /proc/reports --no-export", f"--reports-dir {WRITE} /proc"),
    Case("--saved-models-dir file", f"--saved-models-dir {WRITE} file, which is a file.", file_at("file")),
    Case("--saved-models-dir link", f"--saved-models-dir {WRITE} link, No such", link_at("link", "/nowhere/at/all")),
    Case(["--saved-models-dir", "a" * 300], f"--saved-models-dir {WRITE} {'a' * 300}/"),
    Case(
        "",
        f"--saved-models-dir {WRITE} saved_models/{{id}}, which is a file.",
        lambda: file_at(f"saved_models/{run_folder().name}")(),
    ),
    Case(
        "",
        "Writing needs room and permission. Received: File exists at reports/runs/{id}. ",
        lambda: file_at(run_folder())(),
    ),
    Case(
        "",
        "Writing needs room and permission. Received: Is a directory at {here}/reports/runs/{id}/lock.",
        lambda: made(run_folder() / "lock"),
    ),
    Case(
        "",
        "The cache of prepared sets must be writable and have room. Received: file: ",
        file_at("file"),
        {"KERNORM_CACHE_DIR": "file"},
    ),
]

FOLDER = [
    Case(
        "",
        "A record.json must be whole and of schema 1. Received: reports/runs/{id}/record.json, file: Invalid JSON",
        half_a_record,
    ),
    Case(
        "",
        "Received: reports/runs/{id}/record.json of schema 99. Read it with the kernorm that wrote it.",
        record_of_another_schema,
    ),
    Case(
        "",
        "A run folder belongs to one config. Received: reports/runs/{id}, which holds another one's results.",
        record_of_another("finished"),
    ),
    Case("", "A run folder belongs to one config.", record_of_another("running")),
    Case("", "A run folder belongs to one config.", record_of_another("diverged")),
    Case(
        "",
        "A run is exported from its weights. Received: reports/runs/{id} without model.weights.h5.",
        finished_without_candidate,
    ),
    Case(
        "",
        "A checkpoint must be whole. Received: reports/runs/{id}/checkpoint.npz, which is damaged. Delete it",
        damaged_checkpoint,
    ),
    Case("", "A checkpoint must be whole.", empty_checkpoint),
    Case(
        "",
        "A checkpoint must be a readable file. Received: reports/runs/{id}/checkpoint.npz: Is a directory.",
        checkpoint_folder,
    ),
    Case(
        "",
        "A run is resumed with the config that it started with. Received: reports/runs/{id}/checkpoint.npz of another",
        checkpoint_of_another_config,
    ),
    Case(
        "",
        "A checkpoint must fit the net. Received: 2 variables and 2 of the optimizer, where the net has",
        checkpoint_of_another_net,
    ),
]

ENVIRONMENT = [
    Case(
        "",
        "KERAS_BACKEND must be tensorflow or jax. Received: KERAS_BACKEND=torch.",
        environment={"KERAS_BACKEND": "torch"},
    ),
    Case("", "Received: KERAS_BACKEND=tensorfow.", environment={"KERAS_BACKEND": "tensorfow"}),
    Case("", "Received: KERAS_BACKEND=. Set one of them, or unset it.", environment={"KERAS_BACKEND": ""}),
]


@pytest.mark.parametrize(
    "case",
    [
        # A process of its own asks tensorflow-datasets.
        pytest.param(case, marks=pytest.mark.slow) if case.prepare is damaged_files else case
        for case in (*WORDS, *NET, *DATA, *DISK, *FOLDER, *ENVIRONMENT)
    ],
    ids=lambda case: f"{case.words} {case.said}"[:50],
)
def test_a_mistake_is_one_line_and_changes_nothing(case, place, monkeypatch, capfd):
    case.prepare()
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    before = tree(place)
    assert run([*SMALL, *case.argv]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("Preparing ")]
    assert len(lines) == 1, printed.err
    assert FORM.fullmatch(lines[0]), lines[0]
    said = case.said.replace("{id}", config_of([]).run_id) if "{id}" in case.said else case.said
    assert said.replace("{here}", str(place)) in lines[0]
    assert len(lines[0]) < 700
    assert tree(place) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torchvision_", "Received: net, line 1: ModuleNotFoundError: No module named 'torchvision_'. Fix it."),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)",
            "whose process crashed with SIGABRT in native code.",
        ),
        ("", "A net with the argument conv calls it. Received: net, which never does."),
    ],
)
def test_an_own_net_that_fails_in_its_child_changes_nothing(text, said, place, capfd):
    function = """
def net(image_shape, num_classes, conv):
    import keras
    image = keras.Input(image_shape)
    return keras.layers.Dense(num_classes)(keras.layers.Flatten()(image))
"""
    Path("nets.py").write_text(text + function)
    before = tree(place)
    assert run([*SMALL, "--net", "nets.py:net"]) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert FORM.fullmatch(line), line
    assert said in line
    assert printed.out == ""
    assert tree(place) == before


def test_a_run_that_another_process_trains_is_refused(place, capfd):
    with locked(made(run_folder()) / "lock", "hold"):
        before = tree(place)
        assert run(SMALL) == 2
        assert tree(place) == before
    said = f"error: Only one process at a time may train this run. Received: {run_folder()}/lock held by another one. "
    assert capfd.readouterr().err.startswith(said)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused(name, place, monkeypatch, capfd):
    # Both leave folders in the current one, which is on Python's path: a folder of the name is not the package.
    monkeypatch.syspath_prepend(place)
    (place / name).mkdir()
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / name / "__init__.py").exists()])
    before = tree(place)
    assert run([*SMALL, "--track", name]) == 2
    said = f"error: --track needs its package. Received: --track {name}, which is not installed. pip install "
    assert capfd.readouterr().err.startswith(said)
    assert tree(place) == before


def test_the_last_of_several_recipes_counts():
    assert config_of(["--recipe", "eva4", "--recipe", "eva6"]) == config_of(["--recipe", "eva6"])


def python(*words, **settings):
    return [sys.executable, "-m", "kernorm.train", *words], {
        "env": {**os.environ, **settings},
        "capture_output": True,
        "text": True,
        "check": False,
    }


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "λ1"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "1"),
        ({"COLUMNS": "20"}, "--norm-at"),
        ({"COLUMNS": "1"}, "--norm-at"),
        ({"PYTHONOPTIMIZE": "2"}, "--norm-at"),
        ({"HOME": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}, "--norm-at"),
    ],
)
def test_help_and_a_refusal_in_a_poor_environment(environment, words, place):
    command, settings = python("--help", **environment)
    asked = subprocess.run(command, **settings)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert words.encode("ascii", "backslashreplace").decode() in asked.stdout or words in asked.stdout
    command, settings = python("--norm", "λ", **environment)
    refused = subprocess.run(command, **settings)
    assert refused.returncode == 2
    assert FORM.fullmatch(refused.stderr.strip())


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{help} | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        ("{help} 2>&1 | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        ("{refused} 2>&1 | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        ("{refused} 2> >(true)", 141, ""),
        ("{listed} 2>&1 | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        ("{help} >&-", 0, ""),
        ("{help} <&- >&- 2>&-", 0, ""),
        ("{help} > /dev/full", 2, "error: Writing needs room and permission. Received: No space left on device at a "),
        ("{refused} 2>&-", 2, ""),
    ],
)
def test_streams_that_are_closed_or_full(place, shell, code, said):
    words = {"help": "kernorm.train --help", "refused": "kernorm.train x", "listed": "kernorm.data"}
    commands = {name: f"{sys.executable} -m {word}" for name, word in words.items()}
    words = ["bash", "-c", shell.format(**commands)]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout) == (code, "")
    assert asked.stderr.startswith(said)
    assert asked.stderr.count("\n") == bool(said)


@pytest.mark.slow
def test_sigterm_leaves_a_run_in_order(place, start):
    folder = made(run_folder("--epochs", "100"))
    (folder / ".record.json.1.tmp").write_text("left by a process that was killed")
    process = start([sys.executable, "-m", "kernorm.train", *SMALL, "--epochs", "100", "--no-export"])
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.terminate()
            break
    rest = process.stderr.read()
    process.wait()
    assert process.returncode == 143, rest
    assert rest.endswith("\nInterrupted. Finished epochs are kept; run the same command to resume.\n")
    assert "Traceback" not in rest
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoint.npz", "config.json", "history.csv", "record.json", "tensorboard"}
    assert read_record(folder / "record.json").status == "running"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_data_is_prepared_leaves_nothing(place, stop, start):
    before = tree(place)
    process = start([sys.executable, "-m", "kernorm.train", "--dataset", "mnist", "--data-dir", "tfds"])
    assert process.stderr.readline().startswith("Preparing mnist")
    while not (place / "tfds").exists():  # the child that prepares is at work
        assert process.poll() is None
    # A terminal sends Ctrl-C to both, kill sends SIGTERM to one.
    (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
    told = process.stderr.read()
    process.wait()
    assert process.returncode == 128 + stop
    assert told == "\nInterrupted. Finished epochs are kept; run the same command to resume.\n"
    assert tree(place) == before
