import base64
import dataclasses
import io
import re
import shlex

import numpy as np
import pytest
import tyro
from PIL import Image

from kernorm.config import TrainConfig
from kernorm.recipes import recipe, recipe_of_words
from kernorm.records.data import Duplicates
from kernorm.records.record import Elsewhere, Export, Opening, read_record, write_record
from kernorm.reporting import run_report
from kernorm.reporting.command import command
from kernorm.reporting.figures import PALETTE
from kernorm.reporting.format import duration, moment, percent, points
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.notices import notices
from kernorm.reporting.run_report import write_report
from kernorm.stats.intervals import wilson
from kernorm.stats.scores import resolution
from tests.builders import Page, leave_undrawn, make_evaluation, make_history, make_mistakes, make_record

NOTHING = {"history": (), "train": None, "validation": None, "test": None, "openings": (), "layers": (), "pruned": ()}


def write(record, folder):
    return Page(write_report(record, folder, make_mistakes(record)).read_text())


@pytest.fixture(scope="module")
def finished():
    return make_record(
        count=10_000,
        errors=61,
        labels=tuple("abcdefghij"),
        export=Export(path="saved_models/a run/1700000000", version=1_700_000_000, tree_sha256="ab" * 32),
    )


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_report(finished, folder, make_mistakes(finished))
    return folder


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def undrawn(monkeypatch):
    leave_undrawn(monkeypatch, run_report)


def test_headline_is_recomputed_from_the_record(finished, page):
    confusion = np.array(finished.test.confusion)
    right, count = confusion.trace(), confusion.sum()
    low, high = wilson(int(right), int(count))
    assert f"{100 * right / count:.2f} %" == "99.39 %"
    assert "99.39 % test accuracy" in page.text
    assert f"95 % interval {100 * low:.2f} % to {100 * high:.2f} %, n = 10,000" in page.text
    for words in (
        finished.run_id,
        "Errors 61 of 10,000 test",
        "Parameters 7,288",
        "Epochs 8 epoch 8 kept",
        "Time 1 min 52 s CPU 3 min 32 s",
    ):
        assert words in page.text


def test_scores_of_every_split_are_the_records(finished, page):
    for split in (finished.train, finished.validation, finished.test):
        row = page.row(split.split, f"{split.count:,}")
        assert row[2:5] == [
            str(split.errors),
            f"{100 * split.accuracy:.2f} %",
            f"{100 * split.interval[0]:.2f} % – {100 * split.interval[1]:.2f} %",
        ]
        recalls = np.array(split.confusion).diagonal() / np.array(split.confusion).sum(axis=1)
        assert row[6] == f"{100 * recalls.mean():.2f} %"
        assert row[8] == f"{100 * recalls.min():.2f} % {'abcdefghij'[recalls.argmin()]}"
        assert row[9:] == [f"{value:.4f}" for value in (split.cross_entropy, split.brier, split.ece)]
    gap = 100 * (finished.train.accuracy - finished.test.accuracy)
    assert f"training less test accuracy: {gap:+.2f} pp" in page.text


def test_history_shows_every_epoch(finished, page):
    for epoch in finished.history[1:]:
        start = f"{epoch.epoch} (kept)" if epoch.epoch == 8 else str(epoch.epoch)
        row = page.row(start, f"{epoch.loss:.4g}")
        assert row[2:8] == [
            f"{epoch.cross_entropy:.4g}",
            "0",
            f"{epoch.l2_penalty:.4g}",
            f"{100 * epoch.accuracy:.2f} %",
            f"{epoch.val_cross_entropy:.4g}",
            f"{100 * epoch.val_accuracy:.2f} %",
        ]
    assert page.row("0", "–")[2:6] == ["–", "0", "0.5", "–"]


def test_classes_and_confusions_are_counted(finished, page):
    confusion = np.array(finished.test.confusion)
    for label, name in enumerate("abcdefghij"):
        total = confusion[label].sum()
        row = page.row(name, f"{total:,}")
        assert row[2:4] == [str(total - confusion[label, label]), f"{100 * confusion[label, label] / total:.1f} %"]
        wrong = [index for index in np.argsort(-confusion[label], kind="stable") if index != label]
        first = next(index for index in wrong if confusion[label, index])
        assert row[5].startswith("abcdefghij"[first])
    off = confusion - np.diag(confusion.diagonal())
    target, prediction = np.unravel_index(off.argmax(), off.shape)
    assert (
        page.row("abcdefghij"[target], "abcdefghij"[prediction], str(off.max()))[3] == f"{100 * off.max() / 61:.0f} %"
    )


