"""Facts about the calibration error of detections, held to loops over cells and to netcal where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.metrics import detection_calibration_error, expected_calibration_error

pytestmark = pytest.mark.usefixtures("memory")


def drawn(rows: int = 300, coordinates: int = 2) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    scores, boxes = rng.random(rows), rng.random((rows, coordinates))
    return (rng.random(rows) < scores * boxes[:, 0]).astype(np.int64), scores, boxes, rng.integers(0, 3, rows) * 1.0


def by_cell(matches, scores, boxes, weight, n_bins, min_count) -> float:
    """Over cells (lo, hi], as the definition reads."""
    values = np.column_stack([scores, boxes])
    cells = [tuple(max(0, int(np.ceil(v * n)) - 1) for v, n in zip(row, n_bins, strict=True)) for row in values]
    total, error = 0.0, 0.0
    for cell in set(cells):
        rows = np.array([one == cell for one in cells])
        if weight[rows].sum() >= max(min_count, 1e-9):
            total += weight[rows].sum()
            error += abs((weight * (matches - scores))[rows].sum())
    return error / total


@pytest.mark.parametrize("min_count", [0, 4])
@pytest.mark.parametrize("n_bins", [(5, 3, 2), 3])
def test_the_error_is_the_mean_gap_over_cells(backend: Backend, n_bins, min_count):
    matches, scores, boxes, weight = drawn()
    expected = by_cell(matches, scores, boxes, weight, n_bins if isinstance(n_bins, tuple) else (3,) * 3, min_count)
    given = (backend.asarray(x) for x in (matches, scores, boxes))
    got = detection_calibration_error(*given, n_bins=n_bins, min_count=min_count, sample_weight=backend.asarray(weight))
    assert backend.is_array(got)
    assert_close(backend, got, expected, "float64")
    shaped = (backend.asarray(x.reshape(3, 100, *x.shape[1:])) for x in (matches == 1, scores, boxes))
    got = detection_calibration_error(
        *shaped, n_bins=n_bins, min_count=min_count, sample_weight=backend.asarray(weight.reshape(3, 100))
    )
    assert_close(backend, got, expected, "float64")


@pytest.mark.parametrize("min_count", [0, 8])
def test_the_error_matches_netcal(min_count):
    netcal = pytest.importorskip("netcal.metrics", reason="the other library")
    matches, scores, boxes, _ = drawn(2000)
    peer = netcal.ECE((10, 5, 4), detection=True, sample_threshold=max(1, min_count))
    got = detection_calibration_error(
        matches, scores, boxes, n_bins=(10, 5, 4), min_count=min_count, convention="netcal"
    )
    np.testing.assert_allclose(float(got), peer.measure(np.column_stack([scores, boxes]), matches), rtol=1e-9)


def test_without_boxes_only_scores_are_binned():
    matches, scores, _, _ = drawn()
    got = detection_calibration_error(matches, scores, n_bins=7)
    two_sided = expected_calibration_error(matches, np.stack([1 - scores, scores], 1), n_bins=7, convention="sklearn")
    np.testing.assert_allclose(got, two_sided, rtol=1e-12)


def test_wrong_shapes_raise_an_error():
    matches, scores, boxes, _ = drawn()
    with pytest.raises(ValueError, match=r"boxes must have the shape of the scores, \(300,\)"):
        detection_calibration_error(matches, scores, boxes[:4])
    with pytest.raises(ValueError, match=r"n_bins must be a number, or one for the score and each of 2 coordinates"):
        detection_calibration_error(matches, scores, boxes, n_bins=(4, 4))
    with pytest.raises(ValueError, match="convention must be one of guo, netcal"):
        detection_calibration_error(matches, scores, convention="tfp")
    assert np.isnan(detection_calibration_error(matches, scores, boxes * 640, n_bins=2))
    ignored = np.where(np.arange(300) < 250, matches, -1)
    far = np.where(ignored[:, None] == -1, 7.0, boxes)
    got = detection_calibration_error(ignored, scores, far, n_bins=3, ignore_index=-1)
    np.testing.assert_allclose(got, detection_calibration_error(matches[:250], scores[:250], boxes[:250], n_bins=3))
    assert float(detection_calibration_error(matches, scores, min_count=400)) == 0.0
