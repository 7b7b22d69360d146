"""Checks of the arguments of the variants of the cross-entropy."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array, Backend, backend_of
from lsmooth.losses._rows import RowOptions, Rows, counted_logits, prepare


def begin(labels: Any, logits: Any, options: RowOptions) -> tuple[Backend, Rows, Array]:
    """The backend, the call with its arguments checked, and its logits without padding, zeros in ignored rows."""
    eps, weight, mask = options.label_smoothing, options.sample_weight, options.mask
    xp = backend_of(labels=labels, logits=logits, label_smoothing=eps, sample_weight=weight, mask=mask)
    rows = prepare(xp, labels, logits, options)
    return xp, rows, counted_logits(rows)
