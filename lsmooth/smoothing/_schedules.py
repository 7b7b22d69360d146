"""Schedules of the label smoothing, as plain functions of the training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of

Schedule = Callable[[Any], Any]
"""A function of the step: a number gives a float; a tensor, also a traced one, gives a tensor of its framework."""


def linear_schedule(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """A linear change from ``start`` to ``end`` over ``steps``, after ``delay`` steps at ``start``.

    ``start + (end - start) clip((step - delay) / steps, 0, 1)``.

    Args:
        start: the first eps, in [0, 1].
        end: the last eps, in [0, 1].
        steps: the length of the change, at least 1.
        delay: the number of steps before the change.

    Returns:
        A function of the step that returns eps, the ``label_smoothing`` of a loss: a float for a Python number; a
        tensor for a tensor, such as an optimizer's counter under ``jit`` or ``tf.function``.

    Source: ``optax.linear_schedule``.

    Examples:
        >>> from lsmooth.smoothing import linear_schedule
        >>> eps = linear_schedule(0.0, 0.1, 100, delay=50)
        >>> [round(eps(step), 3) for step in (0, 50, 100, 150, 999)]
        [0.0, 0.0, 0.05, 0.1, 0.1]
    """
    progress = _progress(start, end, steps, delay)
    return lambda step: start + (end - start) * progress(step)


def cosine_schedule(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """A change from ``start`` to ``end`` along half a cosine period over ``steps``.

    ``start + (end - start) (1 - cos(pi x)) / 2``, ``x = clip((step - delay) / steps, 0, 1)``.

    Args:
        start: the first eps, in [0, 1].
        end: the last eps, in [0, 1].
        steps: the length of the change, at least 1.
        delay: the number of steps before the change.

    Returns:
        A function of the step that returns eps, as in `linear_schedule`.

    Source: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", for learning rates.

    Examples:
        >>> from lsmooth.smoothing import cosine_schedule
        >>> eps = cosine_schedule(0.0, 0.1, 100)
        >>> [round(eps(step), 3) for step in (0, 25, 50, 100, 999)]
        [0.0, 0.015, 0.05, 0.1, 0.1]
    """
    progress = _progress(start, end, steps, delay)
    return lambda step: start + (end - start) * (0.5 - 0.5 * _cosine(progress(step)))


def _progress(start: float, end: float, steps: int, delay: int) -> Schedule:
    start = check.check_range("start", start, 0.0, 1.0)
    end = check.check_range("end", end, 0.0, 1.0)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    check.check_at_least("delay", delay, 0)

    def progress(step: Any) -> Any:
        if isinstance(step, Real):
            return min(max((float(step) - delay) / steps, 0.0), 1.0)
        xp = backend_of(step=step)
        x = (xp.asarray(step, xp.dtype(xp.asarray(1.0))) - delay) / steps
        return xp.where(x < 0, 0.0, xp.where(x > 1, 1.0, x))

    return progress


def _cosine(x: float | Array) -> float | Array:
    """cos(pi x) for x in [0, 1]; for tensors by the series of sin(pi (1 - 2 x) / 2), accurate to float64."""
    if isinstance(x, float):
        return math.cos(math.pi * x)
    angle = 0.5 * math.pi * (1.0 - 2.0 * x)
    series = 1.0
    for n in range(21, 1, -2):
        series = 1.0 - series * angle * angle / (n * (n - 1))
    return angle * series
