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


def rows(plan: Plan) -> Iterator[Row]:
    """The suite."""
    for size in (SMALL,) if plan.quick else (SMALL, MIDDLE, LARGE, TOKENS):
        data = functools.partial(_draw, *size)
        for mode, (backend, ours) in _OURS.items():
            if not (plan.device == CPU if backend == "numpy" else frameworks.wanted(plan, backend)):
                continue
            contenders: dict[str, Setup] = {"lsmooth": functools.partial(ours, plan, data)}
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
                copy=_copy(plan, backend, lambda data=data: data()[0]),
                unit_bytes=4 * size[0] * size[1] if size in (LARGE, TOKENS) and mode == "numpy" else 0,
                bars={"netcal": 2.0} if size == LARGE else {},
            )


def _copy(plan: Plan, backend: str, data: frameworks.Data) -> Setup:
    """On the CPU the same for all, since the peers are."""
    return frameworks.numpy_copy(data) if plan.device == CPU else frameworks.copy(plan, backend, data)


def _draw(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 probabilities and labels."""
    rng = np.random.default_rng(seed)
    p = rng.standard_normal((count, classes), np.float32)
    p *= 2.0
    np.exp(p, out=p)
    p /= p.sum(-1, keepdims=True)
    return p, rng.integers(0, classes, count)


def _numpy(_: Plan, data: Data) -> Call:
    p, labels = data()
    return lambda: expected_calibration_error(labels, p)


def _batches(size: tuple[int, int]) -> Call:
    """Sixteen batches, each drawn when its turn has come; the drawing is timed too."""

    def stream() -> float:
        metric = CalibrationError()
        for seed in range(16):
            p, labels = _draw(size[0] // 16, size[1], seed)
            metric.update_state(labels, p)
        return metric.result()

    return stream


def _torch(plan: Plan, data: Data) -> Call:
    p, labels = (frameworks.torch_tensor(plan, x) for x in data())
    return frameworks.torch_call(plan, lambda: expected_calibration_error(labels, p))


def _jax(_: Plan, data: Data, jit: bool) -> Call:
    import jax

    p, labels = (jax.numpy.asarray(x) for x in data())
    function: Any = jax.jit(expected_calibration_error) if jit else expected_calibration_error
    return lambda: jax.block_until_ready(function(labels, p))


def _tensorflow(_: Plan, data: Data, function: bool) -> Call:
    import tensorflow as tf

    p, labels = (tf.constant(x) for x in data())
    error: Any = tf.function(expected_calibration_error) if function else expected_calibration_error
    return lambda: error(labels, p).numpy()


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

    p, labels = (frameworks.torch_tensor(plan, x) for x in data())
    error = functools.partial(multiclass_calibration_error, num_classes=p.shape[-1], n_bins=15)
    return frameworks.torch_call(plan, lambda: error(p, labels))


_OURS: dict[str, tuple[str, Callable[[Plan, Data], Call]]] = {
    "numpy": ("numpy", _numpy),
    "torch": ("torch", _torch),
    "jax, jit": ("jax", functools.partial(_jax, jit=True)),
    "jax, eager": ("jax", functools.partial(_jax, jit=False)),
    "tensorflow, function": ("tensorflow", functools.partial(_tensorflow, function=True)),
    "tensorflow, eager": ("tensorflow", functools.partial(_tensorflow, function=False)),
}
# By the package that it is: the framework whose rows it is in (None: all), and the setup.
_PEERS: dict[str, tuple[str | None, Callable[[Plan, Data], Call]]] = {
    "netcal": (None, _netcal),
    "uncertainty-calibration": (None, _uncertainty_calibration),
    "torchmetrics": ("torch", _torchmetrics),
}
