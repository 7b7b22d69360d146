"""The arguments of a metric: checks of labels and predictions, classes last, and the rows that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth._probabilities import ROUNDING, check_distributions
from lsmooth._sums import has_float64, long_sum, quiet
from lsmooth.backends import Array, Backend, backend_of, load_backend
from lsmooth.backends.formulas.rows import accumulate


class Inputs(NamedTuple):
    """The checked arguments of a metric; rows are flat and classes are last."""

    xp: Backend
    labels: Array
    """(rows,) class ids, 0 where a row does not count."""
    predictions: Array
    """(rows, classes), float32 or float64; uniform where a row does not count."""
    weight: Array
    """(rows,), 0 where a row does not count, NaN where its label is not a class."""
    dtype: str
    from_logits: bool
    home: Backend
    """The backend of the given predictions; ``xp`` is NumPy's where that is faster."""
    given: Array
    memo: dict[Hashable, Any]
    """The results of `once`."""

    def once(self, name: Hashable, function: Callable[[], Any]) -> Any:
        """``function()``, computed once for these rows, since it does not depend on their weights."""
        if name not in self.memo:
            self.memo[name] = function()
        return self.memo[name]

    def weighted(self, factor: Array | None) -> Inputs:
        """The same rows with their weights times ``factor``, (rows,); a factor of 0 leaves out a row of weight NaN."""
        if factor is None:
            return self
        xp = self.xp
        factor = xp.asarray(factor, self.dtype, like=self.predictions)
        return self._replace(weight=xp.where(xp.equal(factor, 0), 0.0, self.weight * factor))

    def relabeled(self, labels: np.ndarray) -> Inputs:
        """The same predictions with other labels, (rows,)."""
        labels = self.xp.asarray(labels, self.xp.dtype(self.labels), like=self.labels)
        return self._replace(labels=labels, memo={"probabilities": probabilities(self)})

    def answer(self, x: Array) -> Array:
        """``x`` in the predictions' precision, as an array of their framework."""
        x = self.xp.cast(x, self.dtype)
        return x if self.home is self.xp else self.home.asarray(x, like=self.given)


# Up to this many predictions on the host, NumPy's calls cost less than a framework's.
SMALL = 2**20
BLOCK = 2**17
"""The predictions in a block of rows."""


def prepare(
    labels: Any,
    predictions: Any,
    sample_weight: Any,
    axis: int,
    ignore_index: int | None,
    from_logits: bool,
    binary: bool | None = None,
) -> Inputs:
    """Check labels and predictions; binary predictions become two classes.

    ``binary`` is None for a metric without this option. If the labels are `Inputs`, only their weights are multiplied
    by ``sample_weight``.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.
    """
    if isinstance(labels, Inputs):
        return labels.weighted(sample_weight)
    from_logits = check.check_flag("from_logits", from_logits)
    two = binary is not None and check.check_flag("binary", binary)
    ignore_index = check.check_ignore_index(ignore_index)
    xp = backend_of(labels=labels, predictions=predictions, sample_weight=sample_weight)
    predictions = check.logits_array(xp, "predictions", predictions, labels, "brier_score(labels, predictions)")
    home, given = xp, predictions
    host = _on_host(xp, labels, predictions, sample_weight)
    if host is not None:
        xp, (labels, predictions, sample_weight) = load_backend("numpy"), host
    given_labels = labels
    if two:
        given_labels, labels, predictions = _two_classes(xp, labels, predictions, from_logits, ignore_index)
        axis = -1
    labels, front, soft = check.check_labels(xp, labels, predictions, axis, "predictions")
    predictions = accumulate(xp, xp.moveaxis(predictions, front, -1))
    dtype, classes = xp.dtype(predictions), check.known_classes("predictions", xp.shape(predictions))
    if soft:
        instead = "stack 1 - p and p as two classes" if binary is None else "give binary=True"
        raise ValueError(
            f"labels must be class ids of shape {xp.shape(predictions)[:-1]}, got {xp.shape(labels)}; "
            f"take the argmax of one-hot rows. If every label answers a yes-or-no question of its own, {instead}."
        )
    if classes == 1:
        raise ValueError(
            f"predictions must have at least two classes, got shape {xp.shape(given)} with axis={axis}. "
            + (
                "Stack 1 - p and p as two classes."
                if binary is None
                else "Of one probability or logit a row, that of class 1, give binary=True."
            )
        )
    weight = xp.ones_like(labels, dtype)
    if sample_weight is not None:
        sample_weight = check.to_array(xp, "sample_weight", sample_weight, dtype, like=predictions)
        check.check_weight_shape("sample_weight", xp.shape(sample_weight), xp.shape(labels))
        weight = weight * sample_weight
    if ignore_index is not None:
        weight = xp.where(xp.equal(labels, ignore_index), 0.0, weight)
    valid = (labels >= 0) & (labels < classes) & (weight >= 0)
    if ignore_index is not None or sample_weight is not None:
        left_out = xp.equal(weight, 0)
        predictions = xp.where(left_out[..., None], 0.0 if from_logits else 1.0 / classes, predictions)
        valid = valid | left_out
    if check.is_validating(xp, labels, predictions):
        _check_values(xp, given_labels if two else labels, predictions, weight, from_logits, two)
    labels, weight, valid = (xp.reshape(x, (-1,)) for x in (labels, weight, valid))
    predictions = xp.reshape(predictions, (-1, classes))
    if not from_logits:
        possible = are_probabilities(xp, predictions)
        valid = valid & possible
        if xp.name == "numpy" and not possible.all():  # NumPy would warn of logarithms of negative numbers
            predictions = np.where(possible[:, None], predictions, np.asarray(1.0 / classes, dtype))
    weight = xp.where(valid, weight, float("nan"))
    labels = xp.where(weight > 0, labels, 0)
    return Inputs(xp, labels, predictions, weight, dtype, from_logits, home, given, {})


