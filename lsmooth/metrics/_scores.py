"""Scores of predicted probabilities, row by row: likelihood, squared distance, and top-k accuracy."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth._sums import quiet
from lsmooth.backends import Array
from lsmooth.metrics._inputs import Inputs, centered, mean, prepare, probabilities


def negative_log_likelihood(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Mean negative logarithm of the probability of the label: ``mean_i -log p_i[y_i]``.

    Probabilities are not clipped: a label of probability 0 makes it infinite. Without rows it is 0.

    Args:
        labels: class ids, integers in the shape of the predictions without ``axis``. One outside
            0..classes-1 makes the result NaN; under `lsmooth.validate` it is an error.
        predictions: probabilities, or logits if ``from_logits``; floating point, any shape,
            classes along ``axis``.
        from_logits: whether ``predictions`` are logits; never guessed.
        binary: labels are 0 or 1, and predictions the probability (or logit) of 1, in the same shape.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows, at least 0: a scalar, or of their rank, each dimension equal or 1.

    Returns:
        A scalar, float64 for float64 predictions, else float32.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: scikit-learn's ``log_loss``, without its clipping.

    Examples:
        >>> from lsmooth.metrics import negative_log_likelihood
        >>> float(negative_log_likelihood([0, 1], [[0.5, 0.5], [0.75, 0.25]]).round(6))
        1.039721
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    return inputs.answer(mean(inputs.xp, likelihood_losses(inputs), inputs.weight, inputs.dtype))


def brier_score(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Mean squared distance between probabilities and the one-hot label.

    ``mean_i sum_k (p_ik - [y_i = k])^2``, from 0 to 2. For two classes it is twice the mean of
    (p - y)^2, which scikit-learn's ``brier_score_loss`` gives for binary labels.

    Args:
        labels: as in `negative_log_likelihood`.
        predictions: as there.
        from_logits: as there.
        binary: as there; the score is that of two classes, twice the mean of (p - y)^2.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32; 0 without rows.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".

    Examples:
        >>> from lsmooth.metrics import brier_score
        >>> float(brier_score([0, 1], [[1.0, 0.0], [0.5, 0.5]]))
        0.25
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    return inputs.answer(mean(inputs.xp, squared_distances(inputs), inputs.weight, inputs.dtype))


def top_k_accuracy(
    labels: Array,
    predictions: Array,
    *,
    k: int = 1,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """The fraction of rows whose label is among the k likeliest classes.

    ``mean_i [ #{j : p_ij > p_iy, or p_ij = p_iy and j < y} < k ]``: of equal classes the first wins,
    as in an argmax.

    Args:
        labels: as in `negative_log_likelihood`.
        predictions: probabilities or logits, floating point, any shape, classes along ``axis``.
        k: at least 1; from the number of classes on, every label counts.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32; 0 without rows.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, or k is less than 1.

    Source: scikit-learn's ``top_k_accuracy_score``.

    Examples:
        >>> from lsmooth.metrics import top_k_accuracy
        >>> float(top_k_accuracy([0, 1], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
        0.5
    """
    k = check.check_count("k", k)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, True)
    return inputs.answer(mean(inputs.xp, in_top_k(inputs, k), inputs.weight, inputs.dtype))


def likelihood_losses(inputs: Inputs) -> Array:
    """-log p_y of each row."""
    return inputs.once("likelihood", lambda: _likelihood_losses(inputs))


def _likelihood_losses(inputs: Inputs) -> Array:
    xp = inputs.xp
    if not inputs.from_logits:
        return -xp.log(xp.pick(inputs.predictions, inputs.labels))
    logits = centered(inputs)
    return xp.logsumexp(logits, axis=-1) - xp.pick(logits, inputs.labels)


def squared_distances(inputs: Inputs) -> Array:
    """sum_k (p_k - [y = k])^2 of each row."""
    return inputs.once("distances", lambda: _squared_distances(inputs))


def _squared_distances(inputs: Inputs) -> Array:
    xp, p = inputs.xp, probabilities(inputs)
    picked = xp.pick(p, inputs.labels)
    # The term of the label is computed apart: 1 - 2 p_y + sum p^2 would lose small differences.
    with quiet(xp):
        squares = p * p
    others = xp.sum(squares * (1.0 - xp.one_hot(inputs.labels, xp.shape(p)[-1], inputs.dtype)), axis=-1)
    return (1.0 - picked) ** 2 + others


def in_top_k(inputs: Inputs, k: int) -> Array:
    """1 where the label is among the k likeliest classes of its row, else 0."""
    return inputs.once(("among", k), lambda: _among_k(inputs, k))


def _among_k(inputs: Inputs, k: int) -> Array:
    xp, p, labels = inputs.xp, inputs.predictions, inputs.labels
    classes = xp.asarray(list(range(xp.shape(p)[-1])), xp.dtype(labels), like=p)
    picked = xp.pick(p, labels)[:, None]
    before = (p > picked) | (xp.equal(p, picked) & (classes[None, :] < labels[:, None]))
    rank = xp.sum(xp.cast(before, inputs.dtype), axis=-1)
    # A label whose prediction is NaN has no rank.
    return xp.where(xp.equal(picked[:, 0], picked[:, 0]), xp.cast(rank < k, inputs.dtype), 0.0)
