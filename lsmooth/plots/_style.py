"""What the pictures share: colours, where to draw, and what an axis looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lsmooth.backends import Array, backend_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#2f6690", "#d1495b", "#8d99a6"
CLASS_COLORS = (BLUE, "#e09f3e", "#7b4b94", "#3a7d44", RED, "#5bb0ba", "#8c6d46", "#c77dff", "#6b7683", "#b5bd00")


def axes_or_current(ax: Axes | None) -> Axes:
    """The axes that were given, or the current ones."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise ImportError("Pictures need matplotlib: pip install 'lsmooth[plots]'.") from error
    return pyplot.gca() if ax is None else ax


def to_numpy(array: Array) -> np.ndarray:
    """Any framework's array on the host."""
    xp = backend_of(array=array)
    return xp.to_numpy(xp.asarray(array))


def plain(ax: Axes) -> None:
    """A light grid behind the data, and no frame above and at the right."""
    ax.set_axisbelow(True)
    ax.grid(color="0.92", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
