"""The fits of calibrators, beside scikit-learn, probmetrics, netcal and gpleiss' recipe of L-BFGS."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth.bench.device import CPU
from lsmooth.bench.rows import Call, Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.calibration import (
    DirichletCalibration,
    IsotonicCalibration,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
)

WORK = "fit of a temperature"
SMALL, MIDDLE, WIDE, LARGE, TOKENS = (1000, 10), (10_000, 100), (2000, 1000), (50_000, 1000), (128, 262_144)
RECIPE = "LBFGS recipe"
# These take up to a minute at the largest sizes, so they are measured at one of them only.
_SLOW = frozenset({"scikit-learn", "probmetrics", RECIPE})

Data = Callable[[], tuple[np.ndarray, np.ndarray]]


def rows(plan: Plan) -> Iterator[Row]:
    """The suite, on NumPy's arrays; on an accelerator on PyTorch's tensors, beside the recipe alone."""
    for size in (SMALL,) if plan.quick else (SMALL, MIDDLE, WIDE, LARGE, TOKENS):
        data = functools.partial(draw, *size)
        if plan.device != CPU:
            if frameworks.wanted(plan, "torch"):
                yield _torch_row(plan, size, data)
            continue
        peers = {name: setup for name, (module, setup) in _PEERS.items() if importlib.util.find_spec(module)}
        large = size in (LARGE, TOKENS)
        contenders: dict[str, Setup] = {"lsmooth": functools.partial(_ours, data)}
        if large:
            contenders["lsmooth, in batches"] = functools.partial(_batches, size)
        for name, setup in peers.items():
            if not (size == TOKENS and name in _SLOW):
                contenders[name] = functools.partial(setup, data)
        yield Row(
            WORK,
            "numpy",
            {"rows": size[0], "classes": size[1]},
            contenders,
            copy=frameworks.copy(plan, "numpy", lambda data=data: data()[0]),
            unit_bytes=4 * size[0] * size[1] if large else 0,
            bars={"scikit-learn": 10.0, RECIPE: 50.0} if size == LARGE else {},
        )
    if plan.device == CPU and not plan.quick:
        yield from _map_rows()


def _map_rows() -> Iterator[Row]:
    """Calibrators with more parameters than a temperature, on NumPy's arrays."""
    for kind, (rows, classes), peer, bar in (
        (StructuredVectorScaling, WIDE, "probmetrics", 3.0),
        (StructuredMatrixScaling, WIDE, "probmetrics", 3.0),
        (DirichletCalibration, MIDDLE, "", 0.0),
        (IsotonicCalibration, MIDDLE, "scikit-learn", 1.0),
    ):
        data = functools.partial(draw, rows, classes)
        contenders: dict[str, Setup] = {"lsmooth": functools.partial(_fit_of, kind, data)}
        if peer == "probmetrics" and importlib.util.find_spec(peer):
            name = "svs" if kind is StructuredVectorScaling else "sms"
            contenders[peer] = functools.partial(_probmetrics_of, name, data)
        if peer == "scikit-learn" and importlib.util.find_spec("sklearn"):
            contenders[peer] = functools.partial(_isotonic_loop, data)
        size = {"rows": rows, "classes": classes}
        yield Row(f"fit of {kind.__name__}", "numpy", size, contenders, bars={peer: bar} if peer else {})


def _torch_row(plan: Plan, size: tuple[int, int], data: Data) -> Row:
    def setup(fit: Callable[[Any, Any], Call]) -> Setup:
        return lambda: fit(*(frameworks.tensor(plan, "torch", x) for x in data()))

    contenders = {"lsmooth": setup(_fit), RECIPE: setup(_recipe)}
    copy = frameworks.copy(plan, "torch", lambda: data()[0])
    return Row(WORK, "torch", {"rows": size[0], "classes": size[1]}, contenders, copy)


def draw(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits, and labels drawn from their softmax at a temperature of 2.5."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, classes), np.float32)
    logits *= 5.0
    labels = np.empty(count, np.int64)
    for start in range(0, count, 64):
        running = np.cumsum(np.exp(logits[start : start + 64] / 2.5), axis=-1)
        drawn = rng.random((len(running), 1), np.float32) * running[:, -1:]
        labels[start : start + 64] = np.minimum((running < drawn).sum(-1), classes - 1)
    return logits, labels


def _ours(data: Data) -> Call:
    return _fit(*data())


def _without_warnings(fit: Callable[[], object]) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a matrix fitted to few rows overfits
        return fit()


def _fit_of(kind: Any, data: Data) -> Call:
    logits, labels = data()
    return lambda: _without_warnings(lambda: kind().fit(logits, labels))


def _probabilities(data: Data) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = data()
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True), labels


def _probmetrics_of(name: str, data: Data) -> Call:
    from probmetrics.calibrators import get_calibrator  # type: ignore[import-not-found]

    p, labels = _probabilities(data)
    return lambda: get_calibrator(name).fit(p, labels)


def _isotonic_loop(data: Data) -> Call:
    """One regression a class, as ``CalibratedClassifierCV(method="isotonic")`` fits."""
    from sklearn.isotonic import IsotonicRegression

    p, labels = _probabilities(data)
    return lambda: [IsotonicRegression(out_of_bounds="clip").fit(p[:, k], labels == k) for k in range(p.shape[1])]


def _fit(logits: Any, labels: Any) -> Call:
    return lambda: TemperatureScaling().fit(logits, labels)


class _DrawnBatches:
    """Sixteen batches, each drawn when it is read, which is timed too."""

    def __init__(self, size: tuple[int, int]):
        self._rows, self._classes = size[0] // 16, size[1]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (draw(self._rows, self._classes, seed) for seed in range(16))


def _batches(size: tuple[int, int]) -> Call:
    batches = _DrawnBatches(size)
    return lambda: TemperatureScaling().fit_batches(batches)


def _sklearn(data: Data) -> Call:
    """The fit of ``CalibratedClassifierCV(method="temperature")``."""
    from sklearn.calibration import _TemperatureScaling  # type: ignore[attr-defined]

    logits, labels = data()
    return lambda: _TemperatureScaling().fit(logits, labels)


def _probmetrics(data: Data) -> Call:
    import torch
    from probmetrics.calibrators import TemperatureScalingCalibrator  # type: ignore[import-not-found]
    from probmetrics.distributions import CategoricalLogits  # type: ignore[import-not-found]

    logits, labels = (torch.from_numpy(x) for x in data())
    return lambda: TemperatureScalingCalibrator().fit_torch(CategoricalLogits(logits), labels)


def _recipe_on_arrays(data: Data) -> Call:
    import torch

    return _recipe(*(torch.from_numpy(x) for x in data()))


def _recipe(logits: Any, labels: Any) -> Call:
    """T from 1.5, one call of LBFGS with lr 0.01 and 50 iterations, as in gpleiss/temperature_scaling."""
    import torch

    def fit() -> float:
        temperature = logits.new_full((1,), 1.5).requires_grad_()
        optimizer = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(logits / temperature, labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        return temperature.item()

    return fit


def _netcal(data: Data) -> Call:
    """Netcal takes probabilities; computing them is not timed."""
    from netcal.scaling import TemperatureScaling as Peer  # type: ignore[import-not-found]

    p, labels = _probabilities(data)
    return lambda: Peer().fit(p, labels)


_PEERS: dict[str, tuple[str, Callable[[Data], Call]]] = {
    "scikit-learn": ("sklearn", _sklearn),
    "probmetrics": ("probmetrics", _probmetrics),
    RECIPE: ("torch", _recipe_on_arrays),
    "netcal": ("pyro", _netcal),
}
