import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from kernorm import config as config_module
from kernorm.by_layer import layer_settings, parse_penalty
from kernorm.config import NOT_IDENTITY, TrainConfig, to_json, with_added
from kernorm.errors import UsageError
from kernorm.recipes import RECIPES, recipe, recipe_of_words
from kernorm.records.record import Record

REFUSED = [
    ({"norm": "lnn"}, r"--norm takes a known name\. Received: 'lnn'\. Did you mean 'ln'\? Known: none, bn"),
    ({"norm": "batchnorm"}, "--norm takes a known name"),
    ({"net": "eva5"}, "--net takes a known name.*Did you mean"),
    ({"penalize": "some"}, "--penalize takes a known name"),
    ({"schedule": "exponential"}, "--schedule takes a known name"),
    ({"warmup": 2}, r"--warmup belongs to --schedule cosine\. Received: schedule='onecycle'\. Remove it\."),
    ({"warmup": 8, "schedule": "cosine"}, r"--warmup ends before the last epoch\. Received: warmup=8 of 8 epochs\."),
    ({"warmup": -1}, "--warmup must be at least 0"),
    (
        {"weight_decay": 0.01},
        r"--weight-decay belongs to --optimizer adamw\. Received: optimizer='sgd'\. Give --l2 0\.005, which is what",
    ),
    ({"weight_decay": -1.0, "optimizer": "adamw"}, "--weight-decay must be at least 0"),
    ({"select": "best"}, r"--select takes a known name.*Did you mean 'test'"),
    ({"initializer": "he"}, "--initializer takes a known name"),
    ({"l1": -1e-9}, "--l1 must be a finite number of at least 0"),
    ({"l2": float("nan")}, r"--l2 must be .* Received: l2=nan"),
    ({"l2": float("inf")}, r"--l2 must be .* Received: l2=inf"),
    ({"l2": 1e9}, "at most 1000"),
    ({"epochs": 0}, "--epochs must be from 1"),
    ({"batch_size": 0}, r"--batch-size must be at least 1\. Received: batch_size=0"),
    ({"batch_size": -5}, "--batch-size must be at least 1"),
    ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
    ({"momentum": 1.0}, "--momentum must be at least 0 and below 1"),
    ({"momentum": 0.0}, "--nesterov needs momentum.*--no-nesterov"),
    ({"base_momentum": 0.8, "schedule": "constant"}, "--base-momentum belongs to --schedule onecycle"),
    ({"clip_ratio": 0.0}, "--clip-ratio must be above 0"),
    ({"pct_start": 1.5}, "--pct-start must be between 0 and 1"),
    ({"step_gamma": 2.0}, "--step-gamma must be"),
    ({"dropout": 1.0}, "--dropout must be from 0 to 0.95"),
    ({"rotation": 200.0}, "--rotation must be from 0 to 180"),
    ({"shift": -0.1}, "--shift must be"),
    ({"patience": 0, "schedule": "constant"}, "--patience must be at least 1"),
    (
        {"patience": 3},
        r"--patience needs a rate that is not planned over all epochs\. Received: schedule='onecycle', which would "
        r"stop at a high rate\. Give --schedule constant",
    ),
    ({"patience": 3, "validation_size": 0}, r"--patience needs a validation split\. Received: validation_size=0\."),
    ({"patience": 3, "select": "test"}, r"--patience looks at validation\. Received: select='test'\."),
    ({"min_delta": 0.1}, r"--min-delta belongs to --patience\. Received: min_delta=0\.1\. Give both\."),
    ({"min_delta": -0.1}, "--min-delta must be from 0 to 1"),
    ({"ema": 1.0}, "--ema must be at least 0 and below 1"),
    ({"label_smoothing": 1.0}, "--label-smoothing must be from 0 to 0.9"),
    ({"flip": "left"}, r"--flip takes a known name.*Known: none, horizontal, vertical, both"),
    ({"fill": "wrap"}, "--fill takes a known name.*Known: constant, reflect, nearest"),
    ({"brightness": 1.5}, "--brightness must be from 0 to 1"),
    ({"contrast": -0.1}, "--contrast must be from 0 to 1"),
    ({"elastic": -1.0}, "--elastic must be from 0 to 1000 pixels"),
    ({"elastic_sigma": 0.1}, "--elastic-sigma must be from 0.5 to 100 pixels"),
    ({"groups": 0}, "--groups must be auto or at least 1"),
    ({"groups": -4}, "--groups must be auto or at least 1"),
    ({"ghost_batch_size": 1}, "--ghost-batch-size must be at least 2"),
    ({"seed": -1}, "--seed must be"),
    ({"threads": 0}, "--threads must be from 1"),
    ({"train_size": 0}, "--train-size must be at least 1"),
    ({"validation_size": -1}, "--validation-size must be"),
    ({"dataset": "MNIST"}, r"lower-case name\. Received: 'MNIST'\. Give mnist"),
    ({"validation_size": 0, "select": "validation"}, "--select validation needs a validation split"),
    ({"norm_at": ("conv1",)}, r"--norm-at takes LAYER=VALUE\. Received: 'conv1'.*conv1=none"),
    ({"norm_at": ("conv1=",)}, "--norm-at takes LAYER=VALUE"),
    ({"norm_at": ("conv1=xn",)}, "--norm-at takes a known norm.*Did you mean"),
    ({"norm_at": ("conv1=ln", "conv1=bn")}, "--norm-at takes each layer once"),
    ({"penalty_at": ("conv1=1",)}, r"--penalty-at takes LAYER=L1,L2.*conv1=0,0\.001"),
    ({"penalty_at": ("conv1=0,-1",)}, "--penalty-at takes LAYER=L1,L2"),
    ({"penalty_at": ("conv1=a,b",)}, "--penalty-at takes LAYER=L1,L2"),
    ({"batch_size": 64.0}, r"--batch-size must be a whole number, at least 1\. Received: batch_size=64\.0 \(float\)\."),
    ({"epochs": 1.5}, r"--epochs must be a whole number, from 1 to 100000\. Received: epochs=1\.5 \(float\)\."),
    ({"nesterov": "no"}, r"--nesterov must be True or False\. Received: nesterov='no' \(str\)\."),
    ({"reports_dir": 5}, r"--reports-dir must be a path\. Received: reports_dir=5 \(int\)\."),
    ({"dataset": 5}, r"--dataset must be text\. Received: dataset=5 \(int\)\."),
    ({"norm_at": "conv1=ln"}, r"--norm-at takes a list\. Received: norm_at='conv1=ln' \(str\)\."),
    ({"format": ("onxx",)}, r"--format takes a known name\. Received: 'onxx'\. Did you mean 'onnx'\?"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_values_outside_their_limits_are_refused_in_one_line(values, message):
    with pytest.raises(UsageError, match=message) as refused:
        TrainConfig(**values)
    assert "\n" not in str(refused.value)


def test_run_id_is_readable_and_follows_what_decides_the_weights():
    config = TrainConfig(norm="ln", l2=0.0066)
    assert config.run_id.startswith("eva4-ln-l2_0.0066-bs64-s0-")
    assert config.run_id == TrainConfig(norm="ln", l2=0.0066).run_id
    changed = [dataclasses.replace(config, **change) for change in ({"epochs": 9}, {"rotation": 8.0}, {"threads": 1})]
    assert len({config.run_id, *(other.run_id for other in changed)}) == 4
    for name, value in (("reports_dir", Path("elsewhere")), ("track", "wandb"), ("export", False), ("retrain", True)):
        assert name in NOT_IDENTITY
        assert dataclasses.replace(config, **{name: value}).run_id == config.run_id


def test_run_id_names_a_set_other_than_mnist_and_the_groups():
    assert TrainConfig(dataset="emnist/balanced", norm="gn", groups=2).run_id.startswith(
        "emnist_balanced-eva4-gn-g2-bs"
    )


# Finished runs are known by these ids, in every user's folders: a change here loses them.
PINNED = {
    "eva4-bn-bs64-s0-ca034a58": {},
    "eva4-ln-l2_0.0066-bs64-s0-262674c1": {"norm": "ln", "l2": 0.0066},
    "emnist_balanced-eva4-gn-g2-bs64-s7-85313187": {
        "dataset": "emnist/balanced",
        "norm": "gn",
        "groups": 2,
        "norm_at": ("conv1=ln",),
        "train_size": 1000,
        "seed": 7,
    },
}


@pytest.mark.parametrize("run_id", PINNED)
def test_run_ids_are_those_of_every_release(run_id):
    assert TrainConfig(**PINNED[run_id]).run_id == run_id


def test_run_ids_of_the_committed_records_are_still_theirs():
    reports = Path(__file__).parents[1] / "reports"
    results = [json.loads(line) for path in reports.rglob("records.jsonl") for line in path.read_text().splitlines()]
    records = [result["record"] for result in results]
    records += [json.loads(path.read_bytes()) for path in (reports / "examples").glob("*/record.json")]
    assert len(records) >= 72
    kind = TypeAdapter(Record)
    for record in map(json.dumps, records):
        read = kind.validate_json(record)
        assert read.config.run_id == read.run_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Later(TrainConfig):
    """The config of a later release, in which the default of a new setting has changed once more."""

    mixup: float = 0.2
    optimizer: str = "muon"


def test_a_setting_added_later_leaves_the_ids_of_runs_before_it(monkeypatch):
    before = TrainConfig(norm="ln", l2=0.0066)
    monkeypatch.setattr(config_module, "ADDED", {"mixup": 0.0})
    values = {"norm": "ln", "l2": 0.0066, "optimizer": "sgd"}
    assert Later(**values, mixup=0.0).run_id == before.run_id
    assert Later(**values, mixup=0.0).identity == before.identity | {"mixup": 0.0} == with_added(before.identity)
    assert len({Later(**values, mixup=mixup).run_id for mixup in (0.0, 0.2, 0.3)}) == 3
    # What an older version wrote means the value of before, not the default.
    read = TypeAdapter(Later).validate_python(with_added(to_json(before)))
    assert (read.mixup, read.run_id) == (0.0, before.run_id)


def test_identity_is_plain_json():
    config = TrainConfig(norm_at=("conv1=ln",), reports_dir=Path("x"))
    assert json.loads(json.dumps(config.identity)) == config.identity
    assert set(config.identity) == {field.name for field in dataclasses.fields(TrainConfig)} - set(NOT_IDENTITY)


def test_settings_of_layers_are_read():
    assert layer_settings("norm_at", ("conv1=ln", "conv2=none")) == {"conv1": "ln", "conv2": "none"}
    assert parse_penalty("1e-4,0.5") == (1e-4, 0.5)


def test_recipes_are_values_of_the_config_and_flags_override_them():
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    for name, values in RECIPES.items():
        assert set(values) <= names - {"recipe"}
        assert recipe(name).recipe == name
    assert recipe("default") == TrainConfig()
    assert recipe("eva4", epochs=3).epochs == 3
    assert recipe_of_words(["--seed", "1", "--recipe", "eva6"]) == recipe("eva6")
    assert recipe_of_words(["--recipe=eva4"]) == recipe("eva4")
    assert recipe_of_words([]) == TrainConfig()


def test_the_manual_says_how_many_epochs_a_recipe_has():
    text = " ".join(inspect.getsource(config_module).split())
    for name in RECIPES:
        told = re.search(rf"- {name}: [^-]*?(\d+) epochs", text)
        assert told, name
        assert int(told[1]) == recipe(name).epochs, name


@pytest.mark.parametrize("words", [["--recipe", "evq6"], ["--recipe"], ["--recipe=best2"]])
def test_unknown_recipes_are_refused(words):
    with pytest.raises(UsageError, match=r"--recipe takes a known name.*Known: default, best, quick, cifar, photos"):
        recipe_of_words(words)


@pytest.mark.parametrize("name", [3, {}, None])
def test_a_recipe_is_named_by_a_text(name):
    with pytest.raises(UsageError, match=r"^--recipe takes a known name\. Received: .*\. Known: default, best"):
        recipe(name)


def test_a_recipe_takes_settings_alone():
    with pytest.raises(UsageError, match=r"^A setting is a field .* Received: 'nrom'\. Did you mean 'norm'\?") as told:
        recipe("best", nrom=3)
    assert not re.search("GROUPS|net_source|net_weights", str(told.value))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Path("photos"), "./photos"),
        (Path("./photos"), "./photos"),
        (Path("../photos"), "../photos"),
        (Path("/data/photos"), "/data/photos"),
        (Path("~/photos"), "~/photos"),
        (Path("set.npz"), "set.npz"),
        (Path("."), "."),
    ],
)
def test_own_images_may_be_given_by_a_path(given, text):
    config = TrainConfig(dataset=given, image_size=32)
    assert config == TrainConfig(dataset=text, image_size="32")
    assert json.loads(json.dumps(config.identity)) == TrainConfig(dataset=text, image_size="32").identity
    assert TrainConfig(dataset=text, image_size=np.int64(32)).run_id == config.run_id


