"""Checks whether numbers are the probabilities of distributions, up to rounding."""

from __future__ import annotations

import numpy as np

from lsmooth.backends.formulas.rows import ROUNDING

_HALF, _BRAIN = 2e-2, 1e-1
"""The largest errors of sums in float16 and in bfloat16."""
_FLOAT = 1e-4
"""The largest error of sums in float32."""


def check_distributions(name: str, p: np.ndarray) -> None:
    """Raise a ValueError unless all rows are in [0, 1] and sum to one up to rounding; the classes are last."""
    outside = (p < -ROUNDING) | (p > 1.0 + ROUNDING)
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"{name} must be probabilities in [0, 1], got {p[where]:g} at index {where}; if they are logits, give "
            "from_logits=True."
        )
    wrong = ~sums_to_one(p)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name} must sum to 1 over the classes, got a sum of {p[where].sum(dtype=np.float64):g} at row "
            f"{where[0] if len(where) == 1 else where}; if they are logits, give from_logits=True."
        )


def sums_to_one(p: np.ndarray) -> np.ndarray:
    """(...), whether each row of (..., classes) sums to 1 up to the rounding of its entries.

    Entries that are representable in float16, in bfloat16 or as decimal numbers of 2 to 6 digits may have been
    rounded to them, each by at most half a unit of the last digit.
    """
    p = np.asarray(p)
    good = np.abs(p.sum(axis=-1, dtype=np.float64) - 1.0) <= _FLOAT
    rest = np.flatnonzero(~good.reshape(-1))
    if rest.size:
        explained = _is_explained(p.reshape(-1, p.shape[-1])[rest].astype(np.float64))
        good = np.array(good)
        good.reshape(-1)[rest] = explained
    return good


@np.errstate(all="ignore")
def _is_explained(p: np.ndarray) -> np.ndarray:
    """(rows,), whether rounding explains the sum of each row of (rows, classes)."""
    excess = p.sum(axis=1) - 1.0
    single = p.astype(np.float32)
    half = (np.clip(single, -1.0, 1.0).astype(np.float16) == p).all(axis=1)
    brain = (single == p).all(axis=1) & ((single.view(np.uint32) & 0xFFFF) == 0).all(axis=1)
    good = (half & (np.abs(excess) <= _HALF)) | (brain & (np.abs(excess) <= _BRAIN))
    for digits in range(2, 7):
        scaled = p * 10.0**digits
        decimal = (np.abs(scaled - np.round(scaled)) <= 10.0**digits * 2.0**-23 * np.maximum(p, 2.0**-10)).all(axis=1)
        unit = 0.5 * 10.0**-digits * 1.001
        # An entry of 0 cannot have been rounded up.
        good |= decimal & (excess <= unit * (p > 0).sum(axis=1)) & (excess >= -unit * p.shape[1])
    return good
