"""lsmooth in the modes of TensorFlow 1, where `==` compares identities and shapes hold `Dimension`s."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.compat import tf_losses  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy  # noqa: E402

TESTS = pathlib.Path(__file__).parents[2]
REFUSALS = re.compile(r"must have (a known number of classes|known sizes)|call it outside tracing")
V1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


@pytest.mark.parametrize(
    ("mode", "shapes"),
    [("graph", "known"), ("graph", "unknown"), ("disabled", "unknown batch"), ("equality", "known")],
)
def test_public_calls_give_the_same_numbers_or_say_what_they_need(mode, shapes):
    """In a separate process, because some modes cannot be left."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(TESTS / "tensorflow_v1.py"), mode, shapes],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    failures = [line for line in done.stdout.splitlines() if line and not REFUSALS.search(line)]
    assert failures == [], done.stderr[-2000:]
    assert done.stdout.count("\n") == min(done.returncode, 100), done.stderr[-2000:]


@pytest.mark.parametrize("shapes", [[None, 3], [None, None]], ids=["unknown batch", "unknown classes"])
@pytest.mark.parametrize("weights", [[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], ids=["weighted", "all zero"])
def test_reductions_and_ignored_rows_in_a_graph(shapes, weights):
    labels, logits = np.array([0, 2, 1]), np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0], [-np.inf, 0.0, 1.0]])
    soft = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]])
    reductions = ("mean", "mean_with_sample_weight", "sum_by_nonzero_weights")

    def losses(ids, targets, z, w):
        weighted = [
            loss(y, z, label_smoothing=0.1, sample_weight=w, reduction=reduction)
            for reduction in reductions
            for loss, y in ((softmax_cross_entropy, ids), (softmax_cross_entropy, targets))
        ]
        return [*weighted, softmax_cross_entropy(ids, z, ignore_index=2), sigmoid_cross_entropy(targets, z)]

    expected = losses(labels, soft, logits, np.array(weights))
    with tf.Graph().as_default(), V1.Session() as session:
        holders = [
            V1.placeholder(tf.int64, [None]),
            V1.placeholder(tf.float64, shapes),
            V1.placeholder(tf.float64, shapes),
            V1.placeholder(tf.float64, [None]),
        ]
        found = session.run(losses(*holders), dict(zip(holders, (labels, soft, logits, weights), strict=True)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_session_trains_to_the_weights_of_tf_losses():
    """20 steps of momentum descent on the collected losses, a regulariser among them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 8, 4)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, (20, 8))]
    start = rng.normal(size=(4, 3)).astype(np.float32)

    def trained(losses):
        with tf.Graph().as_default(), V1.Session() as session:
            features, labels = V1.placeholder(tf.float32, [None, 4]), V1.placeholder(tf.float32, [None, 3])
            weight = V1.get_variable("weight", initializer=start)
            losses.softmax_cross_entropy(labels, features @ weight, label_smoothing=0.1, scope="head")
            V1.add_to_collection(V1.GraphKeys.REGULARIZATION_LOSSES, 0.01 * tf.reduce_sum(weight**2))
            step = V1.train.MomentumOptimizer(0.1, 0.9).minimize(V1.losses.get_total_loss())
            session.run(V1.global_variables_initializer())
            for batch in zip(x, y, strict=True):
                session.run(step, dict(zip((features, labels), batch, strict=True)))
            names = [loss.op.name.split("/")[0] for loss in V1.losses.get_losses()]
            return session.run(weight), names

    ours, our_names = trained(tf_losses)
    theirs, their_names = trained(V1.losses)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(ours - start).max() > 0.1
    assert our_names == their_names == ["head"]


def test_custom_losses_train_in_a_session():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 3, 6)
    with tf.Graph().as_default(), V1.Session() as session:
        features, labels = V1.placeholder(tf.float32, [None, 4]), V1.placeholder(tf.int64, [None])
        weight = V1.get_variable("weight", initializer=np.zeros((4, 3), np.float32))
        logits = features @ weight
        loss = softmax_cross_entropy(labels, logits, label_smoothing=0.1)
        q = 0.9 * tf.one_hot(labels, 3) + 0.1 / 3
        peer = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(q, logits))
        gradients = [V1.gradients(value, weight)[0] for value in (loss, peer)]
        session.run(V1.global_variables_initializer())
        ours, theirs = session.run(gradients, {features: x, labels: y})
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
