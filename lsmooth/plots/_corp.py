"""The reliability diagram without bins (CORP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lsmooth.backends import Array
from lsmooth.metrics import corp_decomposition, corp_reliability_curve
from lsmooth.metrics._corp import corp_band
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import rows_on_host
from lsmooth.plots._style import BLUE, GREY, axes_or_current, legend, note, remove_frame, shares, strip_below, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP_BINS = 40


def corp_reliability_diagram(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
    score: str = "brier",
    counts: bool = True,
    band: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence by isotonic regression: a line that does not decrease, without bins.

    A corner shows the decomposition of the score: MCB miscalibration, DSC discrimination, UNC uncertainty.

    Args:
        labels: as in `lsmooth.metrics.corp_reliability_curve`.
        predictions: as there.
        from_logits: as there.
        binary: whether predictions are the probability of 1, which is then binned itself.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.
        score: the score to decompose, ``"brier"`` or ``"log"``.
        counts: whether to draw the distribution of the confidences below.
        band: the level, such as 0.95, of a band for the line of a calibrated classifier, from 100 draws of the
            labels from the confidences.
        title: above the diagram.
        ax: where to draw; the current axes if None.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib or SciPy is not installed.
        TypeError, ValueError: as `lsmooth.metrics.expected_calibration_error`.

    Source: Dimitriadis, Gneiting and Jordan 2021, "Stable reliability diagrams for probabilistic
        classifiers".

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = corp_reliability_diagram([0, 1, 0, 1], [0.2, 0.2, 0.8, 0.8], binary=True, ax=Figure().subplots())
        >>> ax.texts[0].get_text().splitlines()
        ['MCB 0.090', 'DSC 0.000', 'UNC 0.250']
    """
    ax = axes_or_current(ax)
    rows: Any = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    curve = [to_numpy(part).astype(np.float64) for part in corp_reliability_curve(rows, rows, binary=binary)]
    _, *parts = corp_decomposition(rows, rows, score=score, binary=binary)
    confidence, _, weight = rows_on_host("corp_reliability_diagram", rows, binary)
    if band is not None:
        x, lower, upper = corp_band(confidence, weight, band)
        ax.fill_between(x, lower, upper, color=GREY, alpha=0.35, linewidth=0, label=f"{band:.0%} if calibrated")
    low, high, _, accuracy, _ = curve
    ax.plot([0, 1], [0, 1], color="black", linestyle=(0, (4, 3)), linewidth=1)
    ends = np.stack([low, high], axis=1).reshape(-1)
    ax.plot(ends, np.repeat(accuracy, 2), color=BLUE, linewidth=1.8, label="frequency" if binary else "accuracy")
    names = ("MCB", "DSC", "UNC")
    note(ax, "\n".join(f"{name} {float(to_numpy(part)):.3f}" for name, part in zip(names, parts, strict=True)))
    where, up = ("probability", "frequency") if binary else ("confidence", "accuracy")
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel=up, title=title or "")
    remove_frame(ax)
    legend(ax, loc="upper left")
    lowest = ax
    if counts and (weight > 0).any():
        lowest = strip_below(ax)
        counted = weight > 0
        held, edges = np.histogram(confidence[counted], _STRIP_BINS, (0.0, 1.0), weights=weight[counted])
        shares(lowest, edges, held)
    lowest.set_xlabel(where)
    return ax