@pytest.mark.parametrize("given", [np.zeros((2, 4, 4)), (np.zeros(2), [1, 2]), {"x_train": []}])
def test_arrays_are_no_data_set(given):
    message = (
        rf"^A data set is given by its name, or .* Received: dataset of the type {type(given).__name__}\. Save arrays"
    )
    with pytest.raises(UsageError, match=message + r" by numpy\.savez\(.*x_train=…, y_train=…, x_test=…, y_test=…\)"):
        TrainConfig(dataset=given)


def test_the_last_recipe_on_a_command_line_counts():
    assert recipe_of_words(["--recipe", "eva4", "--recipe=eva6"]) == recipe("eva6")


def test_config_needs_neither_keras_nor_numpy():
    code = "import sys, kernorm.config, kernorm.recipes; sys.exit(bool({'keras', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_rate_goes_with_the_norm_unless_it_is_given():
    """A run with the default rate is the same run as one with that rate as a number."""
    for norm, rate in (("bn", 0.07), ("gbn", 0.07), ("brn", 0.07), ("ln", 0.03), ("gn", 0.03), ("none", 0.03)):
        config = TrainConfig(norm=norm)
        assert (config.learning_rate, config.peak_rate) == ("auto", rate)
        assert config.run_id == TrainConfig(norm=norm, learning_rate=rate).run_id
        assert TrainConfig(norm=norm, optimizer="adamw").peak_rate == 0.01
    assert TrainConfig(learning_rate=0.5).peak_rate == 0.5


