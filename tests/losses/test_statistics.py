"""Statistics of rows, against float64 and closed-form gradients."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import losses
from lsmooth.losses import softmax_cross_entropy, softmax_cross_entropy_with_statistics, softmax_statistics
from lsmooth.testing import reference

RNG = np.random.default_rng(0)
LOGITS = np.round(RNG.normal(0.0, 3.0, (7, 11)) * 256) / 256
LOGITS[1, 3:5] = LOGITS[1].max() + 1.0  # a tie, of which the first class is the prediction
LOGITS[2, 4:] = -np.inf
LOGITS[3, 5] = 800.0  # the other classes have probability 0
IDS = np.array([0, 4, 1, 5, 10, 2, 3])
SOFT = RNG.dirichlet(np.ones(11), 7) * (-np.inf < LOGITS)
UPSTREAM = RNG.normal(size=(3, 7))
OPTIONS = {
    "plain": {},
    "temperature": {"temperature": 2.5},
    "row temperature": {"temperature": np.linspace(0.5, 3.0, 7)},
    "soft-cap": {"logit_softcap": 5.0, "temperature": 0.5},
    "padding": {"num_classes": 6},
    "one class": {"num_classes": 1},
}


def oracle(labels, logits, upstream=UPSTREAM, temperature=1.0, logit_softcap=None, num_classes=None):
    """The statistics, and the gradient of ``sum(upstream * statistics)`` by the logits."""
    logits = np.asarray(logits, np.float64)
    z = logits[:, :num_classes]
    t = np.asarray(labels, np.float64)[:, :num_classes] if labels.ndim > 1 else reference.one_hot(labels, z.shape[1])
    divisor = np.broadcast_to(temperature, 7)[:, None]
    masked = z == -np.inf
    x, slope = z, np.ones_like(z)
    if logit_softcap is not None:
        x = np.where(masked, z, logit_softcap * np.tanh(z / logit_softcap))
        slope = np.where(masked, 0.0, 1.0 - np.tanh(z / logit_softcap) ** 2)
    x, slope = x / divisor, slope / divisor
    top = x.max(-1, keepdims=True)
    log_sum = np.log(np.exp(x - top).sum(-1, keepdims=True))
    log_p = np.where(masked, 0.0, x - top - log_sum)
    p = np.where(masked, 0.0, np.exp(log_p))
    entropy = -(p * log_p).sum(-1, keepdims=True)
    values = [(t * log_p).sum(-1), entropy[:, 0], (top + log_sum)[:, 0], z.argmax(-1)]
    values.append(values[-1] == (labels if labels.ndim == 1 else t.argmax(-1)))
    slopes = (t - p * t.sum(-1, keepdims=True), -p * (log_p + entropy), p)
    gradient = np.zeros_like(logits)
    gradient[:, :num_classes] = sum(u[:, None] * g for u, g in zip(upstream, slopes, strict=True)) * slope
    return values, gradient


def weighted(xp, statistics, upstream):
    return sum(xp.sum(x * xp.asarray(u, xp.dtype(x))) for x, u in zip(statistics[:3], upstream, strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_statistics_equal_the_oracle(backend, options, labels, dtype):
    labels = labels % options.get("num_classes", 11) if labels.ndim == 1 else labels
    statistics = softmax_statistics(labels, backend.asarray(LOGITS, dtype), **options)
    expected, _ = oracle(labels, LOGITS, **options)
    for got, wanted in zip(statistics[:3], expected, strict=False):
        assert backend.dtype(got) == dtype
        assert_close(backend, got, wanted, dtype)
    np.testing.assert_array_equal(backend.to_numpy(statistics.predicted), expected[3])
    np.testing.assert_array_equal(backend.to_numpy(statistics.correct), expected[4])


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_equal_the_closed_form(differentiable_backend, options, labels, offset):
    xp, labels = differentiable_backend, labels % options.get("num_classes", 11) if labels.ndim == 1 else labels
    logits = LOGITS + offset
    for used in (*np.eye(3), np.ones(3)):
        upstream = UPSTREAM * used[:, None]
        _, found = xp.value_and_grad(
            lambda z, u=upstream: weighted(xp, softmax_statistics(labels, z, **options), u), xp.asarray(logits)
        )
        _, wanted = oracle(labels, logits, upstream, **options)
        np.testing.assert_allclose(xp.to_numpy(found), wanted, rtol=1e-12, atol=1e-12)


def test_labels_out_of_range_have_nan_log_probability(backend):
    statistics = softmax_statistics(np.array([0, -100, 11, 5, 10, 2, 3]), backend.asarray(LOGITS))
    clean = softmax_statistics(IDS, backend.asarray(LOGITS))
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(statistics.log_prob)), np.isin(np.arange(7), [1, 2]))
    assert not backend.to_numpy(statistics.correct)[1:3].any()
    for got, wanted in zip(statistics[1:4], clean[1:4], strict=True):
        np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(wanted))


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_loss_returned_with_statistics_is_the_loss(backend, options, labels, reduction):
    labels = labels % options.get("num_classes", 11) if labels.ndim == 1 else labels
    options = {**options, "label_smoothing": 0.1, "z_loss": 0.01, "mask": np.arange(7) != 4, "reduction": reduction}
    values = []

    def of(call):
        def total(z):
            values.append(call(z))
            return backend.sum(values[-1])

        if backend.name == "numpy":
            return [total(LOGITS)]
        return [backend.to_numpy(x) for x in backend.value_and_grad(total, backend.asarray(LOGITS))]

    got = of(lambda z: softmax_cross_entropy_with_statistics(labels, z, **options)[0])
    wanted = of(lambda z: softmax_cross_entropy(labels, z, **options))
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-14, atol=1e-15)


def test_ignored_rows_have_no_statistics(backend):
    mask, ids = np.arange(7) % 3 > 0, np.where(np.arange(7) == 1, -100, IDS)
    dirty = np.where((mask & (ids >= 0))[:, None], LOGITS, np.nan)
    _, statistics = softmax_cross_entropy_with_statistics(ids, backend.asarray(dirty), mask=mask, ignore_index=-100)
    clean = softmax_statistics(IDS, backend.asarray(LOGITS))
    counted = mask & (ids >= 0)
    for got, wanted, nothing in zip(statistics, clean, (0.0, 0.0, 0.0, -1, False), strict=True):
        expected = np.where(counted, backend.to_numpy(wanted), nothing)
        np.testing.assert_allclose(backend.to_numpy(got), expected, rtol=1e-12)


def test_statistics_lie_along_the_other_axes(backend):
    z, ids = RNG.normal(size=(2, 5, 3, 2)), RNG.integers(0, 5, (2, 3, 2))
    got = softmax_statistics(ids, backend.asarray(z), axis=1, num_classes=4)
    wanted = softmax_statistics(ids, np.moveaxis(z, 1, -1)[..., :4])
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(backend.to_numpy(x), y, rtol=1e-12)


@pytest.mark.parametrize("value", [0, 12, 2.5, True])
def test_num_classes_is_a_number_of_logits(backend, value):
    for call in (losses.softmax_statistics, losses.softmax_cross_entropy):
        with pytest.raises((TypeError, ValueError), match="num_classes"):
            call(IDS, backend.asarray(LOGITS), num_classes=value)


HIDDEN, WEIGHT, BIAS = RNG.normal(size=(7, 4)), RNG.normal(size=(11, 4)), RNG.normal(size=11)
LINEAR = {
    "plain": {},
    "soft-cap": {"logit_softcap": 2.0, "temperature": 0.5},
    "row temperature": {"temperature": np.linspace(0.5, 3.0, 7)},
    "padding": {"num_classes": 6},
}


@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("labels", [IDS % 6, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("options", LINEAR.values(), ids=LINEAR)
def test_statistics_of_a_linear_head_are_those_of_its_logits(backend, options, labels, block_size):
    call = dict(options, block_size=block_size)
    got = losses.linear_softmax_statistics(labels, backend.asarray(HIDDEN), WEIGHT, BIAS, **call)
    wanted, slope = oracle(labels, HIDDEN @ WEIGHT.T + BIAS, **options)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(backend.to_numpy(x), y, rtol=1e-12, atol=1e-13)
    if backend.name == "numpy":
        return
    arrays = {"hidden": HIDDEN, "weight": WEIGHT, "bias": BIAS}
    slopes = {"hidden": slope @ WEIGHT, "weight": slope.T @ HIDDEN, "bias": slope.sum(0)}
    for name, expected in slopes.items():

        def total(x, name=name):
            given = {key: backend.asarray(y) for key, y in arrays.items()}
            return weighted(backend, losses.linear_softmax_statistics(labels, **{**given, name: x}, **call), UPSTREAM)

        _, found = backend.value_and_grad(total, backend.asarray(arrays[name]))
        np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("options", LINEAR.values(), ids=LINEAR)
def test_the_linear_loss_returned_with_statistics_is_the_loss(backend, options):
    options = dict(options, ignore_index=-100, label_smoothing=0.1, block_size=2)
    ids = np.where(np.arange(7) % 3 == 1, -100, IDS % 6)
    hidden = backend.asarray(np.where((ids < 0)[:, None], np.nan, HIDDEN))
    loss, statistics = losses.linear_softmax_cross_entropy_with_statistics(ids, hidden, WEIGHT, BIAS, **options)
    alone = losses.linear_softmax_cross_entropy(ids, hidden, WEIGHT, BIAS, **options)
    np.testing.assert_allclose(backend.to_numpy(loss), backend.to_numpy(alone), rtol=1e-14)
    del options["block_size"]
    _, of_logits = softmax_cross_entropy_with_statistics(ids, HIDDEN @ WEIGHT.T + BIAS, **options)
    for x, y in zip(statistics, of_logits, strict=True):
        np.testing.assert_allclose(backend.to_numpy(x), y, rtol=1e-12)
