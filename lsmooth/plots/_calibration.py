"""Pictures of confidence, of a temperature's likelihood, and of selective prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array
from lsmooth.calibration import TemperatureScaling, apply_temperature
from lsmooth.metrics import area_under_risk_coverage, negative_log_likelihood, reliability_curve, risk_coverage_curve
from lsmooth.metrics._inputs import prepare
from lsmooth.plots._style import BLUE, GREY, RED, axes_or_current, legend, note, remove_frame, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEMPERATURES = 49
_STROKES: tuple[Any, ...] = ("solid", (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)))


def confidence_histogram(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A histogram of confidence, right rows in blue and wrong rows in red.

    Two lines mark the mean confidence and the accuracy; those of a calibrated classifier coincide.

    Args:
        labels: as in `lsmooth.metrics.expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins, of equal width.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        title: above the histogram.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError, ValueError: as `lsmooth.metrics.expected_calibration_error`.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", figure 1.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = confidence_histogram([0, 1], [[0.9, 0.1], [0.7, 0.3]], ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['accuracy 0.50', 'confidence 0.80', 'right', 'wrong']
    """
    ax = axes_or_current(ax)
    from matplotlib.ticker import PercentFormatter

    rows: Any = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    curve = reliability_curve(rows, rows, n_bins=n_bins)
    edges, confidence, accuracy, weight = (to_numpy(part).astype(np.float64) for part in curve)
    share = weight / (weight.sum() or 1.0)
    right = np.where(weight == 0, 0.0, share * accuracy)
    style: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    ax.bar(edges[:-1], right, np.diff(edges), color=BLUE, label="right", **style)
    ax.bar(edges[:-1], share - right, np.diff(edges), right, color=RED, hatch="///", label="wrong", **style)
    if weight.any():
        mean = float(np.where(weight == 0, 0.0, share * confidence).sum())
        for value, name, dashes in ((float(right.sum()), "accuracy", "solid"), (mean, "confidence", (0, (4, 2)))):
            ax.axvline(value, color="black", linestyle=dashes, linewidth=1.4, label=f"{name} {value:.2f}")
    ax.set(xlim=(0, 1), xlabel="confidence", ylabel="rows", title=title or "")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    remove_frame(ax)
    legend(ax, loc="upper left")
    return ax


def temperature_curve(
    logits: Array,
    labels: Array,
    *,
    sample_weight: Array | None = None,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    confidence_level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean negative log-likelihood against the temperature, with the optimum and its interval.

    ``T -> mean_i -log softmax(z_i / T)[y_i]``. The interval, shaded, is that of log T by the curvature at
    the optimum: ``T exp(+- q stderr / T)``, q being the normal quantile.

    Args:
        logits: as in `lsmooth.calibration.TemperatureScaling.fit`.
        labels: class ids.
        sample_weight: of rows.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        confidence_level: of the interval, between 0 and 1.
        title: above the picture.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, an option is out of range, or no temperature can be fitted.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import numpy as np
        >>> from matplotlib.figure import Figure
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> ax = temperature_curve(logits, [0, 0, 1, 1], ax=Figure().subplots())
        >>> ax.get_legend().get_texts()[0].get_text()
        'T = 3.64, 0.562'
    """
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must be between 0 and 1, got {confidence_level}.")
    ax = axes_or_current(ax)
    from statistics import NormalDist

    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scaler = TemperatureScaling(binary=binary, axis=axis, ignore_index=ignore_index).fit(logits, labels, sample_weight)
    best, least = scaler.temperature_, scaler.nll_after_
    ends = min(1.0, best) / 2, max(1.0, best) * 2
    temperatures = np.geomspace(*ends, _TEMPERATURES)

    def likelihood(t: float) -> float:
        scaled = apply_temperature(logits, t, axis=axis)
        rows: Any = prepare(labels, scaled, sample_weight, axis, ignore_index, True, binary)
        return float(to_numpy(negative_log_likelihood(rows, rows)))

    ax.plot(temperatures, [likelihood(float(t)) for t in temperatures], color=BLUE, linewidth=2)
    ax.plot(best, least, "o", color=RED, markersize=7, zorder=3, label=f"T = {best:.3g}, {least:.3f}")
    ax.plot(1, scaler.nll_before_, "s", color=GREY, markersize=6, zorder=3, label=f"T = 1, {scaler.nll_before_:.3f}")
    if scaler.status_ == "converged":
        factor = math.exp(NormalDist().inv_cdf(0.5 + 0.5 * confidence_level) * scaler.temperature_stderr_ / best)
        low, high = best / factor, best * factor
        name = f"{100 * confidence_level:g}%: {low:.3g} to {high:.3g}"
        ax.axvspan(low, high, color=RED, alpha=0.18, linewidth=0, label=name)
    else:
        note(ax, scaler.status_, y=0.96)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, (1, 2, 5) if ends[1] < 20 * ends[0] else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlim=ends, xlabel="temperature T", ylabel="negative log-likelihood", title=title or "")
    remove_frame(ax)
    legend(ax)
    return ax


def _power_of_ten(t: float, _: int) -> str:
    return f"{t:g}" if 0.01 <= t < 10_000 else rf"$10^{{{round(math.log10(t))}}}$"


def risk_coverage(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    name: str | None = None,
    color: str = BLUE,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Error rate of the most confident rows against coverage.

    It falls steeply to the left if confidence separates right from wrong rows. The legend shows the area below (AURC);
    a dashed line shows the best order, all errors last. Several models can share the axes, each with its ``name`` and
    ``color``.

    Args:
        labels: as in `lsmooth.metrics.risk_coverage_curve`.
        predictions: as there.
        from_logits: as there.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        name: in the legend, before the area.
        color: of the line.
        title: above the picture.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError, ValueError: as `lsmooth.metrics.expected_calibration_error`.

    Source: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks".

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = risk_coverage([0, 0], [[0.9, 0.1], [0.4, 0.6]], ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['AURC 0.250', 'errors last']
    """
    ax = axes_or_current(ax)
    from matplotlib.ticker import PercentFormatter

    rows: Any = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    curve = risk_coverage_curve(rows, rows)
    coverage, risk = (to_numpy(part).astype(np.float64) for part in curve)
    area = float(to_numpy(area_under_risk_coverage(rows, rows)))
    counted = coverage > 0
    coverage, risk = coverage[counted], risk[counted]
    label = f"AURC {area:.3f}" if name is None else f"{name}, AURC {area:.3f}"
    # Strokes distinguish lines that are printed in one colour.
    stroke = _STROKES[sum(line.get_linewidth() == 2 for line in ax.lines) % len(_STROKES)]
    ax.plot(coverage, risk, color=color, linewidth=2, linestyle=stroke, label=label)
    ax.fill_between(coverage, risk, color=color, alpha=0.1, linewidth=0)
    if counted.any():
        share = np.linspace(0.0, 1.0, 201)[1:]
        best = np.maximum(0.0, 1.0 - (1.0 - risk[-1]) / share)
        known = "errors last" in ax.get_legend_handles_labels()[1]
        label = "_errors last" if known else "errors last"
        ax.plot(share, best, color=color, linestyle=(0, (4, 3)), linewidth=1.1, label=label)
    ax.set(xlim=(0, 1), xlabel="coverage, the surest rows first", ylabel="error rate", title=title or "")
    ax.set_ylim(0, 1.08 * ax.dataLim.y1 if ax.dataLim.y1 > 0 else 1)
    for axle in (ax.xaxis, ax.yaxis):
        axle.set_major_formatter(PercentFormatter(1, decimals=0))
    remove_frame(ax)
    legend(ax, loc="upper left")
    return ax
