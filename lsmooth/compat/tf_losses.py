"""The cross-entropies of ``tf.compat.v1.losses`` (``tf.losses`` of TensorFlow 1), for the tensors of any backend.

Reproduces TensorFlow 2.21: losses in the logits' precision, weights and reductions in float32, results in the
logits' dtype; Python numbers are float32. In a TensorFlow graph, tensors of unknown rank are checked at run time.
``scope`` and ``loss_collection`` have an effect only on TensorFlow, the latter only in graph mode. A class id out of
range makes its row NaN, as on TensorFlow's GPU; on its CPU it is an error.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, log_softmax, quotient
from lsmooth.compat import _unknown_ranks


class Reduction:
    """The names of the reductions, as in ``tf.compat.v1.losses.Reduction``.

    | name | the weighted losses are |
    |---|---|
    | NONE | not reduced |
    | SUM | summed |
    | SUM_OVER_BATCH_SIZE | summed, divided by the number of losses |
    | MEAN | summed, divided by the sum of the weights, broadcast to the losses |
    | SUM_BY_NONZERO_WEIGHTS, SUM_OVER_NONZERO_WEIGHTS | summed, divided by the number of losses whose weight is not 0 |

    Examples:
        >>> Reduction.SUM_BY_NONZERO_WEIGHTS
        'weighted_sum_by_nonzero_weights'
    """

    NONE = "none"
    SUM = "weighted_sum"
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"
    MEAN = "weighted_mean"
    SUM_BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    SUM_OVER_NONZERO_WEIGHTS = SUM_BY_NONZERO_WEIGHTS

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """All names."""
        return cls.NONE, cls.SUM, cls.SUM_OVER_BATCH_SIZE, cls.MEAN, cls.SUM_BY_NONZERO_WEIGHTS

    @classmethod
    def validate(cls, key: str) -> None:
        """Raise a ValueError unless ``key`` is one of the names."""
        if key not in cls.all():
            raise ValueError(f"reduction must be one of {', '.join(cls.all())}; got {key!r}.")


def softmax_cross_entropy(
    onehot_labels: Array,
    logits: Array,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """``tf.compat.v1.losses.softmax_cross_entropy``: ``-sum_k q_k log softmax(z)_k`` of each row, weighted.

    q = (1 - eps) t + eps / classes. As in TensorFlow, the gradient is softmax(z) - q even if q does not sum to one,
    the labels get no gradient, and a logit of -inf gives NaN or inf; in `lsmooth.losses.softmax_cross_entropy`
    it masks its class.

    Args:
        onehot_labels: t, (..., classes), any dtype.
        logits: z, floating point, (..., classes).
        weights: a scalar, or of the losses' rank, each dimension 1 or equal.
        label_smoothing: eps; no smoothing at 0 and below.
        scope: the name scope of the ops, on TensorFlow.
        loss_collection: the collection of a TensorFlow graph that the loss is added to, or None.
        reduction: one of `Reduction`.

    Returns:
        A scalar, or (...) for ``Reduction.NONE``, in the logits' dtype.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat import tf_losses
        >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        >>> labels = [[1, 0, 0], [0, 0, 1]]
        >>> float(tf_losses.softmax_cross_entropy(labels, logits, weights=[1.0, 0.0], label_smoothing=0.1).round(4))
        0.3729
    """
    xp = backend_of(onehot_labels=onehot_labels, logits=logits, weights=weights)
    with _name_scope(xp, scope, "softmax_cross_entropy_loss"):
        labels, logits = _same_shape(xp, "onehot_labels", onehot_labels, logits)
        dtype = xp.dtype(logits)
        unknown = _unknown_ranks.any_unknown(logits)
        if not unknown:
            check.check_axis(-1, xp.shape(logits))
        if label_smoothing > 0:
            eps = float(label_smoothing)
            classes = None if unknown else xp.shape(logits)[-1]
            labels = labels * (1.0 - eps) + eps / (classes or _length(xp, logits, dtype))
        labels, logits = accumulate(xp, xp.stop_gradient(labels)), accumulate(xp, logits)
        losses = -xp.sum(labels * log_softmax(xp, logits), axis=-1)
        # Adds 0 to the loss, but makes its gradient softmax(z) - q, as in TensorFlow, not sum(q) softmax(z) - q.
        missing = (1.0 - xp.sum(labels, axis=-1)) * xp.logsumexp(logits, axis=-1)
        losses = losses + (missing - xp.stop_gradient(missing))
        return compute_weighted_loss(xp.cast(losses, dtype), weights, scope, loss_collection, reduction)


def sigmoid_cross_entropy(
    multi_class_labels: Array,
    logits: Array,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """``tf.compat.v1.losses.sigmoid_cross_entropy``: ``max(z, 0) - z l + log(1 + exp(-|z|))``, weighted.

    l = (1 - eps) t + eps / 2. As in TensorFlow, an infinite logit gives NaN or inf, and the labels get a gradient.

    Args:
        multi_class_labels: t in [0, 1], any dtype, in the shape of the logits.
        logits: z, floating point, any shape.
        weights: a scalar, or of the logits' rank, each dimension 1 or equal.
        label_smoothing: eps; no smoothing at 0 and below.
        scope: the name scope of the ops, on TensorFlow.
        loss_collection: the collection of a TensorFlow graph that the loss is added to, or None.
        reduction: one of `Reduction`.

    Returns:
        A scalar, or the logits' shape for ``Reduction.NONE``, in the logits' dtype.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat import tf_losses
        >>> float(tf_losses.sigmoid_cross_entropy([[1, 0]], np.array([[3.0, -1.0]]), label_smoothing=0.1).round(4))
        0.2809
    """
    xp = backend_of(multi_class_labels=multi_class_labels, logits=logits, weights=weights)
    with _name_scope(xp, scope, "sigmoid_cross_entropy_loss"):
        labels, logits = _same_shape(xp, "multi_class_labels", multi_class_labels, logits)
        dtype = xp.dtype(logits)
        if label_smoothing > 0:
            eps = float(label_smoothing)
            labels = labels * (1.0 - eps) + 0.5 * eps
        labels, logits = accumulate(xp, labels), accumulate(xp, logits)
        positive = logits >= 0
        losses = xp.where(positive, logits, 0.0) - logits * labels
        losses = losses + xp.softplus(xp.where(positive, -logits, logits))
        return compute_weighted_loss(xp.cast(losses, dtype), weights, scope, loss_collection, reduction)


def sparse_softmax_cross_entropy(
    labels: Array,
    logits: Array,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """``tf.compat.v1.losses.sparse_softmax_cross_entropy``: ``-log softmax(z)_y`` of each row, weighted.

    An extra last dimension of size 1, of labels, logits or weights, is removed.

    Args:
        labels: y, class ids, integers (...).
        logits: z, floating point, (..., classes).
        weights: a scalar, or of the labels' rank, each dimension 1 or equal.
        scope: the name scope of the ops, on TensorFlow.
        loss_collection: the collection of a TensorFlow graph that the loss is added to, or None.
        reduction: one of `Reduction`.

    Returns:
        A scalar, or (...) for ``Reduction.NONE``, in the logits' dtype.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat import tf_losses
        >>> float(tf_losses.sparse_softmax_cross_entropy([0], np.array([[2.0, 0.0, 0.0]])).round(4))
        0.2395
    """
    xp = backend_of(labels=labels, logits=logits, weights=weights)
    with _name_scope(xp, scope, "sparse_softmax_cross_entropy_loss"):
        labels, logits = _arrays(xp, "labels", labels, logits)
        labels = check.class_ids(xp, labels)
        _check_given(weights=weights)
        weights = xp.asarray(weights, "float32", like=logits)
        if _unknown_ranks.any_unknown(labels, logits):
            labels, logits, shape = _unknown_ranks.flat_rows(labels, logits)
            losses = xp.reshape(xp.softmax_cross_entropy(logits, labels), shape)
        else:
            labels, logits = _rows(xp, labels, logits)
            losses = xp.softmax_cross_entropy(logits, labels)
        weights = _weights_of_rows(xp, weights, losses)
        return compute_weighted_loss(xp.cast(losses, xp.dtype(logits)), weights, scope, loss_collection, reduction)


def compute_weighted_loss(
    losses: Array,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """``tf.compat.v1.losses.compute_weighted_loss``: losses times weights, reduced in float32.

    Args:
        losses: floating point, any shape.
        weights: a scalar, or of the losses' rank, each dimension 1 or equal.
        scope: the name scope of the ops, on TensorFlow.
        loss_collection: the collection of a TensorFlow graph that the loss is added to, or None.
        reduction: one of `Reduction`; a sum divided by 0 is 0.

    Returns:
        A scalar, or the losses' shape for ``Reduction.NONE``, in the losses' dtype.

    Examples:
        >>> float(compute_weighted_loss([1.0, 2.0, 3.0], [1.0, 1.0, 0.0]))
        1.5
    """
    Reduction.validate(reduction)
    xp = backend_of(losses=losses, weights=weights)
    _check_given(losses=losses, weights=weights)
    with _name_scope(xp, scope, "weighted_loss"):
        dtype = xp.dtype(xp.asarray(losses)) if hasattr(losses, "dtype") else "float32"
        losses = xp.asarray(losses, "float32", like=weights if xp.is_array(weights) else None)
        weights = xp.asarray(weights, "float32", like=losses)
        if _unknown_ranks.any_unknown(losses, weights):
            weights = _unknown_ranks.fitting_weights(weights, losses)
        else:
            check.check_weight_shape("weights", xp.shape(weights), xp.shape(losses))
        loss = losses * weights
        if reduction != Reduction.NONE:
            loss = xp.sum(loss)
        if reduction not in (Reduction.NONE, Reduction.SUM):
            loss = quotient(xp, loss, _divisor(xp, losses, weights, reduction))
        loss = xp.cast(loss, dtype)
        if loss_collection is not None and xp.name == "tensorflow":
            import tensorflow as tf

            tf.compat.v1.losses.add_loss(loss, loss_collection)
        return loss


def _divisor(xp: Backend, losses: Array, weights: Array, reduction: str) -> Array:
    counts = xp.ones_like(losses, "float32")
    if reduction == Reduction.MEAN:
        counts = counts * weights
    elif reduction == Reduction.SUM_BY_NONZERO_WEIGHTS:
        counts = counts * xp.cast(~xp.equal(weights, 0), "float32")
    return xp.sum(counts)


def _check_given(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is None:
            raise ValueError(f"{name} must not be None.")


def _arrays(xp: Backend, name: str, labels: Any, logits: Any) -> tuple[Array, Array]:
    """Labels, and logits, which are float32 if they are Python numbers."""
    _check_given(**{name: labels, "logits": logits})
    array = xp.asarray(logits, like=labels if xp.is_array(labels) else None)
    check.check_float("logits", xp.dtype(array))
    array = array if hasattr(logits, "dtype") else xp.cast(array, "float32")
    return xp.asarray(labels, like=array), array


def _same_shape(xp: Backend, name: str, labels: Any, logits: Any) -> tuple[Array, Array]:
    """Labels and logits, both of the logits' dtype."""
    labels, logits = _arrays(xp, name, labels, logits)
    if _unknown_ranks.any_unknown(labels, logits):
        labels = _unknown_ranks.with_shape_of(name, labels, logits)
    elif not check.same_shape(xp.shape(labels), xp.shape(logits)):
        raise ValueError(f"{name} must have the shape of the logits, {xp.shape(logits)}; got {xp.shape(labels)}.")
    return xp.cast(labels, xp.dtype(logits)), logits


