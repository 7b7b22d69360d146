"""The PyTorch backend: eager, ``torch.compile`` and ``torch.func``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from lsmooth import _validation as check
from lsmooth.backends import formulas
from lsmooth.backends.base import Array
from lsmooth.backends.formulas.linear import BlockLoss, Call, with_deferred_scale
from lsmooth.backends.formulas.sharded import PartsOfBlock
from lsmooth.backends.formulas.statistics import RowStatistics, row_statistics
from lsmooth.backends.members import Members
from lsmooth.backends.namespace import NamespaceBackend
from lsmooth.backends.options import (
    DIVERGENCE,
    SIGMOID,
    SOFTMAX,
    DivergenceOptions,
    Options,
    SigmoidOptions,
    SoftmaxOptions,
    are_known,
)
from lsmooth.backends.ragged import SpreadArgumentError
from lsmooth.backends.torch import linear, linear_statistics, statistics
from lsmooth.backends.torch.cpu import hard_and_soft, log_odds, mean, sigmoid
from lsmooth.backends.torch.cpu import slices as cpu_slices
from lsmooth.backends.torch.sweep import PLAIN, is_plain, is_transformed, needs_gradient

_SIZES = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64)}
_DTYPES = {f"{kind}{size}": getattr(torch, f"{kind}{size}") for kind, sizes in _SIZES.items() for size in sizes}
_DTYPES |= {"bool": torch.bool, "bfloat16": torch.bfloat16}
_OF_NUMPY = frozenset(_DTYPES.values()) - {torch.bfloat16}
# All dtypes of torch, because errors name refused ones.
_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


# The lowest compute capability that Triton supports.
_OLDEST_GPU = (7, 0)


@functools.cache
def kernel_for(loss: str, device: torch.device) -> ModuleType | None:
    """The kernel module for tensors on a device; on a GPU the Triton kernel, if it imports."""
    if device.type == "cpu":
        return importlib.import_module(f"lsmooth.backends.torch.cpu.{loss}")
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _OLDEST_GPU:
        return None
    try:
        return importlib.import_module(f"lsmooth.backends.torch.gpu.{loss}")
    except ImportError:
        return None


def knows(kernel: Any, options: Options, *arrays: Array) -> bool:
    """Whether the kernel takes these options, as its ``KNOWN`` says, and arrays, as its ``fits`` says."""
    return are_known(options, kernel.KNOWN) and kernel.fits(*arrays, options)


def _fastest(
    loss: str, formula: Callable[..., Array], first: Array, second: Array, options: Options, logits: Array
) -> Array | None:
    """The result of the kernel of that name; None if it does not know the arguments."""
    kernel = None if torch.compiler.is_compiling() else kernel_for(loss, logits.device)
    if kernel is None or not knows(kernel, options, first, second):
        return None
    return kernel.rows(first, second, formula, options)


def _classes(count: int, like: Array) -> Array:
    """``arange(count)``; a DTensor if ``like`` is one, because PyTorch refuses to mix the two kinds."""
    if type(like) in PLAIN:
        return torch.arange(count, device=like.device)
    return torch.cumsum(like.new_ones(count, dtype=torch.int64), 0) - 1


def _replicated(x: torch.Tensor, like: Any) -> Array:
    """``x`` as a DTensor, replicated on the mesh of ``like``: PyTorch refuses to mix the two kinds."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh
    return DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)


