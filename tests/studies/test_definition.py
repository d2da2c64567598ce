import sys

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.recipes import RECIPES
from kernorm.studies.definition import study_of, with_overrides
from kernorm.studies.loading import load_study, packaged
from kernorm.studies.published import Published
from kernorm.training.schedules import schedule_tables
from kernorm.training.tracking import Membership

GOOD = '''"""Is it
better?

More words."""
from kernorm.config import TrainConfig
from kernorm.studies.definition import Published
ARMS = {"bn": TrainConfig(), "ln": TrainConfig(norm="ln"), "ln-l2": TrainConfig(norm="ln", l2=1e-3, seed=50)}
PUBLISHED = {"ln": Published(accuracy=99.1)}
SEEDS = 3
'''


def write(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return str(path)


def test_a_users_file_becomes_a_study(tmp_path):
    study = load_study(write(tmp_path, GOOD))
    assert (study.name, study.question, study.seeds) == ("mine", "Is it better?", (0, 1, 2))
    assert study.baselines == {"bn": "bn", "ln": "bn", "ln-l2": "bn"}
    assert study.published == {"ln": Published(accuracy=99.1)}
    runs = study.runs()
    assert [(run.arm, run.seed, run.config.seed) for run in runs[:4]] == [
        ("bn", 0, 0),
        ("ln", 0, 0),
        ("ln-l2", 0, 50),
        ("bn", 1, 1),
    ]
    assert len({run.config.run_id for run in runs}) == 9
    assert runs[1].member == Membership(study="mine", arm="ln", question="Is it better?")


def test_a_study_file_finds_its_neighbours(tmp_path, monkeypatch):
    path, before = list(sys.path), set(sys.modules)
    for number in (1, 2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "common.py").write_text(
            f"from kernorm.config import TrainConfig\nARMS = {{'bn': TrainConfig(epochs={number})}}"
        )
        (folder / "mine.py").write_text("from common import ARMS")
        study = load_study(str(folder / "mine.py"))
        assert study.arms["bn"].epochs == number  # not the first one's neighbour
    assert (sys.path, set(sys.modules)) == (path, before)
    monkeypatch.chdir(tmp_path)
    assert load_study("1/mine.py").file == load_study(str(tmp_path / "1" / "mine.py")).file == "1/mine.py"
    assert load_study("smoke").file == "kernorm:smoke"


def test_each_arm_may_have_its_own_baseline(tmp_path):
    study = load_study(write(tmp_path, GOOD + 'BASELINE = {"ln-l2": "ln"}\n'))
    assert study.baselines == {"ln-l2": "ln"}


def test_narrowed_keeps_what_is_asked_for_and_its_baseline(tmp_path):
    study = load_study(write(tmp_path, GOOD))
    one = with_overrides(study, seeds=2, epochs=4, only=["*-l2"], threads=1)
    assert list(one.arms) == ["bn", "ln-l2"]
    assert one.seeds == (0, 1)
    assert {(config.epochs, config.threads) for config in one.arms.values()} == {(4, 1)}
    assert one.arms["ln-l2"].l2 == 1e-3
    assert with_overrides(study).arms == study.arms


def test_numbers_of_numpy_are_numbers_of_seeds_and_epochs(tmp_path):
    study = load_study(write(tmp_path, GOOD.replace("SEEDS = 3", "import numpy\nSEEDS = numpy.int64(2)")))
    assert study.seeds == (0, 1)
    assert with_overrides(study, seeds=np.int64(3), epochs=np.int64(4)).seeds == (0, 1, 2)
    eva6 = load_study("eva6")
    assert with_overrides(eva6, epochs=np.int64(5)).arms == with_overrides(eva6, epochs=5).arms


def test_a_study_lies_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = write(tmp_path, GOOD)
    assert load_study(f"~/{name.rpartition('/')[2]}").question == "Is it better?"


def test_a_shortened_step_schedule_keeps_its_shape():
    config = with_overrides(load_study("eva6"), epochs=5).arms["bn"]
    # 25 epochs: full rate for 14, then a drop every 2. Of 5: for 3, then a drop every epoch.
    assert (config.epochs, config.step_after, config.step_size) == (5, 2, 1)
    rates = schedule_tables(config, 1)[0] / config.peak_rate
    np.testing.assert_allclose(rates, [1, 1, 1, 0.09, 0.09**2], rtol=1e-5)


def test_a_shortened_cosine_warms_up_for_the_same_share():
    study = study_of("s", {"a": TrainConfig(schedule="cosine", epochs=20, warmup=5)}, text="Which?")
    short = with_overrides(study, epochs=4).arms["a"]
    assert (short.epochs, short.warmup) == (4, 0.25)
    assert schedule_tables(short, 8)[0].argmax() == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1. Received: seeds=0. Give 5, or at least 2 for a verdict."),
        ({"only": ["lm"]}, "--only takes names of arms. Received: 'lm'. Did you mean 'ln'? Known: bn, ln, ln-l2."),
        ({"only": ["gn-*"]}, "--only takes names of arms. Received: 'gn-*'."),
        ({"epochs": 0}, "--epochs must be from 1 to 100000. Received: epochs=0."),
        ({"epochs": 1.5}, "--epochs must be a whole number, from 1 to 100000. Received: epochs=1.5 (float)."),
        ({"seeds": 2.5}, "--seeds must be at least 1. Received: seeds=2.5."),
    ],
)
def test_narrowed_refuses(tmp_path, words, message):
    with pytest.raises(UsageError) as refused:
        with_overrides(load_study(write(tmp_path, GOOD)), **words)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("SEEDS", "SEED"), "names of its own. Received: SEED in"),
        (GOOD + "MARGINS = '1pp'\n", "Did you mean MARGIN?"),
        ("ARMS = {", "line 1: '{' was never closed"),
        ("x = 1", "without ARMS. Write for example ARMS = {"),
        ("ARMS = {}", "whose ARMS is not one, or empty"),
        ("ARMS = {'a': 3}", "whose ARMS is not one, or empty"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        (GOOD + "ARMS['again'] = TrainConfig()", "Two arms must differ. Received: 'bn' and 'again' of "),
        (GOOD + "ARMS['ln'] = TrainConfig(norm='lm')", "--norm takes a known name. Received: 'lm'. Did you mean 'ln'?"),
        (GOOD + "ARMS[''] = TrainConfig(seed=3)", "An arm has a name. Received: '' in "),
        (GOOD + "BASELINE = 'bm'", "BASELINE names arms. Received: 'bm' in "),
        (GOOD + "BASELINE = {'ln': 'gn'}", "BASELINE names arms. Received: 'gn' in "),
        (GOOD + "PUBLISHED['gn'] = Published(accuracy=99)", "PUBLISHED names arms. Received: 'gn' in "),
        (GOOD + "SEEDS = 0", "SEEDS is a number of at least 1. Received: 0 in "),
        (GOOD + "SEEDS = [1, 2]", "SEEDS is a number of at least 1. Received: [1, 2] in "),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_refuses_what_is_not_a_study(tmp_path, text, message):
    with pytest.raises(UsageError) as refused:
        load_study(write(tmp_path, text))
    assert message in str(refused.value)
    assert "mine.py" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eva5", "A study is a known name or a Python file. Received: 'eva5'. Did you mean 'eva6'? Known: batch_size"),
        ("nowhere.py", "A study file must be there. Received: nowhere.py, which is not. Known: batch_size, eva4"),
    ],
)
def test_refuses_an_unknown_study(name, message):
    with pytest.raises(UsageError) as refused:
        load_study(name)
    assert str(refused.value).startswith(message)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "mine.py").write_bytes(b"\xff\xfe = 3")
    with pytest.raises(UsageError, match="A study file must run as Python"):
        load_study(str(tmp_path / "mine.py"))


