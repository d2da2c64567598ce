import io
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kernorm.records.record import Epoch
from kernorm.reporting.charts import charts
from kernorm.reporting.figures import PALETTE, to_png, to_svg
from kernorm.reporting.format import name_of, share
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.page import picture
from kernorm.stats.intervals import wilson
from kernorm.stats.scores import evaluate
from tests.builders import drawn, lines_of, make_history, make_mistakes, make_record

XLINK = "{http://www.w3.org/1999/xlink}href"


def panels_of(record):
    return {panel.name: panel for group in charts(record, make_mistakes(record)).values() for panel in group}


def test_curves_show_the_history():
    record = make_record()
    for name, train, watched in (
        ("cross-entropy", "cross_entropy", "val_cross_entropy"),
        ("accuracy", "accuracy", "val_accuracy"),
    ):
        lines = lines_of(drawn(panels_of(record)[name]).axes[0])
        expected = [(row.epoch, getattr(row, train)) for row in record.history[1:]]
        np.testing.assert_array_equal(lines["training, augmented"].get_xydata(), expected)
        np.testing.assert_array_equal(
            lines["validation"].get_xydata(), [(row.epoch, getattr(row, watched)) for row in record.history]
        )


def test_test_accuracy_stands_in_the_curve_with_its_interval():
    record = make_record(selected_epoch=6)
    axes = drawn(panels_of(record)["accuracy"]).axes[0]
    bar, point = [line for line in axes.get_lines() if line.get_color() == PALETTE["green"]]
    assert point.get_xydata().tolist() == [[6, record.test.accuracy]]
    np.testing.assert_allclose(bar.get_ydata(), record.test.interval, atol=1e-12)


def test_accuracies_near_100_percent_are_told_apart():
    rows = make_history(12)  # training from 90 to 99.17 %, validation from 95 to 99.58 %
    axes = drawn(panels_of(make_record(history=rows, count=10_000, errors=60))["accuracy"]).axes[0]
    low, high = (axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1] for y in (0.985, 0.995))
    assert 0 < low < high < 1
    assert high - low > 0.25
    assert axes.get_ylim()[0] > 0.85  # row 0, which is chance, does not take the axis
    shown = [float(label.get_text()) for label in axes.get_yticklabels()]
    np.testing.assert_allclose(axes.get_yticks(), np.array(shown) / 100)
    assert len(shown) >= 4


def test_watching_the_test_split_is_said_in_the_legend():
    labels = lines_of(drawn(panels_of(make_record(monitored="test"))["accuracy"]).axes[0])
    assert set(labels) == {"training, augmented", "test (used for selection)"}


def test_without_validation_there_is_one_line():
    record = make_record(monitored="none", history=make_history(watched=False)[1:], validation=None)
    assert set(lines_of(drawn(panels_of(record)["cross-entropy"]).axes[0])) == {"training, augmented"}


