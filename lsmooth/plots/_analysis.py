"""Pictures of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lsmooth.backends import Array
from lsmooth.plots._style import CLASS_COLORS, GREY, axes_or_current, check_names, remove_frame, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    It shows the result of `lsmooth.analysis.penultimate_projection`.

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
        ValueError: if shapes do not fit, or there are too few names.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", figure 1.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = projection([[0.0, 1.0], [2.0, 0.5]], [3, 5], ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['3', '5']
    """
    ax = axes_or_current(ax)
    points, labels = to_numpy(points), to_numpy(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(f"points must have shape (rows, 2) and labels (rows,), got {points.shape} and {labels.shape}.")
    ids = np.unique(labels)
    check_names(names, len(ids))
    for index, label in enumerate(ids):
        chosen = points[labels == label]
        name = str(label) if names is None else names[index]
        color = CLASS_COLORS[index % len(CLASS_COLORS)]
        ax.scatter(*chosen.T, s=14, color=color, alpha=0.65, linewidth=0, label=name)
    if templates is not None:
        ax.scatter(*to_numpy(templates).T, s=70, marker="x", color="black", linewidth=1.8)
    ax.set(title=title or "", aspect="equal")
    ax.set_adjustable("datalim")
    ax.tick_params(labelsize="small", color=GREY)
    remove_frame(ax)
    ax.legend(fontsize="small", handletextpad=0.2, framealpha=0.85, edgecolor="none")
    return ax
