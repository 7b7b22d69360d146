"""Pictures of predicted probabilities against what came true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array, backend_of
from lsmooth.metrics import expected_calibration_error, reliability_curve
from lsmooth.plots._style import BLUE, GREY, RED, axes_or_current, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    ax = axes_or_current(ax)
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
    plain(ax)
    ax.legend(loc="upper left", fontsize="small", handlelength=1.4, framealpha=0.85, edgecolor="none")
    lowest = _shares(ax, left, width, weight[filled] / weight.sum()) if counts and filled.any() else ax
    lowest.set_xlabel("confidence")
    return ax


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
