"""Selective prediction: the error rate of the most confident rows."""

from __future__ import annotations

from typing import NamedTuple

from lsmooth._sums import long_sum
from lsmooth.backends import Array, Backend
from lsmooth.metrics._inputs import Inputs, prepare, top_label


class RiskCoverageCurve(NamedTuple):
    """Error rate against coverage, the most confident rows first."""

    coverage: Array
    """(rows,): rising to 1."""
    risk: Array
    """(rows,): the error rate of the rows up to this one."""


def risk_coverage_curve(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> RiskCoverageCurve:
    """Error rate of the most confident rows: ``risk_i = (errors among the i most confident rows) / i``.

    Rows of equal confidence have no order: each counts as wrong by the error rate of all of them.

    Args:
        labels: as in `expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `RiskCoverageCurve`; rows that do not count come first, at coverage 0 and risk 0.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks".

    Examples:
        >>> from lsmooth.metrics import risk_coverage_curve
        >>> curve = risk_coverage_curve([0, 0], [[0.9, 0.1], [0.4, 0.6]])
        >>> curve.coverage, curve.risk
        (array([0.5, 1. ]), array([0. , 0.5]))
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp
    _, covered, wrong, total = _ranked(xp, inputs)
    risk = wrong / xp.where(xp.equal(covered, 0), 1.0, covered)
    return RiskCoverageCurve(inputs.answer(covered / total), inputs.answer(risk))


def area_under_risk_coverage(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Area under the risk-coverage curve (AURC): ``mean_i risk_i``.

    It is low if the wrong rows are those of least confidence.

    Args:
        labels: as in `risk_coverage_curve`.
        predictions: as there.
        from_logits: as there.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32; 0 without rows.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Geifman et al. 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers".

    Examples:
        >>> from lsmooth.metrics import area_under_risk_coverage
        >>> float(area_under_risk_coverage([0, 0], [[0.9, 0.1], [0.4, 0.6]]))
        0.25
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp
    weight, covered, wrong, total = _ranked(xp, inputs)
    risk = wrong / xp.where(xp.equal(covered, 0), 1.0, covered)
    return inputs.answer(long_sum(xp, weight * risk) / total)


def _ranked(xp: Backend, inputs: Inputs) -> tuple[Array, Array, Array, Array]:
    """By descending confidence each row's weight, and the weight and the wrong weight up to it; and the total."""
    confidence, correct = top_label(inputs)
    doubt = xp.where(xp.equal(inputs.weight, 0), float("-inf"), -confidence)
    order = xp.argsort(doubt)
    doubt, weight, wrong = (xp.take(x, order) for x in (doubt, inputs.weight, 1.0 - correct))
    weight = xp.cast(weight, "float64")
    covered = xp.cumsum(weight)
    errors = xp.cumsum(weight * xp.cast(wrong, "float64"))
    # Errors are spread evenly over rows of equal confidence: interpolate between the two ends of the group.
    first, last = xp.searchsorted(doubt, doubt, "left"), xp.searchsorted(doubt, doubt, "right")
    sums = [_before(xp, x, end) for x in (covered, errors) for end in (first, last)]
    held = sums[1] - sums[0]
    spread = sums[2] + (sums[3] - sums[2]) * (covered - sums[0]) / xp.where(xp.equal(held, 0), 1.0, held)
    total = long_sum(xp, weight)
    return weight, covered, spread, xp.where(xp.equal(total, 0), 1.0, total)


def _before(xp: Backend, running: Array, count: Array) -> Array:
    """The sum of the first ``count`` values, from their running sums."""
    return xp.where(count > 0, xp.take(running, xp.where(count > 0, count - 1, 0)), 0.0)
