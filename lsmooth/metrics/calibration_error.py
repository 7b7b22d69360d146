"""How far stated confidence is from observed accuracy, bin by bin."""

from __future__ import annotations

from typing import NamedTuple

from lsmooth.backends import Array, Backend
from lsmooth.metrics._bins import BinSums, bin_index, bin_sums, equal_width_edges
from lsmooth.metrics._inputs import Inputs, prepare, top_label

NORMS = ("l1", "l2", "max")


class ReliabilityCurve(NamedTuple):
    """Accuracy against confidence, bin by bin: what a reliability diagram shows."""

    edges: Array
    """(n_bins + 1,): bin b holds confidences in (edges[b], edges[b + 1]], the first one 0 too."""
    confidence: Array
    """(n_bins,): mean confidence of the bin's rows, NaN in an empty bin."""
    accuracy: Array
    """(n_bins,): fraction of them whose likeliest class is the label, NaN in an empty bin."""
    weight: Array
    """(n_bins,): their number, or the sum of their weights."""


def expected_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    norm: str = "l1",
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Mean distance between confidence and accuracy over bins of confidence.

    ``sum_b (n_b / N) |acc_b - conf_b|``, the confidence being that in the likeliest class.

    Bins are (lo, hi] and of equal width; 0 is in the first, 1 in the last. Empty bins add
    nothing, and without rows the error is 0. Equal logits: the first class wins.

    Args:
        labels: class ids, integers in the shape of the predictions without ``axis``. One outside
            0..classes-1 makes the result NaN; under `lsmooth.validate` it is an error.
        predictions: probabilities, or logits if ``from_logits``; floating point, any shape,
            classes along ``axis``.
        from_logits: whether ``predictions`` are logits; never guessed.
        n_bins: the number of bins.
        norm: ``"l1"``; ``"l2"``: ``sqrt(sum_b (n_b / N) (acc_b - conf_b)^2)``; ``"max"``: the
            largest distance of any bin.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows, at least 0: a scalar, or of their rank, each dimension equal or 1.

    Returns:
        A scalar, float64 for float64 predictions, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit or an option is unknown.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; Naeini et al. 2015.

    Example:
        >>> from lsmooth.metrics import expected_calibration_error
        >>> probabilities = [[0.5, 0.5], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8]]
        >>> float(expected_calibration_error([0, 1, 0, 1], probabilities, n_bins=2).round(6))
        0.125
    """
    check_bins(n_bins)
    check_norm(norm)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits)
    _, sums = top_label_sums(inputs, n_bins)
    return inputs.xp.cast(calibration_error(inputs.xp, sums, norm), inputs.dtype)


def reliability_curve(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> ReliabilityCurve:
    """Mean confidence and accuracy in each bin of confidence.

    ``conf_b = mean of max_k p_k``, ``acc_b = mean of [argmax_k p_k = y]`` over the rows of bin b.

    Args:
        labels: as in `expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins, of equal width.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `ReliabilityCurve`, float64 for float64 predictions, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit or an option is unknown.

    Source: Guo et al. 2017; Niculescu-Mizil and Caruana 2005.

    Example:
        >>> from lsmooth.metrics import reliability_curve
        >>> curve = reliability_curve([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], n_bins=2)
        >>> curve.accuracy.round(4), curve.weight
        (array([   nan, 0.6667]), array([0., 3.]))
    """
    check_bins(n_bins)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits)
    xp = inputs.xp
    edges, sums = top_label_sums(inputs, n_bins)
    divisor = xp.where(sums.weight == 0, float("nan"), sums.weight)
    curve = ReliabilityCurve(edges, sums.confidence / divisor, sums.correct / divisor, sums.weight)
    return ReliabilityCurve(*(xp.cast(x, inputs.dtype) for x in curve))


def top_label_sums(inputs: Inputs, n_bins: int) -> tuple[Array, BinSums]:
    """Edges of equal width, and the sums of the rows by their confidence in the likeliest class."""
    xp = inputs.xp
    confidence, correct = top_label(inputs)
    edges = equal_width_edges(xp, n_bins, confidence)
    index = bin_index(xp, confidence, edges, n_bins)
    return edges, bin_sums(xp, index, inputs.weight, confidence, correct, n_bins)


def calibration_error(xp: Backend, sums: BinSums, norm: str) -> Array:
    """The error of a table of sums; 0 where nothing has been counted."""
    total = xp.sum(sums.weight)
    total = xp.where(total == 0, 1.0, total)
    gap = sums.correct - sums.confidence
    gap = xp.where(gap < 0, -gap, gap)
    if norm == "l1":
        return xp.sum(gap) / total
    gap = gap / xp.where(sums.weight == 0, 1.0, sums.weight)
    return xp.max(gap, axis=0) if norm == "max" else xp.sum(sums.weight * gap * gap / total) ** 0.5


def check_bins(n_bins: int) -> None:
    """A positive integer."""
    if not isinstance(n_bins, int) or isinstance(n_bins, bool) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer of at least 1, got {n_bins!r}.")


def check_norm(norm: str) -> None:
    """One of `NORMS`."""
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}.")
