"""Label maps smoothed by their neighbours, against a filter written out pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_close, require_backend

import lsmooth
from lsmooth.smoothing import spatial_smooth_labels

IMAGES = np.random.default_rng(0).integers(0, 3, (2, 5, 4))


def filtered(labels, classes, dims, *, eps=0.5, sigma=1.0, radius=1, ignore=None):
    out = np.zeros((*labels.shape, classes))
    sizes = labels.shape[-dims:]
    for place in np.ndindex(labels.shape):
        batch, here = place[:-dims], place[-dims:]
        if labels[place] == ignore:
            continue
        own, around = np.eye(classes)[labels[place]], np.zeros(classes)
        for step in itertools.product(range(-radius, radius + 1), repeat=dims):
            there = tuple(np.clip(h + s, 0, n - 1) for h, s, n in zip(here, step, sizes, strict=True))
            label = labels[batch + there]
            if any(step) and label != ignore:
                around[label] += np.exp(-np.dot(step, step) / (2 * sigma**2))
        out[place] = (1 - eps) * own + eps * (around / around.sum() if around.sum() else own)
    return out


@pytest.mark.parametrize(
    "options", [{}, {"sigma": 0.5, "eps": 0.2}, {"radius": 2, "sigma": 2.0}, {"ignore": 2}, {"ignore": 2, "radius": 2}]
)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_neighbours_share_the_label(backend, options, dims):
    expected = filtered(IMAGES, 3, dims, **options)
    names = {"eps": "label_smoothing", "ignore": "ignore_index"}
    given = {names.get(name, name): value for name, value in options.items()}
    q = spatial_smooth_labels(backend.asarray(IMAGES), 3, spatial_dims=dims, **given)
    assert backend.is_array(q)
    assert_close(backend, q, expected, backend.dtype(q))


def test_the_authors_kernel(backend):
    # Gaussian over 3 x 3, the centre raised to the sum of the rest, the whole over its sum.
    kernel = np.exp(-(np.add.outer(np.array([1, 0, 1]), np.array([1, 0, 1]))) / 2)
    kernel /= kernel.sum()
    kernel[1, 1] = 1 - kernel[1, 1]
    kernel /= kernel.sum()
    padded = np.pad(np.eye(3)[IMAGES], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifts = itertools.product(range(3), range(3))
    expected = sum(kernel[i, j] * padded[:, i : i + 5, j : j + 4] for i, j in shifts)
    q = spatial_smooth_labels(backend.asarray(IMAGES), 3)
    assert_close(backend, q, expected, backend.dtype(q))


def test_interior_pixels_stay_one_hot(backend):
    labels = np.zeros((6, 6), int)
    labels[:, 3:] = 1
    q = backend.to_numpy(spatial_smooth_labels(backend.asarray(labels), 2))
    np.testing.assert_allclose(q[:, [0, 1, 4, 5]], np.eye(2)[labels[:, [0, 1, 4, 5]]], atol=1e-6)
    assert (q[:, 2, 1] > 0.1).all()


def test_pixels_without_counted_neighbours_keep_their_label(backend):
    q = spatial_smooth_labels(backend.asarray(np.array([9, 9, 1, 9, 9])), 2, spatial_dims=1, radius=1, ignore_index=9)
    np.testing.assert_allclose(backend.to_numpy(q), np.array([[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]]), atol=1e-12)


def test_a_label_out_of_range_is_nan_in_its_place_alone(backend):
    q = backend.to_numpy(spatial_smooth_labels(backend.asarray(np.array([0, 7, 1, 1])), 2, spatial_dims=1))
    assert np.isnan(q).all(-1).tolist() == [False, True, False, False]
    with lsmooth.validate(), pytest.raises(ValueError, match="got 7 at index"):
        spatial_smooth_labels(backend.asarray(np.array([0, 7, 1, 1])), 2, spatial_dims=1)


def test_tensorflow_traces_it_for_any_batch():
    require_backend("tensorflow")
    import tensorflow as tf

    signature = [tf.TensorSpec([None, 5, 4], tf.int32)]
    traced = tf.function(lambda y: spatial_smooth_labels(y, 3), input_signature=signature)
    np.testing.assert_allclose(traced(tf.constant(IMAGES, tf.int32)), filtered(IMAGES, 3, 2), atol=1e-6)
    with pytest.raises(ValueError, match="labels must have known sizes along their last 2 axes"):
        tf.function(lambda y: spatial_smooth_labels(y, 3)).get_concrete_function(tf.TensorSpec([2, None, 4], tf.int32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 2.0}, r"label_smoothing must be in \[0, 1\]"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"radius": 0}, "radius must be an integer of at least 1, got 0"),
        ({"spatial_dims": 4}, r"spatial_dims must be in 1\.\.3"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        spatial_smooth_labels(IMAGES, 3, **options)
    with pytest.raises(TypeError, match="labels must be integer class ids"):
        spatial_smooth_labels([[0.5]], 3)
