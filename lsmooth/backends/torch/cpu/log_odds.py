"""The log-odds of labels under a softmax on the CPU, their gradient written while the logits are in cache.

With the label's logit taken out, ``torch.softmax`` gives the other classes' shares r of what is
left: their log-sum-exp is ``max(z) - log(max(r))``, and the gradient is 1 at the label, -r elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import block_rows, is_plain, run


def fits(logits: Tensor, labels: Tensor) -> bool:
    """Whether `rows` knows these tensors."""
    return is_plain(logits) and labels.ndim == logits.ndim - 1 and logits.shape[-1] > 1


def rows(logits: Tensor, labels: Tensor, formula: Callable[..., Tensor]) -> Tensor | None:
    """`formulas.label_log_odds`; None where a label is out of range or a row is not finite."""
    if logits.numel() <= thresholds.SMALL_LOG_ODDS:
        return _small(logits, labels)
    return run(logits, (labels,), _sweep, formula, labels.shape, total=False)


def _small(logits: Tensor, labels: Tensor) -> Tensor | None:
    """The formula in few calls, which are what counts here; autograd has the gradient."""
    z = logits if logits.dtype == torch.float64 else logits.float()
    z = z - z.detach().amax(-1, keepdim=True)  # so that a large log-sum-exp rounds no digits away
    index = labels.long().unsqueeze(-1)
    try:
        others = z.scatter(-1, index, -torch.inf)
    except RuntimeError:  # a label out of range
        return None
    odds = z.gather(-1, index).squeeze(-1) - torch.logsumexp(others, -1)
    return odds if math.isfinite(odds.detach().sum().item()) else None


@torch.no_grad()
def _sweep(
    logits: Tensor, labels: Tensor, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Log-odds (rows, 1) and gradient (rows, classes)."""
    labels = labels.reshape(-1, 1).long()
    low, high = torch.aminmax(labels)
    if low.item() < 0 or high.item() >= logits.shape[-1]:
        return None
    upstream = None if upstream is None else upstream.reshape(-1, 1)
    logits = logits.reshape(-1, logits.shape[-1])
    num_rows, num_classes = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    block = block_rows(num_rows, num_classes)
    gradient = empty_like(logits) if with_gradient else None
    arrays = scratch((2, block, num_classes), dtype)
    top, share = logits.new_empty((2, num_rows, 1), dtype=dtype).unbind()

    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        others, r = arrays[:, : min(block, num_rows - start)].unbind()
        others.copy_(logits[part]).scatter_(1, labels[part], -torch.inf)
        direct = gradient is not None and gradient.dtype == dtype
        r = gradient[part] if direct else r  # pyright: ignore[reportOptionalSubscript]
        torch.softmax(others, 1, out=r)
        torch.amax(others, 1, keepdim=True, out=top[part])
        torch.amax(r, 1, keepdim=True, out=share[part])
        if gradient is None:
            continue
        r.neg_().scatter_(1, labels[part], 1.0)
        if upstream is not None:
            r.mul_(upstream[part])
        if not direct:
            gradient[part] = r

    odds = logits.gather(1, labels).to(dtype) - (top - share.log_())
    return (odds, gradient) if odds.isfinite().all().item() else None
