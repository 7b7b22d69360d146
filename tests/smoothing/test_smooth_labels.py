"""Smoothed targets equal their definition, in all three forms that libraries use."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.smoothing import binary_smooth_labels, smooth_labels

IDS = np.array([[2, 0], [4, 3]])
PRIOR = np.array([1.0, 2.0, 3.0, 4.0, 10.0])


def by_definition(ids: np.ndarray, eps: float, prior: np.ndarray, exclude: bool, padding: int | None) -> np.ndarray:
    """One row at a time, as the definition reads."""
    rows = []
    for y in ids.ravel():
        spread = prior.astype(np.float64).copy()
        if padding is not None:
            spread[padding] = 0.0
        if exclude or padding is not None:
            spread[y] = 0.0
        row = eps * spread / spread.sum()
        row[y] += 1.0 - eps
        rows.append(0.0 * row if y == padding else row)
    return np.reshape(rows, (*ids.shape, len(prior)))


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize(("exclude", "padding"), [(False, None), (True, None), (False, 0), (True, 1)])
def test_ids_and_their_one_hot_rows_give_the_defined_targets(
    backend: Backend, eps: float, prior: np.ndarray | None, exclude: bool, padding: int | None
) -> None:
    expected = by_definition(IDS, eps, np.ones(5) if prior is None else prior, exclude, padding)
    options = {"prior": prior, "padding_idx": padding, "exclude_target": exclude}
    onehot = backend.asarray(np.eye(5)[IDS])
    assert_close(backend, smooth_labels(onehot, eps, **options), expected, "float64")
    actual = smooth_labels(backend.asarray(IDS), eps, num_classes=5, **options)
    assert_close(backend, actual, expected, backend.dtype(actual))


def test_an_id_out_of_range_gives_a_row_of_nan(backend: Backend) -> None:
    actual = backend.to_numpy(smooth_labels(backend.asarray(np.array([1, 5, -1])), 0.1, num_classes=5))
    np.testing.assert_array_equal(np.isnan(actual).all(-1), [False, True, True])


def test_the_smoothing_may_differ_by_row(backend: Backend) -> None:
    eps = np.array([0.0, 0.4])
    expected = np.stack([by_definition(IDS[0, i], e, np.ones(5), False, None) for i, e in enumerate(eps)])
    actual = smooth_labels(backend.asarray(np.eye(5)[IDS[0]]), backend.asarray(eps))
    assert_close(backend, actual, expected.reshape(2, 5), "float64")


def test_binary_labels_keep_half_of_the_mass_for_each_answer(backend: Backend) -> None:
    assert_close(backend, binary_smooth_labels(backend.asarray(np.array([0.0, 1.0])), 0.1), [0.05, 0.95], "float64")


@pytest.mark.parametrize(
    ("error", "labels", "options", "message"),
    [
        (ValueError, np.array([1, 2]), {}, "num_classes is needed"),
        (TypeError, np.array([1.0]), {"num_classes": 3}, "labels must be integer class ids"),
        (ValueError, np.array([1]), {"num_classes": 0}, "num_classes must be at least 1"),
        (ValueError, np.array([1]), {"num_classes": 2, "padding_idx": 0}, "num_classes must be at least 3"),
        (ValueError, np.array([0]), {"num_classes": 1, "exclude_target": True}, "num_classes must be at least 2"),
        (ValueError, np.array([1]), {"num_classes": 4, "padding_idx": 4}, r"padding_idx must be in 0..3"),
        (ValueError, np.array([1]), {"num_classes": 4, "prior": np.ones(3)}, r"prior must have shape \(4,\)"),
    ],
)
def test_a_bad_argument_is_named(
    backend: Backend, error: type[Exception], labels: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(error, match=message):
        smooth_labels(backend.asarray(labels), 0.1, **options)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        smooth_labels(backend.asarray(np.eye(3)), 1.1)
