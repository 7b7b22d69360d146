"""The reliability curve: accuracy against confidence, bin by bin."""

from __future__ import annotations

from typing import NamedTuple

from lsmooth.backends import Array, Backend
from lsmooth.metrics._bins import BinSums, exact_edges
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import Scheme, top_label_table


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
    scheme = Scheme(n_bins)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits)
    return curve_of(inputs.xp, top_label_table(inputs, scheme), inputs.dtype)


def curve_of(xp: Backend, sums: BinSums, dtype: str) -> ReliabilityCurve:
    """The means of a (1, bins) table of equal widths."""
    weight, confidence, correct = (x[0] for x in sums)
    edges = xp.asarray(exact_edges(xp.shape(weight)[0], dtype), dtype, like=weight)
    divisor = xp.where(weight == 0, float("nan"), weight)
    return ReliabilityCurve(*(xp.cast(x, dtype) for x in (edges, confidence / divisor, correct / divisor, weight)))
