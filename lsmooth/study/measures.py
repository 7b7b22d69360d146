"""Measures of a trained network, with lsmooth on its framework's tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from lsmooth.analysis import Projection, cluster_tightness, mutual_information, penultimate_projection
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
            (fitted on the validation part), and ``nll_scaled``, ``ece_scaled`` at it;
            ``tightness_train`` and ``tightness_validation`` of the clusters of three classes.
        scaler: the fitted temperature.
        logits: (rows, classes), NumPy.
    """

    numbers: dict[str, float]
    scaler: TemperatureScaling
    logits: np.ndarray


def project(network: Network, data: Data) -> dict[str, Projection]:
    """The activations of the first three classes on their templates' plane; nothing for two classes."""
    if len(data.classes) < 3:
        return {}
    return {
        part: penultimate_projection(
            network.features(data.inputs[part]), data.labels[part], network.output_weight(), classes=(0, 1, 2)
        )
        for part in ("train", "validation")
    }


def noisy_examples(data: Data, draws: int, noise: float) -> np.ndarray:
    """Copies of the training rows of the first two classes under Gaussian noise, (examples, draws, features)."""
    rows = data.inputs["train"][data.labels["train"] < 2]
    shape = (len(rows), draws, rows.shape[1])
    return rows[:, None] + noise * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def information(network: Network, examples: np.ndarray) -> float:
    """Mutual information between an example and the difference of its first two logits."""
    logits = network.logits(examples.reshape(-1, examples.shape[-1]))
    difference = logits[:, 0] - logits[:, 1]
    return float(mutual_information(backend_of(logits=logits).reshape(difference, examples.shape[:2])))


def measure(network: Network, data: Data, n_bins: int) -> Measured:
    """Error, calibration, and calibration after a temperature fitted on the validation part."""
    validation, test = (network.logits(data.inputs[part]) for part in ("validation", "test"))
    labels = data.labels["test"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small validation part can be separable, which the report notes
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
    for part, shown in project(network, data).items():
        numbers[f"tightness_{part}"] = float(cluster_tightness(shown.points, shown.labels))
    return Measured(numbers, scaler, xp.to_numpy(test))