def test_every_packaged_study_loads_and_says_what_it_costs():
    studies = {name: load_study(name) for name in packaged()}
    assert set(studies) == {
        "batch_size",
        "eva4",
        "eva4_as_run",
        "eva6",
        "eva6_as_run",
        "fashion",
        "recipes",
        "small_data",
        "smoke",
    }
    for name, study in studies.items():
        assert study.question.endswith("?") or "?" in study.question
        assert f"python -m kernorm.study {name}" in study.text
        assert "Expected" in study.text
        assert len(study.arms) > 1


def test_published_studies_are_the_published_tables():
    """Accuracies and penalties as in the READMEs; a weight decay λ is l2 = λ/2 here, on every weight."""
    eva4, eva6 = load_study("eva4"), load_study("eva6")
    assert [row.accuracy for row in eva4.published.values()] == [99.47, 99.44, 99.52, 98.76]
    rows = [
        (99.36, "bn", 128, 1e-5, 4e-6),
        (99.31, "gn", 128, 0, 0),
        (99.32, "gn", 123, 0.099455391, 0),
        (99.44, "gn", 64, 1e-4, 0),
        (99.44, "gn", 64, 1e-4, 4e-4),
        (99.41, "gn", 32, 1e-4, 4e-4),
        (99.32, "gn", 16, 1e-4, 4e-4),
        (99.39, "ln", 128, 0, 2e-5),
        (99.43, "ln", 128, 0, 0.006604),
        (99.41, "ln", 32, 0, 0.006604),
        (99.10, "ln", 16, 0, 0.006604),
    ]
    for (arm, published), (accuracy, norm, batch_size, l1, decay) in zip(eva6.published.items(), rows, strict=True):
        config = eva6.arms[arm]
        assert published == Published(accuracy=accuracy, l1=l1, weight_decay=decay, source=published.source)
        assert (config.norm, config.batch_size, config.l1, config.l2) == (norm, batch_size, l1, decay / 2)
        assert config.penalize == "all"
        assert config.select == "test"
        assert config.groups == (4 if norm == "gn" else "auto")
    assert eva6.arms["bn"] == TrainConfig(**RECIPES["eva6"], recipe="eva6", penalize="all")


def test_the_as_run_studies_have_the_published_faults():
    four, six = load_study("eva4_as_run"), load_study("eva6_as_run")
    none, l1 = four.arms["none"], four.arms["l1"]
    assert (none.l1, none.l2, l1.l1, l1.l2) == (0, 0, 0, 0)
    assert none.seed != l1.seed
    assert (four.arms["l2"].l2, four.arms["l1_l2"].l1, four.arms["l1_l2"].l2) == (2.5e-3, 5e-3, 2.5e-3)
    assert four.published["l1"].l1 == 5e-4
    assert all(config.l1 == config.l2 == 0 for config in six.arms.values())
    assert all(row.l1 or row.l2 for row in six.published.values())


def test_batch_sizes_are_compared_with_bn_and_rates_follow_them():
    study = load_study("batch_size")
    assert study.baselines["gn-b16"] == "bn-b16"
    assert study.baselines["ln-b128"] == "bn-b128"
    assert len(study.arms) == 18
    for norm in ("bn", "gn", "ln"):
        rates = [study.arms[f"{norm}-b{size}"].learning_rate for size in (4, 8, 16, 32, 64, 128)]
        assert rates == pytest.approx([0.03 * (size / 128) ** 0.5 for size in (4, 8, 16, 32, 64, 128)])
