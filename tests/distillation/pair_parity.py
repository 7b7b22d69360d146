"""A distillation loss on one backend against its formula in complex NumPy.

A formula is ``rows(t, s)``: the logits of teacher and student (rows, classes) in, losses (rows,) out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import complex_step
import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close

from lsmooth.backends import Backend

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]
ROWS, CLASSES = 5, 4
LABELS = np.array([0, 3, 1, 1, 2])
WEIGHTS = np.array([0.5, 0.0, 2.0, 1.0, 3.0])
# Arguments of the call, and each row's factor.
CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "rows": ({"reduction": "none"}, 1.0),
    "mean": ({}, 1.0 / ROWS),
    "sum": ({"reduction": "sum"}, 1.0),
    "sample_weight": ({"sample_weight": WEIGHTS}, WEIGHTS / WEIGHTS.sum()),
    "mask": ({"mask": LABELS != 1}, (LABELS != 1) / 3),
}


def logits(seed: int, scale: float = 2.0, shape: tuple[int, ...] = (ROWS, CLASSES)) -> np.ndarray:
    """Normal numbers, as float64, that float32 holds exactly."""
    return np.random.default_rng(seed).normal(0.0, scale, shape).astype(np.float32).astype(np.float64)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(-1)


def kl_of_logits(t: np.ndarray, s: np.ndarray) -> np.ndarray:
    return kl(softmax(t), softmax(s))


def check_pair(
    backend: Backend,
    loss: Callable[..., Any],
    formula: Formula,
    teacher: np.ndarray,
    student: np.ndarray,
    *,
    factor: Any = 1.0,
    dtype: str = "float64",
    slack: float = 20.0,
    **options: Any,
) -> None:
    """Value and both gradients of ``loss(teacher, student)`` equal the formula's, each row times ``factor``."""
    scaled = formula(teacher, student) * factor
    expected = scaled if options.get("reduction", "mean") == "none" else scaled.sum()
    t, s = backend.asarray(teacher, dtype), backend.asarray(student, dtype)
    value = loss(t, s, **options)
    assert backend.is_array(value)
    assert backend.dtype(value) == dtype
    assert_close(backend, value, expected, dtype, slack)
    if backend.name == "numpy":
        return

    _, slope = backend.value_and_grad(lambda x: backend.sum(loss(t, x, **options)), s)
    assert backend.dtype(slope) == dtype
    expected = complex_step.gradient(lambda x: (formula(teacher, x) * factor).sum(), student)
    assert_close(backend, slope, expected, dtype, slack)
    _, slope = backend.value_and_grad(lambda x: backend.sum(loss(x, s, **options, stop_teacher_gradient=False)), t)
    expected = complex_step.gradient(lambda x: (formula(x, student) * factor).sum(), teacher)
    assert_close(backend, slope, expected, dtype, slack)


def in_dtype(backend: Backend, x: np.ndarray, dtype: str) -> Any:
    """``x`` as a tensor, or a skip where the backend has no such dtype."""
    try:
        return backend.asarray(x, dtype)
    except TypeError:
        pytest.skip(f"{backend.name} has no {dtype} here")
