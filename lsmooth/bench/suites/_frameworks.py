"""Loss and gradient as each framework's users run them, and the copy that nothing can be faster than.

PyTorch's tensors are put on the plan's device; JAX and TensorFlow take the one they see (`lsmooth.bench.device.use`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lsmooth.bench.device import CPU, CUDA
from lsmooth.bench.rows import Call, Plan, Row, Setup

# Options of the losses of the suites and of their peers.
EPS, TEMPERATURE, ALPHA = 0.1, 2.0, 0.9
# The number of sequences; those of the first half were chosen.
SEQUENCES = 16
# Peers whose kernels run on CUDA alone, and their distributions.
_GPU_PEERS = {"Liger-Kernel": "liger-kernel", "cut-cross-entropy": "cut-cross-entropy"}
_MODES = {"tensorflow": ("tensorflow, eager", "tensorflow, function", "tensorflow, XLA")}

Arrays = Callable[[], Sequence[np.ndarray]]


class Peer(NamedTuple):
    """A function of the framework's module in `lsmooth.bench.peers`, by name: the module is imported when it is run."""

    name: str
    options: Mapping[str, Any]


def peer(name: str, **options: Any) -> Peer:
    """The peer of that name, called with these options."""
    return Peer(name, options)


Loss = Callable[..., Any] | Peer
"""A scalar loss as a function of the arrays: logits or a linear head first, which get gradients."""


def wanted(plan: Plan, backend: str) -> bool:
    """Whether the backend is in the plan and installed."""
    return backend in plan.backends and (plan.listing or importlib.util.find_spec(backend) is not None)


def is_installed(distribution: str) -> bool:
    """Whether a package of that name is installed; a folder with its module's name does not count."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def has_gpu_peer(plan: Plan, distribution: str) -> bool:
    """Whether a library whose kernels run on CUDA alone is a peer."""
    return plan.device == CUDA and (plan.listing or is_installed(distribution))


def can_compile_torch(plan: Plan) -> bool:
    """Whether ``torch.compile`` has the C++ compiler that it needs, and on a GPU Triton."""
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    return plan.listing or (compiler and (plan.device == CPU or is_installed("triton")))


def tensor(plan: Plan, backend: str, x: np.ndarray) -> Any:
    """The array as the backend's tensor, PyTorch's on the plan's device."""
    if backend == "torch":
        import torch

        return torch.from_numpy(x).to(plan.device)
    if backend == "jax":
        import jax

        return jax.numpy.asarray(x)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.constant(x)
    return x


