"""Label smoothing over time."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import cosine_schedule, linear_schedule

STEPS = np.arange(0, 40)
PROGRESS = np.clip((STEPS - 5) / 20, 0, 1)
SCHEDULES = pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.1), (0.3, 0.0), (0.2, 0.2)])
def test_schedules_go_from_start_to_end(start, end):
    linear = [linear_schedule(start, end, 20, delay=5)(int(step)) for step in STEPS]
    cosine = [cosine_schedule(start, end, 20, delay=5)(int(step)) for step in STEPS]
    np.testing.assert_allclose(linear, start + (end - start) * PROGRESS, atol=1e-15)
    np.testing.assert_allclose(cosine, start + (end - start) * (1 - np.cos(np.pi * PROGRESS)) / 2, atol=1e-15)


@SCHEDULES
def test_numbers_give_floats(schedule):
    eps = schedule(0.0, 0.1, 10)
    for step in (5, 5.0, np.int64(5), np.float32(5)):
        assert eps(step) == pytest.approx(0.05)
        assert type(eps(step)) is float
    assert (eps(0), eps(10)) == (0.0, 0.1)


@SCHEDULES
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_a_tensor_gives_a_tensor_of_its_framework(backend, schedule, dtype):
    eps = schedule(0.3, 0.1, 20, delay=5)
    values = eps(backend.asarray(STEPS, dtype))
    assert backend.is_array(values)
    result = backend.dtype(values)
    assert result == backend.dtype(backend.asarray(1.0))
    assert_close(backend, values, np.array([eps(int(step)) for step in STEPS]), result)


@SCHEDULES
def test_the_step_may_be_traced(differentiable_backend, schedule):
    """A loss accepts the scheduled value."""
    xp, eps = differentiable_backend, schedule(0.0, 0.1, 10)
    logits = xp.asarray([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])

    def loss(step):
        return softmax_cross_entropy([0, 2], logits, label_smoothing=eps(step))

    step = compiled(xp.name, loss)
    for at in (0, 4, 99):
        expected = xp.to_numpy(softmax_cross_entropy([0, 2], logits, label_smoothing=eps(at)))
        assert_close(xp, step(xp.asarray(np.asarray(at))), expected, "float32", 4.0)


def compiled(name, function):
    if name == "jax":
        return importlib.import_module("jax").jit(function)
    if name == "tensorflow":
        return importlib.import_module("tensorflow").function(function)
    return importlib.import_module("torch").compile(function, fullgraph=True, backend="aot_eager")


@SCHEDULES
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
