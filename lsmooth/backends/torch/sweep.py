"""Helpers of losses that go through the rows in blocks and write the gradient in the same pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsmooth.backends.torch import thresholds

try:
    from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
except ImportError:  # then treat every call as transformed, which is slower and correct

    def peek_interpreter_stack() -> Any:
        """Replace a function that this PyTorch does not have."""
        return True

    def is_legacy_batchedtensor(tensor: Tensor) -> bool:
        """Replace a function that this PyTorch does not have."""
        return True


FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
# Dtypes in which a gradient can be multiplied again without visible rounding.
EXACT = frozenset((torch.float32, torch.float64))
INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))

# Subclasses may override operations.
PLAIN = (Tensor, torch.nn.Parameter)

Sweep = Callable[..., Any]
"""``sweep(logits, *arguments, with_gradient, upstream=None)``: the losses (rows,) or (rows, 1), or their sum where
that is wanted, and the gradient (rows, classes), which is multiplied by ``upstream`` before it is rounded. None if it
does not know how."""


def block_rows(num_rows: int, num_classes: int, elements: int | None = None) -> int:
    """The number of rows of a block: equal for all threads.

    Then every call gives a thread the same rows. Otherwise rows move between the caches of cores, which takes longer
    than the arithmetic if two cores share no cache.
    """
    return min(num_rows, torch.get_num_threads() * max(1, (elements or thresholds.BLOCK_ELEMENTS) // num_classes))


def is_plain(*logits: Tensor, device: str = "cpu") -> bool:
    """Whether these are non-empty tensors on the device, and nothing traces or transforms the call."""
    for z in logits:
        if type(z) not in PLAIN or z.numel() == 0 or not (z.is_cpu if device == "cpu" else z.device.type == device):
            return False
    return not is_transformed() and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward mode is active."""
    return peek_interpreter_stack() is not None or getattr(forward_ad, "_current_level", 0) >= 0


def needs_gradient(*options: Any) -> bool:
    """Whether any of the options requires a gradient."""
    for x in options:
        if isinstance(x, Tensor) and x.requires_grad:
            return torch.is_grad_enabled()
    return False


def multiply(gradient: Tensor, upstream: Tensor) -> None:
    """Multiply a gradient (..., classes) by the upstream gradient of the rows, of the elements, or of the sum."""
    if upstream.ndim and any(upstream.stride()):
        gradient.mul_(upstream.reshape(*gradient.shape[:-1], -1))
    elif (factor := (upstream.reshape(-1)[0] if upstream.ndim else upstream).item()) != 1.0:
        gradient.mul_(factor)


def run(
    logits: Tensor,
    arguments: tuple[Any, ...],
    sweep: Sweep,
    formula: Callable[..., Tensor],
    shape: torch.Size,
    total: bool,
    multiply: Callable[[Tensor, Tensor], None] = multiply,
    first: Sweep | None = None,
) -> Tensor | None:
    """The losses or their sum, differentiable in the logits; None if the sweep returns None.

    Args:
        logits: (..., classes).
        arguments: the other arguments of the loss: tensors, mappings and tuples of tensors, and others. The
            tensors are saved for the backward pass, which checks that they have not been modified and frees them.
        sweep: see `Sweep`.
        formula: ``formula(logits, *arguments)``, the same loss in PyTorch's operations, for derivatives of the
            gradient and for batches of upstream gradients.
        shape: of the losses.
        total: whether to return their sum.
        multiply: multiplies a gradient by the upstream gradient in place.
        first: the sweep of the forward pass, if it differs from the one of the backward pass.
    """
    wanted = logits.requires_grad and torch.is_grad_enabled()
    swept = (first or sweep)(logits, *arguments, with_gradient=wanted and _may_be_kept(logits, total))
    if swept is None:
        return None
    losses, gradient = swept
    # Detached, the losses are not a view, and the caller may change them in place.
    losses = losses.reshape(shape).detach() if not total else losses.sum() if losses.ndim else losses
    if not wanted:
        return losses
    gradient = None if gradient is None else _in_shape(gradient, logits)
    return _attach(logits, Swept(losses, gradient, arguments, sweep, formula, multiply))


def losses_alone(sweep: Sweep) -> Sweep:
    """The sweep without its gradient, which the backward pass computes."""

    def first(*arguments: Any, with_gradient: bool) -> Any:
        return sweep(*arguments, with_gradient=False)

    return first


def _may_be_kept(logits: Tensor, total: bool) -> bool:
    """Whether the gradient can be rounded to the logits' dtype before the upstream gradient is known.

    Multiplying by the upstream gradients of rows would round a gradient in half precision again. That of a sum is
    mostly 1, but small gradients of a mean underflow in float16 unless a loss scale enlarges them first.
    """
    return logits.dtype in EXACT or (total and logits.dtype == torch.bfloat16)


class Swept(NamedTuple):
    """The result of a sweep, and its arguments. Not a tensor, so that autograd sees no output as an input."""

    losses: Tensor
    gradient: Tensor | None
    arguments: tuple[Any, ...]
    sweep: Sweep
    formula: Callable[..., Tensor]
    multiply: Callable[[Tensor, Tensor], None]