def test_patience_keeps_the_best_epoch_by_validation():
    config = TrainConfig(patience=3, schedule="constant")
    assert config.select == "validation"
    assert config.run_id == TrainConfig(patience=3, schedule="constant", select="validation").run_id


def test_a_whole_number_is_the_same_setting_as_a_decimal_one():
    config = TrainConfig(learning_rate=1, l2=0, clip_ratio=1, base_momentum=0)
    assert config.run_id == TrainConfig(learning_rate=1.0, l2=0.0, clip_ratio=1.0, base_momentum=0.0).run_id
    assert [type(value) for value in (config.learning_rate, config.l2, config.clip_ratio)] == [float] * 3
    assert type(config.epochs) is int


def test_numbers_of_numpy_give_the_run_id_of_plain_ones():
    given = {
        "seed": np.int64(3),
        "batch_size": np.int32(32),
        "l1": np.float64(1e-4),
        "l2": np.float32(0.25),
        "nesterov": np.bool_(False),
        "norm": np.str_("ln"),
        "groups": np.int8(2),
        "norm_at": [np.str_("conv1=bn")],
    }
    plain = {"seed": 3, "batch_size": 32, "l1": 1e-4, "l2": 0.25, "nesterov": False, "norm": "ln", "groups": 2}
    found, wanted = TrainConfig(**given), TrainConfig(**plain, norm_at=("conv1=bn",))
    assert (found, found.run_id) == (wanted, wanted.run_id)
    json.dumps(to_json(found))


