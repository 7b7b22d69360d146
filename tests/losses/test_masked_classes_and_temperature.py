"""The gradient of a temperature of each row, where a class is masked by -inf: that of the rows without the class."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.calibration import apply_temperature
from lsmooth.distillation import distillation_loss, standardized_distillation_loss
from lsmooth.losses import softmax_cross_entropy, softmax_cross_entropy_with_statistics

RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(size=(2, 3, 5))
LABELS = np.array([1, 0, 3])
TEMPERATURE = np.array([0.7, 1.2, 2.0])


def statistics(labels, logits, temperature):
    """The sum of three statistics, as a loss."""
    _, found = softmax_cross_entropy_with_statistics(labels, logits, temperature=temperature)
    return found.log_prob[0] + found.entropy[0] + found.log_sum_exp[0]


def applied(labels, logits, temperature):
    """A loss of logits that have been divided by T."""
    return softmax_cross_entropy(labels, apply_temperature(logits, temperature), label_smoothing=0.1)


CALLS = {
    "plain": lambda y, t, z, temperature: softmax_cross_entropy(y, z, temperature=temperature),
    "eps": lambda y, t, z, temperature: softmax_cross_entropy(
        y, z, temperature=temperature, label_smoothing=0.1, z_loss=0.1
    ),
    "statistics": lambda y, t, z, temperature: statistics(y, z, temperature),
    "applied": lambda y, t, z, temperature: applied(y, z, temperature),
    "standardized": lambda y, t, z, temperature: standardized_distillation_loss(t, z, temperature=temperature),
}
for kind in ("forward_kl", "reverse_kl", "jensen_shannon", "skewed_reverse_kl", "total_variation", "alpha"):
    CALLS[kind] = lambda y, t, z, temperature, kind=kind: distillation_loss(
        t, z, temperature=temperature, divergence=kind
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_masked_class_adds_nothing_to_the_gradient_of_the_temperature(differentiable_backend, name):
    xp = differentiable_backend

    def gradient(*logits):
        y, t, z = (xp.asarray(x) for x in (LABELS, *logits))
        return xp.value_and_grad(lambda temperature: CALLS[name](y, t, z, temperature), xp.asarray(TEMPERATURE))[1]

    masked = [np.insert(x, 4, -np.inf, axis=1) for x in (TEACHER[:, :4], LOGITS[:, :4])]
    expected = xp.to_numpy(gradient(TEACHER[:, :4], LOGITS[:, :4]))
    assert np.abs(expected).max() > 1e-3
    assert_close(xp, gradient(*masked), expected, "float64")
