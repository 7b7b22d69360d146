"""Smoothed targets as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lsmooth.backends import Array
from lsmooth.plots._style import BLUE, axes_or_current, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NUMBERS = 12


def target_distribution(
    targets: Array,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Target distributions as a heat map: a row for each example, a column for each class.

    It shows where the smoothing mass goes: to every class, not to a padding class, or by a prior. Small heat maps
    contain the numbers.

    Args:
        targets: (examples, classes), such as `lsmooth.smoothing.smooth_labels` returns, or
            ``true_dist`` of `lsmooth.compat.annotated_transformer.LabelSmoothing`.
        names: of the classes; their ids if None.
        title: above the picture.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on; the picture is ``ax.images[0]``.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if shapes do not fit.

    Source: Harvard NLP, The Annotated Transformer, the figure of label smoothing.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> from lsmooth.smoothing import smooth_labels
        >>> ax = target_distribution(smooth_labels([2, 0], 0.3, num_classes=3), ax=Figure().subplots())
        >>> [text.get_text() for text in ax.texts]
        ['.1', '.1', '.8', '.8', '.1', '.1']
    """
    targets = to_numpy(targets)
    if targets.ndim != 2 or 0 in targets.shape:
        raise ValueError(f"targets must have shape (examples, classes), got {targets.shape}.")
    examples, classes = targets.shape
    if names is not None and len(names) != classes:
        raise ValueError(f"names must be as many as the classes, {classes}; got {len(names)}.")
    ax = axes_or_current(ax)
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import FixedLocator, MaxNLocator

    colors = LinearSegmentedColormap.from_list("targets", ("white", "#a9c6dc", BLUE, "#16334a"))
    top = max(1e-12, float(np.nanmax(targets)))
    image = ax.imshow(targets, cmap=colors, vmin=0.0, vmax=top, aspect="auto", interpolation="nearest")
    if max(examples, classes) <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(targets):
            color = "white" if value > 0.5 * top else "black" if value else "0.7"
            ax.text(column, row, _short(value), ha="center", va="center", color=color, fontsize="small")
    for axis, count in ((ax.xaxis, classes), (ax.yaxis, examples)):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_minor_locator(FixedLocator([i + 0.5 for i in range(count - 1)]))
    if names is not None:
        ax.set_xticks(range(classes), names)
    ax.grid(which="minor", color="0.85", linewidth=0.8 if max(examples, classes) <= 40 else 0.0)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_color("0.85")
    ax.set(xlabel="class", ylabel="example", title=title or "")
    bar = ax.figure.colorbar(image, ax=ax, label="target", pad=0.02)
    bar.outline.set_visible(False)
    return ax


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".").removeprefix("0") or "0"
