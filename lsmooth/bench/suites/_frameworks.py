"""Loss and gradient as each framework's users run them, and the copy that nothing can be faster than."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth.bench.rows import Call, Plan, Setup

Loss = Callable[[Any], Any]
"""A framework's scalar loss as a function of the logits."""

Data = Callable[[], np.ndarray]


def wanted(plan: Plan, backend: str) -> bool:
    """Whether the backend is in the plan and installed."""
    return backend in plan.backends and importlib.util.find_spec(backend) is not None


def is_installed(distribution: str) -> bool:
    """Whether a package of that name is installed; a folder that happens to bear its module's name is not."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def can_compile_torch() -> bool:
    """Whether ``torch.compile`` has the C++ compiler that it needs on a CPU."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))


def torch_step(data: Data, loss: Callable[[], Loss], compiled: bool = False) -> Setup:
    """Forward and backward in PyTorch; ``loss()`` is called once, when the process wants it."""

    def setup() -> Call:
        import torch

        z = torch.from_numpy(data())
        function = torch.compile(loss(), fullgraph=True) if compiled else loss()

        def step() -> None:
            x = z.detach().requires_grad_()
            function(x).backward()

        return step

    return setup


def torch_copy(data: Data) -> Setup:
    """``copy_`` into memory that is warm."""

    def setup() -> Call:
        import torch

        z = torch.from_numpy(data())
        warm = torch.empty_like(z)
        return lambda: warm.copy_(z)

    return setup


def jax_step(data: Data, loss: Callable[[], Callable[..., Any]], *others: Data) -> Setup:
    """Value and gradient in JAX, compiled; ``others`` are passed to the loss after the logits, no constants of it."""

    def setup() -> Call:
        import jax

        arrays = [jax.numpy.asarray(x()) for x in (data, *others)]
        function = jax.jit(jax.value_and_grad(loss())).lower(*arrays).compile()
        return lambda: jax.block_until_ready(function(*arrays))

    return setup


def jax_copy(data: Data) -> Setup:
    """The jitted ``x * 2``: JAX's outputs are allocated afresh, so a copy into warm memory is not to be had."""

    def setup() -> Call:
        import jax

        z, twice = jax.numpy.asarray(data()), jax.jit(lambda x: x * 2)
        return lambda: jax.block_until_ready(twice(z))

    return setup


def tensorflow_step(data: Data, loss: Callable[[], Loss], mode: str) -> Setup:
    """Loss and gradient in TensorFlow: ``mode`` is "eager", "function", "unknown batch" or "XLA"."""

    def setup() -> Call:
        import tensorflow as tf

        z, value_of = tf.constant(data()), loss()

        def both(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = value_of(x)
            return value, tape.gradient(value, x)

        if mode == "eager":
            function = both
        else:
            shape = [None if mode == "unknown batch" else z.shape[0], *z.shape[1:]]
            function = tf.function(both, jit_compile=mode == "XLA", input_signature=[tf.TensorSpec(shape, z.dtype)])
        # Reading one number waits for all of them on a CPU.
        return lambda: function(z)[1][0, 0].numpy()

    return setup


def numpy_copy(data: Data) -> Setup:
    """A copy into memory that is warm, for frameworks that cannot write into what is there."""

    def setup() -> Call:
        z = data()
        warm = np.empty_like(z)
        return lambda: np.copyto(warm, z)

    return setup
