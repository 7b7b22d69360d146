"""Batches of ever other sizes, as the last batch of an epoch and padded sequences make them: compiling is timed too."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth.bench.rows import Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.losses import softmax_cross_entropy

EPS = 0.1
# How many batches there are, of how many rows the first is, and how many classes they have.
STREAM, QUICK = (50, 64, 8192), (3, 4, 10)
LARGE = (50, 64, 65536)  # from 2^22 logits on TensorFlow's backend compiles shapes that come back


def rows(plan: Plan) -> Iterator[Row]:
    """The smoothed cross-entropy over a stream, beside the framework's own."""
    for stream in (QUICK,) if plan.quick else (STREAM, LARGE):
        for backend, make, peer, peer_loss in (
            ("jax", _Jax, "optax, one-hot", _optax),
            ("tensorflow", _Tensorflow, "tf.losses", _tf_losses),
        ):
            if frameworks.wanted(plan, backend):
                yield Row(
                    f"cross-entropy of a stream of {stream[0]} batch sizes, loss and gradient",
                    "jax" if backend == "jax" else "tensorflow, eager",
                    {"first": stream[1], "classes": stream[2]},
                    {"lsmooth": _setup(make, stream, lambda: _ours), peer: _setup(make, stream, peer_loss)},
                    bars={peer: 1 / 1.3},
                    self_timed=True,
                    runs=1,
                )


def _setup(make: Any, stream: tuple[int, int, int], loss: Callable[[], Any]) -> Setup:
    return lambda: make(stream, loss())


class _Stream:
    """A call that goes through a stream of sizes that no call before it had, and returns its seconds.

    ``compilations`` is how many programs it compiled.
    """

    def __init__(self, stream: tuple[int, int, int], loss: Callable[..., Any]):
        self.count, self.first, self.classes = stream
        self.loss = loss
        self.compilations = 0

    def __call__(self) -> float:
        batches = [self.batch(self.first + i) for i in range(self.count)]
        self.first += self.count
        step, before = self.step(), self.compiled()
        start = time.perf_counter()
        for batch in batches:
            step(*batch)
        seconds = time.perf_counter() - start
        self.compilations = self.compiled() - before
        return seconds

    def batch(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(rows)
        logits = rng.standard_normal((rows, self.classes), np.float32)
        return logits, rng.integers(0, self.classes, rows).astype(np.int32)

    def step(self) -> Callable[..., Any]:
        raise NotImplementedError

    def compiled(self) -> int:
        raise NotImplementedError


class _Jax(_Stream):
    def __init__(self, stream: tuple[int, int, int], loss: Callable[..., Any]):
        from jax import monitoring

        super().__init__(stream, loss)
        self.events = 0
        monitoring.register_event_duration_secs_listener(self.listen)

    def listen(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        self.events += "backend_compile" in event

    def step(self) -> Callable[..., Any]:
        import jax

        function = jax.jit(jax.value_and_grad(lambda z, y: self.loss(y, z)))
        return lambda z, y: jax.block_until_ready(function(z, y))

    def compiled(self) -> int:
        return self.events


class _Tensorflow(_Stream):
    def batch(self, rows: int) -> tuple[Any, Any]:
        import tensorflow as tf

        logits, labels = super().batch(rows)
        return tf.constant(logits), tf.constant(labels)

    def step(self) -> Callable[..., Any]:
        import tensorflow as tf

        def step(z: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = self.loss(y, z)
            return tape.gradient(loss, z)[0, 0].numpy()

        return step

    def compiled(self) -> int:
        """The traces of all functions; XLA compiles each of them once."""
        import tensorflow as tf

        function: Any = tf.types.experimental.PolymorphicFunction
        return sum(x.experimental_get_tracing_count() for x in gc.get_objects() if isinstance(x, function))


def _ours(labels: Any, logits: Any) -> Any:
    return softmax_cross_entropy(labels, logits, label_smoothing=EPS)


def _optax() -> Callable[..., Any]:
    import jax
    import optax

    def loss(labels: Any, logits: Any) -> Any:
        onehot = jax.nn.one_hot(labels, logits.shape[-1])
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(onehot, EPS)).mean()

    return loss


def _tf_losses() -> Callable[..., Any]:
    import tensorflow as tf

    def loss(labels: Any, logits: Any) -> Any:
        onehot = tf.one_hot(labels, logits.shape[-1])
        return tf.compat.v1.losses.softmax_cross_entropy(onehot, logits, label_smoothing=EPS)

    return loss
