"""Temperatures of lsmooth and its peers for six sets of logits with a known optimum, or without one.

    python -m benchmarks.temperature_table

5000 rows of 10 classes, float32, the labels drawn from softmax(logits / 2). The same logits times 10, 1/40
and 100; labels that always have the largest logit of their row, and labels that always have the least.
Peers that are not installed are left out. Prints a table in Markdown.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import warnings
from collections.abc import Callable

import numpy as np

from lsmooth.calibration import TemperatureScaling

ROWS, CLASSES, TEMPERATURE = 5000, 10, 2.0
Fit = Callable[[np.ndarray, np.ndarray], str]


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logits and labels, by the name of the column."""
    rng = np.random.default_rng(0)
    logits = 3.0 * rng.standard_normal((ROWS, CLASSES))
    labels = (logits / TEMPERATURE + rng.gumbel(size=logits.shape)).argmax(-1)
    drawn = {f"times {name}": (factor * logits, labels) for name, factor in SCALES.items()}
    return {
        **drawn,
        "separable": (logits, logits.argmax(-1)),
        "against the logits": (logits, logits.argmin(-1)),
    }


SCALES = {"1": 1.0, "10": 10.0, "1/40": 1 / 40, "100": 100.0}


def optimum(logits: np.ndarray, labels: np.ndarray) -> float:
    """The root of the derivative by 1 / T, by bisection in float64; NaN if there is none."""

    def slope(log_beta: float) -> float:
        z = math.exp(log_beta) * (logits - logits.max(-1, keepdims=True))
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        return float(((p * z).sum(-1) - np.take_along_axis(z, labels[:, None], -1)[:, 0]).sum())

    low, high = -12.0, 12.0
    if slope(low) >= 0 or slope(high) <= 0:
        return math.nan
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-low)


def fit_lsmooth(logits: np.ndarray, labels: np.ndarray) -> str:
    """Ours, with the word it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler = TemperatureScaling().fit(logits, labels)
    word = "" if scaler.status_ == "converged" else f", {scaler.status_}"
    return _shown(scaler.temperature_) + word


def fit_gpleiss(logits: np.ndarray, labels: np.ndarray) -> str:
    """gpleiss/temperature_scaling: T from 1.5, one call of LBFGS with lr 0.01 and 50 iterations."""
    return _shown(_lbfgs(logits, labels, lambda z, t: z / t, 1.5, lr=0.01, max_iter=50))


def fit_torch_uncertainty(logits: np.ndarray, labels: np.ndarray) -> str:
    """torch-uncertainty 0.13's settings: 1 / T from 1, one call of LBFGS with lr 0.1 and 100 iterations."""
    return _shown(1 / _lbfgs(logits, labels, lambda z, beta: z * beta, 1.0, lr=0.1, max_iter=100))


def fit_netcal(logits: np.ndarray, labels: np.ndarray) -> str:
    """netcal, on probabilities, whose ``temperature`` is 1 / T."""
    from netcal.scaling import TemperatureScaling as Peer

    e = np.exp(logits - logits.max(-1, keepdims=True))
    peer = Peer()
    peer.fit(e / e.sum(-1, keepdims=True), labels)
    return _shown(1 / float(np.asarray(peer.temperature).reshape(-1)[0]))


def fit_sklearn(logits: np.ndarray, labels: np.ndarray) -> str:
    """The estimator of scikit-learn's ``CalibratedClassifierCV(method="temperature")``."""
    from sklearn.calibration import _TemperatureScaling

    return _shown(1 / float(_TemperatureScaling().fit(logits, labels).beta_))


def fit_probmetrics(logits: np.ndarray, labels: np.ndarray) -> str:
    """probmetrics, its default bisection."""
    import torch
    from probmetrics.calibrators import TemperatureScalingCalibrator
    from probmetrics.distributions import CategoricalLogits

    peer = TemperatureScalingCalibrator()
    peer.fit_torch(CategoricalLogits(torch.from_numpy(logits)), torch.from_numpy(labels))
    return _shown(1 / float(peer.invtemp_))


FITS: dict[str, tuple[Fit, str]] = {
    "lsmooth": (fit_lsmooth, "lsmooth"),
    "scikit-learn": (fit_sklearn, "scikit-learn"),
    "probmetrics": (fit_probmetrics, "probmetrics"),
    "gpleiss recipe": (fit_gpleiss, "torch"),
    "torch-uncertainty recipe": (fit_torch_uncertainty, "torch"),
    "netcal": (fit_netcal, "netcal"),
}


def _lbfgs(logits: np.ndarray, labels: np.ndarray, scale: Callable, start: float, *, lr: float, max_iter: int) -> float:
    import torch

    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    parameter = torch.full((1,), start, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameter], lr=lr, max_iter=max_iter)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(scale(z, parameter), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return parameter.item()


def _shown(temperature: float) -> str:
    return f"{temperature:.4g}"


def main() -> None:
    """Print the table."""
    logging.disable()
    data = {name: (z.astype(np.float32), y) for name, (z, y) in cases().items()}
    print("| | " + " | ".join(data) + " |\n|---|" + "---|" * len(data))
    best = (optimum(z.astype(np.float64), y) for z, y in data.values())
    print("| the optimum | " + " | ".join("none" if math.isnan(t) else _shown(t) for t in best) + " |")
    for name, (fit, package) in FITS.items():
        try:
            version = importlib.metadata.version(package)
            found = [fit(z, y) for z, y in data.values()]
        except ImportError:
            continue
        print(f"| {name} ({package} {version}) | " + " | ".join(found) + " |", flush=True)


if __name__ == "__main__":
    main()
