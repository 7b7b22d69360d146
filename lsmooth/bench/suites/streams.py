"""Batches of changing sizes, as from padded sequences and the last batch of an epoch: compiling is timed too."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.losses import softmax_cross_entropy

# The number of batches, the rows of the first, and the classes.
STREAM, QUICK = (50, 64, 8192), (3, 4, 10)
LARGE = (50, 64, 65536)  # from 2^22 logits on, TensorFlow's backend compiles a shape that comes back


def rows(plan: Plan) -> Iterator[Row]:
    """The smoothed cross-entropy over a stream, beside the framework's own."""
    for stream in (QUICK,) if plan.quick else (STREAM, LARGE):
        for mode, peer in (("jax", "optax, one-hot"), ("tensorflow, eager", "tf.losses")):
            if frameworks.wanted(plan, mode.partition(",")[0]):
                yield Row(
                    f"cross-entropy of a stream of {stream[0]} batch sizes, loss and gradient",
                    mode,
                    {"first": stream[1], "classes": stream[2]},
                    {
                        "lsmooth": functools.partial(_Stream, plan, mode, stream, _ours),
                        peer: functools.partial(_Stream, plan, mode, stream, frameworks.peer("cross_entropy")),
                    },
                    bars={peer: 1 / 1.3},
                    self_timed=True,
                    runs=1,
                )


def _ours(logits: Any, labels: Any) -> Any:
    return softmax_cross_entropy(labels, logits, label_smoothing=frameworks.EPS)


class _Stream:
    """A call that computes batches of new sizes, and returns its seconds.

    ``compilations`` is the number of programs that it compiled.
    """

    def __init__(self, plan: Plan, mode: str, stream: tuple[int, int, int], loss: frameworks.Loss):
        self.plan, self.mode = plan, mode
        self.count, self.first, self.classes = stream
        self.loss = loss
        self.compiled = _jax_compilations() if mode == "jax" else _tensorflow_traces
        self.compilations = 0

    def __call__(self) -> float:
        backend = self.mode.partition(",")[0]
        step = frameworks.finished(self.plan, backend, frameworks.differentiated(self.mode, self.loss))
        arrays = (self._batch(self.first + i) for i in range(self.count))
        batches = [[frameworks.tensor(self.plan, backend, x) for x in batch] for batch in arrays]
        self.first += self.count
        before, start = self.compiled(), time.perf_counter()
        for batch in batches:
            step(*batch)
        seconds = time.perf_counter() - start
        self.compilations = self.compiled() - before
        return seconds

    def _batch(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(rows)
        logits = rng.standard_normal((rows, self.classes), np.float32)
        return logits, rng.integers(0, self.classes, rows).astype(np.int32)


def _jax_compilations() -> Callable[[], int]:
    """A counter of the programs that JAX compiles from here on."""
    from jax import monitoring

    seen: list[str] = []
    monitoring.register_event_duration_secs_listener(lambda event, *_, **__: seen.append(event))
    return lambda: sum("backend_compile" in event for event in seen)


def _tensorflow_traces() -> int:
    """The traces of all functions; XLA compiles each of them once."""
    import tensorflow as tf

    function: Any = tf.types.experimental.PolymorphicFunction
    return sum(x.experimental_get_tracing_count() for x in gc.get_objects() if isinstance(x, function))
