"""How much of a metric is chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lsmooth.backends import Array, Backend, backend_of
from lsmooth.metrics._inputs import prepare, probabilities

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
    """A metric, and where it could as well have been.

    ``"bootstrap"``: the percentiles of the metric over rows drawn with replacement: how far the data
    pin it down. ``"consistency"``: its percentiles over labels drawn from the predictions
    themselves: what a perfectly calibrated model of these predictions would show.

    Args:
        metric: a function of this module, such as `expected_calibration_error`.
        labels: class ids, as the metric takes them.
        predictions: as the metric takes them, classes along ``axis``.
        method: ``"bootstrap"`` or ``"consistency"``.
        confidence_level: between 0 and 1.
        n_resamples: how many times the metric is computed anew.
        seed: of NumPy's generator, on every backend.
        **options: of the metric.

    Returns:
        An `Interval`.

    Raises:
        TypeError: as the metric.
        ValueError: as the metric, or if an option here is out of range.

    Source: Efron 1979; Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams".

    Example:
        >>> from lsmooth.metrics import metric_interval, top_k_accuracy
        >>> labels, predictions = [0, 0, 0, 1] * 25, [[0.6, 0.4]] * 100
        >>> value, low, high = metric_interval(top_k_accuracy, labels, predictions)
        >>> value, 0.6 < low < value < high < 0.9
        (0.75, True)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must be between 0 and 1, got {confidence_level}.")
    if not isinstance(n_resamples, int) or n_resamples < 1:
        raise ValueError(f"n_resamples must be an integer of at least 1, got {n_resamples!r}.")
    xp = backend_of(labels=labels, predictions=predictions)
    labels, predictions = xp.asarray(labels, like=predictions), xp.asarray(predictions)
    rng = np.random.default_rng(seed)
    value = _number(xp, metric(labels, predictions, **options))
    resample = _bootstrap if method == "bootstrap" else _consistency
    values = [
        _number(xp, metric(*arguments, **weights))
        for arguments, weights in resample(xp, labels, predictions, options, n_resamples, rng)
    ]
    tail = 0.5 * (1.0 - confidence_level)
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))


def _bootstrap(xp: Backend, labels: Array, predictions: Array, options: dict[str, Any], n: int, rng: Any) -> Any:
    """Rows drawn with replacement are rows of integer weights."""
    shape = xp.shape(labels)
    rows = int(np.prod(shape))  # type: ignore[arg-type]
    given = options.get("sample_weight")
    given = 1.0 if given is None else xp.to_numpy(xp.asarray(given))
    for _ in range(n):
        counts = rng.multinomial(rows, np.full(rows, 1.0 / rows)).reshape(shape) if rows else np.zeros(shape)
        yield (labels, predictions), {**options, "sample_weight": xp.asarray(counts * given, like=predictions)}


def _consistency(xp: Backend, labels: Array, predictions: Array, options: dict[str, Any], n: int, rng: Any) -> Any:
    """Labels drawn from the predicted probabilities; a row that is ignored stays so."""
    names = ("axis", "ignore_index", "from_logits", "binary")
    axis, ignore_index, from_logits, binary = (
        options.get(k, d) for k, d in zip(names, (-1, None, False, False), strict=True)
    )
    inputs = prepare(labels, predictions, None, axis, ignore_index, from_logits, binary)
    running = np.cumsum(inputs.xp.to_numpy(probabilities(inputs)).astype(np.float64), axis=1)
    old = xp.to_numpy(labels)
    for _ in range(n):
        drawn = (running <= rng.random((len(running), 1)) * running[:, -1:]).sum(axis=1)
        drawn = np.minimum(drawn, running.shape[1] - 1).reshape(old.shape).astype(old.dtype)
        drawn = drawn if ignore_index is None else np.where(old == ignore_index, old, drawn)
        yield (xp.asarray(drawn, like=predictions), predictions), options


def _number(xp: Backend, scalar: Array) -> float:
    return float(xp.to_numpy(scalar))
