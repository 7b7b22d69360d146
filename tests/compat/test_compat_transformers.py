"""`lsmooth.compat.transformers` on every backend, held to the installed transformers' LabelSmoother."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from conftest import assert_close
from peers import assert_same_as_torch_function, log_softmax, original

from lsmooth.compat.transformers import LabelSmoother

LOGITS = 3 * np.random.default_rng(0).normal(size=(2, 4, 5))
LABELS = np.array([[0, 4, -100, 4], [-100, 1, -1, 2]])


def hugging_face(**options):
    torch = pytest.importorskip("torch", reason="transformers' LabelSmoother is torch's")
    namespace = {"torch": torch, "nn": torch.nn, "dataclass": dataclass}
    return torch, original("transformers", "trainer_pt_utils.py", "LabelSmoother", namespace)(**options)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("call", [{}, {"shift_labels": True}, {"num_items_in_batch": 7}])
def test_the_loss_and_its_gradient_match_transformers(backend, epsilon, dtype, call):
    torch, theirs = hugging_face(epsilon=epsilon)
    # Theirs adds up in float32, float64 logits too.
    factor = {"float64": 1e6, "bfloat16": 8.0}[dtype]
    assert_same_as_torch_function(
        backend,
        lambda x: LabelSmoother(epsilon)({"logits": x}, backend.asarray(LABELS), **call),
        lambda x: theirs({"logits": x}, torch.tensor(LABELS), **call),
        LOGITS,
        dtype,
        factor,
    )


def test_the_loss_is_the_mean_over_rows_that_count(backend):
    counted = LABELS != -100
    log_p = log_softmax(LOGITS)
    # A label below 0 that is not ignored is class 0, as in the original.
    nll = -np.take_along_axis(log_p, np.maximum(LABELS, 0)[..., None], -1)[..., 0]
    expected = (0.8 * nll - 0.2 * log_p.mean(-1))[counted].mean()
    loss = LabelSmoother(0.2)((backend.asarray(LOGITS),), backend.asarray(LABELS))
    assert_close(backend, loss, expected, "float64")


def test_another_ignore_index_is_used_and_other_invalid_labels_are_nan(backend):
    torch, theirs = hugging_face(epsilon=0.1, ignore_index=4)
    labels = np.where(LABELS == -100, 4, LABELS)
    value = theirs((torch.tensor(LOGITS),), torch.tensor(labels)).numpy()
    smoother = LabelSmoother(0.1, ignore_index=4)
    assert_close(backend, smoother((backend.asarray(LOGITS),), backend.asarray(labels)), value, "float32")
    assert np.isnan(theirs((torch.tensor(LOGITS),), torch.full((2, 4), 4)))
    everything = backend.asarray(np.full((2, 4), 4))
    assert np.isnan(backend.to_numpy(smoother((backend.asarray(LOGITS),), everything)))
