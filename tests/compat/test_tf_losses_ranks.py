"""`lsmooth.compat.tf_losses` of tensors of unknown rank matches ``tf.compat.v1.losses``."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import distillation, losses, metrics
from lsmooth.compat import tf_losses
from lsmooth.compat.tf_losses import Reduction

tf = pytest.importorskip("tensorflow", reason="the numbers to match are TensorFlow's")
V1 = tf.compat.v1

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(3, 4, 5)) * 3).astype(np.float32)
IDS = RNG.integers(5, size=(3, 4))
ONEHOT = np.eye(5, dtype=np.float32)[IDS]
ROW_WEIGHTS = np.where(RNG.random((3, 4)) > 0.4, RNG.uniform(0.5, 2.0, (3, 4)), 0).astype(np.float32)
ELEMENT_WEIGHTS = np.where(RNG.random(LOGITS.shape) > 0.4, 1.5, 0).astype(np.float32)
CASES = {
    "softmax": ("softmax_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS),
    "softmax, smoothed": ("softmax_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS, {"label_smoothing": 0.1}),
    "softmax, broadcast": ("softmax_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS[:, :1]),
    "softmax, a matrix": ("softmax_cross_entropy", ONEHOT[0], LOGITS[0], ROW_WEIGHTS[0]),
    "sigmoid": ("sigmoid_cross_entropy", ONEHOT, LOGITS, ELEMENT_WEIGHTS, {"label_smoothing": 0.1}),
    "sigmoid, broadcast": ("sigmoid_cross_entropy", ONEHOT, LOGITS, ELEMENT_WEIGHTS[:, :1, :1]),
    "sigmoid, scalar": ("sigmoid_cross_entropy", ONEHOT, LOGITS, np.float32(2.5)),
    "sparse": ("sparse_softmax_cross_entropy", IDS, LOGITS, ROW_WEIGHTS),
    "sparse, zero": ("sparse_softmax_cross_entropy", IDS, LOGITS, np.float32(0.0)),
    "sparse, labels of one too many": ("sparse_softmax_cross_entropy", IDS[..., None], LOGITS, ROW_WEIGHTS),
    "sparse, logits of one too many": ("sparse_softmax_cross_entropy", IDS, LOGITS[..., None], ROW_WEIGHTS),
    "sparse, weights of one too many": ("sparse_softmax_cross_entropy", IDS, LOGITS, ROW_WEIGHTS[..., None]),
    "sparse, a vector": ("sparse_softmax_cross_entropy", IDS[0], LOGITS[0], ROW_WEIGHTS[0]),
}
UNKNOWN = {
    "logits": (False, True, False),
    "weights": (False, False, True),
    "all": (True, True, True),
}


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def case(name):
    function, labels, logits, weights, *options = CASES[name]
    return function, (labels, logits, weights), options[0] if options else {}


def values_and_gradients(modules, function, arrays, unknown, reductions, **options):
    """The loss of each reduction and its derivatives, by each module in a separate graph."""
    found = []
    for module in modules:
        with tf.Graph().as_default(), V1.Session() as session:
            holders = [
                V1.placeholder(x.dtype, None if hidden else x.shape) for x, hidden in zip(arrays, unknown, strict=True)
            ]
            fetched = []
            for reduction in reductions:
                loss = getattr(module, function)(*holders, reduction=reduction, **options)
                fetched += [loss, *tf.gradients(loss, holders[1:])]
            found.append(session.run(fetched, dict(zip(holders, arrays, strict=True))))
    return found


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("name", CASES)
def test_a_graph_with_unknown_ranks_gives_tensorflows_values_and_gradients(name, unknown):
    function, arrays, options = case(name)
    reductions = Reduction.all() if name == "sparse" else (Reduction.NONE, Reduction.SUM_BY_NONZERO_WEIGHTS)
    modules = tf_losses, V1.losses
    for x, y in zip(
        *values_and_gradients(modules, function, arrays, UNKNOWN[unknown], reductions, **options), strict=True
    ):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax, smoothed", "sigmoid", "sparse, labels of one too many"])
def test_a_tf_function_with_unknown_ranks_gives_the_eager_value_and_gradient(name):
    function, arrays, options = case(name)
    tensors = [tf.constant(x) for x in arrays]

    def value_and_gradient(labels, logits, weights):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = getattr(tf_losses, function)(labels, logits, weights, **options)
        return loss, tape.gradient(loss, logits)

    traced = tf.function(value_and_gradient, input_signature=[tf.TensorSpec(None, x.dtype) for x in tensors])
    for x, y in zip(traced(*tensors), value_and_gradient(*tensors), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "labels", "logits", "weights"),
    [
        ("softmax_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS[0]),
        ("softmax_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS[:2]),
        ("softmax_cross_entropy", ONEHOT[:1], LOGITS, ROW_WEIGHTS),
        ("softmax_cross_entropy", ONEHOT.transpose(1, 0, 2), LOGITS, np.float32(1.0)),
        ("sigmoid_cross_entropy", ONEHOT[0], LOGITS, np.float32(1.0)),
        ("sigmoid_cross_entropy", ONEHOT, LOGITS, ROW_WEIGHTS),
        ("sparse_softmax_cross_entropy", IDS[:1], LOGITS, np.float32(1.0)),
        ("sparse_softmax_cross_entropy", IDS.T, LOGITS, np.float32(1.0)),
        ("sparse_softmax_cross_entropy", IDS, LOGITS, ROW_WEIGHTS[0]),
    ],
)
def test_shapes_that_do_not_fit_fail_when_they_are_known(function, labels, logits, weights):
    for unknown in UNKNOWN.values():
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            values_and_gradients([tf_losses], function, (labels, logits, weights), unknown, [Reduction.SUM])


@pytest.mark.parametrize("unknown", [(True, False), (False, True), (True, True)])
def test_weighted_losses_of_unknown_rank_match_tensorflow(unknown):
    def run(module):
        with tf.Graph().as_default(), V1.Session() as session:
            holders = [
                V1.placeholder(tf.float32, None if hidden else x.shape)
                for x, hidden in zip((LOGITS, ELEMENT_WEIGHTS), unknown, strict=True)
            ]
            found = [module.compute_weighted_loss(*holders, reduction=reduction) for reduction in Reduction.all()]
            return session.run(found, dict(zip(holders, (LOGITS, ELEMENT_WEIGHTS), strict=True)))

    for x, y in zip(run(tf_losses), run(V1.losses), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


CALLS = {
    "logits": lambda x: losses.softmax_cross_entropy([0, 1], x),
    "labels": lambda x: losses.softmax_cross_entropy(x, np.zeros((2, 3), np.float32)),
    "sample_weight": lambda x: losses.softmax_cross_entropy([0, 1], np.zeros((2, 3), np.float32), sample_weight=x),
    "student_logits": lambda x: distillation.distillation_loss(np.zeros((2, 3), np.float32), x),
    "y_pred": lambda x: losses.categorical_crossentropy(np.eye(3)[:2], x),
    "y_true": lambda x: losses.categorical_crossentropy(x, np.zeros((2, 3), np.float32)),
    "a metric's labels": lambda x: metrics.brier_score(tf.cast(x, tf.int64), np.full((2, 3), 1 / 3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_functions_reject_an_unknown_rank(name):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def traced(x):
        return CALLS[name](x)

    with pytest.raises(ValueError, match=r"(number of axes|unknown rank|rank .* unknown).*tf\.ensure_shape"):
        traced(np.zeros((2, 3), np.float32))
