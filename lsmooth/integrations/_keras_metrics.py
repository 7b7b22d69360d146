"""The streaming metrics of `lsmooth.metrics` as ``keras.metrics.Metric``."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np

from lsmooth import metrics
from lsmooth._keras_settings import get_mask
from lsmooth._sums import has_float64
from lsmooth.backends import Array, backend_of, load_backend
from lsmooth.integrations._sums import KeptSums

_register = keras.saving.register_keras_serializable("lsmooth")


class _Metric(KeptSums, keras.metrics.Metric):
    def __init__(self, *, num_classes: int = 2, name: str | None = None, dtype: Any = None, **options: Any):
        super().__init__(name=name, dtype=dtype)
        self._own = self._kind(**options)
        self._given = {"num_classes": num_classes, **options}
        xp = load_backend(keras.backend.backend())
        wide = "float64" if has_float64(xp, xp.asarray(1.0, "float32")) else "float32"
        self._sums = [
            self.add_variable(zeros.shape, keras.initializers.Zeros(), dtype=wide, name=f"sums_{i}")
            for i, zeros in enumerate(self._own._empty(num_classes))
        ]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: class ids, also floating point or with a class axis of length 1; or one-hot rows.
            y_pred: probabilities, or logits with ``from_logits=True``. Rows masked by a layer are excluded.
            sample_weight: weights of the rows.
        """
        mask = get_mask(y_pred)
        y_pred, y_true = keras.ops.convert_to_tensor(y_pred), keras.ops.convert_to_tensor(y_true)
        axis, _, _, binary = self._own._options
        labels, y_pred = _binary(y_true, y_pred) if binary else (_class_ids(y_true, y_pred, axis), y_pred)
        if mask is not None:
            kept: Any = keras.ops.reshape(keras.ops.cast(mask, "float32"), keras.ops.shape(labels))
            sample_weight = kept if sample_weight is None else kept * keras.ops.cast(sample_weight, "float32")
        if sample_weight is not None:
            sample_weight = keras.ops.convert_to_tensor(sample_weight)
            if len(sample_weight.shape) == len(labels.shape) + 1:
                sample_weight = keras.ops.squeeze(sample_weight, -1)
        for sums, new in zip(self._sums, self._batch(labels, y_pred, sample_weight), strict=True):
            if tuple(new.shape) != tuple(sums.shape):
                raise ValueError(
                    f"y_pred must have num_classes classes: a batch has sums of shape {tuple(new.shape)}, the metric "
                    f"{tuple(sums.shape)}; give num_classes={y_pred.shape[axis]}."
                )
            new = keras.ops.convert_to_tensor(new, dtype=sums.dtype)
            sums.assign(keras.ops.add(sums, keras.ops.stop_gradient(new)))

    def result(self) -> Array:
        """The metric of all rows so far; 0 before the first."""
        sums = tuple(keras.ops.convert_to_tensor(x) for x in self._sums)
        return keras.ops.cast(self._own._value(backend_of(sums=sums[0]), sums), self.dtype)

    def merge_state(self, *others: Self) -> Self:
        """Add the rows of other metrics of the same class and options, and return this metric."""
        self._add(others)
        return self

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), **self._given}

    def _read(self) -> list[np.ndarray]:
        return [np.asarray(keras.ops.convert_to_numpy(x)) for x in self._sums]

    def _write(self, sums: list[np.ndarray]) -> None:
        for kept, new in zip(self._sums, sums, strict=True):
            kept.assign(new)


def _class_ids(y_true: Array, y_pred: Array, axis: int) -> Array:
    """Class ids in the shape of the rows, from labels in any form that Keras' metrics accept."""
    if len(y_true.shape) == len(y_pred.shape):
        if y_true.shape[axis] != 1:
            return keras.ops.argmax(y_true, axis)
        y_true = keras.ops.squeeze(y_true, axis)
    return keras.ops.cast(y_true, "int32") if keras.backend.is_float_dtype(y_true.dtype) else y_true


def _binary(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Binary labels and their probabilities, both without a last axis of length 1, which one of them may lack."""
    if len(y_pred.shape) > 1 and y_pred.shape[-1] == 1:
        y_true = keras.ops.squeeze(y_true, -1) if len(y_true.shape) == len(y_pred.shape) else y_true
        y_pred = keras.ops.squeeze(y_pred, -1)
    return keras.ops.cast(y_true, "int32"), y_pred


@_register
class CalibrationError(_Metric):
    """`lsmooth.metrics.CalibrationError` as a ``keras.metrics.Metric``.

    The sums are float64 where Keras' backend has it, else float32.

    Args:
        num_classes: the number of classes, needed with ``classwise=True``.
        name: of the metric.
        dtype: of the result.
        **options: those of `lsmooth.metrics.CalibrationError`.

    Examples:
        >>> import keras
        >>> from lsmooth.integrations.keras import CalibrationError
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> model.compile(loss="sparse_categorical_crossentropy", metrics=[CalibrationError(from_logits=True)])
        >>> metric = CalibrationError(n_bins=2)
        >>> metric.update_state([0, 0], [[0.75, 0.25], [0.25, 0.75]])
        >>> float(metric.result())
        0.25
    """

    _kind = metrics.CalibrationError


@_register
class NegativeLogLikelihood(_Metric):
    """`lsmooth.metrics.NegativeLogLikelihood` as a Keras metric with its options, ``name`` and ``dtype``."""

    _kind = metrics.NegativeLogLikelihood


@_register
class BrierScore(_Metric):
    """`lsmooth.metrics.BrierScore` as a Keras metric with its options, ``name`` and ``dtype``."""

    _kind = metrics.BrierScore
