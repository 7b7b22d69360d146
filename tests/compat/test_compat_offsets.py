"""A common offset of float32 logits loses no digits, compared with the float64 loss of the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth import compat

RNG = np.random.default_rng(0)
LOGITS, IDS = 3 * RNG.normal(size=(6, 5)), np.array([0, 4, 2, 4, 1, 3])
SOFT = RNG.dirichlet(np.ones(5), size=6)
WEIGHT = np.array([0.5, 1.0, 2.0, 1.3, 0.7])
WHERE = np.array([[1, 1, 1, 0, 1]] * 6, bool)

LOSSES = {
    "torch": lambda x, ids, soft: compat.torch.cross_entropy(x, ids, reduction="none"),
    "torch, options": lambda x, ids, soft: compat.torch.cross_entropy(x, ids, WEIGHT, 4, "mean", 0.1),
    "torch, probabilities": lambda x, ids, soft: compat.torch.cross_entropy(x, soft, label_smoothing=0.1),
    "timm": lambda x, ids, soft: compat.timm.LabelSmoothingCrossEntropy()(x, ids),
    "timm, distributions": lambda x, ids, soft: compat.timm.SoftTargetCrossEntropy()(x, soft),
    "megatron": lambda x, ids, soft: compat.megatron.vocab_parallel_cross_entropy(x, ids, 0.1),
    "transformers": lambda x, ids, soft: compat.transformers.LabelSmoother()((x,), ids),
    "optax": lambda x, ids, soft: compat.optax.softmax_cross_entropy(x, soft),
    "optax, a mask": lambda x, ids, soft: compat.optax.softmax_cross_entropy(x, soft, where=WHERE),
    "optax, safe": lambda x, ids, soft: compat.optax.safe_softmax_cross_entropy(x, soft),
    "optax, class ids": lambda x, ids, soft: compat.optax.softmax_cross_entropy_with_integer_labels(x, ids),
    "optax, class ids and a mask": lambda x, ids, soft: compat.optax.softmax_cross_entropy_with_integer_labels(
        x, ids, where=WHERE
    ),
    "optax, poly": lambda x, ids, soft: compat.optax.poly_loss_cross_entropy(x, soft),
}


@pytest.mark.parametrize("offset", [0.0, 1e2, -1e4, 1e6, 1e8])
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_logits_are_exact(backend, loss, offset):
    logits = (LOGITS + offset).astype(np.float32)
    soft = np.round(SOFT * 256) / 256  # exact in float32
    expected = LOSSES[loss](logits.astype(np.float64), IDS, soft)
    result = LOSSES[loss](backend.asarray(logits), backend.asarray(IDS), backend.asarray(soft.astype(np.float32)))
    np.testing.assert_allclose(backend.to_numpy(result), expected, rtol=2e-6, atol=1e-7)


def test_the_oracle_in_float64_has_the_right_value():
    logits = np.array([[2.0, -1.0, 0.5]])
    expected = np.log(np.exp(logits).sum()) - 2.0
    for offset in (0.0, 1e4, 1e8):
        actual = compat.torch.cross_entropy(logits + offset, np.array([0]))
        np.testing.assert_allclose(actual, expected, rtol=1e-7)
