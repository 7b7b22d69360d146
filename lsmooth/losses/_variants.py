"""What the variants of the cross-entropy do before their formula."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array, Backend, backend_of
from lsmooth.losses._rows import Rows, counted_logits, prepare


def begin(
    labels: Any,
    logits: Any,
    label_smoothing: Any,
    sample_weight: Any,
    ignore_index: int | None,
    mask: Any,
    axis: int,
    reduction: str | None,
    num_classes: int | None,
) -> tuple[Backend, Rows, Array]:
    """The backend, the call with its arguments checked, and its logits without padding, zeros in ignored rows."""
    xp = backend_of(
        labels=labels, logits=logits, label_smoothing=label_smoothing, sample_weight=sample_weight, mask=mask
    )
    rows = prepare(
        xp,
        labels,
        logits,
        label_smoothing,
        sample_weight,
        ignore_index,
        axis,
        reduction,
        mask=mask,
        num_classes=num_classes,
    )
    return xp, rows, counted_logits(rows)