def test_misclassified_grid_holds_the_images_themselves(finished, page):
    assert "Misclassified: 25 of 61" in page.text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 25
    for attributes, image, mistake in zip(images, make_mistakes(finished), drawn_mistakes(finished.test), strict=True):
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image[..., 0])
        target, prediction = ("abcdefghij"[label] for label in (mistake.target, mistake.prediction))
        assert attributes["alt"] == f"Test image {mistake.index}: {target}, taken for {prediction}"
    sure = sum(mistake.confidence > 0.9 for mistake in finished.test.mistakes)
    assert 0 < sure < 61
    assert f"{sure} of the 61 mistakes were made with more than 90 % confidence" in page.text
    last = finished.test.mistakes[-1]
    assert page.row(str(last.index), "abcdefghij"[last.target])[3] == f"{100 * last.confidence:.1f} %"


def test_layers_and_pruning_are_the_records(finished, page):
    assert page.row("conv2") == [
        *("conv2", "Conv2D", "N×26×26×8", "576", "", "", "0", "0.01", "2.500"),
        *("0.0 %", "0.0 %", "25.0 %"),
    ]
    assert page.row("norm1")[4:6] == ["ln over H,W,C", "1"]
    whole = finished.validation.accuracy
    change = f"{100 * (0.95 - whole):+.2f} pp".replace("-", "−")
    assert page.row("|w| < 0.001") == ["|w| < 0.001", "73", "1.0 %", "95.00 %", change]
    assert page.row("none", "0") == ["none", "0", "0.0 %", f"{100 * whole:.2f} %", ""]
    assert "Kernel weights of the selected epoch set to 0, validation split" in page.text


def test_a_column_of_groups_only_where_there_are_groups(finished, tmp_path, undrawn):
    layers = [dataclasses.replace(layer, groups=None) for layer in finished.layers]
    page = write(make_record(**NOTHING | {"layers": tuple(layers)}), tmp_path)
    assert "Groups" not in page.text
    assert page.row("conv2")[4:8] == ["", "0", "0.01", "2.500"]


def test_the_head_names_groups_and_recipe(tmp_path, undrawn):
    record = make_record(config=recipe("eva6", norm="gn", groups=2, l1=1e-5), **NOTHING)
    assert "norm gn, groups 2 · recipe eva6 · λ1 1e-5 · λ2" in write(record, tmp_path).text


def test_page_stands_alone(html, page):
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object")]
    assert not [attributes for tag, attributes in page.tags if tag == "script" and "src" in attributes]
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_are_unique_and_links_arrive(page):
    assert len(page.ids) == len(set(page.ids))
    targets = [value[1:] for _, attributes in page.tags if (value := attributes.get("href") or "").startswith("#")]
    assert len(targets) >= 8
    assert set(targets) <= set(page.ids)


def test_page_can_be_read_aloud(page):
    assert [attributes["lang"] for tag, attributes in page.tags if tag == "html"] == ["en"]
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert all(
        attributes["role"] == "img" and attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"
    )
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert [tag for tag, _ in page.tags].count("h1") == 1


def luminance(colour):
    parts = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_contrast_in_both_themes(html):
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    )
    assert light.items() >= PALETTE.items()
    assert set(dark) == set(light)
    for theme in (light, dark):
        for text in ("ink", "muted", "blue", "orange", "green", "purple", "gold", "pink", "teal", "red"):
            assert contrast(theme[text], theme["paper"]) >= 4.5, (text, theme)
        assert contrast(theme["muted"], theme["page"]) >= 4.5
        assert contrast(theme["ink"], theme["heat"]) >= 4.5
        assert contrast(theme["muted"], theme["grid"]) >= 4.5


def test_files_beside_the_page_are_whole(folder):
    names = {"curves", "misclassified", "confusion", "reliability", "classes", "weights"}
    assert {path.name for path in folder.iterdir()} == {"report.html", *(f"{name}.png" for name in names)}
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            image.verify()


