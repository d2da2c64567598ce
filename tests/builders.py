"""What several tests build: records, studies and their pages, exported models, oracles and searches."""

import json
import re
import shutil
import signal
import textwrap
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from kernorm.config import TrainConfig, to_json, without_auto
from kernorm.datasets.cache import prepared_sha256
from kernorm.nets.source import trust
from kernorm.records.data import Data
from kernorm.records.index import Line
from kernorm.records.record import (
    REVISION,
    THRESHOLDS,
    Environment,
    Epoch,
    Layer,
    Opening,
    Pruned,
    Record,
    Watched,
    read_record,
    write_record,
)
from kernorm.saved_model.card import FOLDER
from kernorm.saved_model.integrity import UNHASHED, tree_sha256
from kernorm.stats.scores import evaluate
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Ledger, Result

COUNT = 1000


LABELS = np.arange(COUNT) % 10

# Of a run that takes a moment, on the set `boxes`.
TINY_RUN = {
    "net": "eva6",
    "dataset": "boxes",
    "validation_size": 32,
    "epochs": 3,
    "batch_size": 40,
    "export": False,
    "dropout": 0.05,
}


def make_evaluation(split="test", classes=10, count=1000, errors=37, seed=0):
    """Scores of a net that is mostly sure, and wrong on exactly `errors` images."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = generator.normal(0, 1, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] = logits.max(1) + generator.gamma(4, 1.5, count)
    wrong = generator.choice(count, errors, replace=False)
    logits[wrong, (labels[wrong] + 1) % classes] = logits[wrong].max(1) + 1 + generator.exponential(1.5, errors)
    return evaluate(logits, labels, split, keep_mistakes=split != "train")


def make_history(epochs=8, watched=True, l2=0.01):
    rows = [Epoch(epoch=0, l1_penalty=0.0, l2_penalty=50 * l2, val_accuracy=0.1, val_cross_entropy=2.4)]
    for epoch in range(1, epochs + 1):
        error = 0.1 / epoch
        rows.append(
            Epoch(
                epoch=epoch,
                loss=3 * error + 50 * l2 / (1 + epoch),
                cross_entropy=3 * error,
                l1_penalty=0.0,
                l2_penalty=50 * l2 / (1 + epoch),
                accuracy=1 - error,
                val_cross_entropy=2 * error if watched else None,
                val_accuracy=1 - error / 2 if watched else None,
                learning_rate=0.1 / epoch,
                momentum=0.9,
                seconds=10.0 + epoch,
                cpu_seconds=20.0,
            )
        )
    return tuple(rows)


def make_layers(l2=0.01):
    shape = (26, 26, 8)
    kernel = {"kind": "Conv2D", "output_shape": shape, "l1": 0.0, "l2": l2, "kernel_norm": 2.5}
    norm = {"norm": "ln", "axes": "H,W,C", "groups": 1}
    return (
        Layer(name="conv1", parameters=72, near_zero=(0.0, 0.125, 0.5), **kernel),
        Layer(name="norm1", kind="GroupNormalization", output_shape=shape, parameters=16, **norm),
        Layer(name="conv2", parameters=576, near_zero=(0.0, 0.0, 0.25), **kernel),
    )


def make_record(classes=10, count=1000, errors=37, epochs=8, labels=None, **changes):
    """A plausible finished run; `changes` are fields of Record."""
    config = TrainConfig(norm="ln", l2=0.01, epochs=epochs)
    values = {
        "revision": REVISION,
        "run_id": config.run_id,
        "status": "finished",
        "started": "2026-03-01T10:00:00+00:00",
        "config": config,
        "data": Data(
            name="mnist",
            version="3.0.1",
            sha256="5d" * 32,
            labels=labels or tuple(map(str, range(classes))),
            image_shape=(28, 28, 1),
            mean=(33.3,),
            std=(78.6,),
            train=5 * count,
            validation=count,
            test=count,
        ),
        "environment": Environment(
            backend="tensorflow", device="CPU", threads=2, versions={"keras": "3.15.1"}, peak_memory=1_500_000_000
        ),
        "parameters": 7288,
        "parameters_total": 7288,
        "penalty_proof": (0.5, 0.5),
        "history": make_history(epochs),
        "selected_epoch": epochs,
        "train": make_evaluation("train", classes, 5 * count, errors, seed=2),
        "validation": make_evaluation("validation", classes, count, errors, seed=1),
        "test": make_evaluation("test", classes, count, errors),
        "openings": (Opening(time="2026-03-01T10:02:00+00:00", epoch=epochs, purpose="final evaluation"),),
        "layers": make_layers(),
        "pruned": tuple(
            Pruned(threshold=t, count=round(72_880 * t), share=10 * t, accuracy=0.95, split="validation")
            for t in THRESHOLDS
        ),
        "seconds": 112.4,
        "cpu_seconds": 211.6,
    }
    return Record(**(values | changes))


def a_run_of(reports, seed=0, place="runs", settings=None, **changes):
    """Writes a finished run's record into its folder; returns the record and the folder."""
    values = {"norm": "gn", "l2": 0.01, "epochs": 8} | (settings or {})
    config = TrainConfig(seed=seed, reports_dir=reports, **values)
    record = make_record(config=config, **changes)
    record = replace(record, run_id=record.config.run_id, started=f"2026-03-01T10:0{seed}:00+00:00")
    folder = reports / place / record.run_id
    folder.mkdir(parents=True)
    write_record(record, folder / "record.json")
    return record, folder


