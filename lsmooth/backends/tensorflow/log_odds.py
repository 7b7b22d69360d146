"""The log-odds of labels; XLA compiles large logits of a known shape, and fuses a dozen operations."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from lsmooth.backends import formulas
from lsmooth.backends.base import Array, Backend
from lsmooth.backends.tensorflow.compilation import closed_form, compile_pays, compiled


def label_log_odds(xp: Backend, logits: Array, labels: Array) -> Array:
    """`formulas.label_log_odds`; if compiled, its gradient is a separate program."""
    if not compile_pays("label_log_odds", logits):
        return formulas.label_log_odds(xp, logits, labels)
    value, gradient = _programs(xp)
    return closed_form(lambda *x: (compiled(value)(*x),), lambda *x: [compiled(gradient)(*x)], [logits], [labels])


@functools.cache
def _programs(xp: Backend) -> tuple[Any, Any]:
    """The value and the gradient; the same functions for every call, so that each is compiled once."""

    def value(logits: Array, labels: Array) -> Array:
        return formulas.label_log_odds(xp, logits, labels)

    def gradient(logits: Array, labels: Array, upstream: Array) -> Array:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            odds = formulas.label_log_odds(xp, logits, labels)
        return tape.gradient(odds, logits, upstream)

    return value, gradient
