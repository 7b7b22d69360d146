"""A function as each framework compiles it, for batches of any size in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lsmooth.backends import Backend


def compiled(xp: Backend, function: Callable[..., Any], *arrays: Any) -> Any:
    """The result of the compiled function on these arrays."""
    if xp.name == "jax":
        import jax

        return jax.jit(function)(*arrays)
    if xp.name == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in arrays]
        return tf.function(function, input_signature=signature)(*arrays)
    import torch

    return torch.compile(function, fullgraph=True, backend="eager")(*arrays)