def test_penalties_are_those_of_the_history_and_off_is_said():
    record = make_record()
    lines = lines_of(drawn(panels_of(record)["penalties"]).axes[0])
    assert list(lines) == ["λ2·Σw²"]
    assert drawn(panels_of(record)["penalties"]).axes[0].get_title("right") == "λ1·Σ|w| = 0"
    np.testing.assert_array_equal(lines["λ2·Σw²"].get_ydata(), [row.l2_penalty for row in record.history])
    axes = drawn(panels_of(make_record(history=make_history(l2=0.0)))["penalties"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["off: every λ is 0"]
    assert axes.get_title("right") == ""
    assert not axes.get_lines()


def test_what_is_not_finite_is_marked_and_left_out():
    rows = (*make_history(3), Epoch(epoch=4, l1_penalty=0.0, l2_penalty=0.1, cross_entropy=float("nan"), accuracy=0.1))
    axes = drawn(panels_of(make_record(history=rows, selected_epoch=None))["cross-entropy"]).axes[0]
    assert lines_of(axes)["training, augmented"].get_xdata().tolist() == [1, 2, 3]
    assert [text.get_text() for text in axes.texts] == ["not finite "]
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == [4]


def test_an_earlier_epoch_that_was_kept_is_marked():
    axes = drawn(panels_of(make_record(selected_epoch=5))["cross-entropy"]).axes[0]
    assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == [("kept ", 5)]


@pytest.mark.parametrize("rows", [make_history(1), make_history(0), make_history(1, watched=False)[:1]])
def test_short_histories_are_drawn(rows):
    record = make_record(history=rows, selected_epoch=None, test=None, validation=None, layers=(), status="diverged")
    for panel in panels_of(record).values():
        low, high = drawn(panel).axes[0].get_xlim()
        assert low < 0 < 1 < high


def test_confusion_writes_every_count_and_pales_the_diagonal():
    record = make_record()
    axes = drawn(panels_of(record)["confusion"]).axes[0]
    cells = {text.get_position()[::-1]: (int(text.get_text()), text.get_color()) for text in axes.texts}
    counts = np.array(record.test.confusion)
    assert {place: count for place, (count, _) in cells.items()} == {
        (target, prediction): counts[target, prediction] for target, prediction in np.argwhere(counts)
    }
    for (target, prediction), (_, colour) in cells.items():
        assert colour == PALETTE["muted" if target == prediction else "ink"]


def test_reliability_shows_each_bin_with_its_interval():
    record = make_record()
    upper, lower = drawn(panels_of(record)["reliability"]).axes
    filled = [bin_ for bin_ in record.test.bins if bin_.count]
    points = [line.get_xydata()[0].tolist() for line in upper.get_lines() if line.get_marker() == "o"]
    assert points == [[bin_.confidence, bin_.accuracy] for bin_ in filled]
    dots = [line for line in upper.get_lines() if line.get_marker() == "o"]
    hollow = [line.get_markerfacecolor() == PALETTE["paper"] for line in dots]
    assert hollow == [bin_.count < 10 for bin_ in filled]
    assert len(set(hollow)) == 2
    ends = [line.get_ydata() for line in upper.get_lines() if line.get_marker() != "o"][1:]
    expected = [wilson(round(bin_.accuracy * bin_.count), bin_.count) for bin_ in filled]
    np.testing.assert_allclose(ends, expected)
    assert [bar.get_height() for bar in lower.patches] == [bin_.count for bin_ in record.test.bins]
    assert upper.get_title("left") == (
        f"ECE {record.test.ece:.4f} · NLL {record.test.cross_entropy:.4f} · Brier {record.test.brier:.4f}"
    )


def test_classes_show_accuracy_and_interval_and_skip_the_unseen():
    scores = evaluate(np.eye(4, dtype=np.float32)[[0, 1, 3, 3]] * 9, np.array([0, 1, 1, 3]), "test")
    panel = {
        panel.name: panel for panel in charts(make_record(test=scores), np.zeros((1, 8, 8, 1), np.uint8))["classes"]
    }
    axes = drawn(panel["classes"]).axes[0]
    points = [line.get_xydata()[0].tolist() for line in axes.get_lines() if line.get_marker() == "o"]
    assert points == [[100, 0], [50, 1], [100, 3]]
    bars = [line.get_xydata() for line in axes.get_lines() if line.get_marker() != "o"][1:]
    np.testing.assert_allclose(bars[1], [[100 * wilson(1, 2)[0], 1], [100 * wilson(1, 2)[1], 1]])


def test_weights_show_the_share_at_each_threshold():
    axes = drawn(panels_of(make_record())["weights"]).axes[0]
    shares = {label: line.get_xdata().tolist() for label, line in lines_of(axes).items()}
    assert shares == {"|w| < 0.01": [50.0, 25.0], "|w| < 0.001": [12.5, 0.0], "|w| < 0.0001": [0.0, 0.0]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1", "conv2"]


def test_misclassified_names_target_prediction_confidence_and_all_mistakes():
    record = make_record(labels=tuple("abcdefghij"))
    panel = panels_of(record)["misclassified"]
    assert panel.title == "Misclassified: 25 of 37"
    axes = drawn(panel).axes[0]
    assert len(axes.images) == 25
    np.testing.assert_array_equal(axes.images[3].get_array(), make_mistakes(record)[3, ..., 0])
    mistake = drawn_mistakes(record.test)[3]
    assert axes.texts[3].get_text() == (
        f"{'abcdefghij'[mistake.target]} → {'abcdefghij'[mistake.prediction]}\n{100 * mistake.confidence:.1f} %"
    )


def test_no_mistake_is_said():
    panel = panels_of(make_record(errors=0))["misclassified"]
    assert panel.title == "Misclassified: 0 of 0"
    assert drawn(panel).axes[0].texts[0].get_text() == "No mistake on 1,000 images"


def test_charts_are_those_the_record_has_data_for():
    names = ["curves", "misclassified", "confusion", "reliability", "classes", "weights"]
    assert list(charts(make_record(), make_mistakes(make_record()))) == names
    diverged = make_record(
        status="diverged", test=None, validation=None, train=None, layers=(), history=make_history(1)
    )
    assert list(charts(diverged, make_mistakes(diverged))) == ["curves"]
    nothing = make_record(status="failed", test=None, validation=None, layers=(), history=())
    assert charts(nothing, make_mistakes(nothing)) == {}
    unopened = charts(make_record(test=None), np.zeros((0, 28, 28, 1), np.uint8))
    assert unopened["confusion"][0].title == "Confusion on the validation split"
    assert "misclassified" not in unopened


@pytest.mark.parametrize("classes", [2, 10, 47])
def test_svgs_are_whole_and_themed(classes):
    names = set()
    for panel in panels_of(make_record(classes=classes, errors=30)).values():
        text = to_svg(panel)
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert root.get("aria-label") == f"{panel.title}. {panel.description}"
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        assert not names & set(ids)
        names |= set(ids)
        links = {element.get(XLINK) for element in root.iter() if element.get(XLINK)}
        assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
        assert all(link.startswith(("#", "data:image/png")) for link in links)
        assert "var(--muted)" in text or "var(--ink)" in text
        assert "DejaVu" not in text
        assert not [colour for colour in PALETTE.values() if colour in text]


def test_the_same_record_gives_the_same_svg_and_labels_stay_text():
    first, second = (to_svg(panels_of(make_record())["cross-entropy"]) for _ in range(2))
    assert first == second
    words = ["".join(element.itertext()).strip() for element in ElementTree.fromstring(first).iter()]
    assert {"epoch", "cross-entropy, nats", "training, augmented", "validation"} <= set(words)


@pytest.mark.parametrize("classes", [2, 47])
def test_pngs_have_a_sensible_size_and_something_on_them(classes):
    record = make_record(classes=classes, errors=30)
    for name, panels in charts(record, make_mistakes(record)).items():
        with Image.open(io.BytesIO(to_png(panels, record.run_id))) as image:
            assert 600 <= image.width <= 2400, name
            assert 300 <= image.height <= 2400, name
            pixels = np.asarray(image.convert("L"))
        assert (pixels == 255).mean() > 0.2, name
        assert pixels.min() < 60, name


def test_words_and_pixels():
    assert [name_of(1, ("a", "b")), name_of(2, ("a", "b"))] == ["b", "2"]
    assert [share(value) for value in (0.4321, 0.99949, 0.9999, 1.0)] == ["43.2 %", "99.9 %", ">99.9 %", "100.0 %"]
    assert picture(np.zeros((4, 5, 1), np.uint8)).shape == (4, 5)
    assert picture(np.zeros((4, 5, 3), np.uint8)).shape == (4, 5, 3)
    assert picture(np.zeros((4, 5, 2), np.uint8)).shape == (4, 5)


def test_class_names_of_any_letters_are_drawn_in_silence():
    record = make_record(errors=30)
    record = replace(record, data=replace(record.data, labels=tuple(f"{name}$" for name in "猫犬鳥魚馬牛羊豚鶏象")))
    for panels in charts(record, make_mistakes(record)).values():
        assert len(to_png(panels, record.run_id)) > 1000
    assert "猫$" in to_svg(panels_of(record)["classes"])