def _rows(xp: Backend, labels: Array, logits: Array) -> tuple[Array, Array]:
    """Labels (...) and logits (..., classes), without an extra last dimension of size 1."""
    if len(xp.shape(labels)) == len(xp.shape(logits)):
        labels = _squeezed(xp, "labels", labels)
    elif len(xp.shape(labels)) == len(xp.shape(logits)) - 2:
        logits = _squeezed(xp, "logits", logits)
    check.check_axis(-1, xp.shape(logits))
    if not check.same_shape(xp.shape(labels), xp.shape(logits)[:-1]):
        raise ValueError(f"labels must have shape {xp.shape(logits)[:-1]}, got {xp.shape(labels)}.")
    if check.is_validating(xp, labels, logits):
        check.check_class_ids(xp, labels, xp.shape(logits)[-1])
    return labels, logits


def _weights_of_rows(xp: Backend, weights: Array, losses: Array) -> Array:
    """The weights without an extra last dimension of size 1."""
    if _unknown_ranks.any_unknown(weights, losses):
        return _unknown_ranks.without_last_axis(weights, losses)
    one_more = len(xp.shape(weights)) == len(xp.shape(losses)) + 1
    return _squeezed(xp, "weights", weights) if one_more else weights


def _length(xp: Backend, logits: Array, dtype: str) -> Array:
    """The number of classes of each row, (..., 1)."""
    return xp.cast(xp.sum(xp.ones_like(logits, "float32"), axis=-1), dtype)[..., None]


def _squeezed(xp: Backend, name: str, array: Array) -> Array:
    shape = xp.shape(array)
    if not shape or shape[-1] not in (1, None):
        raise ValueError(f"{name} has an extra dimension, which must be last and of size 1; got shape {shape}.")
    return array[..., 0]


def _name_scope(xp: Backend, scope: str | None, default: str) -> AbstractContextManager[Any]:
    if xp.name != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    return tf.compat.v1.name_scope(scope, default)
