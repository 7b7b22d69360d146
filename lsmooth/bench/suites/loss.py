"""Smoothed softmax cross-entropy, sigmoid cross-entropy and focal loss, with their gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth import losses
from lsmooth.backends import backend_of
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites._frameworks import EPS, Arrays, Loss, loss_rows, peer
from lsmooth.bench.suites._torch_options import option_rows

CROSS_ENTROPY = "smoothed cross-entropy"
# Rows, classes; the bars hold for the first and the last of them.
LARGE, TOKENS, SMALL = (2048, 32000), (256, 262144), (32, 10)
BARS: Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]] = {
    LARGE: {
        "torch": {"copies": 3.0, "F.cross_entropy": 5.0, "F.cross_entropy, compiled": 2.5, "memory": 1.05},
        "jax": {"copies": 1.8, "optax, one-hot": 2.5},
        "tensorflow, eager": {"copies": 7.0, "tf.losses": 2.0},
        "tensorflow, function": {"copies": 7.0, "tf.losses": 2.0},
        "tensorflow, XLA": {"copies": 4.0, "tf.losses": 2.0},
    },
    # A peer's 1 / 1.1: at most 10% slower than it.
    SMALL: {
        "torch": {"F.cross_entropy": 1 / 0.6},
        "jax": {"optax, one-hot": 1 / 1.1},
        "tensorflow, function": {"tf.losses": 1 / 1.1},
        "tensorflow, XLA": {"tf.losses": 1 / 1.1},
    },
}


def rows(plan: Plan) -> Iterator[Row]:
    """The suite."""
    for size in ((64, 1000), SMALL) if plan.quick else (LARGE, TOKENS, SMALL):
        yield from cross_entropy_rows(plan, size, BARS.get(size))
    size = (64, 1000) if plan.quick else LARGE
    alone: dict[str, Loss] = {"loss alone": _smoothed}
    formula = {"F.cross_entropy, log_softmax": peer("cross_entropy_with_statistics")}
    with_statistics = {"torch": alone | formula, "jax": alone, "tensorflow, function": alone}
    yield from _rows(plan, f"{CROSS_ENTROPY} and statistics", size, _with_statistics, with_statistics)
    size = (64, 100) if plan.quick else (4096, 4000)
    yield from _rows(plan, "smoothed sigmoid cross-entropy", size, _sigmoid, _SIGMOID_PEERS, _binary_labels)
    yield from _rows(plan, "focal loss", size, _focal, _FOCAL_PEERS)
    yield from option_rows(plan)


def cross_entropy_rows(plan: Plan, size: tuple[int, int], bars: Any = None, work: str = CROSS_ENTROPY) -> Iterator[Row]:
    """One row for each framework, and for each of its modes, at one size."""
    return _rows(plan, work, size, _smoothed, _PEERS, bars=bars)


def _rows(
    plan: Plan,
    work: str,
    size: tuple[int, int],
    ours: Loss,
    peers: Mapping[str, Mapping[str, Loss]],
    labels: Any = None,
    bars: Any = None,
) -> Iterator[Row]:
    sizes, arrays = {"rows": size[0], "classes": size[1]}, _logits_and(labels or _class_ids, size)
    return loss_rows(plan, f"{work}, loss and gradient", sizes, arrays, ours, peers, bars=bars)


def _logits_and(labels: Any, size: tuple[int, int]) -> Arrays:
    return functools.cache(lambda: (np.random.default_rng(0).standard_normal(size, np.float32), labels(size)))


def _class_ids(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, size[1], size[0])


def _binary_labels(size: tuple[int, int]) -> np.ndarray:
    return (np.random.default_rng(1).random(size) < 0.1).astype(np.float32)


def _smoothed(x: Any, y: Any) -> Any:
    return losses.softmax_cross_entropy(y, x, label_smoothing=EPS)


def _with_statistics(x: Any, y: Any) -> Any:
    """The loss and the statistics, which get no gradient. Their factor keeps compilers from removing them."""
    value, statistics = losses.softmax_cross_entropy_with_statistics(y, x, label_smoothing=EPS)
    b = backend_of(logits=x)
    for each in statistics:
        value = value + 1e-30 * b.sum(b.cast(b.stop_gradient(each), "float32"))
    return value


def _sigmoid(x: Any, y: Any) -> Any:
    return losses.sigmoid_cross_entropy(y, x, label_smoothing=EPS)


def _focal(x: Any, y: Any) -> Any:
    return losses.softmax_focal_loss(y, x, gamma=2.0)


_TORCH = peer("cross_entropy", label_smoothing=EPS)
_COMPILED = {"F.cross_entropy, compiled": _TORCH}
_PEERS = {
    "torch": {"F.cross_entropy": _TORCH, "Liger-Kernel": peer("liger_cross_entropy")} | _COMPILED,
    "torch, compiled": _COMPILED,
    "jax": {"optax, one-hot": peer("cross_entropy")},
    **{
        f"tensorflow, {mode}": {"tf.losses": peer("cross_entropy")}
        for mode in ("eager", "function", "unknown batch", "XLA")
    },
}
_SIGMOID_PEERS = {
    "torch": {"F.binary_cross_entropy_with_logits": peer("sigmoid_cross_entropy")},
    "jax": {"optax": peer("sigmoid_cross_entropy")},
    "tensorflow": {"tf.losses": peer("sigmoid_cross_entropy")},
}
_FOCAL_PEERS = {key: {"the formula over its cross-entropy": peer("focal")} for key in ("torch", "jax", "tensorflow")}
