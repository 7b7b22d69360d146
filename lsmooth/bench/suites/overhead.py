"""What a call costs before any arithmetic: finding the backend, and checking the arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth.backends import backend_of
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites._frameworks import torch_tensor, wanted
from lsmooth.losses import softmax_cross_entropy

DISPATCH = 2e-6


def rows(plan: Plan) -> Iterator[Row]:
    """Dispatch alone, and an eager call on one row of two classes."""
    for backend in ("numpy", "torch", "jax", "tensorflow"):
        if not wanted(plan, backend):
            continue
        make = _makers(plan)[backend]
        yield Row("dispatch", backend, {}, {"lsmooth": lambda make=make: _dispatch(make)}, bars={"seconds": DISPATCH})
        contenders = {"lsmooth": lambda make=make: _forward(make)}
        yield Row("eager call, forward", backend, {"rows": 1, "classes": 2}, contenders)


def _dispatch(make: Callable[[Any], Any]) -> Any:
    labels, logits = make(np.zeros(1, np.int32)), make(np.zeros((1, 2), np.float32))
    return lambda: backend_of(labels=labels, logits=logits)


def _forward(make: Callable[[Any], Any]) -> Any:
    labels, logits = make(np.zeros(1, np.int32)), make(np.zeros((1, 2), np.float32))
    return lambda: softmax_cross_entropy(labels, logits, label_smoothing=0.1)


def _makers(plan: Plan) -> dict[str, Callable[[Any], Any]]:
    def jax(x: np.ndarray) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(x)

    def tensorflow(x: np.ndarray) -> Any:
        import tensorflow as tf

        return tf.constant(x)

    return {"numpy": np.asarray, "torch": functools.partial(torch_tensor, plan), "jax": jax, "tensorflow": tensorflow}
