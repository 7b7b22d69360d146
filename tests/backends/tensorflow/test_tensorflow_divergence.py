"""The forward KL with its gradient in closed form on TensorFlow, against the formula."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.options import DivergenceOptions  # noqa: E402
from lsmooth.backends.tensorflow import thresholds  # noqa: E402
from lsmooth.distillation import distillation_loss  # noqa: E402

ROWS, CLASSES = 12, 6
OPTIONS = {"temperature": 2.0, "scale_by_temperature_squared": False}


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


@pytest.fixture(params=["direct", "XLA"])
def path(request, monkeypatch):
    """Each way through the kernel, for logits that are small; no formula to fall back on."""
    if request.param == "XLA":
        monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 1)
    monkeypatch.setattr(formulas, "softmax_divergence", None)
    return request.param


def pair(seed=0, dtype=tf.float64):
    rng = np.random.default_rng(seed)
    return tuple(tf.cast(rng.normal(0.0, 2.0, (ROWS, CLASSES)), dtype) for _ in range(2))


REFERENCE = formulas.softmax_divergence


def reference(teacher, student, **options):
    """The rows' losses and gradients, by autodiff of the formula."""
    teacher, student = tf.cast(teacher, tf.float64), tf.cast(student, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(student)
        losses = REFERENCE(load_backend("tensorflow"), teacher, student, DivergenceOptions(temperature=2.0, **options))
    return losses, tape.gradient(losses, student)


def value_and_gradient(loss, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    return value, tape.gradient(value, logits)


def close(actual, expected, tolerance=1e-11):
    np.testing.assert_allclose(tf.cast(actual, tf.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function, tf.function(jit_compile=True)])
def test_values_and_gradients(path, wrap):
    t, s = pair()
    losses, each = reference(t, s)
    weights = tf.linspace(tf.constant(-1.0, tf.float64), 2.0, ROWS)
    step = wrap(lambda z: value_and_gradient(lambda x: distillation_loss(t, x, reduction="none", **OPTIONS), z))
    rows, slope = step(s)
    close(rows, losses)
    close(slope, each)
    _, slope = value_and_gradient(
        lambda x: tf.reduce_sum(weights * distillation_loss(t, x, reduction="none", **OPTIONS)), s
    )
    close(slope, each * weights[:, None])


def test_second_derivatives(path):
    """The Hessian of a row is (diag(s) - s s^T) / T^2."""
    t, s = pair()
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(s)
        _, slope = value_and_gradient(lambda x: distillation_loss(t, x, reduction="sum", **OPTIONS), s)
    hessian = outer.batch_jacobian(slope, s, experimental_use_pfor=path == "direct")
    p = tf.nn.softmax(s / 2.0).numpy()
    close(hessian, (np.einsum("ik,kl->ikl", p, np.eye(CLASSES)) - np.einsum("ik,il->ikl", p, p)) / 4.0)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_masked_rows_may_hold_any_finite_or_infinite_values(path, garbage):
    t, s = pair()
    counted = np.arange(ROWS) % 3 != 0
    losses, each = (x.numpy() for x in reference(t, s))
    t, s = (tf.where(counted[:, None], z, tf.constant(garbage, z.dtype)) for z in (t, s))
    value, slope = value_and_gradient(lambda x: distillation_loss(t, x, mask=counted, **OPTIONS), s)
    close(value, losses[counted].mean())
    close(slope, np.where(counted[:, None], each / counted.sum(), 0.0))


def test_masked_classes(path):
    t, s = (z.numpy() for z in pair())
    t[:, 2] = s[:, 2] = t[4, 3] = -np.inf
    t, s = tf.constant(t), tf.constant(s)
    losses, each = reference(t, s)
    rows, slope = value_and_gradient(lambda x: distillation_loss(t, x, reduction="none", **OPTIONS), s)
    close(rows, losses)
    close(slope, each)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_precision(path, dtype):
    t, s = pair(dtype=dtype)
    losses, each = reference(t, s)
    value, slope = value_and_gradient(lambda x: distillation_loss(t, x, reduction="sum", **OPTIONS), s)
    assert (value.dtype, slope.dtype) == (tf.float32, dtype)
    close(value, tf.reduce_sum(losses), 2e-6)
    close(slope, each, 4e-3)


def test_leading_axes(path):
    t, s = pair()
    losses, each = reference(t, s)
    cube = [tf.reshape(z, [2, 3, 2, CLASSES]) for z in (t, s)]
    rows, slope = value_and_gradient(lambda x: distillation_loss(cube[0], x, reduction="none", **OPTIONS), cube[1])
    close(rows, tf.reshape(losses, [2, 3, 2]))
    close(slope, tf.reshape(each, cube[0].shape))


def test_one_trace_serves_every_batch_size():
    traces = []
    spec = tf.TensorSpec([None, CLASSES], tf.float64)

    @tf.function(input_signature=[spec, spec])
    def step(t, s):
        traces.append(1)
        return value_and_gradient(lambda x: distillation_loss(t, x, reduction="sum", **OPTIONS), s)

    t, s = pair()
    losses, each = reference(t, s)
    for rows in (ROWS, 1, 0, 5):
        value, slope = step(t[:rows], s[:rows])
        close(value, tf.reduce_sum(losses[:rows]))
        close(slope, each[:rows])
    assert len(traces) == 1


def test_a_teacher_that_requires_a_gradient_gets_one():
    t, s = pair()
    _, slope = value_and_gradient(lambda x: distillation_loss(x, s, stop_teacher_gradient=False, **OPTIONS), t)
    with tf.GradientTape() as tape:
        tape.watch(t)
        total = tf.reduce_mean(REFERENCE(load_backend("tensorflow"), t, s, DivergenceOptions(temperature=2.0)))
    close(slope, tape.gradient(total, t))
    assert (slope.numpy() != 0).all()
