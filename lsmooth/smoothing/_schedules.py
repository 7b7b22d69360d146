"""A label smoothing that changes as training goes on: plain functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of

Schedule = Callable[[Any], Any]
"""A function of the step: a number gives a float, a tensor, traced or not, a tensor of its framework."""


def linear_schedule(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """From ``start`` to ``end`` in a straight line over ``steps``, after ``delay`` steps of ``start``.

    ``start + (end - start) clip((step - delay) / steps, 0, 1)``.

    Args:
        start: eps at first, in [0, 1].
        end: eps at last, in [0, 1].
        steps: how many steps the change takes, at least 1.
        delay: how many steps pass before it.

    Returns:
        A function of the step that gives eps, the ``label_smoothing`` of a loss: of a Python number a
        float; of a tensor, such as an optimizer's counter inside ``jit`` or ``tf.function``, a tensor.

    Raises:
        ValueError: if a number is out of range.

    Source: ``optax.linear_schedule``, for the names of the shapes and for steps that may be traced.

    Examples:
        >>> from lsmooth.smoothing import linear_schedule
        >>> eps = linear_schedule(0.0, 0.1, 100, delay=50)
        >>> [round(eps(step), 3) for step in (0, 50, 100, 150, 999)]
        [0.0, 0.0, 0.05, 0.1, 0.1]
    """
    progress = _progress(start, end, steps, delay)
    return lambda step: start + (end - start) * progress(step)


def cosine_schedule(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """From ``start`` to ``end`` along half a cosine over ``steps``: slow, fast, slow.

    ``start + (end - start) (1 - cos(pi x)) / 2``, ``x = clip((step - delay) / steps, 0, 1)``.

    Args:
        start: eps at first, in [0, 1].
        end: eps at last, in [0, 1].
        steps: how many steps the change takes, at least 1.
        delay: how many steps pass before it.

    Returns:
        A function of the step that gives eps, as `linear_schedule` returns one.

    Raises:
        ValueError: if a number is out of range.

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
    """cos(pi x) for x in [0, 1]; of a tensor by the series of sin(pi (1 - 2 x) / 2), to the last digit of float64."""
    if isinstance(x, float):
        return math.cos(math.pi * x)
    angle = 0.5 * math.pi * (1.0 - 2.0 * x)
    series = 1.0
    for n in range(21, 1, -2):
        series = 1.0 - series * angle * angle / (n * (n - 1))
    return angle * series
