"""Members of a population against the same runs alone, by `model.fit`; see conftest.py for how these tests are run."""

import errno
import json
import subprocess
import sys
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("needs KERNORM_TEST_BACKEND=jax", allow_module_level=True)

import jax

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.weights import load_model
from kernorm.parallel import capacity, grouping, groups, measurement, population
from kernorm.parallel.capacity import SHARE_OF_MEMORY
from kernorm.parallel.groups import train_population
from kernorm.parallel.jobs import Members, train_members
from kernorm.parallel.members import on_the_host, state_of
from kernorm.parallel.population import Population
from kernorm.records.record import CHECKPOINT, RECORD, WEIGHTS, read_record
from kernorm.training import checkpoint
from kernorm.training.run import start_or_resume, train
from kernorm.training.trainer import LOOKS, Trainer
from tests.builders import RESIDUAL_NET, own_net

pytestmark = pytest.mark.usefixtures("boxes_cache")
# One program of each shows most of what there is; six norms in one net take one compilation.
MANY = (
    "conv1=bn",
    "conv2=gbn",
    "conv3=brn",
    "conv4=gn",
    "conv5=frn",
    "conv6=ln",
)
# The last of 128 images are a smaller batch, which is compiled by itself.
UNEVEN = {"batch_size": 30}
OTHERS = ("conv2=rms", "conv3=cln", "conv4=in", "conv5=none")


@dataclass(frozen=True)
class Job:
    config: TrainConfig


@pytest.fixture
def config(tmp_path, monkeypatch):
    for module in (population, measurement):  # the size of every split but the training one
        monkeypatch.setattr(module, "EVALUATION_BATCH", 64)

    def of(name="reports", **settings):
        values = {
            "dataset": "boxes",
            "validation_size": 64,
            "batch_size": 32,  # of 128 images: one size of batch, so one compilation
            "epochs": 1,
            "net": "eva6",
            "dropout": 0.05,
            "export": False,
            "report": False,
            "reports_dir": tmp_path / name,
            "ghost_batch_size": 8,
        }
        return TrainConfig(**{**values, **settings})

    return of


def elsewhere(config, name):
    return replace(config, reports_dir=config.reports_dir.parent / name)


def folder(config):
    return config.reports_dir / "runs" / config.run_id


def weights(config):
    return load_model(read_record(folder(config) / RECORD), folder(config) / WEIGHTS).get_weights()


