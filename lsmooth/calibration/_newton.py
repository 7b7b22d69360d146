"""The one-parameter fit: Newton's method that cannot leave a bracket, and what there is without an optimum."""

from __future__ import annotations

import math
from collections.abc import Callable

from lsmooth.calibration._moments import Sums

_LONGEST_STEP = 6.0
_EXACT_STEP = 3e-5
"""Newton's error after a step of this length is its square: below 1e-8, and no further pass is needed."""
_INDISTINGUISHABLE = 0.5
"""Of the total log-likelihood: one standard error from its supremum."""

Evaluate = Callable[[float], Sums]


def find_root(
    evaluate: Evaluate, log_beta: float, low: float, high: float, passes: int, *, exact: float = _EXACT_STEP
) -> tuple[float, Sums, int, str]:
    """The log beta where the slope is zero.

    The slope divided by beta grows with beta. From the soft side the step is Newton's in beta,
    from the sharp side Newton's in 1 / beta: neither can change the sign, and both agree with
    Newton's in log beta near the optimum. A step out of the bracket is replaced by its middle.

    Returns:
        log beta, the sums there, the passes that were used, and ``"converged"``, ``"at_bound"`` or
        ``"max_iter"``.
    """
    left, right = -math.inf, math.inf
    sums = Sums()
    for used in range(1, passes + 1):
        sums = evaluate(math.exp(log_beta))
        if sums.slope > 0:
            right = log_beta
        else:
            left = log_beta
        if (log_beta == low and sums.slope > 0) or (log_beta == high and sums.slope < 0):
            return log_beta, sums, used, "at_bound"
        step = _step(sums)
        following = min(max(log_beta + step, low), high)
        if not left <= following <= right:
            following = 0.5 * (left + right)
            step = following - log_beta
        if abs(step) <= exact:
            # To the second order in the step, which is exact to twice the precision of a float32.
            value = sums.value + step * (sums.slope + 0.5 * step * (sums.curvature + sums.slope))
            return following, Sums(value, 0.0, sums.curvature), used, "converged"
        log_beta = following
    return log_beta, sums, passes, "max_iter"


def _step(sums: Sums) -> float:
    if sums.slope == 0:
        return 0.0
    length = math.log1p(abs(sums.slope) / sums.curvature) if sums.curvature > 0 else _LONGEST_STEP
    return -math.copysign(min(length, _LONGEST_STEP), sums.slope)


def sharpen(evaluate: Evaluate, sums: Sums, high: float, passes: int) -> tuple[float, Sums, int]:
    """The least beta from 1 on whose likelihood is indistinguishable from the limit, beta to infinity.

    For labels that all have the largest logit. What the likelihood can still gain is about the
    squared slope over the curvature, and falls exponentially in beta.
    """
    beta = 1.0
    for used in range(passes):
        gain = sums.slope**2 / sums.curvature if sums.curvature > 0 else 0.0
        if gain <= _INDISTINGUISHABLE or beta >= high:
            return beta, sums, used
        longer = max(1.0, math.log(gain / _INDISTINGUISHABLE))
        beta = min(beta * (1.0 + longer * abs(sums.slope) / sums.curvature), high)
        sums = evaluate(beta)
    return beta, sums, passes


def soften(evaluate: Evaluate, sums: Sums, value_at_zero: float, low: float, passes: int) -> tuple[float, Sums, int]:
    """The greatest beta up to 1 whose likelihood is indistinguishable from that of uniform predictions.

    For labels that the logits tell nothing about. The value is convex in beta and grows, so
    Newton's method comes down to the point from above.
    """
    beta = 1.0
    for used in range(passes):
        excess = sums.value - value_at_zero - _INDISTINGUISHABLE
        if excess <= 0.1 * _INDISTINGUISHABLE or beta <= low:
            return beta, sums, used
        beta = max(beta * (1.0 - excess / sums.slope), low)
        sums = evaluate(beta)
    return beta, sums, passes
