"""Online label smoothing: targets are the mean predictions of correct rows of the last epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import OnlineLabelSmoothing, similarity_smooth_labels

CLASSES = 3
RNG = np.random.default_rng(0)
LABELS, LOGITS = RNG.integers(0, 2, (4, 10)), RNG.normal(0.0, 2.0, (4, 10, CLASSES))  # class 2 never occurs


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def learned(labels, logits):
    p, targets = softmax(logits), np.full((CLASSES, CLASSES), 1 / CLASSES)
    for k in range(CLASSES):
        rows = (labels == k) & (p.argmax(-1) == k)
        if rows.any():
            targets[k] = p[rows].mean(0)
    return targets


def fed(backend, labels=LABELS, logits=LOGITS, **options):
    ols = OnlineLabelSmoothing(CLASSES, **options)
    for y, z in zip(labels, logits, strict=True):
        ols.update_state(backend.asarray(y), backend.asarray(z))
    return ols


def test_the_first_epoch_is_uniform_smoothing(backend):
    q = OnlineLabelSmoothing(CLASSES, alpha=0.7).smooth_labels(backend.asarray(LABELS))
    assert_close(backend, q, 0.7 * np.eye(CLASSES)[LABELS] + 0.1, backend.dtype(q))


def test_targets_are_the_mean_prediction_of_correct_rows(backend):
    ols = fed(backend)
    np.testing.assert_array_equal(ols.targets, np.full((CLASSES, CLASSES), 1 / CLASSES))
    ols.next_epoch()
    np.testing.assert_allclose(ols.targets, learned(LABELS, LOGITS), rtol=1e-12)
    q = ols.smooth_labels(backend.asarray(LABELS))
    assert backend.is_array(q)
    expected = 0.5 * np.eye(CLASSES)[LABELS] + 0.5 * learned(LABELS, LOGITS)[LABELS]
    assert_close(backend, q, expected, backend.dtype(q))


def test_each_epoch_starts_from_zero(backend):
    ols = fed(backend)
    ols.next_epoch()
    ols.update_state(backend.asarray(LABELS[0]), backend.asarray(LOGITS[1]))
    ols.next_epoch()
    fresh = learned(LABELS[0], LOGITS[1])
    seen = [k for k in range(2) if (fresh[k] != 1 / CLASSES).any()]
    np.testing.assert_allclose(ols.targets[seen], fresh[seen], rtol=1e-12)
    ols.next_epoch()  # no row was correct: targets are unchanged
    np.testing.assert_allclose(ols.targets[seen], fresh[seen], rtol=1e-12)
    ols.reset_state()
    np.testing.assert_array_equal(ols.targets, np.full((CLASSES, CLASSES), 1 / CLASSES))


def test_losses_on_targets_match_the_paper(backend):
    ols = fed(backend, alpha=0.4)
    ols.next_epoch()
    y, z = backend.asarray(LABELS), backend.asarray(LOGITS)
    loss = softmax_cross_entropy(ols.smooth_labels(y), z)
    soft = backend.asarray(ols.targets[LABELS])
    parts = 0.4 * backend.to_numpy(softmax_cross_entropy(y, z)) + 0.6 * backend.to_numpy(softmax_cross_entropy(soft, z))
    assert_close(backend, loss, parts, "float32")  # targets come in the default dtype


def test_workers_merge_into_one(backend):
    halves = [fed(backend, LABELS[i::2], LOGITS[i::2]) for i in range(2)]
    halves[0].merge_state(*halves[1:])
    halves[0].next_epoch()
    np.testing.assert_allclose(halves[0].targets, learned(LABELS, LOGITS), rtol=1e-12)


def test_the_state_survives_json(backend):
    ols = fed(backend, alpha=0.25)
    ols.next_epoch()
    ols.update_state(backend.asarray(LABELS[0]), backend.asarray(LOGITS[0]))
    config, state = json.loads(json.dumps([ols.get_config(), ols.get_state()]))
    copy = OnlineLabelSmoothing.from_config(config)
    copy.set_state(state)
    assert copy.alpha == 0.25
    np.testing.assert_array_equal(copy.targets, ols.targets)
    copy.next_epoch()
    ols.next_epoch()
    np.testing.assert_array_equal(copy.targets, ols.targets)


def test_ignored_and_masked_classes_do_not_contribute(backend):
    ols = OnlineLabelSmoothing(CLASSES)
    z = np.array([[2.0, 0.0, -np.inf], [2.0, 0.0, 0.0]])
    ols.update_state(backend.asarray(np.array([0, -100])), backend.asarray(z))
    ols.next_epoch()
    np.testing.assert_allclose(ols.targets[0], softmax(z[0]), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_single_and_half_precision_are_taken(backend, dtype):
    ols = OnlineLabelSmoothing(CLASSES)
    ols.update_state(backend.asarray(LABELS), backend.asarray(LOGITS, dtype))
    ols.next_epoch()
    np.testing.assert_allclose(ols.targets, learned(LABELS, LOGITS), rtol=0, atol=2e-3)


def test_training_may_differentiate_through_its_logits(differentiable_backend):
    xp, ols = differentiable_backend, OnlineLabelSmoothing(CLASSES)
    if xp.name == "jax":
        pytest.skip("inside grad, JAX's values cannot be read; pass the matrix as an argument")

    def loss(z):
        ols.update_state(xp.asarray(LABELS), z)
        return softmax_cross_entropy(ols.smooth_labels(xp.asarray(LABELS)), z)

    xp.value_and_grad(loss, xp.asarray(LOGITS))
    ols.next_epoch()
    np.testing.assert_allclose(ols.targets, learned(LABELS, LOGITS), rtol=1e-12)


def test_under_jit_the_matrix_is_an_argument(backend):
    if backend.name != "jax":
        pytest.skip("about jax.jit")
    import jax

    ols = fed(backend)
    step = jax.jit(lambda y, targets: similarity_smooth_labels(y, 0.5, similarity=targets))
    first = step(LABELS, ols.targets)
    ols.next_epoch()
    assert np.abs(np.asarray(step(LABELS, ols.targets)) - np.asarray(first)).max() > 0.01


def test_bad_arguments_are_named():
    ols = OnlineLabelSmoothing(3)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        OnlineLabelSmoothing(0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 2"):
        OnlineLabelSmoothing(3, alpha=2)
    with pytest.raises(ValueError, match=r"logits must have the labels' shape and 3 classes, \(2, 3\); got \(2, 4\)"):
        ols.update_state([0, 1], np.zeros((2, 4)))
    with pytest.raises(ValueError, match="others must have 3 classes like this one, got one with 4"):
        ols.merge_state(OnlineLabelSmoothing(4))
    with pytest.raises(ValueError, match="state must be of 3 classes"):
        ols.set_state(OnlineLabelSmoothing(4).get_state())