def assert_close(config, other, tolerance=1e-5):
    for ours, theirs in zip(weights(config), weights(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def assert_same(config, other):
    for ours, theirs in zip(weights(config), weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_same_scores(record, other):
    """All that a run measures, but for what the clock shows."""
    for mine, its in zip(record.history, other.history, strict=True):
        for name in ("loss", "cross_entropy", "accuracy", "val_cross_entropy", "val_accuracy"):
            if mine.epoch:
                assert getattr(mine, name) == pytest.approx(getattr(its, name), rel=1e-5), (mine.epoch, name)
        assert (mine.weighted_cross_entropy is None) == (record.config.class_weight == "none" or not mine.epoch)
        if mine.weighted_cross_entropy is not None:
            assert mine.weighted_cross_entropy == pytest.approx(its.weighted_cross_entropy, rel=1e-5)
            assert mine.weighted_cross_entropy != pytest.approx(mine.cross_entropy, rel=1e-4)
        for name in ("l1_penalty", "l2_penalty"):
            assert getattr(mine, name) == pytest.approx(getattr(its, name), rel=1e-5), (mine.epoch, name)
        assert (mine.learning_rate, mine.momentum) == (its.learning_rate, its.momentum)
        assert mine.watched.kernel_norm == pytest.approx(its.watched.kernel_norm, rel=1e-5)
        assert mine.watched.near_zero == pytest.approx(its.watched.near_zero, abs=1e-3)
        assert mine.watched.activations == pytest.approx(its.watched.activations, rel=1e-3, abs=1e-3)
    for split in ("train", "validation", "test"):
        mine, its = getattr(record, split), getattr(other, split)
        assert (mine.count, mine.errors, mine.confusion) == (its.count, its.errors, its.confusion)
        assert mine.cross_entropy == pytest.approx(its.cross_entropy, rel=1e-4)
    norms = [[layer.kernel_norm for layer in of.layers if layer.kernel_norm] for of in (record, other)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert [row.count for row in record.pruned] == pytest.approx([row.count for row in other.pruned], abs=1)
    assert [opening.purpose for opening in record.openings] == [opening.purpose for opening in other.openings]
    assert record.penalty_proof == pytest.approx(other.penalty_proof)
    assert (record.status, record.selected_epoch) == (other.status, other.selected_epoch)


# Not the other norms with standardized kernels: these have a sum of 0, so on a black background the sign of a rounding
# error decides what passes a ReLU, and neither the one nor the other result is the right one.
CASES = {
    "six norms, every penalty, weighted": {
        **{"norm_at": MANY, "penalize": "all", "momentum": 0.9, "nesterov": False},
        **{"class_weight": "balanced", "label_smoothing": 0.1},
        **UNEVEN,
    },
    "other norms by muon, every augmentation": {
        **{"norm": "ln", "norm_at": OTHERS, "optimizer": "muon", "learning_rate": 0.01},
        **{"flip": "both", "fill": "reflect", "elastic": 20.0, "brightness": 0.2, "contrast": 0.3},
    },
    "eva4, standardized, averaged by adamw": {
        **{"net": "eva4", "standardize_kernels": True, "interpolation": "nearest", "clip_ratio": None},
        **{"ema": 0.7, "label_smoothing": 0.1, "select": "validation", "epochs": 2},
        **{"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.2},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_member_is_the_same_run_alone(config, case):
    shared = CASES[case]
    members = [
        config(seed=1, l1=1e-4, l2=2e-3, **shared),
        config(seed=0, l2=1e-2, rotation=15.0, penalty_at=("conv2=1e-3,0",), **(shared | {"learning_rate": 0.02})),
    ]
    records = train_population(members, width=4)
    assert [record.environment.population for record in records] == [2, 2]
    for member, record in zip(members, records, strict=True):
        alone = elsewhere(member, "alone")
        assert_same_scores(record, train(alone))
        assert_close(member, alone)
        assert read_record(folder(member) / RECORD) == record


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["grouped", "patches"])
def test_a_member_on_an_own_net_is_the_same_run_alone(config, lowering):
    """Strides, a nested stage, Dense layers, and losses of the net's own, of weights and of activations."""
    own = own_net(RESIDUAL_NET)
    shared = {"net": own.net, "net_source": own.net_source, "clip_ratio": None, "learning_rate": 0.02}
    shared |= UNEVEN if lowering == "grouped" else {}
    members = [
        config(seed=1, l1=1e-4, penalty_at=("hidden=0,0",), **shared),
        config(seed=0, l2=1e-2, penalty_at=("hidden=0,0", "conv2=1e-3,0"), **shared),
    ]
    records = train_population(members, width=2, lowering=lowering)
    assert [record.environment.population for record in records] == [2, 2]
    for member, record in zip(members, records, strict=True):
        alone = train(elsewhere(member, "alone"), tried=True)
        assert_same_scores(record, alone)
        assert [row.own_losses for row in record.history] == pytest.approx(
            [row.own_losses for row in alone.history], rel=1e-4
        )
        assert record.history[0].own_losses > 0
        assert_close(member, elsewhere(member, "alone"), 1e-4)


@pytest.fixture
def state_of_all(config):
    """Trains the first epoch of configs as one population of 4; returns each member's whole state."""

    def found(name, configs):
        paused = [replace(elsewhere(given, name), epochs=2, stop_after=1) for given in configs]
        records = train_population(paused, width=4)
        states = {}
        for given, record in zip(paused, records, strict=True):
            path = folder(given) / CHECKPOINT
            states[given.seed] = (checkpoint.load(path) if path.exists() else None), record
        return states

    return found


def assert_identical(state, other):
    for group in ("variables", "optimizer"):
        for mine, its in zip(getattr(state[0], group), getattr(other[0], group), strict=True):
            np.testing.assert_array_equal(mine, its)
    assert state[1].history[1].cross_entropy == other[1].history[1].cross_entropy
    assert state[1].history[1].val_cross_entropy == other[1].history[1].val_cross_entropy


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_members_do_not_touch_each_other(config, state_of_all):
    members = [config(seed=seed, l2=1e-3, clip_ratio=None) for seed in range(3)]
    base = state_of_all("base", members)
    with pytest.raises(AssertionError):  # two members differ, so the comparison can fail
        assert_identical(base[0], base[1])
    other = state_of_all("other", [members[0], replace(members[1], l2=0.5, learning_rate=0.5), members[2]])
    wild = state_of_all(
        "wild", [members[0], replace(members[1], learning_rate=1e3, initializer="he_normal", l2=1e3), members[2]]
    )
    # Where the first member filled the fourth place.
    padding = state_of_all("padding", [*members, replace(members[0], seed=3)])
    for changed in (other, wild, padding):
        assert_identical(base[0], changed[0])
        assert_identical(base[2], changed[2])
    assert_identical(base[1], padding[1])
    assert wild[1][1].status == "diverged"
    assert wild[1][1].message.startswith("diverged at step ")
    assert wild[1][0] is None  # nothing to go on from
    with pytest.raises(AssertionError):
        assert_identical(base[1], other[1])


@pytest.mark.slow
def test_a_diverged_member_ends_as_it_would_alone(config):
    wild = config(learning_rate=1e3, initializer="he_normal", clip_ratio=None, norm="none", seed=1, **UNEVEN)
    calm = config(clip_ratio=None, norm="none", seed=2, **UNEVEN)
    records = train_population([wild, calm], width=2)
    assert [record.status for record in records] == ["diverged", "finished"]
    alone = train(elsewhere(wild, "alone"))
    assert records[0].message.split(":")[0] == alone.message.split(":")[0]
    assert not (folder(wild) / CHECKPOINT).exists()
    assert read_record(folder(wild) / RECORD).status == "diverged"


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_a_member_that_gets_no_better_stops_and_the_others_go_on(config):
    """Rates near 0 do not get better; they stop after an epoch, and two, of the best, which is the first."""
    settings = {"norm": "ln", "dropout": 0.0, "schedule": "constant", "epochs": 4, "select": "validation", **UNEVEN}
    still = [config(seed=seed, learning_rate=1e-12, patience=seed, **settings) for seed in (1, 2)]
    going = config(learning_rate=0.05, **settings)
    records = train_population([*still, going], width=4)
    assert [record.environment.population for record in records] == [3, 3, 3]
    assert [record.stopped_epoch for record in records] == [2, 3, None]
    assert [len(record.history) for record in records] == [3, 4, 5]
    for member, record in zip([*still, going], records, strict=True):
        alone = elsewhere(member, "alone")
        assert_same_scores(record, train(alone))
        assert_close(member, alone)
    # Next to members that train to the end in their places: the same, bit for bit.
    others = [elsewhere(member, "others") for member in (*(replace(one, patience=None) for one in still), going)]
    train_population(others, width=4)
    assert_same(going, others[2])
    assert all(record.selected_epoch == 1 for record in records[:2])


@pytest.mark.slow
def test_survivors_are_stacked_again_with_their_optimizer(config):
    """Hyperband's way: three begin, two go on; and either way of training takes over what the other left."""
    whole = [config(seed=seed, l2=1e-3, epochs=2, select="validation") for seed in range(3)]
    train_population(whole, width=4)
    parts = [elsewhere(member, "parts") for member in whole]
    paused = train_population([replace(member, stop_after=1) for member in parts], width=4)
    assert [(record.status, record.test, record.openings) for record in paused] == [("running", None, ())] * 3
    records = train_population(parts[1:], width=4)
    train(parts[0])
    assert_close(parts[0], whole[0])
    for mine, its in zip(parts[1:], whole[1:], strict=True):
        assert_same(mine, its)
    assert {record.selected_epoch for record in records} <= {1, 2}
    assert [len(record.history) for record in records] == [3, 3]
    # Finished: the same command again trains nothing.
    before = (folder(parts[1]) / RECORD).read_bytes()
    assert train_population([parts[1]], width=4) == records[:1]
    assert (folder(parts[1]) / RECORD).read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_devices_lowering_and_steps_a_dispatch_change_nothing(config):
    assert len(jax.devices()) == 2
    # Not seed 0: there, other last bits of the weights alone can make a difference of 6e-5, in one way of training.
    both, single = [[config(name, seed=seed, **UNEVEN) for seed in (1, 2, 3)] for name in ("reports", "single")]
    # The second device alone: not the one on which runs are begun.
    ways = {"devices": None}, {"devices": jax.devices()[1:], "steps": 3, "lowering": "patches"}
    for configs, way in zip((both, single), ways, strict=True):
        runs = []
        for given in configs:
            folder(given).mkdir(parents=True)
            with on_the_host():
                runs.append(start_or_resume(given, folder(given))[0])
        trained = Population(runs, 0, width=4, **way)
        places = {shard.device for shard in trained.state.trainable[0].addressable_shards}
        assert len(places) == (1 if way["devices"] else 2)
        trained.train()
    for mine, its in zip(both, single, strict=True):
        assert_close(mine, its)


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_members_selected_by_test_accuracy_enter_every_look(config):
    given = [config(seed=seed, select="test", validation_size=64, epochs=2) for seed in range(2)]
    records = train_population(given, width=2)
    for member, record in zip(given, records, strict=True):
        alone = train(elsewhere(member, "alone"))
        assert [(look.epoch, look.purpose) for look in record.openings] == [
            (look.epoch, look.purpose) for look in alone.openings
        ]
        assert record.selected_epoch == alone.selected_epoch
        found, expected = record.test_last, alone.test_last
        assert [mistake.index for mistake in found.mistakes] == [mistake.index for mistake in expected.mistakes]
        assert found.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-4)
        assert_close(member, elsewhere(member, "alone"))


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_a_killed_population_keeps_every_look_and_the_best_weights(config, monkeypatch):
    given = [config(seed=seed, select="test", validation_size=64, epochs=4) for seed in range(2)]
    whole = [elsewhere(member, "whole") for member in given]
    expected = train_population(whole, width=2)
    saved, begun, save = [], Population._epoch, Trainer.save

    def noting(run, model):
        saved.append(run.reached.history[-1].epoch)
        save(run, model)

    def killed_in_the_last(self, epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        if epoch == 1:  # it is time
            self.saved = float("-inf")
        begun(self, epoch)

    monkeypatch.setattr(Trainer, "save", noting)
    monkeypatch.setattr(Population, "_epoch", killed_in_the_last)
    with pytest.raises(KeyboardInterrupt):
        train_population(given, width=2)
    assert saved == [2, 2]  # not after each epoch, and not as all ended
    notes = checkpoint.load(folder(given[0]) / CHECKPOINT).notes
    assert [look["epoch"] for look in notes["openings"]] == [1, 2]
    monkeypatch.setattr(Population, "_epoch", begun)
    records = train_population(given, width=2)
    for member, other, record, once in zip(given, whole, records, expected, strict=True):
        assert_same(member, other)
        assert (record.selected_epoch, record.test) == (once.selected_epoch, once.test)
        # Epoch 3 was looked at, which no checkpoint had, and again; epoch 4 may have been.
        looks = [look.epoch for look in record.openings if look.purpose == "selection"]
        assert looks == [1, 2, 3, 4, 3, 4]
        assert not (folder(member) / LOOKS).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_what_concerns_single_runs_is_done_by_the_processor(config, monkeypatch):
    found = []

    def noting(name):
        whole = getattr(Trainer, name)

        def noted(run, *arguments):
            found.append((name, jax.config.jax_default_device))
            return whole(run, *arguments)

        monkeypatch.setattr(Trainer, name, noted)

    for name in ("save", "final_look", "keep_selected", "scored"):
        noting(name)
    train_population([config(epochs=1, l1=1e-4)], width=2)
    assert {name for name, _ in found} == {"save", "final_look", "keep_selected", "scored"}
    assert {device for _, device in found} == {jax.local_devices(backend="cpu")[0]}


@pytest.mark.slow
def test_a_member_is_exported_and_answers_as_it_did(config, tmp_path):
    given = config(l1=1e-4, export=True, report=True, saved_models_dir=tmp_path / "models")
    (record,) = train_population([given], width=2)
    model = load_model(record, folder(given) / WEIGHTS)
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    asked = """
import sys, numpy, tensorflow
served = tensorflow.saved_model.load(sys.argv[1]).signatures["serving_default"]
print(served(image=tensorflow.constant(numpy.load(sys.argv[2])))["logits"].numpy().tolist())
"""
    told = subprocess.run(
        [sys.executable, "-c", asked, record.export.path, tmp_path / "images.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(json.loads(told.stdout), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5)
    page = (folder(given) / "report.html").read_text()
    assert "boxes" in page
    assert "side by side with" not in page  # it was alone, in a place of two


def test_a_penalty_that_is_not_in_the_loss_stops_the_population(config, monkeypatch):
    given = config(l2=0.1)
    folder(given).mkdir(parents=True)
    trained = Population([start_or_resume(given, folder(given))[0]], 0, width=1)
    trained.prove()
    trained.hyper = trained.hyper._replace(lambdas=trained.hyper.lambdas * 0)
    with pytest.raises(RuntimeError, match=r"A penalty must be in the loss as configured\. Received: .* in the loss"):
        trained.prove()


@pytest.mark.usefixtures("small_eva6")
def test_a_member_that_cannot_be_trained_is_told_and_the_others_are_trained(config):
    good, bad = config(), config(penalty_at=("conv99=1,1",))
    tracked = config(track="mlflow", seed=5)
    told = {}
    (record,) = train_population(
        [bad, good, tracked], width=2, failed=lambda failed, error: told.update({failed.run_id: str(error)})
    )
    assert (record.run_id, record.status) == (good.run_id, "finished")
    assert told[bad.run_id].startswith("--penalty-at takes a layer with a kernel. Received: 'conv99'")
    assert told[tracked.run_id].startswith(
        "A tracker follows one run. Received: track='mlflow' in a population. Remove it."
    )
    assert set(told) == {bad.run_id, tracked.run_id}
    with pytest.raises(UsageError, match="--penalty-at takes a layer with a kernel"):
        train_population([bad], width=2)


@pytest.mark.usefixtures("small_eva6")
def test_a_population_that_fails_leaves_the_others_and_what_has_ended(config, monkeypatch):
    configs = [config(seed=seed, train_size=32) for seed in range(3)]
    whole = Population.train

    def fail(self):
        if self.runs[0].config.seed == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return whole(self)

    monkeypatch.setattr(Population, "train", fail)
    found = train_members(Members(tuple(map(Job, configs)), 1))
    assert [(record.status if record else None, error) for record, error in found] == [
        ("finished", None),
        (None, "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"),
        ("finished", None),
    ]


@pytest.mark.usefixtures("small_eva6")
def test_a_member_that_cannot_be_measured_is_told_and_the_others_are_measured(config, monkeypatch):
    configs = [config(seed=seed, train_size=32) for seed in range(2)]
    save = Trainer.final_look

    def full(self):
        if self.config.seed == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self)

    monkeypatch.setattr(Trainer, "final_look", full)
    (bad, error), (good, none) = train_members(Members(tuple(map(Job, configs)), 2))
    assert (bad, error) == (None, "OSError: [Errno 28] No space left on device")
    assert (good.status, none) == ("finished", None)


@pytest.mark.usefixtures("small_eva6")
def test_a_run_that_pauses_keeps_its_test_split_shut_beside_one_that_does_not(config):
    records = train_population([config(train_size=32), config(train_size=32, seed=1, stop_after=1)], width=2)
    assert [(record.status, len(record.openings)) for record in records] == [("finished", 1), ("running", 0)]


@pytest.mark.usefixtures("small_eva6")
def test_a_run_that_two_arms_have_in_common_is_trained_once(config):
    twice = Members((Job(config(train_size=32)), Job(config(train_size=32))), 2)
    (one, _), (other, _) = train_members(twice)
    assert one == other
    assert one.environment.population == 1


def test_a_run_is_no_member_twice(config):
    with pytest.raises(UsageError, match=r"A population's members differ\. Received: .* twice"):
        train_population([config(), config()], width=2)


@pytest.mark.usefixtures("small_eva6")
def test_on_a_cpu_runs_go_one_after_another_unless_a_width_is_asked_for(config, monkeypatch):
    monkeypatch.setattr(groups, "Population", None)
    records = train_population([config(train_size=32, seed=seed) for seed in range(2)])
    assert [(record.status, record.environment.population) for record in records] == [("finished", 1)] * 2


class Cramped(Population):
    """On a device that has so many bytes."""

    room = 0
    _accelerated = True

    def _free(self):
        return self.room


@pytest.mark.slow
@pytest.mark.usefixtures("small_eva6")
def test_auto_takes_as_many_members_as_memory_allows_and_the_faster_lowering(config, monkeypatch, caplog):
    caplog.set_level("INFO", "kernorm")
    monkeypatch.setattr(grouping, "WIDTHS", (1, 2, 4))
    monkeypatch.setattr(capacity, "WIDTHS", (1, 2, 4))
    runs = []
    for given in (config(seed=seed, train_size=64) for seed in range(3)):
        folder(given).mkdir(parents=True)
        runs.append(start_or_resume(given, folder(given))[0])
    before = [state_of(run) for run in runs]

    def taken(room, devices=1, **settings):
        monkeypatch.setattr(Cramped, "room", room)
        found = Cramped(runs, 0, devices=jax.devices()[:devices], steps=1, **settings)
        told = caplog.text
        caplog.clear()
        return found, told

    ample, told = taken(1 << 40)
    assert (ample.count, ample.width) == (3, 4)
    assert "MiB a member" in told
    assert "milliseconds a step: grouped" in told
    assert ", patches" in told
    # Timing has left the members where they were.
    for run, state in zip(runs, before, strict=True):
        for mine, its in zip(sum(state_of(run), []), sum(state, []), strict=True):
            np.testing.assert_array_equal(mine, its)
    needs = ample.needs(ample.programs.lowering)
    assert needs.total == pytest.approx(needs.member * 4 + ample.programs.shared_bytes, abs=4)
    least, _ = taken(1, lowering="grouped")
    assert (least.count, least.width) == (1, 1)
    spread, _ = taken(1, lowering="grouped", devices=2)
    assert (spread.count, spread.width) == (2, 2)  # no narrower one is spread over two devices
    asked, _ = taken(1, lowering="grouped", width=3)
    assert (asked.count, asked.width) == (3, 3)
    cramped, told = taken(int(needs.total / SHARE_OF_MEMORY) - 1, lowering=ample.programs.lowering)
    assert (cramped.count, cramped.width) == (2, 2)
    assert "milliseconds" not in told  # there is nothing to choose
    record = next(iter(cramped.train().values()))
    assert (record.status, record.environment.population) == ("finished", 2)
