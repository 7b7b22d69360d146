"""The one-parameter fit: Newton's method within a bracket, and a substitute if there is no optimum."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from lsmooth.calibration._moments import Rows, Sums, Totals

_LONGEST_STEP = 6.0
_EXACT_STEP = 3e-5
"""The error after a step of this length is about its square, below 1e-8: no further pass is needed."""
_PART = 16
"""The first steps use every 16th block of rows, if there are at least twice as many blocks."""
_STANDARD_ERROR = 0.5
"""A difference of total log-likelihoods: one standard error from the supremum."""


class Known(Protocol):
    """The totals of rows, and the number of passes over them."""

    @property
    def totals(self) -> Totals:
        """Their totals."""
        ...

    @property
    def passes(self) -> int:
        """Passes so far."""
        ...


class Source(Known, Protocol):
    """Rows with sums at any beta, which take a pass."""

    def sums(self, beta: float) -> Sums:
        """The sums at ``beta``."""
        ...


Found = tuple[float, Sums, str]
Search = Generator[float, Sums, Any]
"""A search yields a beta and receives the sums there, so that several searches can share a pass."""


def solve(source: Source, start: float, low: float, high: float, max_passes: int) -> Found:
    """The beta of greatest likelihood; if there is none, the beta nearest to 1 that is as good.

    ``start``, ``low`` and ``high`` are values of log beta.

    Returns:
        beta, the sums there, and the status.

    Raises:
        ValueError: if no row counts.
    """
    if not source.totals.count > 0:
        raise ValueError("No row to fit on: logits hold none, or all are ignored or of weight 0.")
    return run(source, search(source, start, low, high, max_passes))


def solve_groups(rows: Rows, fitted: np.ndarray, start: float, low: float, high: float, max_passes: int) -> list[Found]:
    """`solve` for groups of rows, in the same passes.

    Returns:
        The result of `solve` for each group to fit.
    """
    groups = {int(i): _Group(rows, int(i)) for i in np.flatnonzero(fitted)}
    searches = {i: search(group, start, low, high, max_passes) for i, group in groups.items()}
    found: dict[int, Found] = {}
    betas = np.ones(len(fitted))
    answers: dict[int, Sums | None] = dict.fromkeys(groups)
    while answers:
        for i in answers:
            try:
                betas[i] = groups[i].ask(searches[i], answers[i])
            except StopIteration as stop:
                found[i] = stop.value
        waiting = [i for i in answers if i not in found]
        sums = rows.sums(betas) if waiting else None
        answers = {i: entry(sums, i) for i in waiting}
    return [found[i] for i in groups]


@dataclass
class _Group:
    """One group of the rows, for its search."""

    rows: Rows
    index: int
    totals: Totals = field(init=False)
    known: dict[float, Sums] = field(init=False)

    def __post_init__(self) -> None:
        self.totals = entry(self.rows.totals, self.index)
        self.known = {beta: entry(sums, self.index) for beta, sums in self.rows.known.items()}

    @property
    def passes(self) -> int:
        return self.rows.passes

    def ask(self, steps: Search, answer: Sums | None) -> float:
        """The next beta of the search whose sums are unknown."""
        beta = steps.send(answer)  # type: ignore[arg-type]  # None starts it
        while beta in self.known:
            beta = steps.send(self.known[beta])
        return beta


def entry(sums: Any, index: int) -> Any:
    """The sums, or totals, of one group."""
    return type(sums)(*(float(getattr(sums, f.name)[index]) for f in fields(sums)))


def run(source: Source, steps: Search) -> Any:
    """Run one search to its end."""
    try:
        beta = next(steps)
        while True:
            beta = steps.send(source.sums(beta))
    except StopIteration as stop:
        return stop.value


def search(source: Known, start: float, low: float, high: float, max_passes: int) -> Search:
    """The steps of `solve`."""
    yield 1.0
    if source.totals.slope_at_zero >= 0:
        return *(yield from soften(source, math.exp(low), max_passes)), "uninformative"
    if source.totals.gap == 0:
        return *(yield from sharpen(source, math.exp(high), max_passes)), "separable"
    log_beta, sums, status = yield from find_root(source, start, low, high, max_passes)
    return math.exp(log_beta), sums, status


def find_root(
    source: Known, log_beta: float, low: float, high: float, max_passes: int, *, exact: float = _EXACT_STEP
) -> Search:
    """The log beta where the slope is zero.

    The slope divided by beta increases with beta. Below the optimum the step is Newton's in beta, above it Newton's in
    1 / beta: neither can change the sign of beta, and both agree with Newton's in log beta near the optimum. A step
    that leaves the bracket is replaced by its middle.

    Returns:
        log beta, the sums there, and ``"converged"``, ``"at_bound"`` or ``"max_iter"``.
    """
    left, right = -math.inf, math.inf
    log_beta = min(max(log_beta, low), high)
    while True:
        sums = yield math.exp(log_beta)
        if sums.slope > 0:
            right = log_beta
        else:
            left = log_beta
        if (log_beta == low and sums.slope > 0) or (log_beta == high and sums.slope < 0):
            return log_beta, sums, "at_bound"
        following = min(max(log_beta + _step(sums), low), high)
        if not left <= following <= right:
            following = 0.5 * (left + right)
        step = following - log_beta
        if abs(step) <= exact:
            # Second order in the step, exact to twice the precision of float32.
            value = sums.value + step * (sums.slope + 0.5 * step * (sums.curvature + sums.slope))
            return following, Sums(value, 0.0, sums.curvature), "converged"
        if source.passes >= max_passes:
            return log_beta, sums, "max_iter"
        log_beta = following


def _step(sums: Sums) -> float:
    if sums.slope == 0:
        return 0.0
    length = math.log1p(abs(sums.slope) / sums.curvature) if sums.curvature > 0 else _LONGEST_STEP
    return -math.copysign(min(length, _LONGEST_STEP), sums.slope)


def sharpen(source: Known, high: float, max_passes: int) -> Search:
    """The least beta from 1 on whose likelihood is indistinguishable from the limit, beta to infinity.

    For labels that all have the largest logit. The remaining gain of the likelihood is about the squared slope over the
    curvature, and falls exponentially in beta.
    """
    beta, sums = 1.0, (yield 1.0)
    while sums.curvature > 0 and beta < high and source.passes < max_passes:
        gain = sums.slope**2 / sums.curvature
        if gain <= _STANDARD_ERROR:
            break
        longer = max(1.0, math.log(gain / _STANDARD_ERROR))
        beta = min(beta * (1.0 + longer * abs(sums.slope) / sums.curvature), high)
        sums = yield beta
    return beta, sums


def soften(source: Known, low: float, max_passes: int) -> Search:
    """The greatest beta up to 1 whose likelihood is indistinguishable from that of uniform predictions.

    For logits without information about the labels. The value is convex and increasing in beta, so Newton's method
    converges from above.
    """
    beta, sums = 1.0, (yield 1.0)
    while beta > low and source.passes < max_passes:
        excess = sums.value - source.totals.value_at_zero - _STANDARD_ERROR
        if excess <= 0.1 * _STANDARD_ERROR:
            break
        beta = max(beta * (1.0 - excess / sums.slope), low)
        sums = yield beta
    return beta, sums


def warm_start(rows: Rows, low: float, high: float) -> float:
    """The optimum of a part of the rows if there are many, else 0."""
    part = rows.part(_PART)
    return 0.0 if part is None else run(part, find_root(part, 0.0, low, high, 20, exact=1e-3))[0]
