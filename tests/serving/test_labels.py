"""Labels, pins and rollbacks of push, as a server takes them: the twin of TF Serving reads what push writes."""

import re
import shutil
import time

import pytest

from kernorm.push import PROG, PushConfig, main
from kernorm.saved_model.versions import versions
from kernorm.serving import registry
from kernorm.serving.registry import CONFIG, Registry
from kernorm.system.cli import run
from tests.builders import SHOWN
from tests.serving_twin import Twin
from tests.twin_models import Failed, Models

V1, V2 = 1001, 1002
PIN = "model_config_list {{ config {{ name: 'kernorm' base_path: '/models/kernorm' {} }} }}"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two published versions, of the repository's model, which is blessed."""
    monkeypatch.setattr(registry, "SETTLED_SECONDS", 3600.0)
    for number in (V1, V2):
        shutil.copytree(SHOWN, tmp_path / "kernorm" / str(number))
    Registry(tmp_path).pin(None)
    return tmp_path


@pytest.fixture
def models(root):
    """The models of a server that runs, with README's flag."""
    return Models(config=root / CONFIG, root=root, allow=True)


@pytest.fixture
def twin(models):
    """A server that reads models.config again whenever it is asked for the state of a version."""
    with Twin(models=models) as server:
        server.asked = models.poll
        yield server


@pytest.fixture
def pushed(root, capsys):
    def push(*words, code=0):
        argv = [*map(str, words), "--saved-models-dir", str(root)]
        assert run(PushConfig, main, prog=PROG, argv=argv) == code
        told = capsys.readouterr()
        return told.out + told.err

    return push


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.setattr(registry, "SETTLED_SECONDS", -1.0)


def newest(root):
    return versions(root / "kernorm")[-1]


def label(models, name):
    return models.resolve("kernorm", label=name)


@pytest.mark.parametrize("interface", ["grpc", "rest"])
def test_a_label_on_a_version_that_is_not_loaded_comes_in_two_writes(models, twin, pushed, interface):
    assert list(models.versions) == [V2]
    told = pushed("--label", f"stable={V1}", "--wait", getattr(twin, interface))
    models.poll()
    assert (models.log, label(models, "stable"), models.resolve("kernorm")) == ([], V1, V2)
    assert f"requests without a version go to {V2}, the newest; labels: stable is {V1}" in told


@pytest.mark.parametrize("allow", [True, False])
def test_without_a_server_to_ask_the_label_waits_and_push_says_what_to_run(root, pushed, allow, monkeypatch):
    models = Models(config=root / CONFIG, root=root, allow=allow)
    told = pushed("--label", f"stable={V1}", code=1)
    assert f"run: python -m kernorm.push --label stable={V1} --saved-models-dir {root} --model kernorm" in told
    assert "the label is not written yet" in pushed("--label", f"stable={V1}", code=1)  # too soon
    assert Registry(root).served().labels == {}
    models.poll()
    assert (models.log, sorted(models.versions)) == ([], [V1, V2])
    monkeypatch.setattr(registry, "SETTLED_SECONDS", -1.0)
    pushed("--label", f"stable={V1}")
    models.poll()
    assert (models.log, label(models, "stable")) == ([], V1)


def test_a_rollback_moves_labels_once_the_version_before_is_loaded(models, twin, pushed):
    pushed("--label", f"stable={V2}", "--wait", twin.grpc)
    models.poll()
    told = pushed("--rollback", "--wait", twin.grpc)
    assert f"requests without a version go to {V1} (stable), pinned; labels: stable is {V1}" in told
    assert "is gone" not in told
    models.poll()
    assert (models.log, list(models.versions), label(models, "stable")) == ([], [V1], V1)


def test_a_rollback_without_a_server_to_ask_takes_two_steps(root, models, twin, pushed, monkeypatch):
    pushed("--label", f"stable={V2}", "--wait", twin.grpc)
    models.poll()
    for _ in range(2):  # the second is too soon
        assert f"run: python -m kernorm.push --rollback --saved-models-dir {root}" in pushed("--rollback", code=1)
        models.poll()
        assert (label(models, "stable"), models.resolve("kernorm"), len(models.versions)) == (V2, V2, 2)
    monkeypatch.setattr(registry, "SETTLED_SECONDS", -1.0)
    pushed("--rollback")
    models.poll()
    assert (models.log, list(models.versions), label(models, "stable")) == ([], [V1], V1)


