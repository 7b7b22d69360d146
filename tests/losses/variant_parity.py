"""A variant of the cross-entropy on one backend against its formula in complex NumPy.

A formula is ``rows(q, z)``: smoothed labels and logits (rows, classes) in, losses (rows,) out. It is
run in float64 for the value and by complex steps for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import complex_step
import numpy as np
from complex_step import softmax
from conftest import assert_close
from loss_parity import as_dtype

from lsmooth import losses
from lsmooth.backends import Backend

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]
ROWS, CLASSES = 6, 4
LABELS = np.array([0, 3, 1, 1, 2, 0])
WEIGHTS = np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])
# How the rows are given and added up: arguments of the call, and each row's factor.
CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "rows": ({"reduction": "none"}, 1.0),
    "mean": ({}, 1.0 / ROWS),
    "sum": ({"reduction": "sum"}, 1.0),
    "label_smoothing": ({"label_smoothing": 0.3, "reduction": "none"}, 1.0),
    "label_smoothing per row": ({"label_smoothing": np.linspace(0.0, 1.0, ROWS), "reduction": None}, 1.0),
    "sample_weight": ({"sample_weight": WEIGHTS}, WEIGHTS / WEIGHTS.sum()),
    "nonzero weights": ({"sample_weight": WEIGHTS, "reduction": "sum_by_nonzero_weights"}, WEIGHTS / 5),
}


def cross_entropy(q: np.ndarray, z: np.ndarray) -> np.ndarray:
    return -(q * np.log(softmax(z))).sum(-1)


def entropy(z: np.ndarray) -> np.ndarray:
    return -(softmax(z) * np.log(softmax(z))).sum(-1)


def logits(seed: int = 0, scale: float = 3.0, shape: tuple[int, ...] = (ROWS, CLASSES)) -> np.ndarray:
    """Normal numbers, as float64, that float32 holds exactly."""
    return np.random.default_rng(seed).normal(0.0, scale, shape).astype(np.float32).astype(np.float64)


def targets(labels: np.ndarray, eps: Any, classes: int = CLASSES) -> np.ndarray:
    t = np.eye(classes)[labels] if labels.ndim == 1 else labels
    eps = np.broadcast_to(eps, t.shape[:1])[:, None]
    return (1.0 - eps) * t + eps / classes


def check_variant(
    backend: Backend,
    name: str,
    formula: Formula,
    labels: np.ndarray,
    z: np.ndarray,
    *,
    factor: Any = 1.0,
    dtype: str = "float64",
    slack: float = 10.0,
    **options: Any,
) -> None:
    """Value and gradient of ``losses.<name>`` equal the formula's, each row times ``factor``."""
    inputs = as_dtype(backend, z, dtype)
    z = backend.to_numpy(inputs).astype(np.float64)
    q = targets(labels, options.get("label_smoothing", 0.0), z.shape[-1])
    scaled = formula(q, z) * factor
    expected = scaled if options.get("reduction", "mean") in ("none", None) else scaled.sum()
    result = "float64" if dtype == "float64" else "float32"

    loss = getattr(losses, name)
    value = loss(labels, inputs, **options)
    assert backend.is_array(value)
    assert backend.dtype(value) == result
    assert_close(backend, value, expected, result, slack)
    if backend.name == "numpy":
        return
    _, gradient = backend.value_and_grad(lambda x: backend.sum(loss(labels, x, **options)), inputs)
    assert backend.dtype(gradient) == dtype
    slope = complex_step.gradient(lambda x: (formula(q, x) * factor).sum(), z)
    assert_close(backend, gradient, slope, dtype, slack)
