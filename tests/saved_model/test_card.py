import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.records.record import Environment, Opening, Record
from kernorm.saved_model import card
from kernorm.stats.scores import evaluate

SIGNATURES = {
    "serving_default": card.Signature(
        inputs={"image": card.Tensor(dtype="uint8", shape=(None, 28, 28, 1))},
        outputs={"class_id": card.Tensor(dtype="int64", shape=(None,))},
    )
}


@pytest.fixture
def record(mnist_info, rng):
    def scores(split, count):
        return evaluate(rng.normal(size=(count, 10)).astype(np.float32), rng.integers(0, 10, count), split)

    config = TrainConfig(norm="ln", l2=0.0066, manual_dir="/somewhere/private")
    return Record(
        run_id=config.run_id,
        status="finished",
        started="2026-01-01T00:00:00+00:00",
        config=config,
        data=mnist_info,
        environment=Environment(backend="jax", device="cpu", threads=2, versions={"keras": "3.15.1"}),
        parameters=7288,
        parameters_total=7300,
        selected_epoch=8,
        validation=scores("validation", 50),
        test=scores("test", 70),
        openings=(Opening(time="2026-01-01T00:02:00+00:00", epoch=8, purpose="final evaluation"),),
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    return tmp_path


def test_the_card_repeats_the_record(record, folder):
    made = card.make_card(record, 17, SIGNATURES, {"tensorflow": "2.21.0"})
    card.write_card(made, folder)
    read = card.read_card(folder)
    assert read == made
    assert (read.run_id, read.version, read.data) == (record.run_id, 17, record.data)
    for split in ("validation", "test"):
        for name in ("count", "accuracy", "interval", "cross_entropy", "brier", "ece"):
            assert getattr(getattr(read, split), name) == getattr(getattr(record, split), name)
    assert read.selection == card.Selection(
        rule="the weights of the last epoch", epoch=8, test_openings=1, openings=record.openings
    )
    assert read.config["l2"] == 0.0066
    assert read.trained_with == {"backend": "jax", "keras": "3.15.1"}
    assert read.data_licence.startswith("CC BY-SA 3.0")
    assert (folder / card.FOLDER / "labels.txt").read_text() == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"


def test_no_folder_of_the_machine_is_published(record, folder):
    card.write_card(card.make_card(record, 17, SIGNATURES, {}), folder)
    assert "/somewhere" not in (folder / card.FOLDER / "model_card.json").read_text()


def test_own_images_have_a_licence_that_nobody_knows_and_no_word_of_digits(record):
    data = dataclasses.replace(record.data, name="photos@0123456789ab", resize="crop")
    made = card.make_card(dataclasses.replace(record, data=data), 17, SIGNATURES, {}, "64 images of noise")
    assert (made.data_licence, made.warmup) == ("not known: own images", "64 images of noise")
    assert "a client must turn photos upright, as their EXIF orientation says" in " ".join(made.limits)
    fashion = dataclasses.replace(record, data=dataclasses.replace(record.data, name="fashion_mnist"))
    other = card.make_card(fashion, 17, SIGNATURES, {})
    assert other.data_licence == "see fashion_mnist in the catalogue of tensorflow-datasets"
    assert "EXIF" not in " ".join(other.limits)
    for text in (" ".join(made.limits), " ".join(other.limits)):
        assert "cheques" not in text
    assert "cheques" in " ".join(card.make_card(record, 17, SIGNATURES, {}).limits)


def test_what_lowers_trust_is_said(record):
    def limits(**changes):
        changed = dataclasses.replace(record, **changes)
        return " ".join(card.make_card(changed, 1, SIGNATURES, {}).limits)

    assert "chosen by test accuracy" in limits(config=TrainConfig(select="test"))
    assert "Never measured on the test split" in limits(test=None)
    assert "chosen by test accuracy" not in limits()
    assert "Never measured" not in limits()
    assert "bfloat16" in limits()
    assert "INFERENCE_PRECISION_HINT=f32" in limits()


def test_a_folder_that_is_no_saved_model(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match=r"^An exported model is a folder with a saved_model\.pb\. Received: "):
            card.read_card(path)


def test_a_saved_model_that_is_not_one_of_ours(folder):
    with pytest.raises(UsageError, match=r"^A SavedModel must be one that kernorm exported\. Received: .*Export it by"):
        card.read_card(folder)


def test_a_half_written_card(record, folder):
    card.write_card(card.make_card(record, 17, SIGNATURES, {}), folder)
    path = folder / card.FOLDER / "model_card.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"^A model card must be whole and of schema 1\. Received: .*Invalid JSON"):
        card.read_card(folder)


@pytest.mark.parametrize("changes", [{}, {"a_field_of_later": 1}])
def test_a_card_of_another_schema_whatever_its_fields(record, folder, changes):
    card.write_card(card.make_card(record, 17, SIGNATURES, {}), folder)
    path = folder / card.FOLDER / "model_card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2} | changes))
    with pytest.raises(UsageError, match=r"^A model card must be of schema 1\. Received: .* of schema 2\. Read"):
        card.read_card(folder)


ASK = """
import sys
from pathlib import Path
from kernorm.saved_model import card
print(ascii(card.read_labels(Path(sys.argv[1]))))
"""


def test_labels_are_read_in_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / card.FOLDER).mkdir(parents=True)
    (tmp_path / card.FOLDER / "labels.txt").write_bytes("猫\nä\n".encode())
    assert card.read_labels(tmp_path) == ["猫", "ä"]
    assert card.read_labels(tmp_path / "elsewhere") == []
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout == ascii(["猫", "ä"]) + "\n"


def test_no_text_file_is_opened_in_the_encoding_of_the_locale():
    root, found = Path(__file__).parents[2], []
    for path in [*(root / "kernorm").rglob("*.py"), *(root / "tuner").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(call, ast.Call) or {one.arg for one in call.keywords} & {"encoding", "purpose"}:
                continue
            name, words = ast.unparse(call.func).rpartition(".")[2], [ast.unparse(one) for one in call.args]
            binary = any(re.fullmatch("'[rwa]\\+?b\\+?'", word) for word in words) or "os.devnull" in words
            other = ast.unparse(call.func).startswith(("os.", "Image.", "archive.", "self._open", "urllib."))
            if name in ("read_text", "write_text") or (name == "open" and not (binary or other)):
                found.append(f"{path.relative_to(root)}:{call.lineno}: {ast.unparse(call)[:80]}")
    assert found == []