def finished(plan: Plan, backend: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The work and the wait until it is done; in TensorFlow the work returns one number."""
    if backend == "torch" and plan.device != CPU:
        import torch

        return lambda *x: (work(*x), torch.cuda.synchronize())
    if backend == "jax":
        import jax

        return lambda *x: jax.block_until_ready(work(*x))
    if backend == "tensorflow":
        # Reading one number waits for all of them, on a GPU too, which works in order.
        return lambda *x: work(*x).numpy()
    return work


def step(plan: Plan, mode: str, arrays: Arrays, loss: Loss, watched: int = 1) -> Setup:
    """Value and gradients of a loss, by the first ``watched`` arrays.

    ``mode`` is ``"torch"``, ``"torch, compiled"``, ``"jax"``, or ``"tensorflow, eager"``, ``"... function"``,
    ``"... unknown batch"`` or ``"... XLA"``.
    """
    backend = mode.partition(", ")[0]

    def setup() -> Call:
        tensors = [tensor(plan, backend, x) for x in arrays()]
        function = differentiated(mode, loss, watched, tensors)
        return finished(plan, backend, lambda: function(*tensors))

    return setup


def differentiated(mode: str, loss: Loss, watched: int = 1, tensors: Sequence[Any] = ()) -> Callable[..., Any]:
    """The function of tensors that `step` calls, compiled for these tensors where it compiles."""
    backend, _, how = mode.partition(", ")
    function: Any = loss
    if isinstance(loss, Peer):
        module = importlib.import_module(f"lsmooth.bench.peers.{backend}")
        function = functools.partial(getattr(module, loss.name), **loss.options)
    return _DIFFERENTIATED[backend](how, function, watched, tensors)


def _torch_function(how: str, loss: Any, watched: int, _: Sequence[Any]) -> Callable[..., None]:
    import torch

    function = torch.compile(lambda *x: loss(*x), fullgraph=True) if how == "compiled" else loss

    def both(*x: Any) -> None:
        function(*(leaf.detach().requires_grad_() for leaf in x[:watched]), *x[watched:]).backward()

    return both


def _jax_function(_: str, loss: Any, watched: int, tensors: Sequence[Any]) -> Callable[..., Any]:
    import jax

    both = jax.jit(jax.value_and_grad(loss, tuple(range(watched))))
    return both.lower(*tensors).compile() if tensors else both


def _tensorflow_function(how: str, loss: Any, watched: int, tensors: Sequence[Any]) -> Callable[..., Any]:
    import tensorflow as tf

    def both(*x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x[:watched])
            value = loss(*x)
        return value, tape.gradient(value, x[:watched])

    function: Any = both
    if how != "eager":
        shapes = [[None, *x.shape[1:]] if how == "unknown batch" else x.shape for x in tensors]
        signature = [tf.TensorSpec(shape, x.dtype) for shape, x in zip(shapes, tensors, strict=True)]
        function = tf.function(both, jit_compile=True if how == "XLA" else None, input_signature=signature)
    return lambda *x: function(*x)[1][-1][0, 0]


_DIFFERENTIATED = {"torch": _torch_function, "jax": _jax_function, "tensorflow": _tensorflow_function}


def copy(plan: Plan, backend: str, data: Callable[[], np.ndarray]) -> Setup:
    """The copy limit of a backend.

    In PyTorch it is ``copy_`` into warm memory; in JAX, which always allocates its outputs, and in TensorFlow on an
    accelerator the compiled ``x * 2``; otherwise NumPy's copy into warm memory.
    """

    def setup() -> Call:
        z = data()
        if backend == "torch":
            x = tensor(plan, backend, z)
            warm = x.new_empty(x.shape)
            return finished(plan, backend, lambda: warm.copy_(x))
        if backend == "jax":
            import jax

            x, twice = tensor(plan, backend, z), jax.jit(lambda x: x * 2)
            return finished(plan, backend, lambda: twice(x))
        if backend == "tensorflow" and plan.device != CPU:
            import tensorflow as tf

            x, double = tensor(plan, backend, z), tf.function(lambda x: x * 2)
            return finished(plan, backend, lambda: double(x)[0, 0])
        target = np.empty_like(z)
        return lambda: np.copyto(target, z)

    return setup


def loss_rows(
    plan: Plan,
    work: str,
    size: Mapping[str, int],
    arrays: Arrays,
    ours: Loss,
    peers: Mapping[str, Mapping[str, Loss]],
    *,
    watched: int = 1,
    bars: Mapping[str, Mapping[str, float]] | None = None,
    with_memory: bool = True,
    with_copy: bool = True,
) -> Iterator[Row]:
    """A row for each mode: lsmooth's loss beside the peers that can run here.

    Args:
        plan: the user's choices.
        work: the work's name.
        size: its ``rows`` and ``classes``, and other sizes.
        arrays: makes the arrays that the losses are functions of.
        ours: lsmooth's loss.
        peers: by mode (``"tensorflow"`` stands for three), the peers by name. A name that ends in ``", compiled"`` is
            compiled.
        watched: how many of the arrays get a gradient.
        bars: the bars by mode; those of peers that are left out are dropped.
        with_memory: whether the peak memory of large logits is measured.
        with_copy: whether a copy of the first array is measured.
    """
    logits = 4 * size["rows"] * size["classes"]
    for mode, named in ((mode, named) for key, named in peers.items() for mode in _MODES.get(key, (key,))):
        backend = mode.partition(",")[0]
        if not wanted(plan, backend) or not _is_possible(plan, mode):
            continue
        contenders = {"lsmooth": ours} | {name: loss for name, loss in named.items() if _is_possible(plan, name)}
        yield Row(
            work,
            mode,
            size,
            {
                name: step(plan, "torch, compiled" if name.endswith(", compiled") else mode, arrays, loss, watched)
                for name, loss in contenders.items()
            },
            copy=copy(plan, backend, lambda: arrays()[0]) if with_copy else None,
            unit_bytes=logits if with_memory and logits >= 2**22 else 0,
            bars={k: v for k, v in (bars or {}).get(mode, {}).items() if k in ("copies", "memory", *contenders)},
        )


def _is_possible(plan: Plan, name: str) -> bool:
    """Whether a contender or a mode of that name can run here."""
    if name in _GPU_PEERS:
        return has_gpu_peer(plan, _GPU_PEERS[name])
    return not name.endswith(", compiled") or can_compile_torch(plan)
