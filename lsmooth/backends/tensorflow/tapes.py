"""What TensorFlow's tapes follow, so that no gradient is formed that nobody can ask for."""

from __future__ import annotations

import tensorflow as tf

try:  # no public name tells
    from tensorflow.python.ops.gradients_util import PossibleTapeGradientTypes  # type: ignore[import-not-found]
except ImportError:  # then everything counts as followed
    PossibleTapeGradientTypes = None


def is_followed(*arrays: tf.Tensor) -> bool:
    """Whether a tape, or an accumulator of forward mode, may ask for a derivative with respect to one of these."""
    return PossibleTapeGradientTypes is None or bool(PossibleTapeGradientTypes(arrays))
