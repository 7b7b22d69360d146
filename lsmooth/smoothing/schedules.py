"""A label smoothing that changes as training goes on: plain functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from lsmooth import _validation as check

Schedule = Callable[[float], float]


def linear_schedule(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """From ``start`` to ``end`` in a straight line over ``steps``, after ``delay`` steps of ``start``.

    ``start + (end - start) clip((step - delay) / steps, 0, 1)``.

    Args:
        start: eps at first, in [0, 1].
        end: eps at last, in [0, 1].
        steps: how many steps the change takes, at least 1.
        delay: how many steps pass before it.

    Returns:
        A function of the step, a Python number or a concrete scalar, that gives eps, a float. It is
        cheap: call it outside ``jit`` and hand in the number.

    Raises:
        ValueError: if a number is out of range.

    Example:
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
        A function of the step, a Python number or a concrete scalar, that gives eps, a float. It is
        cheap: call it outside ``jit`` and hand in the number.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from lsmooth.smoothing import cosine_schedule
        >>> eps = cosine_schedule(0.0, 0.1, 100)
        >>> [round(eps(step), 3) for step in (0, 25, 50, 100, 999)]
        [0.0, 0.015, 0.05, 0.1, 0.1]
    """
    progress = _progress(start, end, steps, delay)
    return lambda step: start + (end - start) * (0.5 - 0.5 * math.cos(math.pi * progress(step)))


def _progress(start: float, end: float, steps: int, delay: int) -> Schedule:
    check.check_range("start", start, 0.0, 1.0)
    check.check_range("end", end, 0.0, 1.0)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    check.check_at_least("delay", delay, 0)
    return lambda step: min(max((float(step) - delay) / steps, 0.0), 1.0)