def in_study(reports, record, name="s"):
    """Adds a run to the records of a study; returns its folder."""
    folder = reports / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    values = {"arm": "gn", "seed": record.config.seed, "run_id": record.config.run_id, "status": "finished"}
    Ledger(folder).add(Result(**values, record=record))
    return folder


def a_line(run, accuracy=None, studies=(), **settings):
    """A line of the index of runs."""
    config = TrainConfig(**settings)
    known = without_auto(to_json(config))
    return Line(
        run=run,
        path=f"runs/{run}",
        stamp=0,
        status="finished" if accuracy else "diverged",
        started=f"2026-03-0{run[-1]}T10:00:00+00:00",
        settings={name: known[name] for name in config.identity},
        data="5d",
        revision=2,
        accuracy=accuracy,
        low=accuracy and accuracy - 0.002,
        high=accuracy and accuracy + 0.001,
        cross_entropy=accuracy and 0.0251,
        studies=studies,
    )


def make_mistakes(record, channels=1, side=28):
    shown = min(25, len(record.test.mistakes)) if record.test else 0
    return np.random.default_rng(0).integers(0, 256, (shown, side, side, channels)).astype(np.uint8)


def evaluation(wrong):
    """The scores of a net that takes the images `wrong` for the next class and is right elsewhere."""
    logits = np.zeros((COUNT, 10), np.float32)
    logits[np.arange(COUNT), LABELS] = 4
    logits[wrong, (LABELS[wrong] + 1) % 10] = 5
    return evaluate(logits, LABELS, "test")


def a_study(arms, seeds=3, **changes):
    values = {"name": "s", "text": "Which?", "arms": arms, "baselines": dict.fromkeys(arms, next(iter(arms)))}
    return Study(**values | {"seeds": tuple(range(seeds)), "margin": 0.0005} | changes)


def a_history(config, error, seed):
    """Curves that end at the error, a little apart between seeds, with what was watched."""
    rows = make_history(config.epochs, l2=config.l2)
    made = []
    for row in rows:
        share = error * (1 + 3 * (1 - row.epoch / config.epochs)) * (1 + 0.1 * seed)
        watched = Watched(
            layer="conv6",
            kernel_norm=7.0 + 0.1 * seed - config.l2 * row.epoch,
            near_zero=(0.001, 0.01, 0.1 + 0.01 * row.epoch),
            activations=(-2.0 - seed, -0.5, 0.4, 1.5 + row.epoch),
        )
        values = {"val_accuracy": 1 - share, "val_cross_entropy": 3 * share, "accuracy": 1 - 2 * share}
        values = values if row.epoch else dict.fromkeys(values)
        made.append(replace(row, l1_penalty=config.l1 * (400 - row.epoch), watched=watched, **values))
    return tuple(made)


# How many test images each seed gets wrong.
ERRORS = {"bn": (20, 22, 25), "gn": (20, 25, 24), "ln": (31, 34, 38)}


