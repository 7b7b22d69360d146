"""Expected calibration error of each framework's probabilities, beside netcal, torchmetrics and others.

netcal and uncertainty-calibration take NumPy arrays only, so they are each framework's peers on the same values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth.bench.device import CPU
from lsmooth.bench.rows import Call, Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.metrics import CalibrationError, expected_calibration_error

WORK = "expected calibration error, 15 bins"
SMALL, MIDDLE, LARGE, TOKENS = (1000, 10), (10_000, 100), (50_000, 1000), (256, 262_144)

Data = Callable[[], tuple[np.ndarray, np.ndarray]]
MODES = ("numpy", "torch", "jax, jit", "jax, eager", "tensorflow, function", "tensorflow, eager")


def rows(plan: Plan) -> Iterator[Row]:
    """The suite."""
    for size in (SMALL,) if plan.quick else (SMALL, MIDDLE, LARGE, TOKENS):
        data = functools.partial(_draw, *size)
        for mode in MODES:
            backend, _, how = mode.partition(", ")
            if not (plan.device == CPU if backend == "numpy" else frameworks.wanted(plan, backend)):
                continue
            contenders: dict[str, Setup] = {"lsmooth": functools.partial(_ours, plan, backend, how, data)}
            if mode == "numpy" and size in (LARGE, TOKENS):
                contenders["lsmooth, in batches"] = functools.partial(_batches, size)
            for peer, (of, setup) in _PEERS.items():
                mine = of == backend or (of is None and plan.device == CPU)
                if mine and frameworks.is_installed(peer):
                    contenders[peer] = functools.partial(setup, plan, data)
            yield Row(
                WORK,
                mode,
                {"rows": size[0], "classes": size[1]},
                contenders,
                # On the CPU all are compared with NumPy's copy, since the peers are NumPy's.
                copy=frameworks.copy(plan, "numpy" if plan.device == CPU else backend, lambda data=data: data()[0]),
                unit_bytes=4 * size[0] * size[1] if size in (LARGE, TOKENS) and mode == "numpy" else 0,
                bars={"netcal": 2.0} if size == LARGE else {},
            )


def _draw(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 probabilities and labels."""
    rng = np.random.default_rng(seed)
    p = rng.standard_normal((count, classes), np.float32)
    p *= 2.0
    np.exp(p, out=p)
    p /= p.sum(-1, keepdims=True)
    return p, rng.integers(0, classes, count)


def _ours(plan: Plan, backend: str, how: str, data: Data) -> Call:
    error: Any = expected_calibration_error
    if how == "jit":
        import jax

        error = jax.jit(error)
    if how == "function":
        import tensorflow as tf

        error = tf.function(error)
    p, labels = (frameworks.tensor(plan, backend, x) for x in data())
    return frameworks.finished(plan, backend, lambda: error(labels, p))


def _batches(size: tuple[int, int]) -> Call:
    """Sixteen batches, each drawn when it is needed; the drawing is timed too."""

    def stream() -> float:
        metric = CalibrationError()
        for seed in range(16):
            p, labels = _draw(size[0] // 16, size[1], seed)
            metric.update_state(labels, p)
        return metric.result()

    return stream


def _netcal(_: Plan, data: Data) -> Call:
    from netcal.metrics import ECE  # type: ignore[import-not-found]

    p, labels = data()
    return lambda: ECE(15).measure(p, labels)


def _uncertainty_calibration(_: Plan, data: Data) -> Call:
    from calibration import get_ece  # type: ignore[import-not-found]

    p, labels = data()
    return lambda: get_ece(p, labels, num_bins=15)


def _torchmetrics(plan: Plan, data: Data) -> Call:
    from torchmetrics.functional.classification import multiclass_calibration_error  # type: ignore[import-not-found]

    p, labels = (frameworks.tensor(plan, "torch", x) for x in data())
    error = functools.partial(multiclass_calibration_error, num_classes=p.shape[-1], n_bins=15)
    return frameworks.finished(plan, "torch", lambda: error(p, labels))


# By distribution: the framework whose rows it is in (None: all), and its setup.
_PEERS: dict[str, tuple[str | None, Callable[[Plan, Data], Call]]] = {
    "netcal": (None, _netcal),
    "uncertainty-calibration": (None, _uncertainty_calibration),
    "torchmetrics": ("torch", _torchmetrics),
}
