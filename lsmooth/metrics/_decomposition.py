"""The decomposition of the Brier score."""

from __future__ import annotations

from typing import NamedTuple

from lsmooth._sums import long_sum
from lsmooth.backends import Array
from lsmooth.metrics._inputs import mean, prepare
from lsmooth.metrics._scores import squared_distances
from lsmooth.metrics._tables import Scheme, classwise_table


class BrierDecomposition(NamedTuple):
    """score = reliability - resolution + uncertainty + within_bins; scalars."""

    score: Array
    """The Brier score."""
    reliability: Array
    """Squared distance of each bin's frequency from its mean probability: 0 if calibrated."""
    resolution: Array
    """Squared distance of each bin's frequency from that of all rows: how well the predictions separate rows."""
    uncertainty: Array
    """The Brier score of predicting the frequencies of all rows."""
    within_bins: Array
    """The part that binning hides: 0 if the probabilities in each bin are equal."""


def brier_decomposition(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> BrierDecomposition:
    """The Brier score as reliability, resolution and uncertainty.

    ``sum_k [ sum_b (n_kb / N) (f_kb - c_kb)^2 - sum_b (n_kb / N) (f_kb - f_k)^2 + f_k (1 - f_k) ]``, and
    the rest of the score, ``within_bins``. For class k and bin b, c_kb is the mean of p_k, f_kb
    the frequency of label k, and f_k that of all rows.

    Args:
        labels: as in `brier_score`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins of each class.
        binning: ``"equal_width"`` or ``"equal_mass"``.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `BrierDecomposition`, float64 for float64 predictions, else float32; zeros without rows.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Murphy 1973, "A New Vector Partition of the Probability Score"; Stephenson et al. 2008 for
        the part within bins.

    Examples:
        >>> from lsmooth.metrics import brier_decomposition
        >>> parts = brier_decomposition([0, 1, 1, 1], [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
        >>> [float(part) for part in parts]
        [0.25, 0.0, 0.125, 0.375, 0.0]
    """
    scheme = Scheme(n_bins, binning)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp
    weight, _, correct, gap = classwise_table(inputs, scheme)
    rows = xp.sum(weight, axis=-1)[:, None]
    rows = xp.where(xp.equal(rows, 0), 1.0, rows)
    filled = xp.where(xp.equal(weight, 0), 1.0, weight)
    overall = xp.sum(correct, axis=-1)[:, None] / rows
    share, frequency = weight / rows, correct / filled
    reliability = long_sum(xp, share * (gap / filled) ** 2)
    resolution = long_sum(xp, share * (frequency - overall) ** 2)
    uncertainty = long_sum(xp, overall * (1.0 - overall))
    score = mean(xp, squared_distances(inputs), inputs.weight, xp.dtype(reliability))
    parts = (score, reliability, resolution, uncertainty, score - (reliability - resolution + uncertainty))
    return BrierDecomposition(*(inputs.answer(part) for part in parts))