class TorchBackend(NamespaceBackend):
    """`Backend` over ``torch``."""

    name = "torch"
    namespace = torch
    types = (torch.Tensor, torch.nn.Parameter)

    def is_array(self, x: object) -> bool:
        return isinstance(x, torch.Tensor)

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        if not isinstance(x, torch.Tensor):
            x = getattr(x, "value", x)  # of a Keras variable
        if not isinstance(x, torch.Tensor):
            # A writable copy: torch.from_numpy warns of read-only arrays and would share memory.
            if isinstance(x, (int, float)):
                # Pass the dtype: without it a number would be rounded to float32 first.
                device = None if like is None else like.device
                x = torch.as_tensor(x, dtype=None if dtype is None else _DTYPES[dtype], device=device)
            else:
                x = torch.from_numpy(np.array(x))
            x = x if like is None else x.to(like.device)
        if type(x) in PLAIN and type(like) not in PLAIN and hasattr(like, "device_mesh"):
            x = _replicated(x, like)
        return x if dtype is None else x.to(_DTYPES[dtype])

    def to_numpy(self, x: Array) -> np.ndarray:
        x = x.detach()
        return (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).cpu().numpy()

    def host_values(self, x: Array) -> np.ndarray | None:
        if torch.compiler.is_compiling() or not is_plain(x) or needs_gradient(x):
            return None
        return x.detach().numpy() if x.layout == torch.strided and x.dtype in _OF_NUMPY else None

    def dtype(self, x: Array) -> str:
        return _NAMES[x.dtype]

    def cast(self, x: Array, dtype: str) -> Array:
        return x.to(_DTYPES[dtype])

    def size(self, x: Array) -> Any:
        return x.numel()

    def is_concrete(self, x: Array) -> bool:
        return not torch.compiler.is_compiling()

    def ones_like(self, x: Array, dtype: str) -> Array:
        return torch.ones_like(x, dtype=_DTYPES[dtype])

    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        return (index[..., None] == _classes(num_classes, index)).to(_DTYPES[dtype])

    def softplus(self, x: Array) -> Array:
        # With the default threshold of 20 the linear part would not have the precision of float64.
        return torch.nn.functional.softplus(x, threshold=40.0)

    def clip(self, x: Array, low: float, high: float) -> Array:
        return torch.clamp(x, low, high)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return torch.where(condition, x, y)

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        return torch.movedim(x, source, destination)  # torch.moveaxis cannot be vectorised by torch.vmap

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return torch.sum(x) if axis is None else torch.sum(x, axis)

    def max(self, x: Array, axis: int) -> Array:
        return torch.amax(x, axis)

    def argmax(self, x: Array, axis: int) -> Array:
        return torch.argmax(x, axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        # Its gradient is exp(x - lse): subtract the maximum first, so that a large lse loses no digits.
        top = torch.amax(x.detach(), axis, keepdim=True)
        top = torch.where(torch.isfinite(top), top, 0.0)
        if torch.compiler.is_compiling():  # one loop fewer than torch.logsumexp, which computes the maximum again
            return torch.log(torch.sum(torch.exp(x - top), axis)) + top.squeeze(axis)
        return torch.logsumexp(x - top, axis) + top.squeeze(axis)

    def take(self, table: Array, index: Array) -> Array:
        return table[index.long()]

    def gather(self, x: Array, index: Array) -> Array:
        return torch.gather(x, -1, index.long())

    def put(self, x: Array, index: Array, values: Array) -> Array:
        if type(x) in PLAIN:
            return torch.scatter(x, -1, index.long(), values)
        return super().put(x, index, values)

    def top(self, x: Array, index: Array) -> tuple[Array, Array]:
        highest, winner = torch.max(x, -1)
        return highest, winner == index

    def pick(self, x: Array, index: Array) -> Array:
        # The compiler fuses this choice, whereas the gradient of a gather is a full array. For a DTensor with its
        # classes spread over devices, PyTorch has no gather.
        if torch.compiler.is_compiling() or type(x) not in PLAIN:
            return torch.where(index[..., None].int() == _classes(x.shape[-1], index).int(), x, 0.0).sum(-1)
        return super().pick(x, index)

    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        return torch.zeros(length, dtype=weights.dtype, device=weights.device).index_add(0, index.long(), weights)

    def cumsum(self, x: Array) -> Array:
        return torch.cumsum(x, -1)

    def searchsorted(self, x: Array, values: Array, side: str) -> Array:
        return torch.searchsorted(x, values.contiguous(), side=side)

    def divide_logits(self, x: Array, divisor: Array) -> Array:
        return super().divide_logits(x, divisor) if divisor.requires_grad or is_transformed() else x / divisor

    def stop_gradient(self, x: Array) -> Array:
        return x.detach()

    def value_and_grad(self, function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        x = x.detach().requires_grad_()
        value = function(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.detach(), gradient

    def _softmax_formula(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
        return formulas.softmax_cross_entropy(self, logits, labels, options)

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
        formula = self._softmax_formula
        if torch.compiler.is_compiling():
            # Imported here, because it imports the compiler, which takes a second.
            from lsmooth.backends.torch.compile import cross_entropy

            fits = knows(cross_entropy, options, logits, labels)
            return cross_entropy.rows(logits, labels, options) if fits else formula(logits, labels, options)
        losses = _fastest("focal" if options.gamma else "cross_entropy", formula, logits, labels, options, logits)
        return formula(logits, labels, options) if losses is None else losses

    def overwriting_softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
        base = logits._base if logits._is_view() else logits
        if base.is_leaf and base.requires_grad:
            raise ValueError(
                "overwrite_logits=True would overwrite logits that are a leaf tensor with requires_grad=True, such as "
                "a parameter, or a view of one; pass the output of a layer."
            )
        kernel = None if torch.compiler.is_compiling() else kernel_for("cross_entropy", logits.device)
        if kernel is None or not knows(kernel, options, logits, labels):
            return self.softmax_cross_entropy(logits, labels, options)

        return kernel.rows(logits, labels, self._softmax_formula, options, late=True)

    def softmax_cross_entropy_with_statistics(
        self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX
    ) -> tuple[Array, RowStatistics]:
        def formula(logits: Array, labels: Array, options: SoftmaxOptions) -> RowStatistics:
            return row_statistics(self, logits, labels, options)

        found = None
        kernel = None if torch.compiler.is_compiling() else kernel_for("cross_entropy", logits.device)
        if kernel is not None and knows(kernel, options, logits, labels) and statistics.fits(logits, labels, options):
            found = statistics.rows(kernel, logits, labels, self._softmax_formula, formula, options)
        return super().softmax_cross_entropy_with_statistics(logits, labels, options) if found is None else found

    def quick_mean(
        self,
        loss: str,
        labels: Any,
        logits: Any,
        label_smoothing: Any = 0.0,
        ignore_index: Any = None,
        axis: Any = -1,
        class_weight: Any = None,
        mask: Any = None,
    ) -> Array | None:
        if torch.compiler.is_compiling() or check.is_validating(self):
            return None
        return mean.softmax_cross_entropy(
            labels, logits, label_smoothing, ignore_index, axis, class_weight, mask, self._softmax_formula
        )

    def quick_binary(
        self, labels: Any, logits: Any, given: Any, pos_weight: Any, gamma: float, alpha: float | None
    ) -> Array | None:
        if torch.compiler.is_compiling() or check.is_validating(self):
            return None
        return sigmoid.quick(labels, logits, given, pos_weight, gamma, alpha, self._sigmoid_formula)

    def label_log_odds(self, logits: Array, labels: Array) -> Array:
        def formula(logits: Array, labels: Array) -> Array:
            return formulas.label_log_odds(self, logits, labels)

        losses = None
        if not torch.compiler.is_compiling() and log_odds.fits(logits, labels):
            losses = log_odds.rows(logits, labels, formula)
        return formula(logits, labels) if losses is None else losses

    def _sigmoid_formula(self, logits: Array, labels: Array, options: SigmoidOptions) -> Array:
        labels = labels.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        return formulas.sigmoid_cross_entropy(self, logits, labels, options)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
        formula = self._sigmoid_formula
        losses = _fastest("sigmoid", formula, logits, labels, options, logits)
        return formula(logits, labels, options) if losses is None else losses

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
        def formula(student: Array, teacher: Array, options: DivergenceOptions) -> Array:
            return formulas.softmax_divergence(self, teacher, student, options)

        losses = _fastest("divergence", formula, teacher, student, options, student)
        return formula(student, teacher, options) if losses is None else losses

    def hard_and_soft(
        self, labels: Array, teacher: Array, student: Array, hard: SoftmaxOptions, soft: DivergenceOptions
    ) -> Array:
        separate = super().hard_and_soft

        def formula(
            student: Array, labels: Array, teacher: Array, hard: SoftmaxOptions, soft: DivergenceOptions
        ) -> Array:
            return separate(labels, teacher, student, hard, soft)

        losses = None
        if not torch.compiler.is_compiling():
            losses = hard_and_soft.rows(labels, teacher, student, formula, hard, soft)
        return separate(labels, teacher, student, hard, soft) if losses is None else losses

    def refuse_spread(self, *arrays: Any) -> None:
        if torch.compiler.is_compiling() or not any(hasattr(x, "device_mesh") for x in arrays):
            return
        from lsmooth.backends.torch.dtensors import fits

        if fits(*arrays):
            raise SpreadArgumentError("This function takes no DTensor.")

    def members(self, group: Any, option: str) -> Members:
        from lsmooth.backends.torch.members import members

        return members(group, option)

    def linear_rows_with_statistics(
        self, loss: BlockLoss, call: Call, statistics: BlockLoss, own: Call, block_size: int | None = None
    ) -> tuple[Array, Array]:
        half = torch.float16 in [x.dtype for x in call.heads[0] if x is not None]
        if half or torch.is_autocast_enabled(call.heads[0].hidden.device.type) or not linear.is_eager(call):
            return super().linear_rows_with_statistics(loss, call, statistics, own, block_size)
        return linear_statistics.rows(self, loss, call, statistics, own, block_size)

    def columns_of_slice(self, question: Any, slices: Any) -> dict[str, Array]:
        found = cpu_slices.columns(question, slices)
        return question.local(slices) if found is None else found

    def linear_rows(self, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
        if isinstance(loss, PartsOfBlock) and call.heads[0].weight is None:
            lead, flat = linear.flat(call)
            columns = cpu_slices.whole(loss, flat)
            if columns is not None:
                return columns.reshape((*lead, *columns.shape[1:]))
        device = call.heads[0].hidden.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        defer_scale = autocast and torch.get_autocast_dtype(device) == torch.float16
        if defer_scale and (loss.scale is not None or "scale" in call.rows):
            return with_deferred_scale(self, loss, call, block_size)
        if torch.compiler.is_compiling():
            from lsmooth.backends.torch.compile import linear as compiled_linear

            if compiled_linear.fits(loss, call):
                return compiled_linear.linear_rows(loss, call, block_size)
        return linear.linear_rows(self, loss, call, block_size)


BACKEND = TorchBackend()
