"""Measures of a network match formulas in NumPy and SciPy."""

import numpy as np
import pytest

from lsmooth.study.data import Data
from lsmooth.study.measures import measure

optimize = pytest.importorskip("scipy.optimize", reason="scikit-learn brings it")
BINS = 7


class Linear:
    """A network that returns its inputs as features."""

    def __init__(self, weight):
        self.weight = weight

    def logits(self, inputs):
        return inputs @ self.weight.T

    def features(self, inputs):
        return inputs

    def output_weight(self):
        return self.weight


@pytest.fixture(scope="module")
def studied():
    """A network that is three times too sure, and less so on the validation part."""
    rng = np.random.default_rng(0)
    weight = np.eye(4)
    inputs = {
        part: factor * rng.normal(size=(400, 4)) for part, factor in (("train", 1), ("validation", 4), ("test", 6))
    }
    labels = {
        part: (x / (3 if part == "test" else 2) + rng.gumbel(size=x.shape)).argmax(-1) for part, x in inputs.items()
    }
    return Data("made up", inputs, labels, ("a", "b", "c", "d")), Linear(weight)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def likelihood(labels, z):
    return -np.log(softmax(z))[np.arange(len(z)), labels].mean()


def error_of_bins(labels, z):
    p = softmax(z)
    confidence, right = p.max(-1), p.argmax(-1) == labels
    index = np.ceil(confidence * BINS).astype(int)
    parts = [right[index == b].mean() - confidence[index == b].mean() for b in set(index)]
    return np.abs(parts) @ [np.mean(index == b) for b in set(index)]


def test_results_match_the_formulas(studied):
    data, network = studied
    numbers = measure(network, data, BINS).numbers
    z, held_out = data.inputs["test"], data.inputs["validation"]
    labels, held_out_labels = data.labels["test"], data.labels["validation"]
    best = optimize.minimize_scalar(
        lambda t: likelihood(held_out_labels, held_out / t), bounds=(0.1, 10), method="bounded"
    )
    expected = {
        "error": (z.argmax(-1) != labels).mean(),
        "nll": likelihood(labels, z),
        "ece": error_of_bins(labels, z),
        "confidence": softmax(z).max(-1).mean(),
        "validation_ece": error_of_bins(held_out_labels, held_out),
        "temperature": best.x,
        "nll_scaled": likelihood(labels, z / best.x),
        "ece_scaled": error_of_bins(labels, z / best.x),
    }
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, rel=1e-4), name
    assert len({round(value, 3) for value in expected.values()}) == len(expected)  # none passes for another


def test_tightness_is_the_scatter_within_classes_over_the_distance_between_them(studied):
    data, network = studied
    numbers = measure(network, data, BINS).numbers
    for part in ("train", "validation"):
        rows = data.labels[part] < 3
        plane = np.linalg.svd(np.eye(4)[:3] - np.eye(4)[:3].mean(0))[2][:2]
        points, labels = data.inputs[part][rows] @ plane.T, data.labels[part][rows]
        centers = np.array([points[labels == k].mean(0) for k in range(3)])
        within = np.sqrt(((points - centers[labels]) ** 2).sum(-1).mean())
        between = np.mean([np.linalg.norm(centers[i] - centers[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
        assert numbers[f"tightness_{part}"] == pytest.approx(within / between, rel=1e-5)