def test_same_record_gives_the_same_page(finished, folder, html, tmp_path):
    write_record(finished, tmp_path / "record.json")
    again = write_report(read_record(tmp_path / "record.json"), tmp_path, make_mistakes(finished))
    assert again.read_text() == html
    assert (tmp_path / "curves.png").read_bytes() == (folder / "curves.png").read_bytes()


def test_export_says_how_to_serve(page):
    text = page.text
    assert "--model_base_path=\"$(realpath 'saved_models/a run')\"" in text
    assert "ab" * 32 in text


def test_labels_and_messages_are_escaped(tmp_path, undrawn):
    evil = "<script>alert('x')</script>"
    record = make_record(
        classes=2,
        labels=("<b>", 'a & "b"'),
        status="failed",
        message=evil,
        export=Export(reason=evil),
        config=TrainConfig(reports_dir="<i>x</i>"),
    )
    path = write_report(record, tmp_path, make_mistakes(record))
    page = Page(path.read_text())
    assert [tag for tag, _ in page.tags if tag in ("script", "b>", "i>")] == ["script"] * 2  # its own
    assert evil in page.text
    assert page.row("<b>", 'a & "b"')[2]
    assert "No SavedModel was exported: " + evil in page.text
    assert any(attributes.get("alt", "").endswith('<b>, taken for a & "b"') for _, attributes in page.tags)


def test_diverged_run_says_so_and_draws_what_there_is(tmp_path):
    message = "The loss was not finite at step 412."
    record = make_record(
        status="diverged",
        message=message,
        history=make_history(1),
        selected_epoch=None,
        train=None,
        validation=None,
        test=None,
        openings=(),
        layers=(),
        pruned=(),
    )
    page = write(record, tmp_path)
    assert f"Training diverged After 1 of 8 epochs: {message}" in page.text
    assert "no test accuracy: the test split was not scored" in page.text
    assert "The test split was not opened" in page.text
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "curves.png"}
    assert not {"mistakes", "classes", "layers", "export"} & set(page.ids)


def test_running_and_empty_records_give_a_page(tmp_path):
    values = NOTHING | {"history": make_history(3), "config": TrainConfig(ema=0.99, label_smoothing=0.1)}
    text = write(make_record(status="running", selected_epoch=None, **values), tmp_path).text
    assert "in inference mode, with the moving average of its weights. The loss is of smoothed targets;" in text
    assert "The run is not finished After 3 of 8 epochs" in text
    text = write(make_record(status="failed", selected_epoch=None, **NOTHING), tmp_path).text
    assert "The run failed After 0 of 8 epochs: no message was left." in text


def test_smallest_run_one_epoch_two_classes_no_validation_no_mistake(tmp_path, undrawn):
    history = make_history(1, watched=False)[1:]
    record = make_record(classes=2, errors=0, epochs=1, history=history, monitored="none", validation=None, pruned=())
    page = write(record, tmp_path)
    assert "100.0 % test accuracy" in page.text
    assert "Not one of 1,000 test images was misclassified." in page.text
    assert "no split was watched during training" in page.text
    assert "Epochs 1 epoch 1 kept" in page.text
    assert page.row("1 (kept)", "0.55")[3:6] == ["0", "0.25", "90.00 %"]
    assert [page.row(label, "500")[2:4] for label in "01"] == [["0", "100.0 %"]] * 2
    assert not [row for row in page.rows if row and row[0] == "validation"]
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_many_classes_and_coloured_images(tmp_path, undrawn):
    record = make_record(classes=47, errors=300, count=2000)
    record = dataclasses.replace(record, data=dataclasses.replace(record.data, image_shape=(32, 32, 3)))
    images = make_mistakes(record, channels=3, side=32)
    page = Page(write_report(record, tmp_path, images).read_text())
    confusion = np.array(record.test.confusion)
    for label in range(47):
        total = confusion[label].sum()
        assert page.row(str(label), str(total))[2] == str(total - confusion[label, label])
    assert "Misclassified: 25 of 300" in page.text
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in sources]
    np.testing.assert_array_equal(decoded, images)
    assert not [attributes for _, attributes in page.tags if "ink" in attributes.get("class", "").split()]


def test_the_cpu_time_of_a_member_of_a_population_says_what_it_leaves_out(tmp_path, undrawn):
    alone = make_record()
    member = dataclasses.replace(alone, environment=dataclasses.replace(alone.environment, population=8))
    for record in (alone, member):
        text = " ".join(write(record, tmp_path).text.split())
        assert ("CPU time, its share of a population, accelerators not counted" in text) == (record is member)


