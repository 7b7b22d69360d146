"""The contents of the pictures, by their artists and data."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lsmooth.metrics import classwise_calibration_error, consistency_band
from lsmooth.plots import (
    RED,
    classwise_reliability_diagrams,
    confidence_histogram,
    reliability_diagram,
    reliability_diagrams,
    risk_coverage,
)

# Confidences 0.3 (right), 0.7 (right, wrong), 0.9 (right): bins of a tenth.
PROBABILITIES = np.array([[0.3, 0.25, 0.25, 0.2], [0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.9, 0.0, 0.0]])
LABELS = np.array([0, 0, 3, 1])


def axes():
    return Figure().subplots()


def heights(ax, color):
    """Of the bars with that edge: (left, bottom, height)."""
    bars = [bar for bar in ax.patches if bar.get_edgecolor() == to_rgba(color) and bar.get_hatch()]
    return np.array([(bar.get_x(), bar.get_y(), bar.get_height()) for bar in bars]).round(6)


def test_bars_gaps_and_the_error_are_those_of_the_curve(backend):
    ax = axes()
    drawn = reliability_diagram(LABELS, backend.asarray(PROBABILITIES), n_bins=10, ax=ax)
    assert drawn is ax
    accuracy = [bar for bar in ax.patches if not bar.get_hatch()]
    np.testing.assert_allclose([bar.get_height() for bar in accuracy], [1.0, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(heights(ax, RED), [[0.6, 0.5, 0.2]], atol=1e-6)
    np.testing.assert_allclose(heights(ax, "white"), [[0.2, 0.3, 0.7], [0.8, 0.9, 0.1]], atol=1e-6)
    assert ax.texts[0].get_text() == "ECE 0.300"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["accuracy", "overconfident", "underconfident"]


def test_group_shares_are_shown_below_the_bars():
    ax = reliability_diagram(LABELS, PROBABILITIES, n_bins=10, ax=axes())
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == [0.25, 0.5, 0.25]
    assert strip.get_xlabel() == "confidence"
    assert strip.get_xlim() == ax.get_xlim() == (0, 1)
    plain = reliability_diagram(LABELS, PROBABILITIES, counts=False, title="plain", ax=axes())
    assert plain.child_axes == []
    assert (plain.get_xlabel(), plain.get_title()) == ("confidence", "plain")


def test_the_diagram_stays_within_its_axes():
    figure = Figure()
    ax = reliability_diagram(LABELS, PROBABILITIES, ax=figure.subplots())
    figure.savefig("/dev/null", format="png")
    given, upper, strip = ax.get_position(original=True), ax.get_position(), ax.child_axes[0].get_position()
    assert upper.y1 == pytest.approx(given.y1)
    assert strip.y0 == pytest.approx(given.y0)
    assert strip.y1 < upper.y0


def test_logits_weights_and_ignored_rows_pass_through():
    with np.errstate(divide="ignore"):
        logits = np.log(PROBABILITIES)
    ax = reliability_diagram(LABELS, logits, from_logits=True, n_bins=10, ax=axes())
    assert ax.texts[0].get_text() == "ECE 0.300"
    ax = reliability_diagram(LABELS, PROBABILITIES, n_bins=10, ignore_index=3, sample_weight=[0.0, 1, 1, 1], ax=axes())
    assert ax.texts[0].get_text() == "ECE 0.200"


def test_one_probability_per_row_matches_two_columns():
    p, labels = np.array([0.9, 0.2, 0.6, 0.7, 0.35]), np.array([1, 0, 0, 1, 1])
    two = np.stack([1 - p, p], axis=1)
    for draw in (reliability_diagram, confidence_histogram, risk_coverage):
        one, other = draw(labels, p, binary=True, ax=axes()), draw(labels, two, ax=axes())
        for got, expected in zip(one.patches, other.patches, strict=True):
            np.testing.assert_allclose(got.get_bbox().bounds, expected.get_bbox().bounds, atol=1e-12)
        for got, expected in zip(one.lines, other.lines, strict=True):
            np.testing.assert_allclose(got.get_xydata(), expected.get_xydata())
        assert [text.get_text() for text in one.texts] == [text.get_text() for text in other.texts]
    (alone,) = reliability_diagrams(labels, {"one": p[:, None]}, binary=True, band=0.9, axes=[axes()])
    assert alone.texts[0].get_text() == reliability_diagram(labels, two, ax=axes()).texts[0].get_text()
    pair = Figure().subplots(1, 2)
    classwise_reliability_diagrams(labels, p, binary=True, names=("no", "yes"), axes=pair)
    assert [ax.get_title() for ax in pair] == ["no", "yes"]


def test_bars_of_equal_mass_are_as_wide_as_their_bins():
    ax = reliability_diagram(LABELS, PROBABILITIES, n_bins=2, binning="equal_mass", band=0.9, ax=axes())
    bars = [bar for bar in ax.patches if not bar.get_hatch()]  # 0.3 and both of 0.7 before 0.9
    np.testing.assert_allclose([(bar.get_x(), bar.get_width()) for bar in bars], [(0, 0.7), (0.7, 0.3)])
    (both,) = reliability_diagrams(LABELS, {"one": PROBABILITIES}, n_bins=2, binning="equal_mass", axes=[axes()])
    assert both.texts[0].get_text() == ax.texts[0].get_text()


def test_no_row_gives_an_empty_diagram():
    ax = reliability_diagram(LABELS, PROBABILITIES, sample_weight=np.zeros(4), ax=axes())
    assert len(ax.patches) == 0
    assert ax.texts[0].get_text() == "ECE 0.000"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="n_bins must be an integer of at least 1, got 0"):
        reliability_diagram(LABELS, PROBABILITIES, n_bins=0, ax=axes())


def test_the_band_is_a_bracket_at_each_bins_confidence(backend):
    ax = reliability_diagram(LABELS, backend.asarray(PROBABILITIES), n_bins=10, band=0.9, ax=axes())
    low, high = consistency_band(LABELS, PROBABILITIES, n_bins=10, confidence_level=0.9)
    (stems,) = ax.collections
    filled = ~np.isnan(low)
    expected = [[[x, a], [x, b]] for x, a, b in zip((0.3, 0.7, 0.9), low[filled], high[filled], strict=True)]
    np.testing.assert_allclose(stems.get_segments(), expected, atol=1e-6)
    assert ax.get_legend().get_texts()[0].get_text() == "90% by chance"


def test_before_and_after_stand_side_by_side(backend):
    before = backend.asarray(PROBABILITIES)
    given = Figure().subplots(1, 2)
    axes = reliability_diagrams(LABELS, {"before": before, "after": PROBABILITIES}, n_bins=10, axes=given)
    assert [a is b for a, b in zip(axes, given, strict=True)] == [True, True]
    assert [ax.get_title() for ax in axes] == ["before", "after"]
    assert [ax.texts[0].get_text() for ax in axes] == ["ECE 0.300"] * 2
    assert [ax.get_ylabel() for ax in axes] == ["accuracy", ""]
    with pytest.raises(ValueError, match="axes must be as many as the predictions, 1; got 2"):
        reliability_diagrams(LABELS, {"one": before}, axes=given)
    with pytest.raises(ValueError, match="predictions must not be empty"):
        reliability_diagrams(LABELS, {})


def test_each_class_has_its_own_frequencies_and_error(backend):
    figure = Figure()
    axes = classwise_reliability_diagrams(
        LABELS, backend.asarray(PROBABILITIES), n_bins=10, names=("a", "b", "c", "d"), axes=figure.subplots(2, 2)
    )
    assert [ax.get_title() for ax in axes] == ["a", "b", "c", "d"]
    first = [bar for bar in axes[0].patches if not bar.get_hatch()]  # p: .1 (0), .3 (1), .7 (1 of 2)
    np.testing.assert_allclose([bar.get_height() for bar in first], [0.0, 1.0, 0.5], atol=1e-6)
    errors = [float(ax.texts[0].get_text().removeprefix("ECE ")) for ax in axes]
    expected = classwise_calibration_error(LABELS, PROBABILITIES, n_bins=10)
    assert np.mean(errors) == pytest.approx(float(expected), abs=5e-4)


def test_classes_can_be_chosen_and_the_most_frequent_come_unasked():
    p = np.full((40, 20), 0.05)
    labels = np.concatenate([np.arange(20), np.arange(8, 20), np.arange(12, 20)])
    chosen = classwise_reliability_diagrams(labels, p, classes=(7, 3), axes=Figure().subplots(1, 2))
    assert [ax.get_title() for ax in chosen] == ["class 7", "class 3"]
    pyplot = pytest.importorskip("matplotlib.pyplot")
    try:
        frequent = classwise_reliability_diagrams(labels, p)
        assert [ax.get_title() for ax in frequent] == [f"class {k}" for k in range(8, 20)]
        assert len(frequent[0].figure.axes) == 12
    finally:
        pyplot.close("all")
    with pytest.raises(ValueError, match=r"classes must be class ids in 0..19, got \[20\]"):
        classwise_reliability_diagrams(labels, p, classes=[20])
    with pytest.raises(ValueError, match=r"names must have a name for each of the 20 classes, got 2: \['a', 'b'\]"):
        classwise_reliability_diagrams(labels, p, names=("a", "b"), classes=[0])


def test_labels_out_of_range_make_the_error_nan():
    ax = reliability_diagram([0, 0, 9, 1], PROBABILITIES, n_bins=10, ax=axes())
    assert ax.texts[0].get_text() == "ECE nan"
