"""Each convention is its original's number, edges and ties included, wherever the original is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.metrics import classwise_calibration_error, expected_calibration_error, maximum_calibration_error

pytestmark = pytest.mark.usefixtures("memory")

CLASSES = 4


def original(module: str) -> Any:
    found = pytest.importorskip(module, reason=f"{module} is not installed")
    if found.__file__ is None:  # a folder of tests by that name
        pytest.skip(f"{module} is not installed")
    return found


def on_edges(n_bins: int, dtype: str, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of which many confidences are a bin's edge, its neighbours, or 1."""
    rng = np.random.default_rng(n_bins)
    top = np.arange(1, n_bins + 1) / n_bins
    top = np.concatenate([top, np.linspace(0, 1, n_bins + 1), rng.random(20), [1.0, 1.0]])
    top = np.clip(np.concatenate([top, top + 1e-9, top - 1e-9]), 0, 1)
    top = top[top > 1 / classes]
    p = np.empty((len(top), classes))
    p[:, 0] = top
    p[:, 1:] = ((1 - top) / (classes - 1))[:, None]
    labels = np.where(rng.random(len(top)) < 0.6, 0, rng.integers(1, classes, len(top)))
    return labels, p.astype(dtype)


def torchmetrics(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    functional = original("torchmetrics.functional.classification")
    torch = importlib.import_module("torch")
    given = torch.from_numpy(p), torch.from_numpy(labels)
    if p.ndim == 1:
        return float(functional.binary_calibration_error(*given, n_bins=n_bins, norm=norm))
    return float(functional.multiclass_calibration_error(*given, num_classes=p.shape[1], n_bins=n_bins, norm=norm))


def netcal(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    metrics = original("netcal.metrics")
    return float({"l1": metrics.ECE, "max": metrics.MCE}[norm](bins=n_bins).measure(p, labels))


def sklearn(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    curve = original("sklearn.calibration").calibration_curve
    correct, confidence = (labels, p) if p.ndim == 1 else (p.argmax(axis=1) == labels, p.max(axis=1))
    accuracy, mean = curve(correct, confidence, n_bins=n_bins)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=n_bins)
    counts = counts[counts > 0]
    return float((counts * np.abs(accuracy - mean)).sum() / counts.sum())


def relplot(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    metrics = original("relplot.metrics")
    f, y = (p, labels) if p.ndim == 1 else metrics.multiclass_logits_to_confidences(p, labels, probs=True)
    return float(metrics.binnedECE(f.astype(np.float64), y.astype(np.float64), nbins=n_bins))


def tfp(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    """tensorflow-probability's function, from the TensorFlow function that it bins with."""
    tf = original("tensorflow")
    confidence, correct = p.max(axis=1), (p.argmax(axis=1) == labels).astype(float)
    index = tf.histogram_fixed_width_bins(confidence, np.array([0, 1], p.dtype), nbins=n_bins).numpy()
    sums = [np.bincount(index, w, n_bins) for w in (correct, confidence.astype(np.float64))]
    return float(np.abs(sums[0] - sums[1]).sum() / len(p))


def guo(labels: np.ndarray, p: np.ndarray, n_bins: int, norm: str = "l1") -> float:
    """uncertainty-calibration's ``get_ece``: (lo, hi], edges i / n."""
    return float(original("calibration").get_ece(p, labels, num_bins=n_bins))


ORIGINALS: dict[str, Callable[..., float]] = {
    "torchmetrics": torchmetrics,
    "netcal": netcal,
    "sklearn": sklearn,
    "relplot": relplot,
    "tfp": tfp,
    "guo": guo,
}


@pytest.mark.parametrize("n_bins", [2, 10, 15, 49])
@pytest.mark.parametrize("convention", ORIGINALS)
def test_the_top_label_error_matches_the_original(backend: Backend, convention, n_bins):
    dtype = "float32" if convention == "tfp" else "float64"
    labels, p = on_edges(n_bins, dtype)
    dtype = "float32" if convention == "torchmetrics" else dtype  # the dtype of its computation, for any input
    got = expected_calibration_error(backend.asarray(labels), backend.asarray(p), n_bins=n_bins, convention=convention)
    assert_close(backend, got, ORIGINALS[convention](labels, p, n_bins), dtype, factor=4)


@pytest.mark.parametrize("n_bins", [3, 10, 15])
def test_torchmetrics_edges_are_in_float32(backend: Backend, n_bins):
    labels, p = on_edges(n_bins, "float32")
    for norm in ("l1", "l2", "max"):
        got = expected_calibration_error(
            backend.asarray(labels), backend.asarray(p), n_bins=n_bins, convention="torchmetrics", norm=norm
        )
        assert_close(backend, got, torchmetrics(labels, p, n_bins, norm), "float32", factor=10)


@pytest.mark.parametrize("n_bins", [10, 15])
@pytest.mark.parametrize("convention", ["torchmetrics", "netcal", "sklearn", "relplot"])
def test_two_classes_match_the_original(backend: Backend, convention, n_bins):
    labels, p = on_edges(n_bins, "float64", classes=2)
    labels, p = 1 - labels, p[:, 0].copy()
    p[::3] = 1 - p[::3]
    got = expected_calibration_error(
        backend.asarray(labels), backend.asarray(p), n_bins=n_bins, convention=convention, binary=True
    )
    assert_close(backend, got, ORIGINALS[convention](labels, p, n_bins), "float64")


def test_the_maximum_matches_netcal(backend: Backend):
    labels, p = on_edges(10, "float64")
    got = maximum_calibration_error(backend.asarray(labels), backend.asarray(p), n_bins=10, convention="netcal")
    assert_close(backend, got, netcal(labels, p, 10, "max"), "float64")


@pytest.mark.parametrize("debias", [True, False])
def test_the_l2_errors_match_uncertainty_calibration(backend: Backend, debias):
    calibration = original("calibration")
    utils = importlib.import_module("calibration.utils")
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 300)
    labels = rng.integers(0, 3, 300)
    options = {"p": 2, "debias": debias, "num_bins": 10}
    given = backend.asarray(labels), backend.asarray(p)
    got = expected_calibration_error(*given, n_bins=10, norm="l2", debias=debias)
    expected = calibration.lower_bound_scaling_ce(
        p, labels, **options, binning_scheme=utils.get_equal_prob_bins, mode="top-label"
    )
    assert_close(backend, got, expected, "float64")
    got = expected_calibration_error(*given, n_bins=10, norm="l2", debias=debias, binning="equal_mass")
    expected = calibration.lower_bound_scaling_ce(
        p, labels, **options, binning_scheme=utils.get_equal_bins, mode="top-label"
    )
    assert_close(backend, got, expected, "float64")
    if not debias:  # with it, the original clips each class at 0 and we the mean over classes
        got = classwise_calibration_error(*given, n_bins=10, norm="l2")
        expected = calibration.lower_bound_scaling_ce(
            p, labels, **options, binning_scheme=utils.get_equal_prob_bins, mode="marginal"
        )
        assert_close(backend, got, expected, "float64")


def test_conventions_differ_on_bin_edges(backend: Backend):
    # A confidence that is not above a half must be one of three classes or more.
    p = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    labels = backend.asarray(np.array([0, 0, 1, 0]))
    left = expected_calibration_error(labels, backend.asarray(p), n_bins=2, convention="torchmetrics")
    right = expected_calibration_error(labels, backend.asarray(p), n_bins=2)
    assert_close(backend, right, abs(2 - 1.4) / 4 + 0.2 / 4, "float64")
    assert_close(backend, left, abs(0 - 0.4) / 4 + abs(3 - 1.8) / 4, "float32")


def test_a_confidence_of_one_has_its_own_bin_in_torchmetrics_and_relplot(backend: Backend):
    p = np.array([[0.95, 0.05], [1.0, 0.0], [1.0, 0.0], [0.8, 0.2]])
    labels = backend.asarray(np.array([0, 1, 0, 1]))
    shared = (0.8 + abs(2 - 2.95)) / 4
    apart = (0.8 + 0.05 + abs(1 - 2.0)) / 4
    for convention in ("torchmetrics", "relplot"):
        got = expected_calibration_error(labels, backend.asarray(p), n_bins=10, convention=convention)
        assert_close(backend, got, apart, "float32")
    for convention in ("guo", "tfp"):
        got = expected_calibration_error(labels, backend.asarray(p), n_bins=10, convention=convention)
        assert_close(backend, got, shared, "float64")
