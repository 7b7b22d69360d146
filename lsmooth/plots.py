"""Matplotlib pictures of calibration and of activations: an ``Axes`` in, the same ``Axes`` out.

Matplotlib is imported by the first call, with the backend its user has chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array, backend_of
from lsmooth.metrics import expected_calibration_error, reliability_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#2f6690", "#d1495b", "#8d99a6"
CLASS_COLORS = (BLUE, "#e09f3e", "#7b4b94", "#3a7d44", RED, "#5bb0ba", "#8c6d46", "#c77dff", "#6b7683", "#b5bd00")


def reliability_diagram(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    counts: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence, bin by bin, with the gap between them shaded.

    A calibrated classifier is right as often as it says: its bars end at the diagonal. Hatched
    are confidence without the accuracy for it (red) and accuracy without the confidence (blue).
    The expected calibration error stands in the corner, each bin's share of the rows below.

    Args:
        labels: as in `lsmooth.metrics.expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins, of equal width.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        counts: whether to draw the share of rows below.
        title: above the diagram.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on; the shares are in ``ax.child_axes[0]``, at its lower end.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit or an option is out of range.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", figure 1.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> drawn = reliability_diagram([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], n_bins=10, ax=ax)
        >>> drawn is ax, ax.texts[0].get_text()
        (True, 'ECE 0.400')
    """
    ax = _axes(ax)
    from matplotlib.colors import to_rgba

    options: dict[str, Any] = {
        "from_logits": from_logits,
        "n_bins": n_bins,
        "axis": axis,
        "ignore_index": ignore_index,
        "sample_weight": sample_weight,
    }
    curve = reliability_curve(labels, predictions, **options)
    xp = backend_of(labels=curve.edges)
    edges, confidence, accuracy, weight = (xp.to_numpy(part).astype(np.float64) for part in curve)
    error = float(expected_calibration_error(labels, predictions, **options))

    filled = weight > 0
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    confidence, accuracy = confidence[filled], accuracy[filled]
    style: dict[str, Any] = {"align": "edge", "linewidth": 0.8}
    ax.bar(left, np.minimum(accuracy, confidence), width, color=BLUE, edgecolor="white", label="accuracy", **style)
    for gap, base, color, label in (
        (confidence - accuracy, accuracy, RED, "overconfident"),
        (accuracy - confidence, confidence, BLUE, "underconfident"),
    ):
        seen = gap > 0
        if seen.any():
            face = {"facecolor": to_rgba(color, 0.2), "edgecolor": color, "hatch": "///"}
            ax.bar(left[seen], gap[seen], width[seen], base[seen], label=label, **face, **style)
    ax.plot([0, 1], [0, 1], color="black", linestyle=(0, (4, 3)), linewidth=1)
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": GREY, "alpha": 0.9}
    ax.text(0.96, 0.04, f"ECE {error:.3f}", transform=ax.transAxes, ha="right", va="bottom", bbox=box)

    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=title or "")
    ax.set_axisbelow(True)
    ax.grid(color="0.92", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", fontsize="small", handlelength=1.4, framealpha=0.85, edgecolor="none")
    lowest = _shares(ax, left, width, weight[filled] / weight.sum()) if counts and filled.any() else ax
    lowest.set_xlabel("confidence")
    return ax


def projection(
    points: Array,
    labels: Array,
    *,
    templates: Array | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Points on a plane in the colours of their classes, and the classes' templates.

    Made for what `lsmooth.analysis.penultimate_projection` returns.

    Args:
        points: (rows, 2).
        labels: (rows,) class ids.
        templates: (classes, 2), marked by crosses, in the order of the sorted ids unless there are more.
        names: of the classes, in the same order; their ids if None.
        title: above the picture.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if shapes do not fit.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", figure 1.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = projection([[0.0, 1.0], [2.0, 0.5]], [3, 5], ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['3', '5']
    """
    ax = _axes(ax)
    points, labels = _to_numpy(points), _to_numpy(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(f"points must have shape (rows, 2) and labels (rows,), got {points.shape} and {labels.shape}.")
    for index, label in enumerate(np.unique(labels)):
        chosen = points[labels == label]
        name = str(label) if names is None else names[index]
        color = CLASS_COLORS[index % len(CLASS_COLORS)]
        ax.scatter(*chosen.T, s=14, color=color, alpha=0.65, linewidth=0, label=name)
    if templates is not None:
        ax.scatter(*_to_numpy(templates).T, s=70, marker="x", color="black", linewidth=1.8)
    ax.set(title=title or "", aspect="equal")
    ax.set_adjustable("datalim")
    ax.tick_params(labelsize="small", color=GREY)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize="small", handletextpad=0.2, framealpha=0.85, edgecolor="none")
    return ax


def _axes(ax: Axes | None) -> Axes:
    """The axes that were given, or the current ones."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise ImportError("Pictures need matplotlib: pip install 'lsmooth[plots]'.") from error
    return pyplot.gca() if ax is None else ax


def _to_numpy(array: Array) -> np.ndarray:
    xp = backend_of(array=array)
    return xp.to_numpy(xp.asarray(array))


def _shares(ax: Axes, left: np.ndarray, width: np.ndarray, share: np.ndarray) -> Axes:
    """A strip cut from the diagram's lower end, on the same confidences."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter
    from matplotlib.transforms import Bbox

    def upper_part(ax: Any, _: Any) -> Bbox:
        box = ax.get_position(original=True)
        return Bbox.from_extents(box.x0, box.y0 + 0.26 * box.height, box.x1, box.y1)

    # A child of the diagram, within the place it was given: every layout engine allows for it.
    ax.set_axes_locator(upper_part)
    strip = ax.inset_axes((0.0, -0.26 / 0.74, 1.0, 0.22 / 0.74), sharex=ax)
    strip.bar(left, share, width, align="edge", color=GREY, edgecolor="white", linewidth=0.8)
    strip.set(ylim=(0, 1.15 * share.max()), ylabel="rows")
    strip.yaxis.set_major_locator(MaxNLocator(2))
    strip.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    strip.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelbottom=False)
    return strip