def test_a_rollback_to_a_version_with_a_label_is_one_write(models, twin, pushed):
    for words in (f"stable={V2}", f"old={V1}"):
        pushed("--label", words, "--wait", twin.grpc)
        models.poll()
    pushed("--rollback")
    models.poll()
    assert (models.log, list(models.versions), models.labels) == ([], [V1], {"stable": V1, "old": V1})


def test_a_rollback_that_no_server_loads_is_taken_back(root, models, twin, pushed, monkeypatch):
    pushed("--label", f"stable={V2}", "--wait", twin.rest)
    before = Registry(root).served()
    twin.asked = lambda: None
    monkeypatch.setattr("kernorm.serving.status.LOAD_SECONDS", 0.0)
    pushed("--rollback", "--wait", twin.rest, code=2)
    assert Registry(root).served() == before


def test_a_label_keeps_its_version_loaded_when_another_is_pushed(models, twin, pushed, root):
    pushed("--label", f"stable={V2}", "--wait", twin.rest)
    models.poll()
    pushed(SHOWN)
    models.scan()  # the server looks at the folder before it reads the file
    assert label(models, "stable") == V2
    models.poll()
    assert (models.log, label(models, "stable"), models.resolve("kernorm")) == ([], V2, newest(root))
    pushed(SHOWN)
    models.poll()
    assert sorted(models.versions) == [V2, newest(root)]  # the one in between is needed no more


def test_stable_and_canary_at_once_and_push_says_where_requests_go(models, twin, pushed, root):
    for words in (f"stable={V1}", f"canary={V2}"):
        told = pushed("--label", words, "--wait", twin.grpc)
        models.poll()
    assert f"requests without a version go to {V2} (canary), the newest; labels: canary is {V2}, stable is" in told
    assert (label(models, "stable"), label(models, "canary"), models.resolve("kernorm")) == (V1, V2, V2)
    assert f"the label canary of {V2} is gone" in pushed("--pin", V1)
    models.poll()
    assert (models.log, sorted(models.versions)) == ([], [V1])
    told = pushed(SHOWN)
    assert f"{newest(root)} is published and not served; --pin latest serves it" in told
    models.poll()
    assert models.resolve("kernorm") == V1
    pushed("--pin", "latest")
    models.poll()
    assert (models.log, label(models, "stable"), models.resolve("kernorm")) == ([], V1, newest(root))


@pytest.mark.parametrize("words", [("--pin", V1), ("--rollback",)])
def test_a_version_above_the_pinned_one_gets_no_label_that_would_make_it_the_default(root, pushed, settled, words):
    pushed(*words)
    told = pushed("--label", f"canary={V2}", code=2)
    assert f"Received: canary={V2}, with {V1} pinned. Pin {V2} or latest, or label a version below." in told
    assert Registry(root).served().listed == {V1}
    pushed("--label", f"stable={V1}")


def test_a_label_that_waits_is_shown_kept_by_a_push_and_taken_back(root, models, pushed):
    pushed("--label", f"stable={V1}", code=1)
    assert pushed("--list").splitlines()[1].endswith("  loaded, stable (not written yet)")
    pushed("--label", f"canary={V2}", code=1)  # the newest, which a push unloads unless a label waits for it
    pushed(SHOWN)
    assert Registry(root).served().listed == {V1, V2, newest(root)}
    pushed("--unlabel", "stable")
    pushed("--unlabel", "canary")
    assert Registry(root).served().listed == {newest(root)}
    assert "Received: 'stable'. Known: ." in pushed("--unlabel", "stable", code=2)


