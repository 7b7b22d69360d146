"""Calibration without bins: the isotonic regression of correctness on confidence (CORP)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth._isotonic import isotonic_fit, pooled
from lsmooth.backends import Array
from lsmooth.metrics._inputs import Inputs, prepare
from lsmooth.metrics._tables import rows_on_host

SCORES = ("brier", "log")


class CorpCurve(NamedTuple):
    """The isotonic fit of accuracy to confidence, one entry for each flat part."""

    low: Array
    """(parts,): the least confidence of the part's rows."""
    high: Array
    """(parts,): the greatest."""
    confidence: Array
    """(parts,): the mean."""
    accuracy: Array
    """(parts,): the fraction of them that is right, not decreasing."""
    weight: Array
    """(parts,): their number, or the sum of their weights."""


class CorpDecomposition(NamedTuple):
    """score = miscalibration - discrimination + uncertainty; scalars."""

    score: Array
    """The mean score of the confidences."""
    miscalibration: Array
    """How much the isotonic fit reduces the score: 0 if calibrated."""
    discrimination: Array
    """How much better the fit is than one confidence for all rows."""
    uncertainty: Array
    """The score of that confidence, the accuracy of all rows."""


def corp_reliability_curve(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> CorpCurve:
    """Accuracy against confidence without bins: the best function that does not decrease.

    ``argmin_f sum_i w_i (correct_i - f(conf_i))^2`` over functions f that do not decrease. Its flat
    parts are bins that the data determine.

    Args:
        labels: as in `expected_calibration_error`.
        predictions: as there.
        from_logits: as there.
        binary: whether predictions are the probability of 1, which is then binned itself.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `CorpCurve`, float64 for float64 predictions, else float32. Computed on the host.

    Raises:
        ImportError: if SciPy is not installed.
        TypeError, ValueError: as `expected_calibration_error`; TypeError if the call is traced.

    Source: Dimitriadis, Gneiting and Jordan 2021, "Stable reliability diagrams for probabilistic
        classifiers" (consistent, optimally binned, reproducible, PAV: CORP).

    Examples:
        >>> from lsmooth.metrics import corp_reliability_curve
        >>> curve = corp_reliability_curve([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.9], binary=True)
        >>> curve.accuracy, curve.weight
        (array([0. , 0.5, 1. ]), array([1., 2., 1.]))
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    confidence, correct, weight = rows_on_host("corp_reliability_curve", inputs, binary)
    if np.isfinite(weight).all() and not np.isnan(confidence).any():
        fit = isotonic_fit(*_counted(confidence, correct, weight))
        first, last = fit.bounds[:-1], fit.bounds[1:] - 1
        held = np.add.reduceat(fit.weight, first) if len(first) else np.zeros(0)
        mean = np.add.reduceat(fit.weight * fit.x, first) / held if len(first) else np.zeros(0)
        parts = (fit.x[first], fit.x[last], mean, fit.y[first], held)
    else:
        parts = (np.full(1, np.nan),) * 5
    return CorpCurve(*(_answer(inputs, part) for part in parts))


def corp_decomposition(
    labels: Array,
    predictions: Array,
    *,
    score: str = "brier",
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> CorpDecomposition:
    """The score of confidence as miscalibration, discrimination and uncertainty, without bins.

    With S(c) the mean score of confidences c, f the function of `corp_reliability_curve`, and m the
    mean of correct: ``miscalibration = S(conf) - S(f(conf))``, ``discrimination = S(m) - S(f(conf))``,
    ``uncertainty = S(m)``. None of them is negative.

    Args:
        labels: as in `corp_reliability_curve`, and so are the other arguments.
        predictions: probabilities, or logits if ``from_logits``.
        score: ``"brier"``, (correct - conf)^2; or ``"log"``, -log of the probability given to the outcome.
        from_logits: whether ``predictions`` are logits.
        binary: whether predictions are the probability of 1, which is then binned itself.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `CorpDecomposition`, float64 for float64 predictions, else float32; zeros without rows. Computed
        on the host: the call cannot be traced.

    Raises:
        ImportError: if SciPy is not installed.
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or the call is traced.
        ValueError: if shapes do not fit, or the score is unknown.

    Source: Dimitriadis, Gneiting and Jordan 2021.

    Examples:
        >>> from lsmooth.metrics import corp_decomposition
        >>> parts = corp_decomposition([0, 1, 0, 1], [0.25, 0.25, 0.75, 0.75], binary=True)
        >>> [float(part) for part in parts]
        [0.3125, 0.0625, 0.0, 0.25]
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}; got {score!r}.")
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    rows = rows_on_host("corp_decomposition", inputs, binary)
    confidence, correct, weight = _counted(*rows)
    if not np.isfinite(rows[2]).all() or np.isnan(rows[0]).any():
        parts = (float("nan"),) * 4
    elif not len(weight):
        parts = (0.0,) * 4
    else:
        fit = isotonic_fit(confidence, correct, weight)
        fitted = fit.y[np.searchsorted(fit.x, confidence)]
        of = _brier if score == "brier" else _log
        stated, best, flat = (
            float(np.average(of(c, correct), weights=weight))
            for c in (confidence, fitted, np.average(correct, weights=weight))
        )
        parts = (stated, stated - best, flat - best, flat)
    return CorpDecomposition(*(_answer(inputs, part) for part in parts))


def corp_band(
    confidence: np.ndarray, weight: np.ndarray, level: float, n_resamples: int = 100, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The consistency band of the curve of a calibrated classifier: confidences, and the two ends of the band."""
    level = check.check_fraction("band", level)
    confidence, _, weight = _counted(confidence, confidence, weight)
    x, index = np.unique(confidence, return_inverse=True)
    held = np.bincount(index, weight)
    rng = np.random.default_rng(seed)
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), 200)).astype(int)) if len(x) else np.zeros(0, int)
    drawn = []
    for _ in range(n_resamples if len(x) else 0):
        right = np.bincount(index, weight * (rng.random(len(index)) < confidence))
        drawn.append(pooled(right / held, held)[0][shown])
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0) if drawn else np.zeros((2, 0))
    return x[shown], low, high


def _counted(confidence: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    counted = weight > 0
    return confidence[counted], correct[counted], weight[counted]


def _brier(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    return (confidence - correct) ** 2


def _log(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -np.log(np.where(correct > 0, confidence, 1.0 - confidence))


def _answer(inputs: Inputs, part: np.ndarray | float) -> Array:
    return inputs.home.asarray(part, inputs.dtype, like=inputs.given)