def test_without_pictures_no_image_is_on_the_page_or_in_the_folder(tmp_path, undrawn):
    record = make_record()
    record = dataclasses.replace(record, config=dataclasses.replace(record.config, pictures=False))
    page = Page(write_report(record, tmp_path, make_mistakes(record)[:0]).read_text())
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "Without pictures ( --no-pictures )." in page.text
    assert "All 37 mistakes" in page.text
    assert not (tmp_path / "misclassified.png").exists()
    with pytest.raises(ValueError, match="Received: 25 images for 0 mistakes"):
        write_report(record, tmp_path, make_mistakes(record))


def test_only_strokes_on_black_are_drawn_as_ink(tmp_path, undrawn):
    record = make_record()
    own = dataclasses.replace(record, data=dataclasses.replace(record.data, name="photos@0123456789ab"))
    for one in (record, own):
        page = Page(write_report(one, tmp_path, make_mistakes(one)).read_text())
        inked = [attributes for _, attributes in page.tags if "ink" in attributes.get("class", "").split()]
        assert bool(inked) == (one is record)


@pytest.mark.parametrize("shown", [0, 24, 26])
def test_refuses_images_that_do_not_fit_the_mistakes(shown, tmp_path):
    with pytest.raises(
        ValueError, match=f"an image for each mistake that is drawn.*Received: {shown} images for 25 mistakes"
    ):
        write_report(make_record(), tmp_path, np.zeros((shown, 28, 28, 1), np.uint8))
    assert list(tmp_path.iterdir()) == []


def verdict(title, **changes):
    (found,) = [verdict for verdict in notices(make_record(**changes)) if title in verdict.title]
    return found


def config(**values):
    return TrainConfig(norm="ln", **values)


def test_verdict_on_selection():
    assert verdict("No split selected").kind == "good"
    found = verdict("validation split selected", config=config(select="validation"), selected_epoch=6)
    assert (found.kind, found.text[:54]) == ("good", "Epoch 6 of 8 was kept, the best on 1,000 validation im")
    found = verdict("test split selected", config=config(select="test"), monitored="test", selected_epoch=6)
    assert found.kind == "warning"
    assert "Epoch 6 of 8 was kept: the best on the test split itself" in found.text
    assert verdict("test split was watched", monitored="test").kind == "warning"


def test_early_stopping_is_said_with_its_reason():
    stopped = make_record(
        config=config(patience=2, min_delta=0.001, schedule="constant", epochs=30), stopped_epoch=8, selected_epoch=6
    )
    (text,) = [found.text for found in notices(stopped) if "selected the weights" in found.title]
    assert text.startswith(
        "Epoch 6 of 30 was kept, the best on 1,000 validation images. Training stopped after epoch 8: 2 in a row were "
        "not better by more than 0.1 points (--patience). The validation score"
    )


def test_verdict_on_openings():
    once = verdict("opened once")
    assert (once.kind, once.text) == ("good", "For: final evaluation, after epoch 8 (2026-03-01 10:02:00 UTC).")
    looks = [Opening(time=f"2026-03-01T10:0{n}:00Z", epoch=n, purpose="selection") for n in range(1, 5)]
    often = verdict("opened 4 times", openings=tuple(looks))
    assert often.kind == "warning"
    assert often.text == (
        "For: selection. First after epoch 1 (2026-03-01 10:01:00 UTC), last after epoch 4 (2026-03-01 10:04:00 UTC)."
    )
    assert verdict("not opened", openings=()).text == "Its 1,000 images are still unseen."


@pytest.mark.parametrize(
    ("counts", "kind", "title"),
    [
        ((0, 0, 0), "good", "No image stands in the set twice"),
        ((7, 0, 0), "warning", "Some images stand in their split more than once"),
        ((0, 2, 0), "warning", "Some images stand in their split more than once"),
        ((7, 2, 1234), "warning", "1,234 test images stand in training too"),
    ],
)
def test_verdict_on_duplicates(counts, kind, title):
    train, test, across = counts
    data = dataclasses.replace(make_record().data, duplicates=Duplicates(train=train, test=test, across=across))
    found = verdict(title, data=data)
    assert found.kind == kind
    assert found.text == (
        f"In {data.name}, by exact pixels: {across:,} test images also in training, {train} repeated in training, "
        f"{test} in test."
    )
    assert not [notice for notice in notices(make_record()) if "exact pixels" in notice.text]  # of before


