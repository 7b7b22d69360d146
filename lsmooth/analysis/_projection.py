"""The last hidden layer, projected on the plane through three classes' templates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate


class Projection(NamedTuple):
    """Activations of three classes on the plane through their templates."""

    points: Array
    """(n, 2): the rows whose label is one of the classes."""
    labels: np.ndarray
    """(n,): their labels."""
    templates: Array
    """(3, 2): the templates, in the order of the classes; the first at the origin, the second on the first axis."""


def penultimate_projection(activations: Array, labels: Array, weight: Array, classes: Sequence[int]) -> Projection:
    """Activations projected on the plane through the templates of three classes.

    With w_a, w_b, w_c the classes' rows of the last layer's weight and (e_1, e_2) the orthonormal
    basis that Gram and Schmidt make of w_b - w_a and w_c - w_a, a row x is shown at

    ``((x - w_a) . e_1, (x - w_a) . e_2)``.

    Args:
        activations: (rows, units), floating point: the inputs of the last layer.
        labels: (rows,) class ids, with values that can be read: not traced.
        weight: (num_classes, units), the templates. A Dense or Linear layer that keeps (units,
            num_classes), as in Keras and Flax, gives its transpose.
        classes: three different class ids.

    Returns:
        A `Projection`; its points and templates float64 for float64 activations, else float32.
        Templates on one line span no plane, and give NaN.

    Raises:
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or labels are traced.
        ValueError: if shapes do not fit, or the classes are not three different ones of the weight's.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", section 2.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.analysis import penultimate_projection
        >>> weight = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
        >>> shown = penultimate_projection([[1.0, 1.0, 5.0]], [2], weight, classes=(0, 1, 2))
        >>> shown.points, shown.templates
        (array([[1., 1.]]), array([[0., 0.],
               [2., 0.],
               [0., 3.]]))
    """
    xp = backend_of(activations=activations, labels=labels, weight=weight)
    activations = accumulate(xp, check.float_array(xp, "activations", activations, like=_tensor(xp, labels, weight)))
    weight = xp.asarray(weight, xp.dtype(activations), like=activations)
    shape, templates = xp.shape(activations), xp.shape(weight)
    if len(shape) != 2 or len(templates) != 2 or shape[1] != templates[1]:
        raise ValueError(
            "activations must have shape (rows, units) and weight (num_classes, units); "
            f"got {shape} and {templates}. A layer that keeps (units, num_classes) gives its transpose."
        )
    chosen = [int(k) for k in classes]
    num_classes = templates[0]
    if (
        len(set(chosen)) != 3
        or len(chosen) != 3
        or not all(k >= 0 and (num_classes is None or k < num_classes) for k in chosen)
    ):
        last = "" if num_classes is None else num_classes - 1
        raise ValueError(f"classes must be three different ids in 0..{last}, got {tuple(classes)}.")
    ids = _read(labels, shape[0])

    rows = np.flatnonzero(np.isin(ids, chosen))
    corners = xp.take(weight, xp.asarray(np.array(chosen, np.int32), like=activations))
    kept = xp.take(activations, xp.asarray(rows.astype(np.int32), like=activations))
    first = _unit(xp, corners[1, ...] - corners[0, ...])
    second = corners[2, ...] - corners[0, ...]
    second = _unit(xp, second - xp.sum(second * first) * first)

    def onto_plane(x: Array) -> Array:
        x = (x - corners[:1, ...])[:, None, :]
        return xp.sum(x * _rows_of(xp, first, second), axis=-1)

    return Projection(onto_plane(kept), ids[rows], onto_plane(corners))


def cluster_tightness(points: Array, labels: Array) -> Array:
    """Scatter within the classes over the distance between them; the smaller, the tighter.

    With m_k the mean of the points of class k,

    ``sqrt(mean_i |x_i - m_{y_i}|^2) / mean_{j < k} |m_j - m_k|``,

    which does not change if the points are shifted or scaled.

    Args:
        points: (rows, dimensions), floating point: activations, or their projection.
        labels: (rows,) class ids, with values that can be read: not traced. At least two classes.

    Returns:
        A scalar, float64 for float64 points, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or labels are traced.
        ValueError: if shapes do not fit, or there are fewer than two classes.

    Examples:
        >>> from lsmooth.analysis import cluster_tightness
        >>> points = [[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]]
        >>> float(cluster_tightness(points, [0, 0, 1, 1]))
        0.25
    """
    xp = backend_of(points=points, labels=labels)
    points = accumulate(xp, check.float_array(xp, "points", points, like=_tensor(xp, labels)))
    shape = xp.shape(points)
    if len(shape) != 2:
        raise ValueError(f"points must have shape (rows, dimensions), got {shape}.")
    ids = _read(labels, shape[0])
    members = [np.flatnonzero(ids == k).astype(np.int32) for k in np.unique(ids)]
    if len(members) < 2:
        raise ValueError(f"labels must hold at least two classes, got {len(members)}.")
    clusters = [xp.take(points, xp.asarray(rows, like=points)) for rows in members]
    means = [xp.sum(cluster, axis=0) / len(rows) for cluster, rows in zip(clusters, members, strict=True)]
    scatter = sum(xp.sum((cluster - mean[None, :]) ** 2) for cluster, mean in zip(clusters, means, strict=True)) / len(
        ids
    )
    pairs = list(combinations(means, 2))
    return scatter**0.5 * len(pairs) / sum(xp.sum((a - b) ** 2) ** 0.5 for a, b in pairs)


def _tensor(xp: Backend, *arrays: Array) -> Array | None:
    """The first array of the framework, on whose device the others are put."""
    return next((array for array in arrays if xp.is_array(array)), None)


def _read(labels: Array, rows: int) -> np.ndarray:
    """The values of the labels, which determine the number of rows."""
    xp = backend_of(labels=labels)
    labels = check.to_array(xp, "labels", labels)
    if not check.is_integer(xp, labels):
        raise TypeError(f"labels must be integer class ids, got {xp.dtype(labels)}.")
    if not check.same_shape(xp.shape(labels), (rows,)):
        raise ValueError(f"labels must have shape ({rows},), one for each row; got {xp.shape(labels)}.")
    if not xp.is_concrete(labels):
        raise TypeError("labels must have values that can be read, but they are traced; call this outside of jit.")
    return xp.to_numpy(labels)


def _unit(xp: Backend, x: Array) -> Array:
    return x / xp.sum(x * x) ** 0.5


def _rows_of(xp: Backend, first: Array, second: Array) -> Array:
    """(1, 2, units)."""
    is_first = xp.asarray(np.array([[[True], [False]]]), like=first)
    return xp.where(is_first, first[None, None, :], second[None, None, :])
