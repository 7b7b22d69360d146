"""Loss and gradient as each framework's users run them, and the copy that nothing can be faster than.

PyTorch's tensors are put on the plan's device; JAX and TensorFlow take the one they see (`lsmooth.bench.device.use`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth.bench.device import CPU, CUDA
from lsmooth.bench.rows import Call, Plan, Setup

Loss = Callable[..., Any]
"""A framework's scalar loss as a function of the logits, and of what else the step was given."""

Data = Callable[[], np.ndarray]


def wanted(plan: Plan, backend: str) -> bool:
    """Whether the backend is in the plan and installed."""
    return backend in plan.backends and (plan.listing or importlib.util.find_spec(backend) is not None)


def is_installed(distribution: str) -> bool:
    """Whether a package of that name is installed; a folder that happens to bear its module's name is not."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def has_gpu_peer(plan: Plan, distribution: str) -> bool:
    """Whether a library whose kernels run on CUDA alone is to be a peer."""
    return plan.device == CUDA and (plan.listing or is_installed(distribution))


def can_compile_torch(plan: Plan) -> bool:
    """Whether ``torch.compile`` has the C++ compiler that it needs, and on a GPU Triton."""
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    return plan.listing or (compiler and (plan.device == CPU or is_installed("triton")))


def torch_tensor(plan: Plan, x: np.ndarray) -> Any:
    """The array on the plan's device."""
    import torch

    return torch.from_numpy(x).to(plan.device)


def torch_call(plan: Plan, work: Call) -> Call:
    """The work, and on a GPU the wait until it is done."""
    if plan.device == CPU:
        return work
    import torch

    def call() -> None:
        work()
        torch.cuda.synchronize()

    return call


def torch_step(plan: Plan, data: Data, loss: Callable[[], Loss], *others: Data, compiled: bool = False) -> Setup:
    """Forward and backward in PyTorch; ``loss()`` is called once, when the process wants it.

    ``others`` are passed to the loss after the logits.
    """

    def setup() -> Call:
        import torch

        z, *rest = (torch_tensor(plan, x()) for x in (data, *others))
        function = torch.compile(loss(), fullgraph=True) if compiled else loss()

        def step() -> None:
            x = z.detach().requires_grad_()
            function(x, *rest).backward()

        return torch_call(plan, step)

    return setup


def torch_copy(plan: Plan, data: Data) -> Setup:
    """``copy_`` into memory that is warm."""

    def setup() -> Call:
        import torch

        z = torch_tensor(plan, data())
        warm = torch.empty_like(z)
        return torch_call(plan, lambda: warm.copy_(z))

    return setup


def jax_step(data: Data, loss: Callable[[], Loss], *others: Data) -> Setup:
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
        # Reading one number waits for all of them, on a GPU too, whose work is done in order.
        return lambda: function(z)[1][0, 0].numpy()

    return setup


def tensorflow_copy(plan: Plan, data: Data) -> Setup:
    """On the CPU NumPy's copy; on an accelerator ``x * 2``, as in JAX."""
    if plan.device == CPU:
        return numpy_copy(data)

    def setup() -> Call:
        import tensorflow as tf

        z, twice = tf.constant(data()), tf.function(lambda x: x * 2)
        return lambda: twice(z)[0, 0].numpy()

    return setup


def numpy_copy(data: Data) -> Setup:
    """A copy into memory that is warm, for frameworks that cannot write into what is there."""

    def setup() -> Call:
        z = data()
        warm = np.empty_like(z)
        return lambda: np.copyto(warm, z)

    return setup


def copy(plan: Plan, backend: str, data: Data) -> Setup:
    """The copy limit of a backend."""
    if backend == "torch":
        return torch_copy(plan, data)
    return jax_copy(data) if backend == "jax" else tensorflow_copy(plan, data)
