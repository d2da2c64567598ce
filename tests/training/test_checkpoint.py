import dataclasses
import hashlib
import io
import json
import resource

import keras
import numpy as np
import pytest

from kernorm import config
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.model import build_model_for
from kernorm.training import checkpoint
from kernorm.training.optimizers import ScheduledSGD
from kernorm.training.run import start_or_resume, train

pytestmark = pytest.mark.usefixtures("small_net")

NOTES = {"identity": {"seed": 3}, "history": [{"epoch": 1, "loss": 0.1 + 0.2}], "selected": 1}
SCHEDULE = (np.linspace(0.1, 0.01, 9), np.full(9, 0.9))


@pytest.fixture
def make(mnist_info):
    def model(**settings):
        built = build_model_for(
            TrainConfig(**{"net": "eva6", "dropout": 0.3, "batch_size": 16, **settings}), mnist_info
        )
        built.compile(
            optimizer=ScheduledSGD(*SCHEDULE, nesterov=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return built

    return model


def states(model):
    found = [*checkpoint.variables_of(model), *(np.array(variable) for variable in model.optimizer.variables)]
    return [*found, *(np.array(variable) for variable in model.non_trainable_variables)]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for first, second in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_run_begun_before_a_setting_existed_goes_on(tmp_path, boxes_cache, monkeypatch):
    given = TrainConfig(
        net="eva6",
        norm="none",
        dataset="boxes",
        validation_size=32,
        batch_size=160,
        epochs=2,
        export=False,
        report=False,
        reports_dir=tmp_path,
    )
    paused = train(dataclasses.replace(given, stop_after=1))
    folder = tmp_path / "runs" / given.run_id
    state = checkpoint.load(folder / "checkpoint.npz")
    identity = {name: value for name, value in state.notes["identity"].items() if name != "shear"}
    rewrite(folder / "checkpoint.npz", state, identity)
    with pytest.raises(UsageError, match=r"^A run is resumed with the config that it started with\. Received: "):
        start_or_resume(given, folder)
    monkeypatch.setattr(config, "ADDED", {"shear": 0.0})
    run, done = start_or_resume(given, folder)
    assert done == 1
    assert tuple(run.reached.history) == paused.history


def rewrite(path, state, identity):
    """Writes a checkpoint with another identity in its notes."""
    arrays = {
        f"{group}_{index}": array
        for group in ("variables", "optimizer", "kept")
        for index, array in enumerate(getattr(state, group))
    }
    buffer = io.BytesIO()
    notes = json.dumps(state.notes | {"identity": identity}).encode()
    np.savez(buffer, notes=np.frombuffer(notes, np.uint8), **arrays)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())


def test_a_restored_run_goes_on_exactly_as_the_saved_one(make, digits, tmp_path):
    images, labels = digits[0][:64], digits[1][:64]
    model, other = make(), make(seed=5)
    model.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    kept = checkpoint.variables_of(model)
    checkpoint.save(tmp_path / "state", model, kept, NOTES)
    loaded = checkpoint.load(tmp_path / "state")
    assert loaded.notes == NOTES
    assert_equal(loaded.kept, kept)
    checkpoint.restore(loaded, other)
    assert_equal(states(other), states(model))
    # The generators of dropout are among the variables: without their states the next steps would differ.
    assert any("seed" in variable.path for variable in model.non_trainable_variables)
    for each in (model, other):
        each.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    assert_equal(states(other), states(model))
    assert any((ours != theirs).any() for ours, theirs in zip(kept, checkpoint.variables_of(model), strict=True))


def test_variables_are_copies(make):
    model = make()
    before = checkpoint.variables_of(model)
    checkpoint.set_variables(model, [np.zeros_like(values) for values in before])
    assert any(values.any() for values in before)
    checkpoint.set_variables(model, before)
    assert_equal(checkpoint.variables_of(model), before)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "longer"])
def test_a_damaged_file_is_refused(make, tmp_path, damage):
    path = tmp_path / "state"
    checkpoint.save(path, make(), [], NOTES)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-1], "empty": b"", "longer": content + b"x"}.get(damage, content))
    with pytest.raises(UsageError, match=r"A checkpoint must be whole\. Received: .*state, which is damaged\. Delete"):
        checkpoint.load(path)


def test_what_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"must be a readable file\. Received: .*: Is a directory\. Remove it"):
        checkpoint.load(tmp_path)


def test_the_state_of_another_net_is_refused_and_changes_nothing(make, tmp_path):
    checkpoint.save(tmp_path / "state", make(), [], NOTES)
    for other in (make(net="eva4"), make(norm="frn")):
        before = checkpoint.variables_of(other)
        with pytest.raises(UsageError, match=r"A checkpoint must fit the net\. Received: \d+ variables.*Resume with"):
            checkpoint.restore(checkpoint.load(tmp_path / "state"), other)
        assert_equal(checkpoint.variables_of(other), before)


def test_a_failing_write_leaves_the_old_state(make, tmp_path):
    model = make()
    checkpoint.save(tmp_path / "state", model, [], NOTES)
    before = (tmp_path / "state").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(tmp_path / "state", model, [], {**NOTES, "selected": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state").read_bytes() == before
    assert checkpoint.load(tmp_path / "state").notes == NOTES
