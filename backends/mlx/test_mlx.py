"""The plug-in for MLX: the public calls, and gradients by MLX's own differentiation."""

import mlx.core as mx
import numpy as np
import plugins
import public_calls
import pytest

from lsmooth.losses import softmax_cross_entropy
from lsmooth.testing import reference

NAME = "mlx"


def test_its_arrays_find_it():
    plugins.is_found(NAME, "mlx.core", "mlx.core.array([0.0])")


@plugins.QUIET
def test_it_conforms():
    plugins.conforms(NAME)


@plugins.QUIET
@pytest.mark.parametrize("row", sorted(public_calls.CALLS))
def test_public_calls_give_the_numbers_of_numpy(row):
    plugins.gives_the_numbers_of_numpy(NAME, row, "float32")


def test_a_compiled_training_step_takes_the_gradient():
    labels, logits = np.array([0, 2]), np.array([[2.0, 0.0, 0.5], [0.0, 0.0, 3.0]], np.float32)
    step = mx.compile(mx.value_and_grad(lambda z: softmax_cross_entropy(mx.array(labels), z, label_smoothing=0.1)))
    value, gradient = step(mx.array(logits))
    expected = reference.softmax_cross_entropy(labels, logits, label_smoothing=0.1)
    np.testing.assert_allclose(value.item(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(np.array(gradient), expected[1], rtol=1e-5, atol=1e-7)