def some_results(study, errors=ERRORS, **changes):
    """A finished result for each run whose arm and seed `errors` has; None there is a run that diverged."""
    found = {}
    for run in study.runs():
        if run.seed >= len(errors.get(run.arm, ())):
            continue
        wrong, name = errors[run.arm][run.seed], run.config.run_id
        history = a_history(run.config, (wrong or 0) / COUNT, run.seed)
        record = make_record(count=COUNT, config=run.config, run_id=name, history=history, **changes)
        status, message = "finished", ""
        if wrong is None:
            status, message = "diverged", "diverged at step 9: the loss is nan"
            record = replace(record, status=status, message=message, test=None, history=history[:1], openings=())
        else:
            record = replace(
                record, test=evaluation([7 * image % COUNT for image in range(wrong)]), selected_epoch=run.config.epochs
            )
        if run.config.select == "test":
            looks = [Opening(time="2026-03-01T10:00:00+00:00", epoch=n, purpose="selection") for n in range(1, 7)]
            record = replace(record, monitored="test", openings=(*looks, *record.openings))
            if wrong is not None:
                record = replace(record, test_last=evaluation([7 * image % COUNT for image in range(wrong + 2)]))
        found[name] = Result(arm=run.arm, seed=run.seed, run_id=name, status=status, message=message, record=record)
    return found


def a_trial(number, score, settings):
    """A trial of a search that has ended."""
    from tuner.trials import Repeat, Trial

    repeat = Repeat(seed=0, run_id=f"run {number}", cross_entropy=score, accuracy=0.98, seconds=9.0, cpu_seconds=8.0)
    return Trial(
        number=number,
        trial_id=f"{number:04}",
        values=dict(settings),
        settings=settings,
        status="completed",
        epochs=4,
        new_epochs=4,
        score=score,
        repeats=(repeat,),
        ended=60.0 * (number + 1),
    )


def summary_of(arms, errors, baseline):
    """The summary of a study of arms, each a norm, against one of them."""
    from kernorm.studies.analysis import analyse

    study = a_study(
        {arm: TrainConfig(norm=norm) for arm, norm in arms.items()}, baselines=dict.fromkeys(arms, baseline)
    )
    return analyse(study, some_results(study, errors))


def leave_undrawn(patch, module):
    """Saves the time of a module's drawings, which others look at."""
    from kernorm.reporting import figures

    patch.setattr(figures, "draw_svg", lambda panel: figures.Drawing(panel.name, []))
    patch.setattr(module, "to_png", lambda panels, *_: b"".join(panel.name.encode() for panel in panels))


def arms_from(study, results):
    from kernorm.studies.analysis import analyse
    from kernorm.studies.report.arms import arms_of

    return arms_of(study, analyse(study, results), results)


def arm_named(arms, name):
    return next(arm for arm in arms if arm.name == name)


def drawn(panel):
    """Draws a panel; returns its matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=panel.size, layout="constrained")
    panel.draw(figure)
    figure.canvas.draw()
    return figure


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


VOID = {"meta", "img", "br", "hr", "link", "input", "path", "rect", "use"}


class Page(HTMLParser):
    """What a browser finds in a page: its texts, ids, links and tables; refuses tags that do not close in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.words, self.rows, self.cell = [], [], [], [], [], None
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if {"style", "title"} & set(self.open):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def row(self, *start):
        """Returns the table row that begins with these cells."""
        (found,) = [row for row in self.rows if [cell.strip() for cell in row[: len(start)]] == list(start)]
        return [re.sub(r"\s+", " ", cell).strip() for cell in found]


SHOWN = next(path for path in (Path(__file__).parent.parent / "saved_models" / "kernorm").iterdir() if path.is_dir())

MNIST_THRESHOLDS = Path(str(resources.files("kernorm.evaluation") / "limits" / "mnist.json"))


def candidate(path):
    """Copies the repository's model, as it was when it was exported, as one of the MNIST that is prepared here."""
    shutil.copytree(SHOWN, path)
    for name in UNHASHED:
        if not name.endswith("tree.sha256"):
            (path / name).unlink(missing_ok=True)
    card = path / FOLDER / "model_card.json"
    digest, here = json.loads(card.read_bytes())["data"]["sha256"], prepared_sha256("mnist")
    if here not in (digest, None):
        card.write_text(card.read_text().replace(digest, here))
        rehash(path)
    return path


def change_card(path, before, after):
    """Writes something else into the card of the model in `path`, as if it had been exported so."""
    card = path / FOLDER / "model_card.json"
    assert before in card.read_text()
    card.write_text(card.read_text().replace(before, after))
    return rehash(path)


def of_another_run(path):
    """Copies the repository's model as one of another run."""
    return change_card(candidate(path), '"run_id": "eva4-bn', '"run_id": "eva4-bn-x')


def rehash(path):
    """Takes what lies in a model's folder for what was exported."""
    (path / FOLDER / "tree.sha256").write_text(tree_sha256(path) + "\n")
    return path


