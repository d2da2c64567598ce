import io
import itertools
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kernorm.config import TrainConfig
from kernorm.records.record import Watched
from kernorm.reporting.figures import LOOKS, PALETTE, interval, plain, to_png, to_svg
from kernorm.studies.loading import load_study
from kernorm.studies.report.arms import Curve, compared_groups, readable
from kernorm.studies.report.axes import axis_of
from kernorm.studies.report.batch_sizes import batch_lines
from kernorm.studies.report.charts import charts
from kernorm.studies.report.mistakes import grids_of, misclassified
from kernorm.studies.summary import LastEpoch
from kernorm.studies.wording import signed
from tests.builders import a_study, arm_named, arms_from, drawn, lines_of, make_record, some_results

ARMS = {
    "bn": TrainConfig(epochs=6),
    "gn": TrainConfig(epochs=6, norm="gn"),
    "ln": TrainConfig(epochs=6, norm="ln", l2=0.01),
}
# How many test images each seed gets wrong.
ERRORS = {"bn": (20, 22, 25), "gn": (20, 25, 24), "ln": (31, 34, 38)}


def panels_from(arms):
    return {panel.name: panel for group in charts(arms).values() for panel in group}


@pytest.fixture(scope="module")
def arms():
    study = a_study(ARMS)
    return arms_from(study, some_results(study))


@pytest.fixture(scope="module")
def panels(arms):
    return panels_from(arms)


def history_of(arm, field):
    """The values of every run, (runs, epochs from 1)."""
    return np.array([[getattr(row, field) for row in record.history[1:]] for record in arm.records.values()])


@pytest.mark.parametrize(
    ("name", "field"),
    [("val-accuracy", "val_accuracy"), ("val-cross-entropy", "val_cross_entropy"), ("accuracy", "accuracy")],
)
def test_curves_are_means_with_a_band_of_one_deviation(arms, panels, name, field):
    axes = drawn(panels[name]).axes[0]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    found = {line.get_color(): line.get_ydata() for line in lines}
    bands = {tuple(band.get_facecolor()[0][:3]): band for band in axes.collections}
    assert len(found) == len(bands) == 3
    for arm in arms:
        values = history_of(arm, field)
        colour = PALETTE[arm.look.colour]
        np.testing.assert_allclose(found[colour], values.mean(0))
        edges = bands[tuple(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))].get_paths()[0].vertices
        for epoch in (1, 6):
            at = np.sort(np.unique(edges[edges[:, 0] == epoch, 1]))
            expected = values.mean(0)[epoch - 1] + np.array([-1, 1]) * values.std(0, ddof=1)[epoch - 1]
            np.testing.assert_allclose(at, expected)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["bn (baseline)", "gn", "ln"]


def test_small_multiples_show_an_arm_beside_its_baseline_in_grey(arms, panels):
    assert [panels[f"accuracy-{place}"].title for place in range(3)] == ["bn", "gn", "ln"]
    lines = {line.get_color(): line.get_ydata() for line in drawn(panels["accuracy-1"]).axes[0].get_lines()}
    np.testing.assert_allclose(lines[PALETTE["muted"]], history_of(arms[0], "val_accuracy").mean(0))
    solid, dashed = (
        next(
            line
            for line in drawn(panels["accuracy-1"]).axes[0].get_lines()
            if line.get_color() == PALETTE[arms[1].look.colour] and (line.get_linestyle() == "--") == dash
        )
        for dash in (False, True)
    )
    np.testing.assert_allclose(solid.get_ydata(), history_of(arms[1], "val_accuracy").mean(0))
    np.testing.assert_allclose(dashed.get_ydata(), history_of(arms[1], "accuracy").mean(0))


def unwatched(results, arm):
    """The same results, where the runs of an arm had no validation split."""
    found = dict(results)
    for name, one in results.items():
        if one.arm == arm:
            rows = tuple(replace(row, val_accuracy=None, val_cross_entropy=None) for row in one.record.history)
            found[name] = replace(one, record=replace(one.record, history=rows))
    return found


