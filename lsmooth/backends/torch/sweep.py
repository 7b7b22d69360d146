"""What the losses share that go through the rows in blocks and write the gradient on the way."""

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
except ImportError:  # then every call counts as transformed: slower, and right

    def peek_interpreter_stack() -> Any:
        """Stand in for a question that cannot be asked."""
        return True

    def is_legacy_batchedtensor(tensor: Tensor) -> bool:
        """Stand in for a question that cannot be asked."""
        return True


FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
# Dtypes in which a gradient may be multiplied again without harm.
EXACT = frozenset((torch.float32, torch.float64))
INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))

# Subclasses may mean something else by the same operations.
PLAIN = (Tensor, torch.nn.Parameter)

Sweep = Callable[..., Any]
"""``sweep(logits, *arguments, with_gradient, upstream=None)``: the losses (rows,) or (rows, 1), and the gradient
(rows, classes), which is multiplied by ``upstream`` before it is rounded. None if it does not know how."""


def block_rows(num_rows: int, num_classes: int, elements: int | None = None) -> int:
    """How many rows make a block: as many for each thread.

    Then every call gives a thread the same rows. Split otherwise, they move between the caches of cores, and
    where two cores share no cache that takes longer than the arithmetic.
    """
    return min(num_rows, torch.get_num_threads() * max(1, (elements or thresholds.BLOCK_ELEMENTS) // num_classes))


def is_plain(*logits: Tensor, device: str = "cpu") -> bool:
    """Whether these are tensors there with something in them, and nothing traces or transforms the call."""
    for z in logits:
        if type(z) not in PLAIN or z.numel() == 0 or not (z.is_cpu if device == "cpu" else z.device.type == device):
            return False
    return not is_transformed() and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def is_transformed() -> bool:
    """Whether a transform of ``torch.func``, or forward mode, is at work."""
    return peek_interpreter_stack() is not None or getattr(forward_ad, "_current_level", 0) >= 0


def needs_gradient(*options: Any) -> bool:
    """Whether an option beside the logits is to get a gradient."""
    for x in options:
        if isinstance(x, Tensor) and x.requires_grad:
            return torch.is_grad_enabled()
    return False


def multiply(gradient: Tensor, upstream: Tensor) -> None:
    """Multiply a gradient (..., classes) by the upstream gradient of the rows, or of the elements, or one for all."""
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
    """The losses in their shape, or their sum, differentiable in the logits; None if the sweep gives up.

    Args:
        logits: (..., classes).
        arguments: what the loss depends on beside the logits: tensors, mappings and tuples of tensors, and
            anything else. The tensors are saved for the backward pass, where PyTorch checks that nobody has
            changed them, and which frees them.
        sweep: see `Sweep`.
        formula: ``formula(logits, *arguments)``, the same loss in PyTorch's operations: for derivatives of the
            gradient, and for gradients of a whole batch of upstream gradients.
        shape: of the losses.
        total: whether their sum is wanted.
        multiply: multiplies a gradient by the upstream gradient in place.
        first: the sweep for the losses, where it differs from the one that repeats the gradient.
    """
    wanted = logits.requires_grad and torch.is_grad_enabled()
    swept = (first or sweep)(logits, *arguments, with_gradient=wanted and _may_be_kept(logits, total))
    if swept is None:
        return None
    losses, gradient = swept
    # Detached, the losses are no view, and whoever receives them may change them in place.
    losses = losses.sum() if total else losses.reshape(shape).detach()
    return _attach(logits, Swept(losses, gradient, arguments, sweep, formula, multiply)) if wanted else losses


def losses_alone(sweep: Sweep) -> Sweep:
    """The sweep without its gradient, which the backward pass is to form."""

    def first(*arguments: Any, with_gradient: bool) -> Any:
        return sweep(*arguments, with_gradient=False)

    return first


def _may_be_kept(logits: Tensor, total: bool) -> bool:
    """Whether the gradient can be rounded to the logits' dtype before the upstream gradient is known.

    A row's upstream gradient would round a gradient in half precision again. That of a sum is mostly 1; but
    float16 has no room for the small gradients of a mean, which a loss scale is to enlarge first.
    """
    return logits.dtype in EXACT or (total and logits.dtype == torch.bfloat16)


class Swept(NamedTuple):
    """The result of a sweep, and how to repeat it. Not a tensor, so that autograd takes no output for an input."""

    losses: Tensor
    gradient: Tensor | None
    arguments: tuple[Any, ...]
    sweep: Sweep
    formula: Callable[..., Tensor]
    multiply: Callable[[Tensor, Tensor], None]


class _Attach(torch.autograd.Function):
    """Losses that know their gradient already."""

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
        logits, *tensors = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        if not differentiable and not is_batched(upstream):
            # Hand the stored gradient out once, because the caller may modify it; recompute it after that.
            gradient, ctx.gradient = ctx.gradient, None
            if gradient is None and logits.dtype in EXACT:  # the same bits as the first time
                gradient = _gradient_again(ctx, logits, tensors)
            if gradient is not None and _multiplies_exactly(gradient, upstream):
                ctx.multiply(gradient, upstream)
            else:
                gradient = _gradient_again(ctx, logits, tensors, upstream)
            if gradient is not None:
                # Detached it is no view, so that autograd adds another gradient of these logits in place.
                in_shape = gradient.shape == logits.shape and not gradient._is_view()
                return gradient if in_shape else gradient.reshape(logits.shape).detach(), None
        with torch.enable_grad():
            losses = ctx.formula(logits, *_with_tensors(ctx.arguments, iter(tensors)))
            (gradient,) = torch.autograd.grad(losses, logits, upstream, create_graph=differentiable)
        return gradient, None


# `Function.apply` also looks for transforms of ``torch.func``, under which no sweep is called.
_attach = super(torch.autograd.Function, _Attach).apply  # pyright: ignore[reportAttributeAccessIssue]


def _gradient_again(ctx: Any, logits: Tensor, tensors: list[Tensor], upstream: Tensor | None = None) -> Tensor | None:
    """The gradient of a second sweep, multiplied by the upstream gradient if there is one; None if it gives up."""
    found = ctx.sweep(logits, *_with_tensors(ctx.arguments, iter(tensors)), with_gradient=True, upstream=upstream)
    return None if found is None else found[1]


def is_batched(x: Tensor) -> bool:
    """Whether ``x`` is a batch of upstream gradients: of ``is_grads_batched=True`` or of ``torch.func.vmap``."""
    return is_legacy_batchedtensor(x) or peek_interpreter_stack() is not None


def _multiplies_exactly(gradient: Tensor, upstream: Tensor) -> bool:
    """Whether a product with the upstream gradient rounds a gradient of half precision not a second time."""
    if gradient.dtype in EXACT or not gradient.is_cpu:
        return True
    return abs(math.frexp(upstream.reshape(-1)[0].item())[0]) == 0.5


_ATOMS = frozenset((float, int, bool, str, type(None)))  # hold no tensor
_SAVED = object()  # stands for a tensor that is saved for the backward pass


def _without_tensors(x: Any, tensors: list[Tensor]) -> Any:
    """``x``, its tensors moved to the end of the list."""
    if x.__class__ in _ATOMS:
        return x
    if isinstance(x, Tensor) and not x.is_inference():  # those cannot be saved, and nobody counts their changes
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
    """The factor of each row: ``scale``, times the upstream gradient where the gradient is made for it."""
    scale = 1.0 if scale is None else scale
    return scale if upstream is None else upstream.to(dtype) * scale
