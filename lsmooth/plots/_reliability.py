"""Reliability diagrams: accuracy against confidence, of one model, of several, or class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array
from lsmooth.metrics import ReliabilityCurve, classwise_reliability_curve, consistency_band, reliability_curve
from lsmooth.metrics._inputs import prepare
from lsmooth.plots._style import (
    BLUE,
    RED,
    axes_or_current,
    check_names,
    grid_of_axes,
    legend,
    note,
    remove_frame,
    shares,
    strip_below,
    to_numpy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES = 12


def reliability_diagram(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    by: str = "confidence",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    counts: bool = True,
    band: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence, bin by bin, with the gap between them shaded.

    Bars end at the accuracy; those of a calibrated classifier end at the diagonal. The gap to the confidence is
    hatched: above the bar of an overconfident bin (red), within that of an underconfident one (blue). A corner shows
    the expected calibration error; each bin's share of the rows is drawn below.

    Args:
        labels: as in `lsmooth.metrics.expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins.
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each bin.
        by: ``"confidence"``; or ``"positive"``, for two classes: P(class 1) and the frequency of that label.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        counts: whether to draw the share of rows below.
        band: the level, such as 0.95, of a `lsmooth.metrics.consistency_band`, drawn as brackets: the bars of a
            calibrated classifier end within them.
        title: above the diagram.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on; the shares are in ``ax.child_axes[0]``, at its lower end.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError, ValueError: as `lsmooth.metrics.expected_calibration_error`.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", figure 1; Bröcker and Smith
        2007, "Increasing the Reliability of Reliability Diagrams".

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> drawn = reliability_diagram([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], n_bins=10, ax=ax)
        >>> drawn is ax, ax.texts[0].get_text()
        (True, 'ECE 0.400')
    """
    ax = axes_or_current(ax)
    rows: Any = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    curve = _on_host(reliability_curve(rows, rows, n_bins=n_bins, binning=binning, by=by))
    if band is not None:
        ends = consistency_band(rows, rows, n_bins=n_bins, binning=binning, by=by, confidence_level=band)
        low, high = (to_numpy(end) for end in ends)
        _band(ax, curve, low, high, f"{100 * band:g}% by chance")
    where, name = ("confidence", "accuracy") if by == "confidence" else ("probability", "frequency")
    _bars(ax, curve, name)
    ax.set(ylabel=name, title=title or "")
    legend(ax, loc="upper left")
    lowest = ax
    if counts and (curve.weight > 0).any():
        lowest = strip_below(ax)
        shares(lowest, curve.edges, curve.weight)
    lowest.set_xlabel(where)
    return ax


