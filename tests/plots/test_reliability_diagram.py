"""What the pictures show, by their artists and data."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lsmooth.plots import BLUE, RED, reliability_diagram

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
    np.testing.assert_allclose([bar.get_height() for bar in accuracy], [0.3, 0.5, 0.9], atol=1e-6)
    np.testing.assert_allclose(heights(ax, RED), [[0.6, 0.5, 0.2]], atol=1e-6)
    np.testing.assert_allclose(heights(ax, BLUE), [[0.2, 0.3, 0.7], [0.8, 0.9, 0.1]], atol=1e-6)
    assert ax.texts[0].get_text() == "ECE 0.300"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["accuracy", "overconfident", "underconfident"]


def test_the_shares_of_rows_are_below():
    ax = reliability_diagram(LABELS, PROBABILITIES, n_bins=10, ax=axes())
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == [0.25, 0.5, 0.25]
    assert strip.get_xlabel() == "confidence"
    assert strip.get_xlim() == ax.get_xlim() == (0, 1)
    plain = reliability_diagram(LABELS, PROBABILITIES, counts=False, title="plain", ax=axes())
    assert plain.child_axes == []
    assert (plain.get_xlabel(), plain.get_title()) == ("confidence", "plain")


def test_the_diagram_stays_within_its_place():
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


def test_no_row_gives_an_empty_diagram():
    ax = reliability_diagram(LABELS, PROBABILITIES, sample_weight=np.zeros(4), ax=axes())
    assert len(ax.patches) == 0
    assert ax.texts[0].get_text() == "ECE 0.000"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="n_bins must be an integer of at least 1, got 0"):
        reliability_diagram(LABELS, PROBABILITIES, n_bins=0, ax=axes())
