"""A linear layer and the loss of its logits, in one call or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth import losses
from lsmooth.bench.rows import Call, Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks

EPS = 0.1
# Rows, features, classes.
LARGE, SMALL = (4096, 512, 32000), (64, 16, 500)
WORK = "linear layer and smoothed cross-entropy, loss and gradients"
# At least so many times faster than the peer; at most so many times the logits' memory.
BARS: Mapping[str, Mapping[str, float]] = {
    "torch": {"matmul, F.cross_entropy": 1 / 0.7, "memory": 0.4},
    "jax": {"matmul, optax": 1 / 0.7, "memory": 0.4},
    "tensorflow, function": {"matmul, tf.losses": 1.0},
}

Step = Callable[[Any, Any], Any]
"""A framework's scalar loss as a function of hidden states and weight."""


def rows(plan: Plan) -> Iterator[Row]:
    """The suite."""
    size = SMALL if plan.quick else LARGE
    num_rows, features, classes = size
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((num_rows, features), np.float32)
    weight = 0.05 * rng.standard_normal((classes, features), np.float32)
    ids = rng.integers(0, classes, num_rows)
    contenders: dict[str, dict[str, Setup]] = {}
    if frameworks.wanted(plan, "torch"):
        contenders["torch"] = {
            "lsmooth": _torch(hidden, weight, lambda: _torch_ours(ids)),
            "matmul, F.cross_entropy": _torch(hidden, weight, lambda: _torch_peer(ids)),
        }
    if frameworks.wanted(plan, "jax"):
        contenders["jax"] = {
            "lsmooth": _jax(hidden, weight, lambda: _ours(ids)),
            "matmul, optax": _jax(hidden, weight, lambda: _optax_peer(ids)),
        }
    if frameworks.wanted(plan, "tensorflow"):
        contenders["tensorflow, function"] = {
            "lsmooth": _tensorflow(hidden, weight, lambda: _ours(ids)),
            "matmul, tf.losses": _tensorflow(hidden, weight, lambda: _tensorflow_peer(ids)),
        }
    sizes = {"rows": num_rows, "features": features, "classes": classes}
    for backend, setups in contenders.items():
        bars = {} if plan.quick else BARS[backend]
        yield Row(WORK, backend, sizes, setups, unit_bytes=0 if plan.quick else 4 * num_rows * classes, bars=bars)


def _torch(hidden: np.ndarray, weight: np.ndarray, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        import torch

        h, w = (torch.from_numpy(x).requires_grad_() for x in (hidden, weight))
        function = loss()

        def step() -> None:
            h.grad = w.grad = None
            function(h, w).backward()

        return step

    return setup


def _jax(hidden: np.ndarray, weight: np.ndarray, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        import jax

        h, w = (jax.numpy.asarray(x) for x in (hidden, weight))
        function = jax.jit(jax.value_and_grad(loss(), (0, 1)))
        return lambda: jax.block_until_ready(function(h, w))

    return setup


def _tensorflow(hidden: np.ndarray, weight: np.ndarray, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        import tensorflow as tf

        h, w = tf.constant(hidden), tf.constant(weight)
        function = loss()

        @tf.function
        def step(h: Any, w: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([h, w])
                value = function(h, w)
            return tape.gradient(value, [h, w])

        # Reading one number waits for all of them on a CPU.
        return lambda: [x[0, 0].numpy() for x in step(h, w)]

    return setup


def _ours(ids: np.ndarray) -> Step:
    return lambda h, w: losses.linear_softmax_cross_entropy(ids, h, w, label_smoothing=EPS)


def _torch_ours(ids: np.ndarray) -> Step:
    import torch

    y = torch.from_numpy(ids)
    return lambda h, w: losses.linear_softmax_cross_entropy(y, h, w, label_smoothing=EPS)


def _torch_peer(ids: np.ndarray) -> Step:
    import torch

    y = torch.from_numpy(ids)
    return lambda h, w: torch.nn.functional.cross_entropy(h @ w.T, y, label_smoothing=EPS)


def _optax_peer(ids: np.ndarray) -> Step:
    import jax
    import optax

    def loss(h: Any, w: Any) -> Any:
        onehot = jax.nn.one_hot(ids, w.shape[0])
        return optax.softmax_cross_entropy(h @ w.T, optax.smooth_labels(onehot, EPS)).mean()

    return loss


def _tensorflow_peer(ids: np.ndarray) -> Step:
    import tensorflow as tf

    def loss(h: Any, w: Any) -> Any:
        onehot = tf.one_hot(ids, w.shape[0])
        logits = tf.matmul(h, w, transpose_b=True)
        return tf.compat.v1.losses.softmax_cross_entropy(onehot, logits, label_smoothing=EPS)

    return loss