def test_classes_that_were_never_predicted_are_named():
    """Two of three classes with images; a fourth has none, which is no fault of the net."""
    record = make_record()
    labels = ("ant", "bee", "cat", "dog")
    confusion = ((8, 0, 0, 0), (4, 0, 0, 0), (3, 0, 1, 0), (0, 0, 0, 0))
    changes = {
        "data": dataclasses.replace(record.data, labels=labels),
        "test": dataclasses.replace(record.test, confusion=confusion),
    }
    found = verdict("1 of 3 classes was never predicted", **changes)
    assert (found.kind, found.text) == ("bad", "bee. The balanced accuracy, the mean over classes, is 41.7 %.")
    assert not [notice for notice in notices(record) if "never predicted" in notice.title]


@pytest.mark.parametrize(
    ("l2", "proof", "kind", "title"),
    [
        (0.01, (0.5, 0.5), "good", "The penalty was on before the first step"),
        (0.01, (0.0, 0.5), "bad", "The penalty was not applied"),
        (0.01, (0.25, 0.5), "bad", "The penalty is not what was asked for"),
        (0.01, (float("nan"), 0.5), "bad", "The penalty is not what was asked for"),
        (0.01, None, "warning", "The penalty is on, but unchecked"),
        (0.0, (0.0, 0.0), "note", "The penalty is off"),
        (0.0, (0.1, 0.0), "bad", "The penalty is not what was asked for"),
        (0.0, None, "note", "The penalty is off"),
    ],
)
def test_verdict_on_the_penalty(l2, proof, kind, title):
    found = verdict("penalty", config=config(l2=l2), penalty_proof=proof, layers=())
    assert (found.kind, found.title) == (kind, title)
    if proof and (l2 or proof[0]):
        words = "Before the first step, the loss of one batch held a penalty of"
        assert f"λ2 = {l2:g} on every kernel. {words} {proof[0]:g};" in found.text


@pytest.mark.parametrize(
    ("last", "kind", "title"),
    [
        ((0.25, 0.25), "good", "The penalty was on before the first step and after the last epoch"),
        ((0.0, 0.25), "bad", "The penalty is not what was asked for"),
    ],
)
def test_verdict_on_the_penalty_after_the_last_epoch(last, kind, title):
    found = verdict("penalty", config=config(l2=0.01), penalty_proof=(0.5, 0.5), penalty_proof_last=last, layers=())
    assert (found.kind, found.title) == (kind, title)
    assert f"After the last epoch they are {last[0]:g} and {last[1]:g}." in found.text


def test_a_test_accuracy_above_that_of_validation_is_explained_on_mnist():
    """37 errors in 1,000 of each split: here test is 1 point better."""
    better = {"test": make_evaluation("test", errors=27)}
    found = verdict("easier", **better)
    assert (found.kind, found.title) == ("note", "MNIST's test split is the easier one")
    assert found.text.startswith("Test accuracy is 1.00 points above validation accuracy")
    data = dataclasses.replace(make_record().data, name="fashion_mnist")
    assert not [one for one in notices(make_record(**better, data=data)) if "easier" in one.title]
    assert not [one for one in notices(make_record()) if "easier" in one.title]


def test_penalty_of_a_single_layer_counts_as_on():
    found = verdict("penalty", config=config(penalty_at=("conv1=0,0.01",)), penalty_proof=(0.5, 0.5))
    assert (found.kind, found.title) == ("good", "The penalty was on before the first step")
    assert "other values in single layers: conv1=0,0.01" in found.text


def test_verdict_on_what_one_run_can_tell():
    scores = make_evaluation(count=10_000, errors=60)
    found = verdict("One run", test=scores)
    assert f"must differ by more than {100 * resolution(0.994, 10_000):.2f} pp" in found.text.replace("\xa0", " ")


def test_what_stands_between_backticks_is_code_and_escaped(finished, html, tmp_path):
    assert "Another seed (<code>--seed 1</code>) moves the result too" in html
    page = write(make_record(status="failed", message="`<b>` and `", **NOTHING), tmp_path)
    assert "<b> and `" in page.text


