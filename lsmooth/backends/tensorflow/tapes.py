"""Tensors that TensorFlow's tapes watch, so that no other gradients are computed."""

from __future__ import annotations

import tensorflow as tf

try:  # there is no public function
    from tensorflow.python.ops.gradients_util import PossibleTapeGradientTypes  # type: ignore[import-not-found]
except ImportError:  # then treat every tensor as watched
    PossibleTapeGradientTypes = None


def is_followed(*arrays: tf.Tensor) -> bool:
    """Whether a tape or a forward accumulator watches one of these tensors."""
    return PossibleTapeGradientTypes is None or bool(PossibleTapeGradientTypes(arrays))