def reliability_diagrams(
    labels: Array,
    predictions: Mapping[str, Array],
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    counts: bool = True,
    band: float | None = None,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Reliability diagrams of the same rows side by side: before and after, or model by model.

    Args:
        labels: as in `reliability_diagram`, and so are the options.
        predictions: by title: ``{"as trained": before, "after a temperature": after}``.
        from_logits: whether all predictions are logits.
        n_bins: the number of bins.
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each bin.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        counts: whether to draw the share of rows below.
        band: the level of a consistency band.
        axes: where to draw, one for each; a new figure of pyplot's if None.

    Returns:
        The axes that were drawn on, (predictions,).

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: as `reliability_diagram`.
        ValueError: as `reliability_diagram`, or if there are not as many axes as predictions.

    Source: as `reliability_diagram`.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> p = [[0.9, 0.1], [0.4, 0.6]]
        >>> axes = reliability_diagrams([0, 1], {"one": p, "other": p}, axes=Figure().subplots(1, 2))
        >>> [ax.get_title() for ax in axes]
        ['one', 'other']
    """
    drawn = grid_of_axes(axes, "predictions", len(predictions), len(predictions), (4.6, 4.6))
    for index, (ax, (title, one)) in enumerate(zip(drawn, predictions.items(), strict=True)):
        reliability_diagram(
            labels,
            one,
            from_logits=from_logits,
            n_bins=n_bins,
            binning=binning,
            binary=binary,
            axis=axis,
            ignore_index=ignore_index,
            sample_weight=sample_weight,
            counts=counts,
            band=band,
            title=title,
            ax=ax,
        )
        if index:  # the first diagram has the labels
            for part in (ax, *ax.child_axes):
                part.set_ylabel("")
    return drawn


def classwise_reliability_diagrams(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 10,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    classes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """A reliability diagram of each class: the frequency of label k against p_k.

    A corner shows the calibration error of the class,
    ``sum_b (n_kb / N) |freq_kb - conf_kb|``; their mean is
    `lsmooth.metrics.classwise_calibration_error`.

    Args:
        labels: as in `reliability_diagram`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins of each class.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        classes: which to draw, in this order; all of them if None, or the most frequent twelve.
        names: of all classes, for the titles; "class k" if None.
        axes: where to draw, one for each class; a new figure of pyplot's if None.

    Returns:
        The axes that were drawn on, one a class.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: as `reliability_diagram`.
        ValueError: as `reliability_diagram`, if there is no such class, too few names, or not as many axes as
            classes.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning"; Kull et al. 2019, "Beyond
        temperature scaling", figure 1.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> axes = classwise_reliability_diagrams([0, 1], [[0.9, 0.1], [0.4, 0.6]], axes=Figure().subplots(1, 2))
        >>> [ax.get_title() for ax in axes]
        ['class 0', 'class 1']
    """
    rows: Any = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    curve = _on_host(classwise_reliability_curve(rows, rows, n_bins=n_bins))
    known = len(curve.weight)
    if classes is None:
        frequency = np.nansum(curve.accuracy * curve.weight, axis=1)
        classes = sorted(np.argsort(-frequency, kind="stable")[:_MOST_CLASSES].tolist())
    elif any(not 0 <= k < known for k in classes):
        raise ValueError(f"classes must be class ids in 0..{known - 1}, got {list(classes)}.")
    check_names(names, known)
    columns = math.ceil(math.sqrt(len(classes)))
    drawn = grid_of_axes(axes, "classes", len(classes), columns, (2.8, 2.8))
    for ax, k in zip(drawn, classes, strict=True):
        _bars(ax, ReliabilityCurve(curve.edges, *(part[k] for part in curve[1:])), "frequency")
        ax.set(xlabel="probability", ylabel="frequency", title=f"class {k}" if names is None else names[k])
        ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    if axes is None:  # only the outer diagrams have labels
        for index, ax in enumerate(drawn):
            if index % columns:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
            if index + columns < len(drawn):
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
    legend(drawn[0], loc="upper left")
    return drawn


def _on_host(curve: ReliabilityCurve) -> ReliabilityCurve:
    return ReliabilityCurve(*(to_numpy(part).astype(np.float64) for part in curve))


def _bars(ax: Axes, curve: ReliabilityCurve, name: str) -> None:
    """Accuracies, gaps, the diagonal and the error of a curve on the host."""
    from matplotlib.colors import to_rgba

    filled = curve.weight > 0
    left, width = curve.edges[:-1][filled], np.diff(curve.edges)[filled]
    confidence, accuracy = curve.confidence[filled], curve.accuracy[filled]
    style: dict[str, Any] = {"align": "edge", "linewidth": 0.8}
    ax.bar(left, accuracy, width, color=BLUE, edgecolor="white", label=name, **style)
    for gap, base, face, edge, label in (
        (confidence - accuracy, accuracy, to_rgba(RED, 0.2), RED, "overconfident"),
        (accuracy - confidence, confidence, BLUE, "white", "underconfident"),
    ):
        seen = gap > 0
        if seen.any():
            colors = {"facecolor": face, "edgecolor": edge, "hatch": "///"}
            ax.bar(left[seen], gap[seen], width[seen], base[seen], label=label, **colors, **style)
    ax.plot([0, 1], [0, 1], color="black", linestyle=(0, (4, 3)), linewidth=1)
    counted = curve.weight != 0  # NaN remains in the error
    gaps = np.where(counted, curve.weight * np.abs(curve.accuracy - curve.confidence), 0.0)
    note(ax, f"ECE {gaps.sum() / (curve.weight.sum() if counted.any() else 1.0):.3f}")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    remove_frame(ax)


def _band(ax: Axes, curve: ReliabilityCurve, low: np.ndarray, high: np.ndarray, label: str) -> None:
    """A bracket from low to high at each bin's confidence."""
    filled = curve.weight > 0
    x, low, high = curve.confidence[filled], low[filled], high[filled]
    middle = 0.5 * (low + high)
    look: dict[str, Any] = {"color": "black", "linewidth": 1.1, "capsize": 3, "zorder": 3}
    ax.errorbar(x, middle, (middle - low, high - middle), fmt="none", label=label, **look)