def easy_thresholds(folder, accuracy=0.9, classes=0.5):
    """Writes thresholds that a good model shows on 500 images: MNIST's, with other bounds of the accuracy."""
    content = json.loads(MNIST_THRESHOLDS.read_bytes())
    overall, by_class = content["metricsSpecs"][0]["metrics"][0]["perSliceThresholds"]
    overall["threshold"]["valueThreshold"]["lowerBound"] = accuracy
    by_class["threshold"]["valueThreshold"]["lowerBound"] = classes
    path = folder / "easy.json"
    path.write_text(json.dumps(content))
    return path


def only_runtimes(monkeypatch, *names):
    """Leaves validation these runtimes, and the reference."""
    from kernorm.serving import runtimes

    monkeypatch.setattr("kernorm.serving.validation.NEEDS", {name: runtimes.NEEDS[name] for name in ("keras", *names)})


def asked_here(monkeypatch):
    """Lets validation ask its runtimes in this process."""
    from kernorm.serving import runtimes, validation

    def run(command):
        return SimpleNamespace(returncode=runtimes.main([*command[-3:]]), stderr="")

    monkeypatch.setattr(validation, "run_child", run)


def open_oracle(folder, oracle="random", points=(), **words):
    """Returns an oracle whose files lie in `folder`, with what is there read back."""
    from tuner.config import SearchConfig
    from tuner.oracles import ORACLES

    config = SearchConfig(
        oracle=oracle, train=TrainConfig(epochs=9), **{"max_trials": 12, "batch_sizes": "16,64", **words}
    )
    found = ORACLES[oracle](config)
    found.points = list(points)
    found._set_project_dir(str(folder.parent), folder.name)
    found.reload()
    return found


def oracle_score(values):
    """An objective with its best at l1 = 0, l2 = 1e-4 and batches of 16."""
    far = abs(np.log10(values["l2"]) + 4) if "l2" in values else 1.5
    return 0.05 + 0.01 * (far + values.get("l1_on", False) + (values["batch_size"] == 64))


def end_trial(oracle, trial, status="COMPLETED"):
    if status == "COMPLETED":
        oracle.update_trial(trial.trial_id, {"val_cross_entropy": oracle_score(trial.hyperparameters.values)})
    trial.status = status
    oracle.end_trial(trial)


class Deleted:
    """Calls a signal's handler when it is deleted, where Python only reports an exception and continues."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.getsignal(self.number)(self.number, None)


TINY_SEARCH = [
    "--net=eva6",
    "--dataset=boxes",
    "--epochs=1",
    "--train-size=160",
    "--validation-size=32",
    "--batch-sizes=40,80",
    "--oracle=random",
    "--max-trials=4",
    "--top-k=1",
    "--confirm-seeds=2",
    "--no-final",
    "--keep-checkpoints=2",
    "--workers=2",
]


def search_words(folder, *more):
    places = [f"--reports-dir={folder / 'reports'}", f"--saved-models-dir={folder / 'saved_models'}"]
    return [*TINY_SEARCH, *places, *more]


def search_folder(folder, name="search"):
    return folder / "reports" / "searches" / name


def own_net(text, net="net", **settings):
    """The config of a user's own net, whose file has this text and was named by its user."""
    text = textwrap.dedent(text)
    trust(text)
    return TrainConfig(**{"net": net, "net_source": text, **settings})


# A residual net with a stage as a nested model, and losses of its own.
RESIDUAL_NET = """
import keras
from keras import layers


def net(image_shape, num_classes, conv):
    image = keras.Input(image_shape)
    x = conv(image, 4, strides=2)
    inside = keras.Input(x.shape[1:])
    stage = keras.Model(inside, conv(inside, 4), name="stage")
    x = layers.ReLU()(layers.Add()([conv(x, 4, size=1, activation=False), stage(x)]))
    x = layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L1(1e-3), name="hidden")(layers.Flatten()(x))
    x = layers.Dropout(0.1)(layers.ActivityRegularization(l2=1e-4)(x))
    return keras.Model(image, layers.Dense(num_classes, name="head")(x))
"""


def weights_of(folder):
    """The weights that a run's folder holds."""
    from kernorm.nets.weights import load_model

    return load_model(read_record(folder / "record.json"), folder / "model.weights.h5").get_weights()


def assert_equal_weights(first, second):
    """Two runs' folders hold the same weights, bit for bit."""
    for ours, theirs in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def cautions_of(study, results, **ledger):
    """Returns what a study's page warns of, by title."""
    from kernorm.studies.analysis import analyse
    from kernorm.studies.report.cautions import cautions

    found = cautions(study, analyse(study, results), SimpleNamespace(damaged=[], **ledger), 0)
    return {one.title: one for one in found}
