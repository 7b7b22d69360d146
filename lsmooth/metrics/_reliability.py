"""The reliability curve: accuracy against confidence, bin by bin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend
from lsmooth.metrics._bins import BinSums, bin_sums, exact_edges
from lsmooth.metrics._inputs import Inputs, prepare, probabilities, top_label
from lsmooth.metrics._tables import Scheme, check_concrete, classwise_table


class ReliabilityCurve(NamedTuple):
    """Accuracy against confidence, bin by bin: the data of a reliability diagram."""

    edges: Array
    """(n_bins + 1,): bin b holds confidences in (edges[b], edges[b + 1]], the first one 0 too."""
    confidence: Array
    """(n_bins,): mean confidence of the bin's rows, NaN in an empty bin."""
    accuracy: Array
    """(n_bins,): fraction of them whose likeliest class is the label, NaN in an empty bin."""
    weight: Array
    """(n_bins,): their number, or the sum of their weights."""


class ConsistencyBand(NamedTuple):
    """The interval of each bin's accuracy if every confidence were right."""

    low: Array
    """(n_bins,): the lower end, NaN in an empty bin."""
    high: Array
    """(n_bins,): the upper end."""


def reliability_curve(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    by: str = "confidence",
    binary: bool = False,
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
        n_bins: the number of bins.
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each bin.
        by: ``"confidence"``, in the likeliest class; or ``"positive"``, for two classes: P(class 1), and the
            frequency of that label.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `ReliabilityCurve`, float64 for float64 predictions, else float32.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Guo et al. 2017; Niculescu-Mizil and Caruana 2005.

    Examples:
        >>> from lsmooth.metrics import reliability_curve
        >>> curve = reliability_curve([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], n_bins=2)
        >>> curve.accuracy.round(4), curve.weight
        (array([   nan, 0.6667]), array([0., 3.]))
    """
    scheme = Scheme(n_bins, binning)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp, (confidence, correct) = inputs.xp, _confidence_and_outcome(inputs, by)
    index = scheme.index_of(inputs, by, confidence, inputs.weight)
    sums = bin_sums(xp, index, inputs.weight, confidence, correct, scheme.length)
    edges = scheme.edges(xp, confidence, inputs.weight)
    return _answer(inputs, curve_of(xp, sums, inputs.dtype)._replace(edges=edges))


def classwise_reliability_curve(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> ReliabilityCurve:
    """Mean probability and frequency of each class in each bin of its probability.

    ``conf_kb = mean of p_k``, ``acc_kb = mean of [y = k]`` over the rows whose p_k is in bin b.

    Args:
        labels: as in `reliability_curve`.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins of each class, of equal width.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `ReliabilityCurve` of shape (classes, n_bins); the edges are those of every class.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning".

    Examples:
        >>> from lsmooth.metrics import classwise_reliability_curve
        >>> curve = classwise_reliability_curve([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], n_bins=2)
        >>> curve.accuracy
        array([[0.5, 1. ],
               [0. , 0.5]])
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    return _answer(inputs, _curves(inputs.xp, classwise_table(inputs, Scheme(n_bins)), inputs.dtype))


def consistency_band(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    by: str = "confidence",
    confidence_level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> ConsistencyBand:
    """The interval of each bin's accuracy under perfect calibration.

    Percentiles of ``acc_b`` if each row is right with the probability of its confidence. A bin whose accuracy lies
    outside is not calibrated. The predictions are held fixed.

    Args:
        labels: as in `reliability_curve`; they only determine which rows count.
        predictions: as there.
        from_logits: as there.
        n_bins: the number of bins.
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each bin.
        by: ``"confidence"``, in the likeliest class; or ``"positive"``, for two classes: P(class 1), and the
            frequency of that label.
        confidence_level: between 0 and 1, for each bin.
        n_resamples: the number of draws.
        seed: of NumPy's generator, on every backend.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `ConsistencyBand`, float64 for float64 predictions, else float32. Computed on the host: the
        call cannot be traced.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`; TypeError if the call is traced.

    Source: Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams".

    Examples:
        >>> from lsmooth.metrics import consistency_band
        >>> band = consistency_band([0] * 100, [[0.75, 0.25]] * 100, n_bins=2)
        >>> bool(0.6 < band.low[1] < 0.75 < band.high[1] < 0.9)
        True
    """
    scheme = Scheme(n_bins, binning)
    confidence_level = check.check_fraction("confidence_level", confidence_level)
    n_resamples = check.check_count("n_resamples", n_resamples)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp
    check_concrete("consistency_band", inputs)
    confidence, _ = _confidence_and_outcome(inputs, by)
    index = xp.to_numpy(scheme.index(xp, confidence, inputs.weight))
    confidence, weight = (xp.to_numpy(x).astype(np.float64) for x in (confidence, inputs.weight))
    rng = np.random.default_rng(seed)
    drawn = [
        np.bincount(index, weight * (rng.random(len(index)) < confidence), scheme.n_bins) for _ in range(n_resamples)
    ]
    total = np.bincount(index, weight, scheme.n_bins)
    tail = 0.5 * (1.0 - confidence_level)
    ends = np.quantile(drawn, [tail, 1.0 - tail], axis=0) / np.where(total == 0, np.nan, total)
    return ConsistencyBand(*(inputs.home.asarray(end, inputs.dtype, like=inputs.given) for end in ends))


def _confidence_and_outcome(inputs: Inputs, by: str) -> tuple[Array, Array]:
    """The probability to be binned, and whether its class is the label."""
    if by not in ("confidence", "positive"):
        raise ValueError(f"by must be confidence or positive, got {by!r}.")
    if by == "confidence":
        return top_label(inputs)
    classes = inputs.xp.shape(inputs.predictions)[-1]
    if classes != 2:
        raise ValueError(f"by='positive' is for two classes, got {classes}; see classwise_reliability_curve.")
    return probabilities(inputs)[:, 1], inputs.xp.cast(inputs.xp.equal(inputs.labels, 1), inputs.dtype)


def _answer(inputs: Inputs, curve: ReliabilityCurve) -> ReliabilityCurve:
    return ReliabilityCurve(*(inputs.answer(part) for part in curve))


def curve_of(xp: Backend, sums: BinSums, dtype: str) -> ReliabilityCurve:
    """The means of a (1, bins) table of equal widths."""
    curves = _curves(xp, sums, dtype)
    return ReliabilityCurve(curves.edges, *(part[0, ...] for part in curves[1:]))


def _curves(xp: Backend, sums: BinSums, dtype: str) -> ReliabilityCurve:
    weight, confidence, correct, _ = sums
    edges = xp.asarray(exact_edges(xp.shape(weight)[-1], dtype), dtype, like=weight)
    divisor = xp.where(xp.equal(weight, 0), float("nan"), weight)
    return ReliabilityCurve(*(xp.cast(x, dtype) for x in (edges, confidence / divisor, correct / divisor, weight)))
