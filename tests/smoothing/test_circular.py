"""Circular and ordinal targets: windows around the label, and back to an angle."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import lsmooth
from lsmooth.smoothing import circular_angles, circular_bins, circular_smooth_labels, ordinal_smooth_labels

WINDOWS = {
    "pulse": lambda d, r: float(d == 0),
    "rectangle": lambda d, r: float(d <= r),
    "triangle": lambda d, r: max(1 - d / r, 0.0),
    "gaussian": lambda d, r: np.exp(-(d**2) / (2 * r**2)),
}


def circular(labels, classes, window, radius):
    rows = np.zeros((*np.shape(labels), classes))
    for place in np.ndindex(np.shape(labels)):
        for k in range(classes):
            away = abs(k - labels[place] % classes)
            rows[(*place, k)] = WINDOWS[window](min(away, classes - away), radius)
    return rows


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("classes", "radius"), [(12, 2.0), (7, 1.5), (5, 10.0), (1, 1.0)])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_window_lies_around_the_label(backend, window, classes, radius, normalize):
    labels = np.array([[0, 3, 11], [5, -1, 25]])
    expected = circular(labels, classes, window, radius)
    expected = expected / expected.sum(-1, keepdims=True) if normalize else expected
    q = circular_smooth_labels(backend.asarray(labels), classes, window=window, radius=radius, normalize=normalize)
    assert backend.is_array(q)
    assert_close(backend, q, expected, backend.dtype(q))


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_are_periodic_symmetric_and_peak_at_the_label(backend, window):
    rows = backend.to_numpy(circular_smooth_labels(backend.asarray(np.arange(12)), 12, window=window, radius=3))
    np.testing.assert_array_equal(rows, rows.T)
    np.testing.assert_array_equal(rows, np.roll(np.roll(rows, 1, 0), 1, 1))
    assert (rows.max(-1) == 1).all()
    assert (rows.max(-1) == rows[range(12), range(12)]).all()


@pytest.mark.parametrize(("period", "start"), [(180.0, 0.0), (180.0, -90.0), (2 * np.pi, 0.0), (np.pi, -np.pi / 2)])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_decoded_angle_is_within_half_a_class(backend, period, start, window):
    angles = np.random.default_rng(0).uniform(-2 * period, 2 * period, 200)
    bins = circular_bins(backend.asarray(angles), 36, period=period, start=start)
    back = circular_angles(circular_smooth_labels(bins, 36, window=window), period=period, start=start)
    away = (backend.to_numpy(back) - angles) % period
    assert np.minimum(away, period - away).max() <= period / 72 * (1 + 1e-5)
    assert ((backend.to_numpy(back) >= start) & (backend.to_numpy(back) < start + period)).all()


def test_classes_of_angles_begin_at_start(backend):
    angles = backend.asarray(np.array([0.0, 19.999, 20.0, 179.9, 180.0, -0.5, -1e-18]))
    bins = circular_bins(angles, 9)
    assert backend.to_numpy(bins).tolist() == [0, 0, 1, 8, 0, 8, 0]
    assert backend.dtype(bins) == "int32"


def test_angles_keep_the_dtype_of_the_scores(backend):
    scores = backend.asarray(np.eye(4), "float32")
    assert backend.dtype(circular_angles(scores)) == "float32"
    assert backend.to_numpy(circular_angles(scores)).tolist() == [22.5, 67.5, 112.5, 157.5]


def test_a_tie_is_decoded_in_the_middle_of_its_first_run(backend):
    scores = np.array([[1, 1, 0, 1.0], [0, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1], [np.nan, 1, 0, 0]])
    middle = [0.5, 1.5, 2.0, 2.0, np.nan]
    np.testing.assert_allclose(backend.to_numpy(circular_angles(backend.asarray(scores), period=4.0)), middle)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_ordinal_targets_fall_off_with_the_squared_distance(backend, sigma):
    labels = np.array([[0, 4], [2, 3]])
    expected = np.exp(-((np.arange(5) - labels[..., None]) ** 2) / (2 * sigma**2))
    q = ordinal_smooth_labels(backend.asarray(labels), 5, sigma=sigma)
    assert_close(backend, q, expected / expected.sum(-1, keepdims=True), backend.dtype(q))


def test_an_ordinal_label_out_of_range_gives_nan(backend):
    q = backend.to_numpy(ordinal_smooth_labels(backend.asarray(np.array([0, 3, -1], np.int32)), 3))
    assert np.isnan(q).all(-1).tolist() == [False, True, True]
    with lsmooth.validate(), pytest.raises(ValueError, match=r"labels must be class ids in 0\.\.2, got 3"):
        ordinal_smooth_labels(backend.asarray(np.array([0, 3])), 3)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_every_integer_dtype_is_accepted(backend, dtype):
    labels = backend.asarray(np.array([0, 199 % 128], dtype))
    q = backend.to_numpy(circular_smooth_labels(labels, 180))
    assert q.argmax(-1).tolist() == [0, 71]
    q = backend.to_numpy(ordinal_smooth_labels(labels, 180))
    assert q.argmax(-1).tolist() == [0, 71]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: circular_smooth_labels([0], 4, window="box"),
            ValueError,
            "window must be one of pulse, .*; got 'box'",
        ),
        (lambda: circular_smooth_labels([0], 4, radius=0), ValueError, "radius must be a finite number above 0, got 0"),
        (lambda: circular_smooth_labels([0], 0), ValueError, "num_classes must be at least 1, got 0"),
        (lambda: circular_smooth_labels([0.5], 4), TypeError, "labels must be integer class ids, got float64"),
        (lambda: circular_bins([0], 4), TypeError, "angles must be floating point, got int64"),
        (lambda: circular_bins([0.0], 4, period=-1), ValueError, "period must be"),
        (lambda: circular_bins([0.0], 0), ValueError, "num_classes must be"),
        (lambda: circular_angles([[1, 0]]), TypeError, "scores must be floating point"),
        (lambda: circular_angles([[1.0, 0.0]], period=0), ValueError, "period must be"),
        (lambda: ordinal_smooth_labels([0], 4, sigma=-1), ValueError, "sigma must be a finite number above 0, got -1"),
        (lambda: ordinal_smooth_labels([0.0], 4), TypeError, "labels must be integer class ids"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
