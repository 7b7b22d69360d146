"""The contents of the diagram without bins and of diagrams by P(class 1), by their artists and data."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.figure import Figure

from lsmooth.metrics import corp_reliability_curve, reliability_curve
from lsmooth.plots import corp_reliability_diagram, reliability_diagram, risk_coverage


def drawn():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    return (rng.random(200) < p).astype(int), p


def test_the_line_is_the_curve_and_the_corner_its_decomposition(backend):
    pytest.importorskip("scipy", reason="scipy is not installed")
    labels, p = drawn()
    ax = Figure().subplots()
    given = backend.asarray(labels), backend.asarray(p)
    assert corp_reliability_diagram(*given, binary=True, band=0.9, title="t", ax=ax) is ax
    curve = corp_reliability_curve(labels, p, binary=True)
    line = ax.lines[1]
    np.testing.assert_allclose(line.get_ydata(), np.repeat(curve.accuracy, 2))
    np.testing.assert_allclose(line.get_xdata()[::2], curve.low)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["90% if calibrated", "frequency"]
    assert ax.texts[0].get_text().startswith("MCB 0.0")
    (strip,) = ax.child_axes
    np.testing.assert_allclose(sum(bar.get_height() for bar in strip.patches), 1.0)
    assert strip.get_xlabel() == "probability"
    bare = corp_reliability_diagram(labels, p, binary=True, counts=False, ax=Figure().subplots())
    assert (bare.child_axes, bare.get_xlabel(), bare.get_ylabel()) == ([], "probability", "frequency")


def test_a_diagram_may_be_by_the_probability_of_class_1(backend):
    labels, p = drawn()
    given = backend.asarray(labels), backend.asarray(p)
    ax = reliability_diagram(*given, binary=True, by="positive", n_bins=5, band=0.9, ax=Figure().subplots())
    expected = [labels[(p > lo) & (p <= lo + 0.2)].mean() for lo in np.arange(5) / 5]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches if not bar.get_hatch()], expected)
    assert (ax.get_ylabel(), ax.child_axes[0].get_xlabel()) == ("frequency", "probability")
    with pytest.raises(ValueError, match="by must be confidence or positive"):
        reliability_curve(labels, p, binary=True, by="p1")
    with pytest.raises(ValueError, match="by='positive' is for two classes, got 3"):
        reliability_curve([0], [[0.2, 0.3, 0.5]], by="positive")


def test_risk_lines_differ_in_more_than_colour():
    labels, p = drawn()
    ax = Figure().subplots()
    for name in ("one", "other"):
        risk_coverage(labels, p, binary=True, name=name, ax=ax)
    strokes = [line.get_linestyle() for line in ax.lines if line.get_linewidth() == 2]
    assert strokes == ["-", "--"]
