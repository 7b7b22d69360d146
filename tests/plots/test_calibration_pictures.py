"""The contents of the pictures of confidence, temperature and selective prediction."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lsmooth.calibration import ConvergenceWarning, TemperatureScaling
from lsmooth.metrics import area_under_risk_coverage
from lsmooth.plots import BLUE, RED, confidence_histogram, risk_coverage, temperature_curve

# Confidences 0.3 (right), 0.7 (right, wrong), 0.9 (right): bins of a tenth.
PROBABILITIES = np.array([[0.3, 0.25, 0.25, 0.2], [0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.9, 0.0, 0.0]])
LABELS = np.array([0, 0, 3, 1])


def axes():
    return Figure().subplots()


def bars(ax, color):
    drawn = [bar for bar in ax.patches if bar.get_facecolor() == to_rgba(color) and bar.get_height() > 0]
    return np.array([(bar.get_x(), bar.get_y(), bar.get_height()) for bar in drawn]).round(6)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def overconfident(rows=400):
    rng = np.random.default_rng(5)
    honest = rng.normal(0.0, 2.0, (rows, 4))
    return 3.0 * honest, (honest + rng.gumbel(size=honest.shape)).argmax(-1)


def test_the_histogram_stacks_wrong_rows_on_right_ones(backend):
    ax = axes()
    assert confidence_histogram(LABELS, backend.asarray(PROBABILITIES), n_bins=10, ax=ax) is ax
    np.testing.assert_allclose(bars(ax, BLUE), [[0.2, 0, 0.25], [0.6, 0, 0.25], [0.8, 0, 0.25]], atol=1e-6)
    np.testing.assert_allclose(bars(ax, RED), [[0.6, 0.25, 0.25]], atol=1e-6)
    assert legend(ax) == ["accuracy 0.75", "confidence 0.65", "right", "wrong"]


def test_the_histogram_uses_weights_and_may_be_empty():
    ax = confidence_histogram(LABELS, PROBABILITIES, n_bins=10, sample_weight=[1.0, 0, 1, 0], ax=axes())
    assert legend(ax)[:2] == ["accuracy 0.50", "confidence 0.50"]
    empty = confidence_histogram(LABELS, PROBABILITIES, sample_weight=np.zeros(4), title="none", ax=axes())
    assert (legend(empty), empty.get_title()) == (["right", "wrong"], "none")


def test_the_curve_is_lowest_at_the_fitted_temperature(backend):
    logits, labels = overconfident()
    scaler = TemperatureScaling().fit(logits, labels)
    ax = axes()
    assert temperature_curve(backend.asarray(logits), backend.asarray(labels), ax=ax) is ax
    curve, best, plain = ax.lines
    x, y = curve.get_data()
    assert best.get_xdata()[0] == pytest.approx(scaler.temperature_)
    assert best.get_ydata()[0] == pytest.approx(scaler.nll_after_)
    assert plain.get_ydata()[0] == pytest.approx(scaler.nll_before_)
    assert (y >= scaler.nll_after_ - 1e-9).all()
    np.testing.assert_allclose(np.interp(1.0, x, y), scaler.nll_before_, rtol=1e-2)
    (span,) = ax.patches
    low, high = span.get_x(), span.get_x() + span.get_width()
    assert low * high == pytest.approx(scaler.temperature_**2)
    factor = np.exp(1.959964 * scaler.temperature_stderr_ / scaler.temperature_)
    assert high / scaler.temperature_ == pytest.approx(factor)


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
@pytest.mark.parametrize("width", [3.3, 6.4])
@pytest.mark.parametrize("scale", [1e-6, 0.01, 0.4, 3.0, 20.0, 3000.0, 40_000.0, 1e9])
def test_labels_of_temperatures_do_not_overlap(scale, width):
    logits, labels = overconfident(100)
    figure = Figure(figsize=(width, 3.0))
    ax = temperature_curve(scale * logits, labels, ax=figure.subplots())
    figure.draw_without_rendering()
    low, high = ax.get_xlim()
    boxes = [
        x.get_window_extent() for x, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True) if low < at < high
    ]
    assert len(boxes) >= 2
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))


def test_the_binary_curve_matches_two_classes():
    rng = np.random.default_rng(0)
    z = rng.normal(0.0, 3.0, 200)
    labels = (rng.random(200) < 1 / (1 + np.exp(-z / 2))).astype(int)
    one = temperature_curve(z, labels, binary=True, ax=axes())
    two = temperature_curve(np.stack([0 * z, z], 1), labels, ax=axes())
    for got, expected in zip(one.lines, two.lines, strict=True):
        np.testing.assert_allclose(got.get_xydata(), expected.get_xydata(), rtol=1e-6)


def test_the_curve_uses_weights_axis_and_ignored_rows():
    logits, labels = overconfident()
    kept = np.arange(400) < 200
    (best,) = temperature_curve(logits[kept], labels[kept], ax=axes()).lines[1].get_xdata()
    weighted = temperature_curve(logits, labels, sample_weight=kept * 1.0, ax=axes())
    ignored = temperature_curve(logits.T, np.where(kept, labels, -1), axis=0, ignore_index=-1, ax=axes())
    for ax in (weighted, ignored):
        assert ax.lines[1].get_xdata()[0] == pytest.approx(best)


def test_without_an_optimum_the_curve_has_a_note_and_no_interval():
    with pytest.warns(ConvergenceWarning):
        ax = temperature_curve(np.eye(3), [0, 1, 2], ax=axes())
    assert ax.texts[0].get_text() == "separable"
    assert not ax.patches
    with pytest.raises(ValueError, match="confidence_level must be between 0 and 1, got 1"):
        temperature_curve(np.eye(3), [0, 1, 2], confidence_level=1.0, ax=axes())


def test_risk_rises_to_the_error_rate_and_is_lowest_if_errors_come_last(backend):
    logits, labels = overconfident()
    ax = axes()
    assert risk_coverage(labels, backend.asarray(logits), from_logits=True, ax=ax) is ax
    risk, best = ax.lines
    error = (logits.argmax(-1) != labels).mean()
    assert risk.get_ydata()[-1] == pytest.approx(error)
    assert best.get_ydata()[-1] == pytest.approx(error)
    assert (np.interp(risk.get_xdata(), best.get_xdata(), best.get_ydata()) <= risk.get_ydata() + 1e-9).all()
    area = float(area_under_risk_coverage(labels, logits, from_logits=True))
    assert legend(ax) == [f"AURC {area:.3f}", "errors last"]


def test_several_models_share_axes():
    ax = axes()
    for name, color in (("one", BLUE), ("other", RED)):
        risk_coverage(LABELS, PROBABILITIES, name=name, color=color, ax=ax)
    assert [entry.split(",")[0] for entry in legend(ax)] == ["one", "errors last", "other"]
    assert ax.lines[2].get_color() == RED
    assert ax.get_ylim()[1] > max(line.get_ydata().max() for line in ax.lines)


def test_rows_that_do_not_count_are_not_drawn():
    ax = risk_coverage(LABELS, PROBABILITIES, ignore_index=3, ax=axes())
    assert ax.lines[0].get_xdata().tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert not risk_coverage(LABELS, PROBABILITIES, sample_weight=np.zeros(4), ax=axes()).lines[0].get_xdata().size
