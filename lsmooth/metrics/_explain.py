"""The reasons why two libraries compute different calibration errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lsmooth.backends import Array
from lsmooth.metrics._bins import CONVENTIONS, bin_index
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import Scheme, by_class_one, calibration_error, confidence_and_outcome, top_label_table

DEFAULT_BINS = {"guo": 15, "torchmetrics": 15, "netcal": 10, "tfp": 15, "sklearn": 5, "relplot": 10}


@dataclass(frozen=True)
class Explanation:
    """The calibration error of the same data by each convention; ``print`` it."""

    n_bins: int
    """The number of bins of ``errors``."""
    errors: dict[str, float]
    """The error by each convention, with ``n_bins`` bins."""
    errors_by_default: dict[str, float]
    """The same, with each library's default number of bins."""
    on_edge: int
    """Rows whose confidence is on an edge between two bins, where (lo, hi] and [lo, hi) differ."""
    at_one: int
    """Rows of confidence 1, for which some conventions have a bin of its own."""
    rounded: int
    """Rows that a library puts into another bin by rounding."""
    reasons: tuple[str, ...]
    """The choices that make a difference here, as sentences."""

    def __str__(self) -> str:
        """A table, and the reasons below."""
        lines = [f"{'convention':<14}{f'{self.n_bins} bins':>12}{'its default':>14}"]
        for name, error in self.errors.items():
            default = f"{self.errors_by_default[name]:.6f} ({DEFAULT_BINS[name]})"
            lines.append(f"{name:<14}{error:>12.6f}{default:>18}")
        return "\n".join([*lines, *(f"- {reason}" for reason in self.reasons)])


def explain_difference(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Explanation:
    """The calibration error by every convention, and the choices that make the difference.

    Args:
        labels: as in `expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins to compare at.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        An `Explanation`.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: the libraries named in `expected_calibration_error`.

    Examples:
        >>> from lsmooth.metrics import explain_difference
        >>> p = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]]
        >>> explanation = explain_difference([0, 0, 1, 0], p, n_bins=2)
        >>> explanation.reasons[0]
        '2 rows have a confidence on an edge: (lo, hi] and [lo, hi) differ there.'
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp

    def error(name: str, bins: int) -> float:
        sums = top_label_table(inputs, Scheme(bins, convention=name), binary)
        return float(xp.to_numpy(calibration_error(xp, sums, "l1")))

    counted = xp.to_numpy(inputs.weight) != 0
    index = {}
    for name in CONVENTIONS:
        confidence, _ = confidence_and_outcome(inputs, name, binary)
        index[name] = xp.to_numpy(bin_index(xp, confidence, n_bins, name))[counted]
    confidence = xp.to_numpy(confidence_and_outcome(inputs, "guo")[0])[counted]
    edges = (np.arange(1, n_bins) / n_bins).astype(confidence.dtype)
    on_edge = np.isin(confidence, edges)
    by_one = [name for name in CONVENTIONS if by_class_one(inputs, name, binary)]
    plain = ~on_edge & (confidence < 1)  # all conventions agree on these, except for rounding
    moved = {name: (index[name] != index["guo"]) & plain for name in CONVENTIONS if name not in by_one}
    rounded = int(np.any(list(moved.values()), axis=0).sum())
    shifted = [name for name, rows in moved.items() if rows.any()]
    reasons = _reasons(int(on_edge.sum()), int((confidence == 1).sum()), rounded, shifted, by_one)
    return Explanation(
        n_bins,
        {name: error(name, n_bins) for name in CONVENTIONS},
        {name: error(name, DEFAULT_BINS[name]) for name in CONVENTIONS},
        int(on_edge.sum()),
        int((confidence == 1).sum()),
        rounded,
        reasons,
    )


def _reasons(on_edge: int, at_one: int, rounded: int, shifted: list[str], by_one: list[str]) -> tuple[str, ...]:
    reasons = []
    if on_edge:
        reasons.append(f"{_rows(on_edge)} a confidence on an edge: (lo, hi] and [lo, hi) differ there.")
    if at_one:
        reasons.append(f"{_rows(at_one)} a confidence of 1: torchmetrics and relplot have a bin of its own for it.")
    if rounded:
        are = "row is" if rounded == 1 else "rows are"
        reasons.append(f"{rounded} {are} so close to an edge that rounding counts, in {', '.join(shifted)}.")
    if by_one:
        judges = ", ".join(by_one)
        reasons.append(f"There are two classes: {judges} judge P(class 1), the others the likelier class.")
    reasons.append("By default netcal and relplot take 10 bins, scikit-learn 5, the others 15.")
    return tuple(reasons)


def _rows(count: int) -> str:
    return f"{count} row has" if count == 1 else f"{count} rows have"