def test_a_pin_keeps_no_higher_version_loaded(models, twin, pushed, root):
    pushed("--label", f"canary={V2}", "--wait", twin.grpc)
    assert f"the label canary of {V2} is gone" in pushed("--pin", V1)
    models.poll()
    assert (models.log, models.resolve("kernorm"), models.labels) == ([], V1, {})
    pushed(SHOWN)
    models.poll()
    assert models.resolve("kernorm") == V1
    told = pushed("--list").splitlines()
    assert [line.split()[0] for line in told[:3]] == [str(newest(root)), str(V2), str(V1)]
    assert told[2].endswith("  served")
    (root / "kernorm" / str(V1) / "saved_model.pb").write_bytes(b"edited")
    assert re.search(r"UNUSABLE: A model must .*  served$", pushed("--list").splitlines()[2])
    assert told[3] == f"requests without a version go to {V1}, pinned"


def test_a_label_moves_in_one_write_where_its_new_version_is_loaded(models, twin, pushed, settled):
    pushed("--label", f"stable={V1}", "--wait", twin.grpc)
    models.poll()
    pushed("--label", f"stable={V2}")
    models.poll()
    assert (models.log, label(models, "stable"), sorted(models.versions)) == ([], V2, [V2])


@pytest.mark.parametrize("policy", ["", f"model_version_policy {{ specific {{ versions: {V2} }} }}"])
def test_a_file_that_a_server_refuses_is_shown_and_repaired(root, pushed, policy):
    """As push wrote it before: a label on a version that is not loaded."""
    (root / CONFIG).write_text(PIN.format(f"{policy} version_labels {{ key: 'stable' value: {V1} }}"))
    with pytest.raises(Failed, match="which is not currently available for inference"):
        Models(config=root / CONFIG, root=root)
    told = pushed("--list").splitlines()
    assert told[0].endswith("  served")
    assert told[1].endswith("  stable (refused)")
    assert told[3].startswith(f"label stable is on {V1}, which is not loaded: a server refuses models.config for it")
    assert f"the label stable of {V1} is gone" in pushed("--pin", V2)
    assert list(Models(config=root / CONFIG, root=root).versions) == [V2]


def test_policies_written_by_hand_are_read_and_kept(root, pushed):
    (root / CONFIG).write_text(PIN.format("model_version_policy { all {} }"))
    assert [line.rpartition("  ")[2] for line in pushed("--list").splitlines()[:2]] == ["served", "loaded"]
    before = (root / CONFIG).read_text()
    pushed(SHOWN)
    assert (root / CONFIG).read_text() == before
    (root / CONFIG).write_text(PIN.format("model_version_policy { latest { num_versions: 2 } }"))
    assert [line.rpartition("  ")[2] for line in pushed("--list").splitlines()[:3]][:2] == ["served", "loaded"]


def test_all_versions_stay_loaded_with_labels_where_somebody_wrote_so(root, pushed, settled):
    (root / CONFIG).write_text(PIN.format("model_version_policy { all {} }"))
    pushed("--label", f"stable={V1}")
    pushed(SHOWN)
    models = Models(config=root / CONFIG, root=root, allow=True)
    assert (sorted(models.versions), models.labels) == ([V1, V2, newest(root)], {"stable": V1})
    pushed("--unlabel", "stable")
    models.poll()
    assert (models.log, sorted(models.versions)) == ([], [V1, V2, newest(root)])
    pushed("--pin", V1)
    models.poll()
    assert list(models.versions) == [V1]


def test_comments_of_others_are_kept_in_the_file_as_it_was(root, pushed):
    kept = root / "serving_config" / "models.config.before"
    pushed("--pin", V1)
    assert not kept.exists()  # push's own
    text = PIN.format('version_labels { key: "#1" value: 1001 }') + "  # ask Ann's team\n"
    (root / CONFIG).write_text(text)
    told = pushed("--pin", V2)
    assert f"the comments of {root / CONFIG} are dropped; the file as it was is {kept}\n" in told
    assert kept.read_text() == text
    (root / CONFIG).write_text(PIN.format('version_labels { key: "#1" value: 1001 }'))
    assert "comments" not in pushed("--pin", V1)


def test_a_config_of_another_kind_is_refused_and_stays(root, pushed):
    text = "custom_model_config { type_url: 'mine' }"
    (root / CONFIG).write_text(text)
    assert "models.config must list models. Received: " in pushed("--pin", V1, code=2)
    assert (root / CONFIG).read_text() == text


