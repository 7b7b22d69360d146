"""Label smoothing over time."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.smoothing import cosine_schedule, linear_schedule

STEPS = np.arange(0, 40)
PROGRESS = np.clip((STEPS - 5) / 20, 0, 1)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.1), (0.3, 0.0), (0.2, 0.2)])
def test_schedules_go_from_start_to_end(start, end):
    linear = [linear_schedule(start, end, 20, delay=5)(int(step)) for step in STEPS]
    cosine = [cosine_schedule(start, end, 20, delay=5)(int(step)) for step in STEPS]
    np.testing.assert_allclose(linear, start + (end - start) * PROGRESS, atol=1e-15)
    np.testing.assert_allclose(cosine, start + (end - start) * (1 - np.cos(np.pi * PROGRESS)) / 2, atol=1e-15)


def test_a_step_may_be_any_concrete_scalar(backend):
    eps = linear_schedule(0.0, 0.1, 10)(backend.asarray(np.asarray(5)))
    assert eps == pytest.approx(0.05)
    assert isinstance(eps, float)


@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 0.1, 10), r"start must be in \[0, 1\], got -0\.1"),
        ((0.0, 2.0, 10), r"end must be in \[0, 1\], got 2"),
        ((0.0, 0.1, 0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(schedule, arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(*arguments)
    with pytest.raises(ValueError, match="delay must be a finite number of at least 0, got -1"):
        schedule(0.0, 0.1, 10, delay=-1)
