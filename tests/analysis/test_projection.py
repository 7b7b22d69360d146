"""The plane through three templates, and how tight the clusters on it are."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.analysis import cluster_tightness, penultimate_projection

RNG = np.random.default_rng(0)
ACTIVATIONS, WEIGHT = RNG.normal(size=(20, 7)), RNG.normal(size=(5, 7))
LABELS = np.arange(20) % 5
CLASSES = (4, 1, 2)


def projected():
    """With the basis from a QR decomposition."""
    a, b, c = WEIGHT[list(CLASSES)]
    q, r = np.linalg.qr(np.stack([b - a, c - a], 1))
    basis = q * np.sign(np.diag(r))
    kept = np.isin(LABELS, CLASSES)
    return (ACTIVATIONS[kept] - a) @ basis, LABELS[kept], (WEIGHT[list(CLASSES)] - a) @ basis


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_points_are_coordinates_in_an_orthonormal_basis(backend, dtype):
    points, labels, templates = projected()
    shown = penultimate_projection(
        backend.asarray(ACTIVATIONS, dtype), backend.asarray(LABELS), backend.asarray(WEIGHT, dtype), CLASSES
    )
    assert_close(backend, shown.points, points, dtype, factor=10)
    assert_close(backend, shown.templates, templates, dtype, factor=10)
    np.testing.assert_array_equal(shown.labels, labels)
    assert backend.dtype(shown.points) == dtype


def test_distances_between_templates_survive(backend):
    shown = penultimate_projection(backend.asarray(ACTIVATIONS), LABELS, WEIGHT, CLASSES)
    corners = backend.to_numpy(shown.templates)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        distance = np.linalg.norm(WEIGHT[CLASSES[i]] - WEIGHT[CLASSES[j]])
        assert np.linalg.norm(corners[i] - corners[j]) == pytest.approx(distance)


def test_half_precision_is_projected_in_float32(backend):
    activations = backend.asarray(ACTIVATIONS, "float16")
    shown = penultimate_projection(activations, LABELS, WEIGHT, CLASSES)
    assert backend.dtype(shown.points) == "float32"


def test_tightness_is_scatter_over_distance(backend):
    means = np.stack([ACTIVATIONS[k == LABELS].mean(0) for k in range(5)])
    scatter = np.sqrt(((ACTIVATIONS - means[LABELS]) ** 2).sum(1).mean())
    gaps = [np.linalg.norm(means[i] - means[j]) for i in range(5) for j in range(i)]
    assert_close(
        backend, cluster_tightness(backend.asarray(ACTIVATIONS), LABELS), scatter / np.mean(gaps), "float64", factor=10
    )
    moved = cluster_tightness(backend.asarray(3 * ACTIVATIONS + 100), LABELS + 7)
    assert_close(backend, moved, scatter / np.mean(gaps), "float64", factor=1000)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ACTIVATIONS, LABELS, WEIGHT.T, CLASSES), ValueError, r"got \(20, 7\) and \(7, 5\)"),
        ((ACTIVATIONS, LABELS, WEIGHT, (0, 1)), ValueError, r"three different ids in 0\.\.4, got \(0, 1\)"),
        ((ACTIVATIONS, LABELS, WEIGHT, (0, 1, 5)), ValueError, r"got \(0, 1, 5\)"),
        ((ACTIVATIONS, LABELS, WEIGHT, (0, 1, 1)), ValueError, r"got \(0, 1, 1\)"),
        ((ACTIVATIONS, LABELS[:3], WEIGHT, CLASSES), ValueError, r"labels must have shape \(20,\)"),
        ((ACTIVATIONS, LABELS * 1.0, WEIGHT, CLASSES), TypeError, "labels must be integer class ids, got float64"),
        ((LABELS[:, None], LABELS, WEIGHT, CLASSES), TypeError, "activations must be floating point"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        penultimate_projection(*arguments)


def test_tightness_needs_two_classes():
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        cluster_tightness(ACTIVATIONS, np.zeros(20, int))
    with pytest.raises(ValueError, match=r"points must have shape \(rows, dimensions\), got \(20,\)"):
        cluster_tightness(ACTIVATIONS[:, 0], LABELS)
