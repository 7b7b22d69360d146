"""How the tests of the drop-ins reach the originals, and compare with them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend


def original(package: str, path: str, name: str, namespace: dict[str, Any]) -> Any:
    """A definition of an installed package, run without the imports of its package, or a skip."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the numbers to match are those of {package}, which is not installed")
    file = Path(spec.submodule_search_locations[0], path)
    tree = ast.parse(file.read_text())
    (tree.body,) = ([node for node in tree.body if getattr(node, "name", None) == name],)
    exec(compile(tree, str(file), "exec"), namespace)
    return namespace[name]


def need_dtype(backend: Backend, dtype: str) -> None:
    """Skip bfloat16 on a NumPy that has no such dtype."""
    if backend.name == "numpy" and dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")


def assert_same_as_torch_function(
    backend: Backend,
    ours: Callable[[Any], Any],
    theirs: Callable[[Any], Any],
    x: np.ndarray,
    dtype: str = "float64",
    factor: float = 4.0,
) -> None:
    """Value, gradient of the summed result, shape and dtype of a function of logits."""
    torch = pytest.importorskip("torch", reason="the other side is torch's")
    need_dtype(backend, dtype)
    leaf = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    value = theirs(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    actual = ours(backend.asarray(x, dtype))
    assert backend.dtype(actual) == str(value.dtype).removeprefix("torch.")
    assert_same(backend, ours, x, value.detach().double().numpy(), gradient.double().numpy(), dtype, factor)


def assert_same(
    backend: Backend,
    ours: Callable[[Any], Any],
    x: np.ndarray,
    value: np.ndarray,
    gradient: np.ndarray,
    dtype: str = "float64",
    factor: float = 4.0,
) -> None:
    """A function of logits has this value, and its sum this gradient."""
    x = backend.asarray(x, dtype)
    actual = ours(x)
    assert backend.shape(actual) == np.shape(value)
    assert_close(backend, actual, value, dtype, factor)
    if backend.name != "numpy":
        assert_close(backend, backend.value_and_grad(lambda x: backend.sum(ours(x)), x)[1], gradient, dtype, factor)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log(exp(z) / sum(exp(z))), as it reads."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def others_share(labels: np.ndarray, classes: int, eps: float) -> np.ndarray:
    """q: 1 - eps for the label, and eps / (classes - 1) for each other class."""
    return np.array([[1 - eps if k == y else eps / (classes - 1) for k in range(classes)] for y in labels])


def padded(labels: np.ndarray, classes: int, eps: float, padding: int) -> np.ndarray:
    """q: 1 - eps for the label, eps / (classes - 2) for each other, 0 for padding; padding rows are 0."""

    def entry(y: int, k: int) -> float:
        if padding in (y, k):
            return 0.0
        return 1 - eps if k == y else eps / (classes - 2)

    return np.array([[entry(y, k) for k in range(classes)] for y in labels])


def kl_divergence(q: np.ndarray, log_p: np.ndarray) -> float:
    """Sum q log(q / p), 0 log 0 being 0."""
    return sum(t * (np.log(t) - x) for t, x in zip(q.ravel(), log_p.ravel(), strict=True) if t > 0)
