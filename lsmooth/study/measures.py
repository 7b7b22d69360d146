"""What is measured of a trained network: with lsmooth, on its framework's own tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from lsmooth.backends import backend_of
from lsmooth.calibration import TemperatureScaling
from lsmooth.metrics import expected_calibration_error, negative_log_likelihood, top_k_accuracy
from lsmooth.study.data import Data
from lsmooth.study.trainers import Network


@dataclass(frozen=True)
class Measured:
    """One network on the test part.

    Attributes:
        numbers: ``error``, ``nll``, ``ece``, ``confidence``, ``validation_ece``, ``temperature``
            (fitted on the validation part), and ``nll_scaled``, ``ece_scaled`` at it.
        scaler: the fitted temperature.
        logits: (rows, classes), NumPy.
    """

    numbers: dict[str, float]
    scaler: TemperatureScaling
    logits: np.ndarray


def measure(network: Network, data: Data, n_bins: int) -> Measured:
    """Error, calibration, and calibration after a temperature fitted on the validation part."""
    validation, test = (network.logits(data.inputs[part]) for part in ("validation", "test"))
    labels = data.labels["test"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small validation part can be separable; the report says so
        scaler = TemperatureScaling().fit(validation, data.labels["validation"])
    scaled = scaler.transform(test)
    xp = backend_of(logits=test)

    def ece(labels: np.ndarray, logits: object) -> float:
        return float(expected_calibration_error(labels, logits, from_logits=True, n_bins=n_bins))

    numbers = {
        "error": 1.0 - float(top_k_accuracy(labels, test)),
        "nll": float(negative_log_likelihood(labels, test, from_logits=True)),
        "ece": ece(labels, test),
        "confidence": float(xp.to_numpy(xp.max(xp.exp(test - xp.logsumexp(test, axis=-1)[:, None]), axis=-1)).mean()),
        "validation_ece": ece(data.labels["validation"], validation),
        "temperature": scaler.temperature_,
        "nll_scaled": float(negative_log_likelihood(labels, scaled, from_logits=True)),
        "ece_scaled": ece(labels, scaled),
    }
    return Measured(numbers, scaler, xp.to_numpy(test))