def row_blocks(labels: Any, predictions: Any, sample_weight: Any, axis: int, binary: bool) -> Iterator[tuple[Any, ...]]:
    """Labels, predictions and weights in blocks of rows that fit the processor's cache, for sums over rows.

    Arrays on an accelerator, traced ones, and those that require a gradient stay whole.
    """
    arrays = [x for x in (labels, predictions, sample_weight) if x is not None]
    whole = labels, predictions, sample_weight
    if isinstance(labels, Inputs) or not all(hasattr(x, "shape") for x in arrays):
        yield whole
        return
    xp = backend_of(labels=labels, predictions=predictions, sample_weight=sample_weight)
    shapes = [tuple(x.shape) for x in arrays]
    rank, rows = len(shapes[1]), shapes[1][0] if shapes[1] else 0
    known = all(isinstance(n, int) for shape in shapes for n in shape)
    if (
        not known
        or not shapes[0]
        or shapes[0][0] != rows
        or not isinstance(axis, int)
        or (not binary and axis % rank == 0)
    ):
        yield whole
        return
    step = max(1, BLOCK * rows // max(1, math.prod(shapes[1])))
    own = [x for x in arrays if xp.is_array(x)]
    on_host = all(xp.is_concrete(x) and (xp.name == "numpy" or xp.host_values(x) is not None) for x in own)
    if rows <= 2 * step or not on_host or check.is_validating(xp, *own):
        yield whole
        return
    for start in range(0, rows, step):
        part = slice(start, start + step)
        weight = sample_weight[part] if len(shapes) == 3 and shapes[2][:1] == (rows,) else sample_weight
        yield labels[part], predictions[part], weight


def are_probabilities(xp: Backend, predictions: Array) -> Array:
    """(rows,), whether a row is in [0, 1] up to rounding; NaN passes, since it remains in the result."""
    if xp.name == "numpy" and predictions.size and predictions.min() >= 0 and predictions.max() <= 1:
        return np.ones(len(predictions), bool)  # two passes over the whole array are faster than two along the rows
    below, above = xp.max(-predictions, axis=-1), xp.max(predictions, axis=-1)
    return ~((below > ROUNDING) | (above > 1.0 + ROUNDING))


def _check_values(
    xp: Backend, labels: Array, predictions: Array, weight: Array, from_logits: bool, binary: bool
) -> None:
    """Under `validate`, check that labels are classes, predictions probabilities, and weights at least 0."""
    y, p, w = (xp.to_numpy(x) for x in (labels, predictions, weight))
    counted = ~(w == 0)
    if (w < 0).any() or np.isnan(w).any():
        raise ValueError("sample_weight must be numbers of at least 0.")
    bad = counted & ~((y == 0) | (y == 1) if binary else (y >= 0) & (y < p.shape[-1]))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        what = "0 or 1 where binary=True" if binary else f"class ids in 0..{p.shape[-1] - 1}"
        raise ValueError(f"labels must be {what}, got {y[where]} at index {where}.")
    check.check_not_nan(xp, "predictions", predictions)
    if not from_logits:
        check_distributions("predictions", p)


def _on_host(xp: Backend, *arrays: Any) -> list[Any] | None:
    """Labels, predictions and weights as NumPy arrays if it can read them, and is faster or more precise."""
    own = [x for x in arrays if xp.is_array(x)]
    if xp.name == "numpy" or not all(xp.is_concrete(x) for x in own):
        return None
    if xp.size(arrays[1]) > SMALL and has_float64(xp, own[0]):
        return None
    values = [xp.host_values(x) if xp.is_array(x) else x for x in arrays]
    return None if any(x is None and y is not None for x, y in zip(values, arrays, strict=True)) else values


def _two_classes(
    xp: Backend, labels: Any, predictions: Array, from_logits: bool, ignore_index: int | None
) -> tuple[Array, Array, Array]:
    """The labels; their ids, 2 or 3 if they are neither 0 nor 1; and predictions of the classes 0 and 1."""
    labels = check.to_array(xp, "labels", labels, like=predictions)
    if len(xp.shape(predictions)) == len(xp.shape(labels)) + 1 and xp.shape(predictions)[-1] == 1:
        predictions = predictions[..., 0]  # a column, the output of models with one unit
    if not check.same_shape(xp.shape(labels), xp.shape(predictions)):
        raise ValueError(
            f"labels must have the shape of the predictions, {xp.shape(predictions)}, where binary=True; "
            f"got {xp.shape(labels)}."
        )
    ids = labels
    if not check.is_integer(xp, labels):
        if xp.dtype(labels) != "bool":
            known = xp.equal(labels, 0) | xp.equal(labels, 1)
            known = known if ignore_index is None else known | xp.equal(labels, ignore_index)
            labels = xp.where(known, labels, 3 if ignore_index == 2 else 2)
        ids, labels = xp.cast(labels, "int32"), ids
    predictions = accumulate(xp, predictions)[..., None]
    first = xp.asarray(np.array([True, False]), like=predictions)
    return labels, ids, xp.where(first, predictions * 0.0 if from_logits else 1.0 - predictions, predictions)


def top_label(inputs: Inputs) -> tuple[Array, Array]:
    """The confidence in the likeliest class, and 1 where that is the label, else 0; (rows,) both."""
    return inputs.once("top_label", lambda: _top_label(inputs))


def _top_label(inputs: Inputs) -> tuple[Array, Array]:
    xp, predictions = inputs.xp, inputs.predictions
    top, correct = xp.top(predictions, inputs.labels)
    if inputs.from_logits:
        # The sum contains exp(0), so rounding cannot take the quotient out of (0, 1].
        top = 1.0 / xp.sum(xp.exp(predictions - top[:, None]), axis=-1)
    return top, xp.cast(correct, inputs.dtype)


def centered(inputs: Inputs) -> Array:
    """Logits minus the maximum of their row, so that a large common offset costs no precision."""
    xp = inputs.xp
    return inputs.predictions - xp.stop_gradient(xp.max(inputs.predictions, axis=-1))[:, None]


def probabilities(inputs: Inputs) -> Array:
    """(rows, classes) probabilities; the softmax of logits."""
    if not inputs.from_logits:
        return inputs.predictions
    return inputs.once("probabilities", lambda: _softmax(inputs))


def _softmax(inputs: Inputs) -> Array:
    xp, logits = inputs.xp, centered(inputs)
    return xp.exp(logits - xp.logsumexp(logits, axis=-1)[:, None])


def mean(xp: Backend, values: Array, weight: Array, dtype: str) -> Array:
    """The weighted mean of the rows; 0 without rows."""
    summed, weights = weighted_sums(xp, values, weight)
    return xp.cast(summed / xp.where(xp.equal(weights, 0), 1.0, weights), dtype)


def weighted_sums(xp: Backend, values: Array, weight: Array) -> tuple[Array, Array]:
    """The weighted sum of values and the sum of the weights, in float64 if the backend has it."""
    if has_float64(xp, weight):
        values, weight = xp.cast(values, "float64"), xp.cast(weight, "float64")
    with quiet(xp):  # a row that does not count may have an infinite loss
        values = weight * values
    return long_sum(xp, xp.where(xp.equal(weight, 0), 0.0, values)), long_sum(xp, weight)
