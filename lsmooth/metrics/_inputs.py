"""What every metric does first: labels and predictions that fit, classes last, and the rows that count."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of, load_backend
from lsmooth.backends.formulas import accumulate


class Inputs(NamedTuple):
    """The arguments of a metric, checked; rows are flat and classes are last."""

    xp: Backend
    labels: Array
    """(rows,) class ids, 0 where a row does not count."""
    predictions: Array
    """(rows, classes), float32 or float64; uniform where a row does not count."""
    weight: Array
    """(rows,), 0 where a row does not count, NaN where its label is no class."""
    dtype: str
    from_logits: bool
    home: Backend
    """Of the predictions as they were given; ``xp`` is NumPy's where that is quicker."""
    given: Array

    def answer(self, x: Array) -> Array:
        """``x`` in the predictions' precision, as an array of their framework."""
        x = self.xp.cast(x, self.dtype)
        return x if self.home is self.xp else self.home.asarray(x, like=self.given)


# Up to this many predictions on a processor, NumPy's calls cost less than a framework's.
SMALL = 2**20


def prepare(
    labels: Any,
    predictions: Any,
    sample_weight: Any,
    axis: int,
    ignore_index: int | None,
    from_logits: bool,
    binary: bool = False,
) -> Inputs:
    """Check labels and predictions; of a yes-or-no question make two classes.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit.
    """
    xp = backend_of(labels=labels, predictions=predictions, sample_weight=sample_weight)
    predictions = check.float_array(xp, "predictions", predictions, like=labels if xp.is_array(labels) else None)
    home, given = xp, predictions
    host = _on_host(xp, labels, predictions, sample_weight)
    if host is not None:
        xp, (labels, predictions, sample_weight) = load_backend("numpy"), host
    if binary:
        labels, predictions = _two_classes(xp, labels, predictions, from_logits)
        axis = -1
    labels, front, soft = check.check_labels(xp, labels, predictions, axis, "predictions")
    predictions = accumulate(xp, xp.moveaxis(predictions, front, -1))
    dtype, classes = xp.dtype(predictions), xp.shape(predictions)[-1]
    if soft:
        raise ValueError(
            f"labels must be class ids of shape {xp.shape(predictions)[:-1]}, got {xp.shape(labels)}; "
            "take the argmax of one-hot rows."
        )
    counted = None if ignore_index is None else ~xp.equal(labels, ignore_index)
    if check.is_validating(xp, labels, predictions):
        check.check_not_nan(xp, "predictions", predictions)
        check.check_class_ids(xp, labels, classes, counted)
    weight = xp.ones_like(labels, dtype)
    if sample_weight is not None:
        sample_weight = xp.asarray(sample_weight, dtype, like=predictions)
        check.check_weight_shape("sample_weight", xp.shape(sample_weight), xp.shape(labels))
        weight = weight * sample_weight
    valid = (labels >= 0) & (labels < classes)
    if counted is not None:
        valid = valid | ~counted
        weight = xp.where(counted, weight, 0.0)
    weight = xp.where(valid, weight, float("nan"))
    labels, weight = xp.reshape(xp.where(weight > 0, labels, 0), (-1,)), xp.reshape(weight, (-1,))
    predictions = xp.reshape(predictions, (-1, classes))
    if counted is not None or sample_weight is not None:  # a pass over the predictions, for what they hold there
        predictions = xp.where(xp.equal(weight, 0)[:, None], 0.0 if from_logits else 1.0 / classes, predictions)
    return Inputs(xp, labels, predictions, weight, dtype, from_logits, home, given)


def _on_host(xp: Backend, *arrays: Any) -> list[Any] | None:
    """Labels, predictions and weights for NumPy, where they are small, near and nothing watches them."""
    own = [x for x in arrays if xp.is_array(x)]
    if xp.name == "numpy" or not all(xp.is_concrete(x) for x in own):
        return None
    if xp.size(arrays[1]) > SMALL or xp.is_watched(*own) or any(xp.host_view(x) is None for x in own):
        return None
    return [xp.host_view(x) if xp.is_array(x) else x for x in arrays]


def _two_classes(xp: Backend, labels: Any, predictions: Array, from_logits: bool) -> tuple[Array, Array]:
    """Labels of any dtype as ids, and the class 0 put before the class 1 that was given."""
    labels = xp.asarray(labels, like=predictions)
    if not check.same_shape(xp.shape(labels), xp.shape(predictions)):
        raise ValueError(
            f"labels must have the shape of the predictions, {xp.shape(predictions)}, where binary=True; "
            f"got {xp.shape(labels)}."
        )
    if not check.is_integer(xp, labels):
        labels = xp.cast(labels, "int32")
    predictions = accumulate(xp, predictions)[..., None]
    first = xp.asarray(np.array([True, False]), like=predictions)
    return labels, xp.where(first, predictions * 0.0 if from_logits else 1.0 - predictions, predictions)


def top_label(inputs: Inputs) -> tuple[Array, Array]:
    """The confidence in the likeliest class, and 1 where that is the label, else 0; (rows,) both."""
    xp, predictions = inputs.xp, inputs.predictions
    top, correct = xp.top(predictions, inputs.labels)
    if inputs.from_logits:
        # No rounding can take it out of (0, 1]: the sum holds exp(0).
        top = 1.0 / xp.sum(xp.exp(predictions - top[:, None]), axis=-1)
    return top, xp.cast(correct, inputs.dtype)


def probabilities(inputs: Inputs) -> Array:
    """(rows, classes), from whichever of logits and probabilities were given."""
    if not inputs.from_logits:
        return inputs.predictions
    xp = inputs.xp
    return xp.exp(inputs.predictions - xp.logsumexp(inputs.predictions, axis=-1)[:, None])


def mean(xp: Backend, values: Array, weight: Array, dtype: str) -> Array:
    """The mean of the rows by weight, summed in float64 where there is one; 0 of nothing."""
    weight = xp.cast(weight, "float64")
    total = xp.sum(weight)
    summed = xp.sum(xp.where(xp.equal(weight, 0), 0.0, weight * xp.cast(values, "float64")))
    return xp.cast(summed / xp.where(xp.equal(total, 0), 1.0, total), dtype)
