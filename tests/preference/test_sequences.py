"""Log-probabilities of sequences, from logits and from hidden states."""

from __future__ import annotations

import numpy as np
import pytest
from compilation import compiled
from conftest import as_dtype, assert_close

from lsmooth.preference import linear_sequence_log_prob, sequence_log_prob

RNG = np.random.default_rng(0)
BATCH, TOKENS, VOCABULARY, FEATURES = 3, 5, 11, 4
LABELS = RNG.integers(VOCABULARY, size=(BATCH, TOKENS))
LABELS[0, :2] = -100
LABELS[2] = -100
HIDDEN = RNG.normal(0.0, 1.0, (BATCH, TOKENS, FEATURES)).astype(np.float32).astype(np.float64)
WEIGHT = RNG.normal(0.0, 1.0, (VOCABULARY, FEATURES)).astype(np.float32).astype(np.float64)
BIAS = RNG.normal(0.0, 1.0, VOCABULARY).astype(np.float32).astype(np.float64)
MASK = RNG.random((BATCH, TOKENS)) < 0.7


def expected(labels, logits, mask=None, length_normalized=False, temperature=1.0, logit_softcap=None):
    """The log-probabilities, and the gradient of their sum by the logits."""
    capped = logits if logit_softcap is None else logit_softcap * np.tanh(logits / logit_softcap)
    slope = 1.0 if logit_softcap is None else 1 - (capped / logit_softcap) ** 2
    z = capped / temperature
    log_p = z - z.max(-1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    counted = labels != -100 if mask is None else (labels != -100) & mask
    ids = np.where(counted, labels, 0)
    scale = counted / (np.maximum(counted.sum(-1, keepdims=True), 1) if length_normalized else 1)
    picked = np.take_along_axis(log_p, ids[..., None], -1)[..., 0]
    gradient = (np.eye(logits.shape[-1])[ids] - np.exp(log_p)) * slope / temperature
    return (scale * picked).sum(-1), scale[..., None] * gradient


def forms(backend, dtype):
    """Both functions of the hidden states, and the gradient of the hidden states from that of the logits."""
    weight, bias = as_dtype(backend, WEIGHT, dtype), backend.asarray(BIAS, dtype)
    float_weight = backend.to_numpy(weight).astype(np.float64)

    def of_logits(labels, hidden, **options):
        return sequence_log_prob(labels, hidden @ backend.moveaxis(weight, 0, 1) + bias, **options)

    def linear(labels, hidden, **options):
        return linear_sequence_log_prob(labels, hidden, weight, bias, block_size=4, **options)

    return (of_logits, linear), float_weight, backend.to_numpy(bias).astype(np.float64)


@pytest.mark.parametrize("options", [{}, {"length_normalized": True}, {"temperature": 0.5, "logit_softcap": 3.0}])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_log_probabilities_and_gradients_match_the_formula(backend, options, mask, dtype):
    functions, weight, bias = forms(backend, dtype)
    labels, hidden = backend.asarray(LABELS), as_dtype(backend, HIDDEN, dtype)
    value, gradient = expected(LABELS, HIDDEN @ weight.T + bias, mask, **options)
    options = {**options, "mask": None if mask is None else backend.asarray(mask)}
    for function in functions:
        found = function(labels, hidden, **options)
        assert backend.dtype(found) == dtype
        assert_close(backend, found, value, dtype, 8.0)
        if backend.name != "numpy":
            _, found = backend.value_and_grad(lambda h: backend.sum(function(labels, h, **options)), hidden)  # noqa: B023
            assert_close(backend, found, gradient @ weight, dtype, 8.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(backend, dtype):
    logits = as_dtype(backend, HIDDEN @ WEIGHT.T, dtype)
    value, gradient = expected(LABELS, backend.to_numpy(logits).astype(np.float64))
    found = sequence_log_prob(backend.asarray(LABELS), logits)
    assert backend.dtype(found) == "float32"
    assert_close(backend, found, value, "float32", 8.0)
    if backend.name != "numpy":
        call = lambda z: backend.sum(sequence_log_prob(LABELS, z))  # noqa: E731
        found = backend.value_and_grad(call, logits)[1]
        assert backend.dtype(found) == dtype
        assert_close(backend, found, gradient, dtype, 2.0)


@pytest.mark.parametrize("length_normalized", [False, True])
def test_masked_tokens_may_hold_any_values(backend, length_normalized):
    counted = MASK & (LABELS != -100)
    logits = np.where(counted[..., None], HIDDEN @ WEIGHT.T, np.nan)
    value, gradient = expected(LABELS, np.nan_to_num(logits), MASK, length_normalized)
    options = {"mask": backend.asarray(MASK), "length_normalized": length_normalized}
    labels = backend.asarray(np.where(MASK, LABELS, 10**6))
    assert_close(backend, sequence_log_prob(labels, backend.asarray(logits), **options), value, "float64", 4.0)
    assert not np.signbit(backend.to_numpy(sequence_log_prob(labels, backend.asarray(logits), **options))[2])
    if backend.name != "numpy":
        call = lambda z: backend.sum(sequence_log_prob(labels, z, **options))  # noqa: E731
        found = backend.value_and_grad(call, backend.asarray(logits))[1]
        assert_close(backend, found, gradient, "float64", 4.0)


@pytest.mark.parametrize("length_normalized", [False, True])
def test_compiled_calls_give_the_same_log_probabilities(differentiable_backend, length_normalized):
    xp = differentiable_backend
    weight = xp.asarray(WEIGHT)

    def log_p(labels, hidden, mask):
        return linear_sequence_log_prob(
            labels, hidden, weight, mask=mask, length_normalized=length_normalized, block_size=4
        ) + sequence_log_prob(labels, hidden, mask=mask, length_normalized=length_normalized, ignore_index=None)

    arrays = [xp.asarray(x) for x in (LABELS % 4, HIDDEN, MASK)]
    assert_close(xp, compiled(xp, log_p, *arrays), xp.to_numpy(log_p(*arrays)), "float64")


def test_any_leading_axes(backend):
    logits = backend.asarray(RNG.normal(size=(2, 3, 4, 5)))
    labels = RNG.integers(5, size=(2, 3, 4))
    value, _ = expected(labels, backend.to_numpy(logits))
    assert_close(backend, sequence_log_prob(labels, logits), value, "float64", 4.0)
    assert_close(backend, sequence_log_prob(labels[0, 0], logits[0, 0, ...]), value[0, 0], "float64", 4.0)


@pytest.mark.parametrize("length_normalized", [False, True])
def test_vocabulary_padding_does_not_contribute_and_has_no_gradient(backend, length_normalized):
    hidden, labels = backend.asarray(HIDDEN), backend.asarray(np.where(LABELS < 7, LABELS, 3))
    value, gradient = expected(np.where(LABELS < 7, LABELS, 3), HIDDEN @ WEIGHT[:7].T, None, length_normalized)
    options = {"num_classes": 7, "length_normalized": length_normalized}
    logits, weight = backend.asarray(HIDDEN @ WEIGHT.T), backend.asarray(WEIGHT)
    assert_close(backend, sequence_log_prob(labels, logits, **options), value, "float64", 8.0)
    assert_close(backend, linear_sequence_log_prob(labels, hidden, weight, **options), value, "float64", 8.0)
    if backend.name != "numpy":
        call = lambda z: backend.sum(sequence_log_prob(labels, z, **options))  # noqa: E731
        found = backend.to_numpy(backend.value_and_grad(call, logits)[1])
        assert_close(backend, found[..., :7], gradient, "float64", 8.0)
        assert not found[..., 7:].any()


def test_an_id_outside_the_vocabulary_gives_nan(backend):
    logits = backend.asarray(np.zeros((2, 2, 3)))
    found = backend.to_numpy(sequence_log_prob(np.array([[0, 3], [1, 2]]), logits))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(-2 * np.log(3))
    found = backend.to_numpy(sequence_log_prob(np.array([[0, -100], [1, 2]]), logits, ignore_index=None))
    assert np.isnan(found[0])


def test_arguments_that_do_not_fit_are_named(backend):
    logits = backend.asarray(np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match=r"labels must be token ids of shape \(2, 4\) for logits of shape \(2, 4, 3\)"):
        sequence_log_prob(np.zeros((2, 4, 3), int), logits)
    with pytest.raises(ValueError, match=r"labels must be token ids of shape \(2, 4\) for hidden of shape"):
        linear_sequence_log_prob(np.zeros((2, 3), int), logits, np.eye(3))
    with pytest.raises(TypeError, match="labels must be integer token ids, got float"):
        sequence_log_prob(np.zeros((2, 4)), logits)
    with pytest.raises(ValueError, match=r"logits must have at least two axes, .* one more; got shape \(3,\)"):
        sequence_log_prob(0, logits[0, 0, ...])
    with pytest.raises(TypeError, match="length_normalized must be True or False, got 1"):
        sequence_log_prob(np.zeros((2, 4), int), logits, length_normalized=1)
    with pytest.raises(TypeError, match=r"labels come first, as in sequence_log_prob\(labels, logits\)"):
        sequence_log_prob(logits, np.zeros((2, 4), int))
