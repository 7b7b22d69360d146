"""Intervals of metrics by resampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, log_softmax
from lsmooth.backends.formulas.sigmoid import sigmoid
from lsmooth.metrics._inputs import Inputs, prepare, probabilities
from lsmooth.metrics._scores import top_k_accuracy

METHODS = ("bootstrap", "consistency")


class Interval(NamedTuple):
    """A metric and its interval, floats."""

    value: float
    """The metric of the data."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""


def metric_interval(
    metric: Callable[..., Array],
    labels: Array,
    predictions: Array,
    *,
    method: str = "bootstrap",
    confidence_level: float = 0.95,
    n_resamples: int = 200,
    seed: int = 0,
    **options: Any,
) -> Interval:
    """A metric and its interval by resampling.

    ``"bootstrap"``: percentiles of the metric over rows drawn with replacement. If the draws are biased, as those of
    a calibration error are, the percentiles are shifted back by the bias; see `bootstrap_interval`. The interval
    always contains the value. ``"consistency"``: percentiles over labels drawn from the predictions, as of a perfectly
    calibrated model; the value is outside if the model is not calibrated.

    Args:
        metric: a function of this module, such as `expected_calibration_error`.
        labels: class ids, as the metric takes them.
        predictions: as the metric takes them, classes along ``axis``.
        method: ``"bootstrap"`` or ``"consistency"``.
        confidence_level: between 0 and 1.
        n_resamples: the number of draws.
        seed: of NumPy's generator, on every backend.
        **options: of the metric.

    Returns:
        An `Interval`.

    Raises:
        TypeError: as the metric.
        ValueError: as the metric, or if an option here is out of range.

    Source: Efron 1979; Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams".

    Examples:
        >>> from lsmooth.metrics import metric_interval, top_k_accuracy
        >>> labels, predictions = [0, 0, 0, 1] * 25, [[0.6, 0.4]] * 100
        >>> value, low, high = metric_interval(top_k_accuracy, labels, predictions)
        >>> value, 0.6 < low < value < high < 0.9
        (0.75, True)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    confidence_level = check.check_fraction("confidence_level", confidence_level)
    n_resamples = check.check_count("n_resamples", n_resamples)
    xp = backend_of(labels=labels, predictions=predictions)
    labels, predictions = xp.asarray(labels, like=predictions), xp.asarray(predictions)
    value = _number(metric(labels, predictions, **options))
    # Drawing labels needs probabilities; drawing rows takes scores of any kind.
    inputs = _rows(labels, predictions, options, any_scores=metric is top_k_accuracy and method == "bootstrap")
    # Functions of lsmooth take prepared rows, which keep the parts that do not depend on the draw.
    own = getattr(metric, "__module__", "").startswith("lsmooth.metrics.")
    of_draw = _of_rows(metric, inputs, options) if own else _of_arrays(metric, labels, predictions, options)
    rng = np.random.default_rng(seed)
    resample = _bootstrap if method == "bootstrap" else _consistency
    draws = np.array([of_draw(*drawn) for drawn in resample(inputs, n_resamples, rng)])
    if method == "bootstrap":
        least = 0.0 if min(value, draws.min()) >= 0 else -np.inf
        return bootstrap_interval(value, draws, confidence_level, least=least)
    low, high = _percentiles(draws, confidence_level)
    return Interval(value, low, high)


def bootstrap_interval(
    value: float,
    draws: np.ndarray,
    confidence_level: float,
    *,
    least: float,
    center: float | None = None,
    narrowing: float = 1.0,
) -> Interval:
    """The interval of a metric from its draws, corrected for their bias.

    Far from its minimum, the value is as biased as the draws: by b = mean(draws) - value. A calibration error whose
    true value is 0 consists of bias alone: a draw has twice its variance, so its mean is sqrt(2) times as large, and
    the bias is (1 + sqrt(2)) b. Either may hold, so both percentiles are shifted by b, and the end on the side of the
    bias by another (1 + sqrt(2)) b. A b within the standard error of the mean of the draws counts as 0.

    Args:
        value: the metric of the data.
        draws: the metric of each draw, (draws,).
        confidence_level: between 0 and 1.
        least: a lower bound of the metric.
        center: the metric of the rows that the draws are from, if they are a part of the data.
        narrowing: the factor of deviations, the square root of that part.

    Returns:
        An `Interval` that contains the value.
    """
    center = value if center is None else center
    low, high = _percentiles(draws, confidence_level)
    if np.isfinite(draws).all() and np.isfinite([value, center]).all():
        bias = float(np.mean(draws)) - center
        chance = 3.0 * float(np.std(draws)) / len(draws) ** 0.5
        bias = bias if abs(bias) > chance else 0.0
        most = (1.0 + 2.0**0.5) * bias
        low = max(least, value + narrowing * (low - center - bias - max(most, 0.0)))
        high = value + narrowing * (high - center - bias - min(most, 0.0))
    return Interval(value, min(low, value), max(high, value))


def _percentiles(draws: np.ndarray, confidence_level: float) -> tuple[float, float]:
    tail = 0.5 * (1.0 - confidence_level)
    finite = bool(np.isfinite(draws).all())  # else take one of the draws, since inf - inf is NaN
    low, high = np.quantile(draws, [tail, 1.0 - tail], method="linear" if finite else "nearest")
    return float(low), float(high)


def _rows(labels: Array, predictions: Array, options: dict[str, Any], any_scores: bool) -> Inputs:
    """The rows of a metric; if ``any_scores``, predictions may be logits or probabilities."""
    names = ("sample_weight", "axis", "ignore_index", "from_logits", "binary")
    defaults = {"sample_weight": None, "axis": -1, "ignore_index": None, "from_logits": any_scores, "binary": False}
    return prepare(labels, predictions, *(options.get(name, defaults[name]) for name in names))


def _bootstrap(inputs: Inputs, n: int, rng: np.random.Generator) -> Iterator[tuple[None, np.ndarray]]:
    """Rows drawn with replacement, as the number of times that each was drawn."""
    rows = inputs.xp.shape(inputs.labels)[0]
    for _ in range(n):
        drawn = rng.integers(rows, size=rows) if rows else np.zeros(0, np.int64)
        yield None, np.bincount(drawn, minlength=rows).astype(np.float64)


def _consistency(inputs: Inputs, n: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, None]]:
    """Labels drawn from the predicted probabilities."""
    running = np.cumsum(inputs.xp.to_numpy(probabilities(inputs)).astype(np.float64), axis=1)
    flat, first = running.reshape(-1), np.arange(len(running)) * running.shape[1]
    for _ in range(n):
        at = rng.random(len(running)) * running[:, -1]
        low, high = first, first + running.shape[1] - 1
        for _ in range(int(running.shape[1] - 1).bit_length()):  # bisection of all rows at once
            middle = (low + high) // 2
            above = flat[middle] > at
            low, high = np.where(above, low, np.minimum(middle + 1, high)), np.where(above, middle, high)
        yield low - first, None


def _of_rows(metric: Callable[..., Array], inputs: Inputs, options: dict[str, Any]) -> Callable[..., float]:
    """A function of lsmooth, called with prepared rows and drawn labels or counts."""
    options = {name: value for name, value in options.items() if name != "sample_weight"}

    def of_draw(labels: np.ndarray | None, counts: np.ndarray | None) -> float:
        rows: Any = inputs if labels is None else inputs.relabeled(labels)
        return _number(metric(rows, rows, sample_weight=counts, **options))

    return of_draw


def _of_arrays(
    metric: Callable[..., Array], labels: Array, predictions: Array, options: dict[str, Any]
) -> Callable[..., float]:
    """Any other function, called with arrays; logits are converted to probabilities once for all draws."""
    xp, weight = backend_of(labels=labels, predictions=predictions), options.get("sample_weight")
    if options.get("from_logits"):
        predictions = _probabilities(xp, predictions, options.get("axis", -1), options.get("binary", False))
        options = {**options, "from_logits": False}
    weight = 1.0 if weight is None else xp.to_numpy(xp.asarray(weight))
    old, ignored = xp.to_numpy(labels), options.get("ignore_index")

    def of_draw(drawn: np.ndarray | None, counts: np.ndarray | None) -> float:
        if counts is not None:
            more = {"sample_weight": xp.asarray(np.reshape(counts, old.shape) * weight, like=predictions)}
            return _number(metric(labels, predictions, **{**options, **more}))
        new = np.asarray(drawn).reshape(old.shape).astype(old.dtype)
        new = new if ignored is None else np.where(old == ignored, old, new)
        return _number(metric(xp.asarray(new, like=predictions), predictions, **options))

    return of_draw


def _probabilities(xp: Backend, logits: Array, axis: int, binary: bool) -> Array:
    """The probabilities of logits, in their shape."""
    logits = accumulate(xp, check.float_array(xp, "predictions", logits))
    if binary:
        return sigmoid(xp, logits)
    front = check.check_axis(axis, xp.shape(logits))
    return xp.moveaxis(xp.exp(log_softmax(xp, xp.moveaxis(logits, front, -1))), -1, front)


def _number(scalar: Any) -> float:
    xp = backend_of(value=scalar)
    return float(xp.to_numpy(xp.asarray(scalar)))