class _Attach(torch.autograd.Function):
    """Losses whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, swept: Swept) -> Tensor:
        losses, ctx.gradient, arguments, ctx.sweep, ctx.formula, ctx.multiply = swept
        tensors: list[Tensor] = []
        ctx.arguments = _without_tensors(arguments, tensors)
        ctx.save_for_backward(logits, *tensors)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (upstream,) = grad_outputs
        logits, *tensors = ctx.saved_tensors  # raises if one has been changed since
        differentiable = torch.is_grad_enabled()
        if not differentiable and not is_batched(upstream):
            # Hand the stored gradient out once, because the caller may modify it; recompute it after that.
            gradient, ctx.gradient = ctx.gradient, None
            if gradient is not None and _multiplies_exactly(gradient, upstream):
                ctx.multiply(gradient, upstream)
            else:
                gradient = _gradient_again(ctx, logits, tensors, upstream, gradient is None)
            if gradient is not None:
                return gradient, None
        with torch.enable_grad():
            losses = ctx.formula(logits, *_with_tensors(ctx.arguments, iter(tensors)))
            (gradient,) = torch.autograd.grad(losses, logits, upstream, create_graph=differentiable)
        return gradient, None


# `Function.apply` also checks for transforms of ``torch.func``, under which no sweep is called.
_attach = super(torch.autograd.Function, _Attach).apply  # pyright: ignore[reportAttributeAccessIssue]


def _gradient_again(
    ctx: Any, logits: Tensor, tensors: list[Tensor], upstream: Tensor, same_bits: bool
) -> Tensor | None:
    """The gradient of a second sweep times the upstream gradient; None if it gives up.

    ``same_bits`` says whether an earlier backward pass handed out the stored gradient.
    """
    multiply_last = same_bits and logits.dtype in EXACT  # half precision is rounded once
    given = None if multiply_last else upstream
    found = ctx.sweep(logits, *_with_tensors(ctx.arguments, iter(tensors)), with_gradient=True, upstream=given)
    if found is None:
        return None
    gradient = _in_shape(found[1], logits)
    if multiply_last:
        ctx.multiply(gradient, upstream)
    return gradient


def _in_shape(gradient: Tensor, logits: Tensor) -> Tensor:
    """The gradient in the shape of the logits. It is not a view, so that autograd may add to it in place."""
    if gradient.shape == logits.shape and not gradient._is_view():
        return gradient
    return gradient.reshape(logits.shape).detach()


def is_batched(x: Tensor) -> bool:
    """Whether ``x`` is a batch of upstream gradients: of ``is_grads_batched=True`` or of ``torch.func.vmap``."""
    return is_legacy_batchedtensor(x) or peek_interpreter_stack() is not None


def _multiplies_exactly(gradient: Tensor, upstream: Tensor) -> bool:
    """Whether a product with the upstream gradient does not round a gradient in half precision again."""
    if gradient.dtype in EXACT or not gradient.is_cpu:
        return True
    return abs(math.frexp(upstream.reshape(-1)[0].item())[0]) == 0.5


_ATOMS = frozenset((float, int, bool, str, type(None)))  # hold no tensor
_SAVED = object()  # stands for a tensor that is saved for the backward pass


def _without_tensors(x: Any, tensors: list[Tensor]) -> Any:
    """Replace the tensors in ``x`` by a marker and append them to the list."""
    if x.__class__ in _ATOMS:
        return x
    if isinstance(x, Tensor) and not x.is_inference():  # inference tensors cannot be saved, and have no version counter
        tensors.append(x)
        return _SAVED
    if isinstance(x, dict):
        return {key: _without_tensors(value, tensors) for key, value in x.items()}
    if isinstance(x, tuple):
        if _ATOMS.issuperset(map(type, x)):
            return x
        parts = [value if value.__class__ in _ATOMS else _without_tensors(value, tensors) for value in x]
        return type(x)._make(parts) if hasattr(x, "_make") else tuple(parts)  # pyright: ignore
    return x


def _with_tensors(x: Any, tensors: Iterator[Tensor]) -> Any:
    """Reverse `_without_tensors`."""
    if x.__class__ in _ATOMS:
        return x
    if x is _SAVED:
        return next(tensors)
    if isinstance(x, dict):
        return {key: _with_tensors(value, tensors) for key, value in x.items()}
    if isinstance(x, tuple):
        if _ATOMS.issuperset(map(type, x)):
            return x
        parts = [value if value.__class__ in _ATOMS else _with_tensors(value, tensors) for value in x]
        return type(x)._make(parts) if hasattr(x, "_make") else tuple(parts)  # pyright: ignore
    return x


def times_upstream(scale: float | Tensor | None, upstream: Tensor | None, dtype: torch.dtype) -> float | Tensor:
    """The factor of each row: ``scale``, times the upstream gradient if it is known."""
    scale = 1.0 if scale is None else scale
    return scale if upstream is None else upstream.to(dtype) * scale