def test_a_version_whose_push_was_killed_before_models_config_was_written_is_named(root, pushed, settled):
    pushed("--label", f"stable={V2}")
    shutil.copytree(SHOWN, root / "kernorm" / "1003")
    left = root / "serving_config" / ".models.config.99999999.tmp"
    left.touch()
    told = pushed("--list").splitlines()
    assert told[3].startswith(f"requests without a version go to {V2} (stable), not the newest")
    assert told[4] == "1003 is published and not served yet; --pin latest serves it"
    pushed("--pin", "latest")
    assert not left.exists()
    assert pushed("--list").splitlines()[3].startswith("requests without a version go to 1003, the newest")


def test_a_model_that_models_config_does_not_name_is_not_served(root, pushed, settled):
    (root / CONFIG).write_text(PIN.format("").replace("'kernorm'", "'other'"))
    told = pushed("--list").splitlines()
    assert not told[0].endswith("served")
    assert told[2] == "models.config does not name kernorm, so no server serves it; --pin latest adds it"
    pushed("--label", f"stable={V2}", code=1)  # no server can have it yet
    assert Registry(root).served().labels == {}
    pushed("--label", f"stable={V2}")
    assert Registry(root).served().labels == {"stable": V2}


def test_a_label_that_is_there_is_given_again_at_once(root, models, twin, pushed):
    pushed("--label", f"stable={V2}", "--wait", twin.rest)
    before = (root / CONFIG).read_text()
    pushed("--label", f"stable={V2}")
    assert (root / CONFIG).read_text() == before


def test_a_damaged_note_counts_as_none(root, pushed):
    text = (root / CONFIG).read_text()
    for note in ("[]", "{", '{"kernorm": 1}', '{"kernorm": {"since": 1}}', '{"kernorm": {"pending": 1}}'):
        (root / CONFIG).write_text(f"# kernorm.push: {note}\n{text}")
        assert f"requests without a version go to {V2}, the newest" in pushed("--list")


def test_a_server_that_does_not_load_the_version_gets_no_label(root, models, twin, pushed):
    (root / "kernorm" / str(V1) / "saved_model.pb").rename(root / "moved.pb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kernorm.serving.checks.verify_integrity", lambda path: None)
        told = pushed("--label", f"stable={V1}", "--wait", twin.grpc, code=2)
    assert f"error: A server must load version {V1} of kernorm. Received: {twin.grpc}, which does not load it: " in told
    assert "Could not find SavedModel .pb" in told
    assert f"requests without a version go to {V2}, the newest" in told
    assert Registry(root).served().listed == {V2}  # for the label alone it was listed
    models.poll()
    assert (models.log, models.labels, models.resolve("kernorm")) == ([], {}, V2)


def test_a_server_that_reads_another_file_is_not_waited_for_without_end(root, twin, pushed, monkeypatch):
    twin.asked = lambda: None
    monkeypatch.setattr("kernorm.serving.status.LOAD_SECONDS", 0.0)
    told = pushed("--label", f"stable={V1}", "--wait", twin.rest, code=2)
    assert "0 s later: no such version. Does it read this models.config? See its log." in told
    served = Registry(root).served()
    assert (served.listed, served.pending) == ({V2}, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unlabel", "stabel"], "--unlabel takes a label. Received: 'stabel'. Did you mean 'stable'? Known: stable."),
        (["--list", "--wait", "a:1"], "--wait goes with --label or --rollback. Received: list. Remove"),
        (["--list", "--allow-other-data"], "--allow-other-data goes with a model to push. Received: list. Remove it."),
        (["--label", f"a/b={V1}"], "--label takes a name of A-Z, a-z, 0-9, '.', '_' and '-' that begins with no '.'. "),
        (["--label", f"x={V1}", "--wait", "nowhere"], "--wait takes the address of a TF Serving. Received: nowhere."),
    ],
)
def test_refuses_in_one_line(root, pushed, settled, words, message):
    pushed("--label", f"stable={V2}")
    assert message in pushed(*words, code=2)


def test_since_when_a_version_is_listed_is_noted(root):
    before = time.time()
    Registry(root).pin(V1)
    served = Registry(root).served()
    assert (served.base, served.follows) == (V1, False)
    assert served.since[V1] >= before