@pytest.mark.parametrize("without", ["gn", "bn"])
def test_an_arm_without_a_validation_split_is_shown_by_its_training_alone(without):
    """Next to the training of its baseline; and a baseline without one stands beside no arm that has one."""
    study = a_study(
        {name: replace(config, validation_size=0) if name == without else config for name, config in ARMS.items()}
    )
    arms = arms_from(study, unwatched(some_results(study), without))
    axes = drawn(panels_from(arms)["accuracy-1"]).axes[0]
    lines = [(line.get_color(), line.get_linestyle(), line.get_ydata()) for line in axes.get_lines()]
    mine = PALETTE[arms[1].look.colour]
    if without == "gn":
        assert [line[:2] for line in lines] == [(PALETTE["muted"], "--"), (mine, "--")]
        for (_, _, found), arm in zip(lines, arms, strict=False):
            np.testing.assert_allclose(found, history_of(arm, "accuracy").mean(0))
        assert axes.get_title("right") == "training alone"
    else:
        assert sorted(line[:2] for line in lines) == sorted([(mine, "-"), (mine, "--")])
        assert axes.get_title("right") == ""
        assert drawn(panels_from(arms)["accuracy-0"]).axes[0].get_title("right") == "training alone"


def test_a_bad_arm_leaves_the_axes_of_the_good_ones_and_is_named():
    study = a_study(ARMS)
    bad = panels_from(arms_from(study, some_results(study, ERRORS | {"gn": (450, 460, 470)})))
    axes = drawn(bad["val-accuracy"]).axes[0]
    assert axes.get_ylim()[0] > 0.8
    assert [text.get_text() for text in axes.texts] == ["▾ gn 49.3 %"]
    axes = drawn(bad["val-cross-entropy"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["▴ gn 1.52"]
    assert drawn(bad["accuracy-1"]).axes[0].get_title("right") == "axis of its own"
    assert drawn(bad["accuracy-2"]).axes[0].get_title("right") == ""
    axes = drawn(bad["difference-accuracy"]).axes[0]
    assert [text.get_text().partition(" [")[0] for text in axes.texts] == ["◂ −43.77"]
    assert axes.get_xlim()[0] > -10
    assert [text.get_text() for text in drawn(bad["seeds-accuracy"]).axes[0].texts] == ["◂ 54"]


def test_who_sets_an_axis():
    assert readable({"a": 0.006, "b": 0.02, "c": 0.24, "d": np.nan}) == {"a", "b"}
    assert readable({"a": 0.04, "b": 0.015, "c": 0.007}) == {"a", "b", "c"}
    assert readable({"a": 0.0, "b": 0.0, "c": 0.1}) == {"a", "b", "c"}
    assert readable({"a": 0.0, "b": 0.01, "c": 0.5}) == {"a", "b"}
    assert readable({}) == set()


@pytest.mark.parametrize("errors", [(0, 150, 0), (0, 0, 0), (450, 460, 470)])
def test_no_axis_of_seeds_goes_beyond_a_perfect_score_or_hides_a_run_that_it_reaches(errors):
    study = a_study(ARMS)
    found = arms_from(study, some_results(study, ERRORS | {"bn": (0, 0, 0), "ln": (0, 0, 0), "gn": errors}))
    axes = drawn(panels_from(found)["seeds-accuracy"]).axes[0]
    low, high = axes.get_xlim()
    assert high < 100 + (high - low) / 10
    assert all(tick <= 100 for tick in axes.get_xticks() if tick <= high)
    gn = next(row for row, arm in enumerate(found) if arm.name == "gn")
    inside = [accuracy for accuracy in (100 - wrong / 10 for wrong in errors) if low <= accuracy <= high]
    shown = [
        float(value)
        for line in axes.get_lines()
        if line.get_label() == "seeds"
        for value, place in line.get_xydata()
        if abs(place - gn) < 0.3 and low <= value <= high
    ]
    assert shown == pytest.approx(inside)


@pytest.mark.parametrize(("metric", "factor"), [("accuracy", 100), ("cross_entropy", 1)])
def test_forest_shows_differences_and_intervals(arms, panels, metric, factor):
    axes = drawn(panels[f"difference-{metric.replace('_', '-')}"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gn", "ln"]
    by_label = {}
    for line in axes.get_lines():
        by_label.setdefault(line.get_label(), []).append(line)
    for row, arm in enumerate(arms[1:]):
        comparison = arm.summary.comparisons[metric]
        np.testing.assert_allclose(by_label["difference"][row].get_xydata(), [[factor * comparison.difference, row]])
        np.testing.assert_allclose(by_label["interval"][row].get_xdata(), factor * np.array(comparison.interval))
        if metric == "accuracy":
            new = arm.summary.generalization_difference
            np.testing.assert_allclose(by_label["new images"][row].get_xdata(), factor * np.array(new))
    spans = [patch.get_x() for patch in axes.patches]
    assert spans == (pytest.approx([-0.05]) if metric == "accuracy" else [])
    sides = [axes.get_title(side) for side in ("left", "right")]
    assert sides == (["← worse", "better →"] if metric == "accuracy" else ["← better", "worse →"])


def test_forest_marks_verdicts_by_form_and_colour(arms, panels):
    ln = arm_named(arms, "ln")
    assert ln.summary.verdict.name == "worse"
    assert arm_named(arms, "gn").summary.verdict.name == "not resolved"
    marks = [
        line for line in drawn(panels["difference-accuracy"]).axes[0].get_lines() if line.get_label() == "difference"
    ]
    assert [(mark.get_marker(), mark.get_color()) for mark in marks] == [
        ("o", PALETTE["muted"]),
        ("v", PALETTE["orange"]),
    ]
    assert marks[0].get_markerfacecolor() == PALETTE["paper"]
    assert marks[1].get_markerfacecolor() == PALETTE["orange"]


def test_a_difference_on_these_images_alone_is_hollow(arms):
    verdict = replace(arm_named(arms, "ln").summary.verdict, name="worse on these images")
    alone = [replace(arm, summary=replace(arm.summary, verdict=verdict)) if arm.name == "ln" else arm for arm in arms]
    (panel, _) = charts(alone)["differences"]
    marks = [line for line in drawn(panel).axes[0].get_lines() if line.get_label() == "difference"]
    assert (marks[1].get_marker(), marks[1].get_markerfacecolor()) == ("v", PALETTE["paper"])


def test_where_the_epoch_was_selected_on_test_the_differences_of_last_epochs_are_drawn(arms):
    """Their marks are the verdicts of the page, which are on the last epoch."""
    decided = {arm.name: arm.summary for arm in arms}

    def selected(arm):
        compared = arm.summary.comparisons.get("accuracy")
        last = LastEpoch(
            score=arm.summary.scores["accuracy"],
            gain=0.001,
            compared=compared,
            p_adjusted=arm.summary.p_adjusted,
            verdict=arm.summary.verdict,
        )
        flattered = compared and {**arm.summary.comparisons, "accuracy": replace(compared, difference=0.5)}
        return replace(arm, summary=replace(arm.summary, last=last, verdict=None, comparisons=flattered or {}))

    accuracy, entropy = charts([selected(arm) for arm in arms])["differences"]
    assert accuracy.title == "Differences in test accuracy, by the last epoch"
    assert entropy.title == "Differences in cross-entropy (NLL), as selected on test"
    lines = drawn(accuracy).axes[0].get_lines()
    marks = [line for line in lines if line.get_label() == "difference"]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx(
        [100 * decided[name].comparisons["accuracy"].difference for name in ("gn", "ln")]
    )
    assert [mark.get_marker() for mark in marks] == ["o", "v"]
    # The interval on new images is of the weights that were selected.
    assert "new images" not in {line.get_label() for line in lines}


def test_every_seed_is_a_point(arms, panels):
    axes = drawn(panels["seeds-accuracy"]).axes[0]
    points = [line.get_xdata() for line in axes.get_lines() if line.get_label() == "seeds"]
    np.testing.assert_allclose(points, [[100 - errors / 10 for errors in ERRORS[arm]] for arm in ARMS])
    means = [line.get_xdata()[0] for line in axes.get_lines() if line.get_label() == "mean"]
    np.testing.assert_allclose(means, [100 * arm.summary.scores["accuracy"].mean for arm in arms])


def test_penalties_show_zero_as_zero(arms, panels):
    assert [panel.title for panel in charts(arms)["penalties"]] == ["ln"]  # without a penalty there is nothing to see
    axes = drawn(panels["penalties-0"]).axes[0]
    lines = lines_of(axes)
    assert list(lines) == ["λ1·Σ|w| = 0", "λ2·Σw²: 0.5 → 0.0714"]
    expected = [row.l2_penalty for row in next(iter(arms[2].records.values())).history]
    np.testing.assert_allclose(lines["λ2·Σw²: 0.5 → 0.0714"].get_ydata(), expected)
    assert axes.get_ylim()[0] < 0
    assert 0 in axes.get_yticks()


def test_kernels_and_activations_are_what_was_watched(arms, panels):
    norms = drawn(panels["kernel-norm"]).axes[0]
    lines = {line.get_color(): line for line in norms.get_lines() if len(line.get_xdata())}
    np.testing.assert_allclose(lines[PALETTE["ink"]].get_ydata(), np.full(7, 7.1))
    near = drawn(panels["near-zero-001"]).axes[0]
    lines = {line.get_color(): line for line in near.get_lines() if len(line.get_xdata())}
    np.testing.assert_allclose(lines[PALETTE["ink"]].get_ydata(), 10 + np.arange(7))
    axes = drawn(panels["activations-0"]).axes[0]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in axes.get_lines()], [-3, -0.5, 0.4, 7.5])
    assert [text.get_text() for text in axes.texts] == ["1", "20", "80", "99"]


def test_the_norm_of_a_long_run_is_no_outlier_and_one_that_explodes_is():
    for last, top in ((405.0, 405), (1e6, 360)):
        curves = [Curve(np.arange(1, 9), np.full(8, norm), np.zeros(8), 5) for norm in (20.0, 124.0, 360.0, last)]
        axes = Figure().subplots()
        axis_of("kernel_norm").limit(axes, curves)
        assert top < axes.get_ylim()[1] < 1.1 * top


def test_rules_for_the_rate_are_found_from_the_arms():
    exponents = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
    study = a_study(
        {
            "-".join((norm, f"b{size}", *((rule,) if size != 128 else ()))): TrainConfig(
                norm=norm, batch_size=size, learning_rate=0.03 * (size / 128) ** exponent
            )
            for norm in ("bn", "gn", "ln")
            for size in (2**power for power in range(1, 10))
            for rule, exponent in exponents.items()
        }
    )
    lines = batch_lines(arms_from(study, {}))
    assert [(line.exponent, line.label) for line in lines] == [
        (exponent, norm) for norm in ("bn", "gn", "ln") for exponent in (0.0, 0.5, 1.0)
    ]
    for line in lines:
        assert [arm.summary.config.batch_size for arm in line.arms] == [2**power for power in range(1, 10)]
        assert {arm.name.rpartition("-")[2] for arm in line.arms} == {
            {0.0: "none", 0.5: "sqrt", 1.0: "linear"}[line.exponent],
            "b128",
        }
    lines = batch_lines(arms_from(load_study("batch_size"), {}))
    assert [(line.exponent, line.label) for line in lines] == [(0.5, norm) for norm in ("bn", "gn", "ln")]
    lines = batch_lines(arms_from(load_study("eva6"), {}))
    assert [(line.exponent, line.label, [arm.summary.config.batch_size for arm in line.arms]) for line in lines] == [
        (0.0, "gn, L1 and L2", [16, 32, 64]),
        (0.0, "ln, L2", [16, 32, 128]),
    ]
    assert batch_lines(arms_from(load_study("eva4"), {})) == []


def test_accuracy_against_batch_size():
    sizes = (8, 32, 128)
    study = a_study(
        {f"{norm}-{size}": TrainConfig(norm=norm, batch_size=size, epochs=2) for norm in ("bn", "ln") for size in sizes}
    )
    errors = {f"{norm}-{size}": (20 + size // 8, 22 + size // 8) for norm in ("bn", "ln") for size in sizes}
    arms = arms_from(study, some_results(study, errors | {"bn-8": (700, 710)}))
    (panel,) = charts(arms)["batch_size"]
    axes = drawn(panel).axes[0]
    lines = lines_of(axes)
    assert list(lines) == ["bn", "ln"]
    np.testing.assert_allclose(
        lines["ln"].get_ydata(), [arm_named(arms, f"ln-{size}").summary.scores["accuracy"].mean for size in sizes]
    )
    np.testing.assert_allclose(lines["ln"].get_xdata(), sizes, rtol=0.03)
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[0] > 0.9
    assert [text.get_text() for text in axes.texts] == ["▾ 29.50"]


def test_a_line_over_batch_sizes_has_the_colour_of_its_arms():
    study = load_study("eva6")
    arms = arms_from(study, some_results(study, dict.fromkeys(study.arms, (20, 22))))
    (panel,) = charts(arms)["batch_size"]
    lines = lines_of(drawn(panel).axes[0])
    assert {label: line.get_color() for label, line in lines.items()} == {
        "gn, L1 and L2": PALETTE[arm_named(arms, "gn").look.colour],
        "ln, L2": PALETTE[arm_named(arms, "ln-wd_2e-5").look.colour],
    }


def test_few_arms_have_a_colour_each_and_many_one_by_their_kind():
    study = a_study({f"arm {n}": TrainConfig(seed=100 * n) for n in range(len(LOOKS))})
    looks = [arm.look for arm in arms_from(study, {})]
    assert len({look.colour for look in looks}) == len(LOOKS)
    assert looks[0].colour == "ink"
    for name, kinds in (
        ("eva6", {"bn (baseline)", "norm bn", "norm gn", "norm ln"}),
        ("batch_size", {"norm bn", "norm gn", "norm ln"}),
        ("small_data", {"no penalty", "L1", "L2", "L1 and L2"}),
    ):
        arms = arms_from(load_study(name), {})
        assert {arm.look.label for arm in arms} == kinds
        assert len({(arm.look.label, arm.look.colour) for arm in arms}) == len(kinds) <= len(LOOKS)
    alike = a_study({f"arm {n}": TrainConfig(seed=100 * n) for n in range(9)})
    assert {arm.look.colour for arm in arms_from(alike, {})} == {"ink", "muted"}


@pytest.mark.parametrize("number", [8, 9])
def test_a_legend_is_true_for_every_line_or_arms_have_a_panel_each(number):
    study = a_study({f"arm {n}": TrainConfig(epochs=3, dropout=n / 100) for n in range(number)})
    found = charts(arms_from(study, some_results(study, {arm: (20, 22) for arm in study.arms})))
    assert ("curves" in found, "kernels" in found) == (number == 8,) * 2
    assert ("kernel_norms" in found, "near_zero" in found) == (number == 9,) * 2
    assert len(found["accuracy"]) == number
    for panel in (*found.get("curves", ()), *found.get("kernels", ())):
        axes = drawn(panel).axes[0]
        lines = {(line.get_color(), line.get_marker()): line for line in axes.get_lines()}
        assert len(lines) == len(axes.get_lines()) == number
        shown = axes.get_legend()
        for handle, text in zip(shown.legend_handles, shown.get_texts(), strict=True):
            line = lines[handle.get_color(), handle.get_marker()]
            assert text.get_text().partition(" (")[0] == f"arm {line.get_gid().removeprefix('arm')}"


def test_a_difference_beyond_the_axis_is_written_with_its_interval_and_a_cut_interval_is_marked(arms):
    study = a_study(ARMS)
    bad = arms_from(study, some_results(study, ERRORS | {"gn": (450, 460, 470)}))
    found = arm_named(bad, "gn").summary.comparisons["accuracy"]
    (panel, _) = charts(bad)["differences"]
    axes = drawn(panel).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        f"◂ {signed(found.difference)} [{signed(found.interval[0])}, {signed(found.interval[1])}]"
    ]
    # Its own interval is not drawn beneath the words.
    assert {line.get_gid() for line in axes.get_lines() if line.get_label() == "interval"} == {"arm2"}
    axes.set_xlim(-1, 1)
    interval(axes, (-3.0, 0.5), 0, color="red")
    line, arrow = axes.get_lines()[-2:]
    assert (list(line.get_xdata()), line.get_solid_capstyle()) == ([-1, 0.5], "butt")
    assert (list(arrow.get_xdata()), arrow.get_marker()) == ([-1], "<")


def test_labels_of_percentiles_keep_apart(arms):
    study = a_study({"bn": TrainConfig(epochs=2)})
    results = some_results(study, {"bn": (20, 21)})
    flat = Watched(layer="conv6", kernel_norm=1.0, near_zero=(0.0, 0.0, 0.0), activations=(-0.01, 0.0, 0.0, 0.01))
    wide = replace(flat, activations=(-10.0, -1.0, 1.0, 10.0))
    results = {
        name: replace(
            one,
            record=replace(
                one.record,
                history=tuple(replace(row, watched=flat if row.epoch else wide) for row in one.record.history),
            ),
        )
        for name, one in results.items()
    }
    (panel,) = charts(arms_from(study, results))["activations"]
    figure = drawn(panel)
    boxes = sorted(text.get_window_extent().extents[1::2].tolist() for text in figure.axes[0].texts)
    assert len(boxes) == 4
    assert all(low[1] <= high[0] + 2 for low, high in itertools.pairwise(boxes))


def test_a_panel_a_baseline_where_there_are_several():
    configs = {
        f"{size}-{norm}": TrainConfig(norm=norm, train_size=size, epochs=3)
        for size in (500, 1000)
        for norm in ("bn", "ln")
    }
    study = a_study(configs, baselines={arm: arm.replace("ln", "bn") for arm in configs})
    results = some_results(study, {arm: (20, 30) for arm in configs})
    arms = arms_from(study, results)
    assert [[arm.name for arm in group] for group in compared_groups(arms)] == [
        ["500-bn", "500-ln"],
        ["1000-bn", "1000-ln"],
    ]
    panels = charts(arms)["accuracy"]
    assert [panel.title for panel in panels] == ["500-bn", "1000-bn"]
    lines = lines_of(drawn(panels[1]).axes[0])
    for name in ("1000-bn", "1000-ln"):
        np.testing.assert_allclose(lines[name].get_ydata(), history_of(arm_named(arms, name), "val_accuracy").mean(0))
    mixed = arms_from(study, unwatched(results, "1000-ln"))
    lines = lines_of(drawn(charts(mixed)["accuracy"][1]).axes[0])
    assert list(lines) == ["1000-bn", "1000-ln (training)"]
    np.testing.assert_allclose(
        lines["1000-ln (training)"].get_ydata(), history_of(arm_named(mixed, "1000-ln"), "accuracy").mean(0)
    )


def test_without_a_watched_split_the_training_curves_are_left():
    study = a_study({"bn": TrainConfig(epochs=3, validation_size=0), "ln": TrainConfig(norm="ln", epochs=3)})
    results = some_results(study, {"bn": (20, 21), "ln": (22, 22)}, monitored="none")
    rows = {
        name: tuple(
            replace(row, val_accuracy=None, val_cross_entropy=None, watched=None) for row in result.record.history
        )
        for name, result in results.items()
    }
    results = {
        name: replace(result, record=replace(result.record, history=rows[name])) for name, result in results.items()
    }
    arms = arms_from(study, results)
    found = charts(arms)
    assert [panel.name for panel in found["curves"]] == ["accuracy", "cross-entropy"]
    assert not {"kernels", "activations"} & set(found)
    lines = drawn(found["accuracy"][1]).axes[0].get_lines()
    np.testing.assert_allclose(
        [line.get_ydata() for line in lines], [history_of(arm, "accuracy").mean(0) for arm in arms]
    )


def test_one_seed_and_none():
    study = a_study(ARMS)
    arms = arms_from(study, some_results(study, {"bn": (20,), "gn": (21,), "ln": (None,)}))
    found = charts(arms)
    assert "differences" not in found
    axes = drawn(found["seeds"][0]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bn", "gn"]
    assert not [line for line in axes.get_lines() if line.get_label() == "interval"]
    assert not drawn(found["curves"][0]).axes[0].collections
    assert charts(arms_from(study, {})) == {}


def test_hard_images_have_target_prediction_and_count(arms):
    hard = arms[0].summary.hard[:7]
    images = {image.index: np.full((28, 28, 1), image.index, np.uint8) for image in hard}
    axes = drawn(
        misclassified("bn", "odd", hard, images, replace(make_record().data, labels=tuple("abcdefghij")))
    ).axes[0]
    assert len(axes.images) == 7
    for shown, text, image in zip(axes.images, axes.texts, hard, strict=True):
        assert shown.get_array()[0, 0] == image.index
        names = ["abcdefghij"[label] for label in (image.target, image.prediction)]
        assert text.get_text() == f"{names[0]} → {names[1]}\n{image.wrong} of {image.runs}"


def test_collapsed_runs_do_not_say_which_images_are_hard():
    """A run that is right by chance alone has almost every image wrong."""
    study = a_study({name: replace(config, pictures=False) for name, config in ARMS.items()})
    whole, *_ = grids_of(arms_from(study, some_results(study)))
    assert (whole.arm, whole.runs, whole.left_out) == ("", 9, 0)
    assert dict(whole.wrong_in())["at least one run"] == 38
    found = some_results(study, ERRORS | {"ln": (31, 34, 940)})
    whole, *_ = grids_of(arms_from(study, found))
    assert (whole.runs, whole.left_out) == (8, 1)
    assert dict(whole.wrong_in()) == {
        "every run": 20,
        "at least three in four runs": 22,
        "at least half of the runs": 25,
        "at least one run": 34,
        "exactly one run": 3,
    }
    # Where no other run got an image wrong, they are all there is.
    whole, *_ = grids_of(arms_from(study, some_results(study, {"bn": (0, 0), "gn": (940, 950)})))
    assert (whole.arm, whole.runs, whole.left_out) == ("gn", 2, 0)


def test_names_are_drawn_letter_by_letter():
    assert plain("a" * 50, 11) == "aaaaa…aaaaa"
    assert (plain("a$b$"), plain("_x")) == (r"a\$b\$", "\xa0_x")
    names = ("<b>$x$", "_hidden", "a very long name indeed, which no chart has the room to write out")
    study = a_study(dict(zip(names, ARMS.values(), strict=True)))
    arms = arms_from(study, some_results(study, dict(zip(names, ERRORS.values(), strict=True))))
    found = charts(arms)
    for name in ("differences", "curves", "penalties"):
        assert ElementTree.fromstring(to_svg(found[name][0])).get("role") == "img"
    labels = [text.get_text() for text in drawn(found["curves"][0]).axes[0].get_legend().get_texts()]
    assert len(labels) == 3


def test_svgs_are_themed_and_pngs_are_of_a_sensible_size(arms):
    groups = charts(arms).values()
    names = [panel.name for group in groups for panel in group]
    assert len(names) == len(set(names))  # which their ids begin with
    text = to_svg(panels_from(arms)["val-accuracy"])
    assert "var(--blue)" in text
    assert not [colour for colour in PALETTE.values() if colour in text]
    group = charts(arms)["activations"]
    with Image.open(io.BytesIO(to_png(group, "a $caption", 3))) as image:
        assert 1000 <= image.width <= 2000
        assert np.asarray(image.convert("L")).min() < 60
