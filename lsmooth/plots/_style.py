"""Colours, axes and labels that the pictures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array, backend_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#2f6690", "#d1495b", "#8d99a6"
CLASS_COLORS = (BLUE, "#e09f3e", "#7b4b94", "#3a7d44", RED, "#5bb0ba", "#8c6d46", "#c77dff", "#6b7683", "#b5bd00")


def axes_or_current(ax: Axes | None) -> Axes:
    """The given axes, or the current ones."""
    return _pyplot().gca() if ax is None else ax


def grid_of_axes(
    axes: Sequence[Axes] | np.ndarray | None, name: str, count: int, columns: int, size: tuple[float, float]
) -> np.ndarray:
    """The given axes, flat, or those of a new figure, each of that size in inches."""
    if count == 0:
        raise ValueError(f"{name} must not be empty.")
    if axes is None:
        rows = math.ceil(count / columns)
        figsize = (columns * size[0], rows * size[1])
        grid = _pyplot().figure(figsize=figsize, layout="constrained").subplots(rows, columns, squeeze=False)
        for spare in grid.flat[count:]:
            spare.remove()
        return grid.reshape(-1)[:count]
    flat = np.asarray(axes, dtype=object).reshape(-1)
    if len(flat) != count:
        raise ValueError(f"axes must be as many as the {name}, {count}; got {len(flat)}.")
    return flat


def check_names(names: Sequence[str] | None, count: int) -> None:
    """Raise unless there is a name for each class."""
    if names is not None and len(names) < count:
        raise ValueError(f"names must have a name for each of the {count} classes, got {len(names)}: {list(names)}.")


def to_numpy(array: Array) -> np.ndarray:
    """Any framework's array on the host."""
    xp = backend_of(array=array)
    return xp.to_numpy(xp.asarray(array))


def remove_frame(ax: Axes) -> None:
    """A light grid behind the data, and no frame above and at the right."""
    ax.set_axisbelow(True)
    ax.grid(color="0.92", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes, **options: Any) -> None:
    """A small, translucent legend without a frame."""
    ax.legend(fontsize="small", handlelength=1.4, framealpha=0.85, edgecolor="none", **options)


def note(ax: Axes, text: str, x: float = 0.96, y: float = 0.04) -> None:
    """A text in a corner, by default the lower right one."""
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": GREY, "alpha": 0.9}
    sides: dict[str, Any] = {"ha": "right" if x > 0.5 else "left", "va": "top" if y > 0.5 else "bottom"}
    ax.text(x, y, text, transform=ax.transAxes, bbox=box, zorder=4, **sides)


def strip_below(ax: Axes) -> Axes:
    """A strip cut from the lower end of the axes, with the same x."""
    from matplotlib.transforms import Bbox

    def upper_part(ax: Any, _: Any) -> Bbox:
        box = ax.get_position(original=True)
        return Bbox.from_extents(box.x0, box.y0 + 0.26 * box.height, box.x1, box.y1)

    # A child of the axes, within their position, so that every layout engine reserves space for it.
    ax.set_axes_locator(upper_part)
    strip = ax.inset_axes((0.0, -0.26 / 0.74, 1.0, 0.22 / 0.74), sharex=ax)
    strip.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelbottom=False)
    return strip


def shares(ax: Axes, edges: np.ndarray, weight: np.ndarray) -> None:
    """Bars of the share of the rows in each bin."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    filled = weight > 0
    share = weight[filled] / weight[filled].sum()
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    ax.bar(left, share, width, align="edge", color=GREY, edgecolor="white", linewidth=0.8)
    ax.set(ylim=(0, 1.15 * share.max()), ylabel="rows")
    ax.yaxis.set_major_locator(MaxNLocator(2))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise ImportError("Pictures need matplotlib: pip install 'lsmooth[plots]'.") from error
    return pyplot
