"""`lsmooth.compat.megatron` on every backend, held to the formula of Megatron-Core 0.15 in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from peers import assert_same, log_softmax, others_share

from lsmooth.compat.megatron import vocab_parallel_cross_entropy

LOGITS = 3 * np.random.default_rng(0).normal(size=(4, 5))
TARGET = np.array([0, 4, 2, 4])


@pytest.mark.parametrize("label_smoothing", [-0.1, 0.0, 0.1, 0.9])
def test_losses_and_gradients_match_megatron(backend, label_smoothing):
    q = others_share(TARGET, 5, max(label_smoothing, 0.0))
    log_p = log_softmax(LOGITS)
    loss = lambda x: vocab_parallel_cross_entropy(x, backend.asarray(TARGET), label_smoothing)  # noqa: E731
    assert_same(backend, loss, LOGITS, -(q * log_p).sum(-1), np.exp(log_p) - q)


def test_sequences_of_batches_keep_their_shape_and_half_precision_becomes_float32(backend):
    logits = LOGITS.reshape(2, 2, 5)
    loss = vocab_parallel_cross_entropy(backend.asarray(logits, "float16"), backend.asarray(TARGET.reshape(2, 2)), 0.1)
    assert backend.dtype(loss) == "float32"
    expected = -(others_share(TARGET, 5, 0.1) * log_softmax(LOGITS)).sum(-1).reshape(2, 2)
    assert_close(backend, loss, expected, "float16", 4.0)


def test_smoothing_of_1_is_refused(backend):
    with pytest.raises(ValueError, match=r"label_smoothing must be below 1, got 1\.0"):
        vocab_parallel_cross_entropy(backend.asarray(LOGITS), backend.asarray(TARGET), 1.0)
