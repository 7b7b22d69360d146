"""The log-odds of labels: large logits of a known shape are compiled by XLA, which fuses a dozen operations."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends import formulas
from lsmooth.backends.base import Array, Backend
from lsmooth.backends.tensorflow.cross_entropy import XLA_ELEMENTS, compiled


def label_log_odds(xp: Backend, logits: Array, labels: Array) -> Array:
    """`formulas.label_log_odds`; compiled, its gradient is a program of its own, which keeps nothing of the value's."""
    if not logits.shape.is_fully_defined() or logits.shape.num_elements() < XLA_ELEMENTS:
        return formulas.label_log_odds(xp, logits, labels)

    @tf.custom_gradient
    def odds(logits: Array) -> Any:
        def backward(upstream: Array) -> Array:
            return compiled(_gradient)(xp, logits, labels, upstream)

        return compiled(formulas.label_log_odds)(xp, tf.stop_gradient(logits), labels), backward

    return odds(logits)


def _gradient(xp: Backend, logits: Array, labels: Array, upstream: Array) -> Array:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        odds = formulas.label_log_odds(xp, logits, labels)
    return tape.gradient(odds, logits, upstream)
