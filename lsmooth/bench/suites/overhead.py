"""The cost of a call before any arithmetic: finding the backend, and checking the arguments."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from lsmooth.backends import backend_of
from lsmooth.bench.rows import Call, Plan, Row
from lsmooth.bench.suites._frameworks import EPS, tensor, wanted
from lsmooth.losses import softmax_cross_entropy

DISPATCH = 2e-6


def rows(plan: Plan) -> Iterator[Row]:
    """Dispatch alone, and an eager call on one row of two classes."""
    for backend in ("numpy", "torch", "jax", "tensorflow"):
        if wanted(plan, backend):
            dispatch, forward = (functools.partial(_call, plan, backend, alone) for alone in (True, False))
            yield Row("dispatch", backend, {}, {"lsmooth": dispatch}, bars={"seconds": DISPATCH})
            yield Row("eager call, forward", backend, {"rows": 1, "classes": 2}, {"lsmooth": forward})


def _call(plan: Plan, backend: str, dispatch_alone: bool) -> Call:
    labels, logits = (tensor(plan, backend, x) for x in (np.zeros(1, np.int32), np.zeros((1, 2), np.float32)))
    if dispatch_alone:
        return lambda: backend_of(labels=labels, logits=logits)
    return lambda: softmax_cross_entropy(labels, logits, label_smoothing=EPS)
