"""Label maps with uncertain borders: mass on the classes of neighbouring pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of


def spatial_smooth_labels(
    labels: Array,
    num_classes: int,
    *,
    label_smoothing: float = 0.5,
    sigma: float = 1.0,
    radius: int = 1,
    spatial_dims: int = 2,
    ignore_index: int | None = None,
) -> Array:
    """Spatially varying label smoothing (SVLS): each label is mixed with those of its neighbours.

    ``(1 - eps) t_i + eps sum_j g_ij t_j``, over the neighbours j != i within ``radius`` along every spatial axis,
    with ``g_ij ~ exp(-|i - j|^2 / (2 sigma^2))``, normalised over the valid neighbours. The map is padded with its
    edge values. Labels inside a region stay one-hot.

    Args:
        labels: integer class ids (..., height, width): an image, a volume, or a batch of either. An id outside
            0..num_classes-1 gives NaN at its pixel and is not a neighbour of others.
        num_classes: the number of classes.
        label_smoothing: eps in [0, 1], the mass of the neighbours; 0.5 in the paper.
        sigma: the standard deviation of the Gaussian, above 0, in pixels.
        radius: the largest distance of neighbours along an axis, at least 1, in pixels.
        spatial_dims: the number of spatial axes, which come last: 1, 2, 3, ...; their sizes must be known.
        ignore_index: pixels with this label get zeros and are not neighbours of others.

    Returns:
        (..., height, width, num_classes), in the framework's default dtype.

    Source: Islam and Glocker 2021, "Spatially Varying Label Smoothing: Capturing Uncertainty from
        Expert Annotations", whose code uses sigma 1 and radius 1.

    Examples:
        >>> from lsmooth.smoothing import spatial_smooth_labels
        >>> spatial_smooth_labels([0, 0, 0, 1], 2, spatial_dims=1)
        array([[1.  , 0.  ],
               [1.  , 0.  ],
               [0.75, 0.25],
               [0.25, 0.75]])
    """
    label_smoothing = check.check_range("label_smoothing", label_smoothing, 0.0, 1.0)
    sigma = check.check_range("sigma", sigma, 0.0, float("inf"))
    if radius < 1 or int(radius) != radius:
        raise ValueError(f"radius must be an integer of at least 1, got {radius}.")
    xp = backend_of(labels=labels)
    labels = check.class_ids(xp, xp.asarray(labels))
    sizes = xp.shape(labels)
    if not 1 <= spatial_dims <= len(sizes):
        raise ValueError(f"spatial_dims must be in 1..{len(sizes)} for labels of shape {sizes}, got {spatial_dims}.")
    if None in sizes[-spatial_dims:]:
        raise ValueError(f"labels must have known sizes along their last {spatial_dims} axes, got shape {sizes}.")
    counted = None if ignore_index is None else ~xp.equal(labels, ignore_index)
    if check.is_validating(xp, labels):
        check.check_class_ids(xp, labels, num_classes, counted)

    dtype = xp.dtype(xp.asarray(1.0))
    valid = (labels >= 0) & (labels < num_classes)
    if counted is not None:
        valid = valid & counted
    one_hot = xp.one_hot(xp.where(valid, labels, 0), num_classes, dtype) * xp.cast(valid, dtype)[..., None]
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2.0 * sigma**2))
    neighbours = _filter(xp, one_hot, weights, sizes[-spatial_dims:]) - one_hot  # the centre's weight is 1
    mass = xp.sum(neighbours, axis=-1)[..., None]
    neighbours = xp.where(mass > 0, neighbours / xp.where(mass > 0, mass, 1.0), one_hot)
    smoothed = (1.0 - label_smoothing) * one_hot + label_smoothing * neighbours
    smoothed = xp.where(valid[..., None], smoothed, float("nan"))
    return smoothed if counted is None else xp.where(counted[..., None], smoothed, 0.0)


def _filter(xp: Backend, values: Array, weights: np.ndarray, sizes: Sequence[int | None]) -> Array:
    """A separable filter along the spatial axes, which precede the last one; edge values are repeated."""
    reach = len(weights) // 2
    for axis, size in enumerate(sizes):
        axis -= len(sizes) + 1
        rows = xp.moveaxis(values, axis, 0)
        total = 0.0
        for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
            index = np.clip(np.arange(size) + offset, 0, size - 1)  # type: ignore[operator]
            total = total + float(weight) * xp.take(rows, xp.asarray(index, "int32", like=values))
        values = xp.moveaxis(total, 0, axis)
    return values
