"""What the losses share that go through the rows in blocks and write the gradient on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

try:
    from torch._C._functorch import peek_interpreter_stack
except ImportError:  # then every call counts as transformed: slower, and right

    def peek_interpreter_stack() -> Any:
        """Stand in for a question that cannot be asked."""
        return True


# Elements of a block, per thread: a block's logits and gradient fit the cache of a core.
BLOCK_ELEMENTS = 2**17

FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))

# Subclasses may mean something else by the same operations.
PLAIN = (Tensor, torch.nn.Parameter)

Sweep = Callable[..., Any]
"""``sweep(logits, with_gradient=True)``: losses (rows,) or (rows, 1), and the gradient (rows, classes)."""


def block_rows(num_rows: int, num_classes: int, elements: int | None = None) -> int:
    """How many rows make a block: as many for each thread.

    Then every call gives a thread the same rows. Split otherwise, they move between the caches of cores, and
    where two cores share no cache that takes longer than the arithmetic.
    """
    return min(num_rows, torch.get_num_threads() * max(1, (elements or BLOCK_ELEMENTS) // num_classes))


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
    """Multiply a gradient (rows, classes) by what comes from above: numbers of rows or of elements, or one for all."""
    if any(upstream.stride()):
        gradient.mul_(upstream.reshape(len(gradient), -1))
    elif (factor := upstream.reshape(-1)[0].item()) != 1.0:
        gradient.mul_(factor)


def run(
    logits: Tensor,
    sweep: Sweep,
    formula: Callable[[Tensor], Tensor],
    shape: torch.Size,
    total: bool,
    multiply: Callable[[Tensor, Tensor], None] = multiply,
) -> Tensor | None:
    """The losses in their shape, or their sum, with the gradient if it is wanted; None if the sweep gives up.

    ``formula`` is the same loss as a function of the logits alone, for derivatives of the gradient;
    ``multiply`` what is done to the gradient in the backward pass.
    """
    swept = sweep(logits, with_gradient=logits.requires_grad and torch.is_grad_enabled())
    if swept is None:
        return None
    losses, gradient = swept
    losses = losses.sum() if total else losses.reshape(shape)
    return losses if gradient is None else _Attach.apply(logits, losses, gradient, sweep, formula, multiply)


class _Attach(torch.autograd.Function):
    """Losses that know their gradient already."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, losses: Tensor, gradient: Tensor, sweep: Any, formula: Any, multiply: Any
    ) -> Tensor:
        ctx.gradient, ctx.sweep, ctx.formula, ctx.multiply = gradient, sweep, formula, multiply
        ctx.save_for_backward(logits)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (upstream,) = grad_outputs
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated in its turn
            (gradient,) = torch.autograd.grad(ctx.formula(logits), logits, upstream, create_graph=True)
            return gradient, None, None, None, None, None
        # Given away once, since whoever has it may write into it; then made anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            _, gradient = ctx.sweep(logits, with_gradient=True)
        ctx.multiply(gradient, upstream)
        # Detached it is no view, so that autograd adds another gradient of these logits in place.
        return gradient.reshape(logits.shape).detach(), None, None, None, None, None
