"""Mass on the classes that are similar to the label, by a similarity matrix or a hierarchy."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.smoothing._uniform import _distributions


def similarity_smooth_labels(labels: Array, label_smoothing: float | Array, *, similarity: Array) -> Array:
    """Structured smoothing: ``(1 - eps) t + eps sum_y t_y S_y``.

    Args:
        labels: integer class ids of any shape; or floating distributions t, (..., classes). An id
            outside 0..classes-1 gives a row of NaN.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        similarity: S, (classes, classes), non-negative; row y is the distribution of the smoothing mass of
            class y, and is scaled to sum to one.

    Returns:
        (..., classes): in the dtype of floating labels, else in the framework's default.

    Source: Li et al. 2020, "Regularization via Structural Label Smoothing"; with
        `hierarchy_similarity`, Bertinetto et al. 2020, "Making Better Mistakes".

    Examples:
        >>> from lsmooth.smoothing import similarity_smooth_labels
        >>> cat_dog_car = [[2, 2, 0], [2, 2, 0], [0, 0, 1]]
        >>> similarity_smooth_labels([0, 2], 0.2, similarity=cat_dog_car)
        array([[0.9, 0.1, 0. ],
               [0. , 0. , 1. ]])
    """
    xp = backend_of(labels=labels, label_smoothing=label_smoothing, similarity=similarity)
    labels = xp.asarray(labels)
    classes, ids = xp.shape(xp.asarray(similarity))[-1], check.is_integer(xp, labels)
    target = _distributions(xp, labels, classes if ids else None)
    dtype, shape = xp.dtype(target), xp.shape(target)
    table = xp.asarray(similarity, dtype, like=target)
    if not check.same_shape(xp.shape(table), (shape[-1], shape[-1])):
        raise ValueError(f"similarity must have shape ({shape[-1]}, {shape[-1]}); got {xp.shape(table)}.")
    eps = check.number_or_rows(xp, "label_smoothing", label_smoothing, shape[:-1], target, dtype, low=0.0, high=1.0)
    eps = eps if isinstance(eps, float) else eps[..., None]
    table = table / xp.sum(table, axis=-1)[..., None]
    if ids:  # rows with a label out of range are NaN already
        labels = check.class_ids(xp, labels)
        spread = xp.take(table, xp.where((labels >= 0) & (labels < classes), labels, 0))
    else:
        spread = target @ table if len(shape) > 1 else (target[None, :] @ table)[0, ...]
    return (1.0 - eps) * target + eps * spread


def hierarchy_similarity(ancestors: Array, *, beta: float = 10.0) -> Array:
    """The similarity of classes in a tree: ``S_yk ~ exp(-beta h(y, k))``, rows summing to one.

    h is the height of the lowest common ancestor divided by the height of the tree: 0 for a class and itself, 1
    for classes that have only the root in common.

    Args:
        ancestors: (classes, levels), integers: the group of each class at each level, coarsest first. Two
            classes share a level if they share all coarser levels too.
        beta: the decay of the mass with the height, above 0; large values give one-hot, small ones uniform labels.

    Returns:
        (classes, classes), in the framework's default dtype: the ``similarity`` of `similarity_smooth_labels`.

    Source: Bertinetto et al. 2020, "Making Better Mistakes: Leveraging Class Hierarchies with Deep
        Networks", soft labels: eps = 1 with this table.

    Examples:
        >>> from lsmooth.smoothing import hierarchy_similarity
        >>> animals_and_a_car = [[0, 0], [0, 1], [1, 2]]
        >>> hierarchy_similarity(animals_and_a_car, beta=3.0).round(3)
        array([[0.844, 0.114, 0.042],
               [0.114, 0.844, 0.042],
               [0.045, 0.045, 0.909]])
    """
    beta = check.check_range("beta", beta, 0.0, float("inf"))
    xp = backend_of(ancestors=ancestors)
    ancestors = xp.asarray(ancestors)
    if len(xp.shape(ancestors)) != 2:
        raise ValueError(f"ancestors must have shape (classes, levels), got {xp.shape(ancestors)}.")
    if not check.is_integer(xp, ancestors):
        raise TypeError(f"ancestors must be integers, got {xp.dtype(ancestors)}.")
    levels = check.known_classes("ancestors", xp.shape(ancestors))
    classes = check.known_classes("ancestors", xp.shape(ancestors)[:1])
    dtype = xp.dtype(xp.asarray(1.0))
    identity = xp.one_hot(xp.asarray(list(range(classes)), "int32", like=ancestors), classes, dtype)
    same, shared = 1.0, 0.0
    for level in range(levels):
        group = ancestors[:, level]
        same = same * xp.cast(xp.equal(group[:, None], group[None, :]), dtype)
        shared = shared + same
    values = xp.exp(-beta * (1.0 - identity) * (levels + 1.0 - shared) / (levels + 1.0))
    return values / xp.sum(values, axis=-1)[..., None]