COMMANDS = {
    "train": ("TrainConfig", {"reports_dir": "~/a", "saved_models_dir": "~/b", "manual_dir": "~/c", "data_dir": "~/d"}),
    "study": ("StudyConfig", {"study": "eva6", "reports_dir": "~/a", "saved_models_dir": "~/b"}),
    "export": ("ExportConfig", {"run_folder": "~/a", "saved_models_dir": "~/b"}),
    "convert": ("ConvertConfig", {"path": "~/a"}),
    "evaluate": ("EvaluateConfig", {"path": "~/a", "beside": ["~/b"], "saved_models_dir": "~/c", "data_dir": "~/d"}),
    "validate": ("ValidateConfig", {"path": "~/a", "data_dir": "~/b"}),
    "push": ("PushConfig", {"path": "~/a", "saved_models_dir": "~/b"}),
    "predict": ("PredictConfig", {"images": ["~/a"], "model_path": "~/b"}),
    "data": ("DataConfig", {"manual_dir": "~/a", "data_dir": "~/b"}),
    "runs": ("RunsConfig", {"reports_dir": "~/a"}),
    "search": ("SearchConfig", {"reports_dir": "~/a", "saved_models_dir": "~/b"}),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_expands_the_home_folder_in_its_paths(command, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    name, values = COMMANDS[command]
    module = importlib.import_module("tuner.config" if command == "search" else f"kernorm.{command}")
    found = getattr(module, name)(**values)
    for field, given in values.items():
        value = getattr(found, field)
        for path, text in zip(value if isinstance(value, tuple) else [value], np.atleast_1d(given), strict=True):
            if isinstance(path, Path):
                assert path == Path("/home/me") / text[2:]
            else:
                assert field == "study"