def test_most_serious_verdict_comes_first():
    kinds = [found.kind for found in notices(make_record(status="diverged", penalty_proof=None))]
    assert kinds == ["bad", "warning", "good", "note"]
    kinds = [found.kind for found in notices(make_record(status="running", penalty_proof=(0.0, 0.5)))]
    assert kinds == ["bad", "warning", "good", "good", "note"]


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(norm="gn", groups=2, l1=1e-5, batch_size=17, nesterov=False, norm_at=("conv1=none", "conv6=ln")),
        TrainConfig(penalty_at=("conv1=0,0.001",), train_size=500, manual_dir="a b's", standardize_kernels=True),
        recipe("eva4"),
        recipe("eva6", dropout=0.0, nesterov=True, select="last", seed=3),
        recipe("eva4", base_momentum=None),
    ],
)
def test_command_gives_the_config_back(config):
    words = shlex.split(command(config))
    assert words[:3] == ["python", "-m", "kernorm.train"]
    parsed = tyro.cli(TrainConfig, args=words[3:], default=recipe_of_words(words[3:]))
    assert parsed.identity == config.identity
    assert str(parsed.manual_dir) == str(config.manual_dir)


def test_command_names_only_what_differs_and_the_backend():
    assert command(TrainConfig(norm="ln", l2=0.0066)) == "python -m kernorm.train --norm ln --l2 0.0066"
    assert command(TrainConfig(), "jax") == "KERAS_BACKEND=jax python -m kernorm.train"


def test_settings_that_differ_come_first(page):
    differing = [row for row in page.rows if len(row) == 3 and row[0] in ("norm", "l2", "epochs")]
    assert differing == [["norm", "ln", "bn"], ["l2", "0.01", "0"]]
    assert "Settings that differ from the defaults: 2" in page.text
    settings = len(dataclasses.fields(TrainConfig)) - 2  # an own net, whose text has its own place
    assert f"All {settings} settings" in page.text


@pytest.mark.parametrize(
    ("value", "count", "shown"),
    [
        (0.99394, 10_000, "99.39 %"),
        (0.99394, 1000, "99.4 %"),
        (0.99394, 100, "99 %"),
        (0.5, 1, "50 %"),
        (1.0, 10_000, "100.00 %"),
        (0.99999, 60_000, ">99.99 %"),
        (0.999, 100, ">99 %"),
        (0.0, 0, "0 %"),
    ],
)
def test_percent_has_no_more_digits_than_the_count(value, count, shown):
    assert percent(value, count) == shown.replace(" ", "\xa0")


def test_points_durations_and_moments():
    assert [points(value, 10_000) for value in (0.0012, -0.0012)] == ["+0.12\xa0pp", "−0.12\xa0pp"]
    assert points(0.012, 100) == "+1\xa0pp"
    assert [points(value, 10_000) for value in (0.0, 4e-5, -4e-5)] == ["0.00\xa0pp"] * 3
    times = [duration(seconds).replace("\xa0", " ") for seconds in (0.44, 9.94, 9.96, 59.6, 112.4, 3600, 7265)]
    assert times == ["0.4 s", "9.9 s", "10 s", "1 min 0 s", "1 min 52 s", "1 h 0 min", "2 h 1 min"]
    assert moment("2026-03-01T12:00:00+02:00") == moment("2026-03-01T10:00:00") == "2026-03-01 10:00:00 UTC"
    assert moment("yesterday") == "yesterday"


def test_a_run_that_was_moved_says_where_its_first_epochs_were_trained(finished, page, tmp_path, monkeypatch):
    leave_undrawn(monkeypatch, run_report)
    assert "were trained with" not in page.text
    card = dataclasses.replace(finished.environment, backend="jax", device="NVIDIA H200", precision="default")
    text = write(dataclasses.replace(finished, elsewhere=(Elsewhere(last=11, environment=card),)), tmp_path).text
    told = "Epochs up to 11 were trained with jax on NVIDIA H200, precision of products default"
    assert told in " ".join(text.split())


@pytest.mark.parametrize(("population", "words"), [(1, None), (2, "side by side with 1 other;"), (5, "with 4 others;")])
def test_a_member_of_a_population_says_so(finished, page, tmp_path, monkeypatch, population, words):
    leave_undrawn(monkeypatch, run_report)
    assert "side by side" not in page.text
    record = dataclasses.replace(finished, environment=dataclasses.replace(finished.environment, population=population))
    text = write(record, tmp_path).text
    assert words in text if words else "side by side" not in text
