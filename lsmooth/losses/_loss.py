"""The base class of loss objects: Keras' `Loss`, for the tensors of any backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Self

from lsmooth import _keras_settings as keras_settings
from lsmooth._keras_settings import join_keras
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, quotient
from lsmooth.backends.ragged import over_ragged_rows

KERAS_REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


class _Replaceable:
    """The base of `Loss` until Keras is imported: Python cannot replace ``object`` in ``__bases__``."""


class Loss(_Replaceable):
    """A loss as an object: ``loss(y_true, y_pred, sample_weight)`` is `call`, weighted and reduced.

    | reduction | the sum of the weighted losses is divided by |
    |---|---|
    | ``"sum_over_batch_size"``, ``"mean"`` | the number of losses; under a mask, of those it keeps |
    | ``"mean_with_sample_weight"`` | the sum of ``sample_weight`` as it was given, times the mask |
    | ``"sum"`` | 1 |
    | ``"none"``, None | nothing: the weighted losses themselves |

    Subclasses implement ``call(y_true, y_pred)``, which returns the losses before reduction.
    The mask of a Keras layer on ``y_pred`` (``_keras_mask``) excludes entries from the mean.

    Once Keras is imported, this class is a ``keras.losses.Loss``, for ``model.compile(loss=...)``. As in Keras,
    a mean under a TensorFlow strategy is divided by the number of replicas, because the replicas' losses are summed.

    Args:
        name: the name of the class in snake case by default.
        reduction: one of the table.
        dtype: the dtype of the computation and the result: a name, a dtype of any framework, or a Keras dtype
            policy. The default is ``keras.config.floatx()`` if Keras is imported, else ``"float32"``. Half
            precision is reduced in float32.

    Raises:
        ValueError: if the reduction is unknown or the dtype is not floating point.

    Source: ``keras.losses.Loss`` of Keras 3.15.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import Loss
        >>> class SquaredError(Loss):
        ...     def call(self, y_true, y_pred):
        ...         return (y_true - y_pred) ** 2
        >>> loss = SquaredError()
        >>> loss.name, float(loss([0.0, 0.0], np.array([1.0, 3.0]), sample_weight=[1.0, 0.0]))
        ('squared_error', 0.5)
    """

    # Keras pickles by way of a model file.
    __reduce__ = object.__reduce__

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None):
        join_keras()
        if reduction not in KERAS_REDUCTIONS:
            raise ValueError(
                f"Invalid value for argument reduction: it must be one of {', '.join(map(str, KERAS_REDUCTIONS))}; "
                f"got {reduction!r}."
            )
        self.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()
        self.reduction = reduction
        self._has_own_dtype = dtype is not None
        self._dtype = keras_settings.compute_dtype(keras_settings.floatx() if dtype is None else dtype)

    @property
    def dtype(self) -> str:
        """The name of the dtype that the loss is computed in and returned in."""
        return self._dtype

    @over_ragged_rows("y_pred")
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        """The loss of a batch.

        Args:
            y_true: the targets, as `call` expects them: an array, or a dict or tuple of arrays.
            y_pred: the predictions.
            sample_weight: weights of the losses; broadcasts to them. One trailing dimension of size 1
                may be missing or in excess.

        Returns:
            A scalar, or the losses for ``reduction=None``, in `dtype`.
        """
        leaves = {**_leaves("y_pred", y_pred), **_leaves("y_true", y_true)}
        xp = backend_of(**leaves, sample_weight=sample_weight)
        like = next(filter(xp.is_array, leaves.values()), None)
        mask = keras_settings.get_mask(y_pred)
        y_true = _map(lambda x: self._as_labels(xp, x, like), y_true)
        y_pred = _map(lambda x: xp.asarray(x, self.dtype, like=like), y_pred)
        losses, own_mask = self._losses_and_mask(y_true, y_pred)
        if own_mask is not None:
            mask = own_mask if mask is None else mask & own_mask
        loss = reduce_weighted(xp, xp.asarray(losses), sample_weight, mask, self.reduction)
        return xp.cast(loss, self.dtype)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The losses before weights and reduction, of arrays in `dtype`; subclasses implement it."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(y_true, y_pred).")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; arguments unknown to Keras only if not at their defaults."""
        config: dict[str, Any] = {"name": self.name, "reduction": self.reduction}
        return {**config, "dtype": self.dtype} if self._has_own_dtype else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The loss with the arguments that `get_config` returned."""
        return cls(**config)

    def _as_labels(self, xp: Backend, y_true: Any, like: Array | None) -> Array:
        return xp.asarray(y_true, self.dtype, like=like)

    def _losses_and_mask(self, y_true: Array, y_pred: Array) -> tuple[Array, Array | None]:
        losses = self.call(y_true, y_pred)
        return losses, keras_settings.get_mask(losses)


def squeeze_or_expand_to_same_rank(x1: Array, x2: Array) -> tuple[Array, Array]:
    """Both arrays at the same rank, if they differ by one trailing dimension of size 1; as Keras does it.

    The array of higher rank loses the dimension, unless the other one has a single dimension and gains it.
    """
    return same_rank(backend_of(x1=x1, x2=x2), x1, x2)


def same_rank(xp: Backend, a: Array, b: Array) -> tuple[Array, Array]:
    """`squeeze_or_expand_to_same_rank` for a known backend."""
    if len(xp.shape(a)) < len(xp.shape(b)):
        b, a = same_rank(xp, b, a)
    elif len(xp.shape(a)) == len(xp.shape(b)) + 1 and xp.shape(a)[-1] == 1:
        if len(xp.shape(b)) == 1:
            b = b[..., None]
        else:
            a = a[..., 0]
    return a, b


def reduce_weighted(xp: Backend, losses: Array, sample_weight: Any, mask: Any, reduction: str | None) -> Array:
    """Losses times weights, masked and reduced as in Keras, in at least float32; 0 / 0 is 0."""
    losses = accumulate(xp, losses)
    dtype = xp.dtype(losses)
    weight = None if sample_weight is None else xp.asarray(sample_weight, dtype, like=losses)
    if mask is not None:
        kept = xp.asarray(mask, dtype, like=losses)
        if reduction in ("mean", "sum_over_batch_size"):
            # Scaled, so that dividing by the number of all entries gives the mean of those that are kept.
            kept = kept * quotient(xp, _size(xp, kept, dtype), xp.sum(kept))
        if weight is not None:
            kept, weight = same_rank(xp, kept, weight)
        weight = kept if weight is None else kept * weight
    if weight is not None:
        losses, weight = same_rank(xp, losses, weight)
        losses = losses * weight
    if reduction in ("none", None) or xp.shape(losses) == ():
        return losses
    if reduction == "sum":
        return xp.sum(losses)
    total, size = xp.sum(losses), xp.size(losses)
    if reduction == "mean_with_sample_weight" and weight is not None:
        mean = quotient(xp, total, xp.sum(weight))
    elif isinstance(size, int):
        mean = total * (1.0 / max(size, 1))
    else:
        mean = quotient(xp, total, _size(xp, losses, dtype))
    return keras_settings.share_of_replica(xp, mean)


def _size(xp: Backend, x: Array, dtype: str) -> Array:
    return xp.asarray(xp.size(x), dtype, like=x)


def _map(function: Callable[[Any], Array], x: Any) -> Any:
    """``function`` of an array, or of each array in a dict or tuple of them."""
    if isinstance(x, dict):
        return {key: _map(function, value) for key, value in x.items()}
    return tuple(_map(function, value) for value in x) if _is_tuple_of_arrays(x) else function(x)


def _leaves(name: str, x: Any) -> dict[str, Any]:
    """The arrays in ``x`` by their path."""
    if not isinstance(x, dict) and not _is_tuple_of_arrays(x):
        return {name: x}
    items = x.items() if isinstance(x, dict) else enumerate(x)
    nested = [_leaves(f"{name}[{key!r}]", value) for key, value in items]
    return {leaf: value for leaves in nested for leaf, value in leaves.items()}


def _is_tuple_of_arrays(x: Any) -> bool:
    return isinstance(x, tuple) and bool(x) and all(isinstance(item, dict) or hasattr(item, "shape") for item in x)
