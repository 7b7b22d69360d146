"""What a `tf.RaggedTensor` gets: an error that says how its rows are passed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import distillation, losses


@pytest.fixture
def ragged():
    require_backend("tensorflow")
    import tensorflow as tf

    lengths, rng = [2, 0, 3], np.random.default_rng(0)
    return (
        tf.RaggedTensor.from_row_lengths(rng.integers(3, size=5), lengths),
        tf.RaggedTensor.from_row_lengths(rng.normal(size=(5, 3)), lengths),
    )


@pytest.mark.parametrize(
    "call",
    [
        losses.softmax_cross_entropy,
        losses.softmax_focal_loss,
        losses.poly_cross_entropy,
        losses.sparse_categorical_crossentropy,
        losses.SparseCategoricalCrossentropy(),
        lambda labels, logits: losses.sigmoid_cross_entropy(logits, logits),
        lambda labels, logits: distillation.distillation_loss(logits, logits),
    ],
)
def test_it_is_refused_with_what_to_pass(ragged, call):
    with pytest.raises(TypeError, match=r"flat_values.*with_flat_values"):
        call(*ragged)


def test_what_the_error_says_works(ragged):
    labels, logits = ragged
    rows = losses.softmax_cross_entropy(labels.flat_values, logits.flat_values, reduction="none")
    back = labels.with_flat_values(rows)
    for row, (y, z) in enumerate(zip(labels, logits, strict=True)):
        expected = losses.softmax_cross_entropy(y.numpy(), z.numpy().reshape(-1, 3), reduction="none")
        np.testing.assert_allclose(back[row].numpy(), expected, rtol=1e-12)
