"""A teacher's probabilities of wrong classes."""

from __future__ import annotations

import math
from typing import Any

from lsmooth import _validation as check
from lsmooth._sums import long_sum, quiet
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, centered, log_softmax, log_sum_exp_of

_LOWEST, _HIGHEST = 1e-3, 1e4


def teacher_wrong_class_mass(
    labels: Array, teacher_logits: Array, *, temperature: float | Array = 1.0, axis: int = -1
) -> Array:
    """The teacher's mean probability of wrong classes, scaled so that the uniform one gives 1: gamma.

    ``gamma = mean_i sum_{k != y_i} softmax(z_i / T)_k K / (K - 1)``

    Soft targets with this gamma take as much mass from the labels as label smoothing of that amount; they differ in
    how the mass is distributed over the wrong classes.

    Args:
        labels: class ids, integers in the shape of the logits without ``axis``.
        teacher_logits: floating point, any shape, at least two classes along ``axis``.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        axis: the class axis.

    Returns:
        A scalar, float64 for float64 logits, else float32. NaN if a label is not a class, or without rows.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, a number is out of range, or there is one class only.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", section 4.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.analysis import teacher_wrong_class_mass
        >>> logits = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.5, 0.4]]))
        >>> float(teacher_wrong_class_mass([0, 1], logits).round(4))  # (0.2 + 0.5) / 2 * 3 / 2
        0.525
    """
    xp, labels, logits = _labels_and_logits(labels, teacher_logits, axis)
    rows = xp.shape(labels)
    temperature = check.number_or_rows(
        xp, "temperature", temperature, rows, logits, xp.dtype(logits), low=0.0, high=float("inf")
    )
    return _gamma(xp, labels, logits, temperature)


def teacher_entropy(teacher_logits: Array, *, temperature: float = 1.0, axis: int = -1) -> Array:
    """The mean entropy, in nats, of a teacher's predictions.

    ``mean_i -sum_k p_ik log(p_ik)``, with p = softmax(z / T).

    Args:
        teacher_logits: floating point, any shape, classes along ``axis``; -inf masks a class.
        temperature: T > 0.
        axis: the class axis.

    Returns:
        A scalar, float64 for float64 logits, else float32.

    Raises:
        TypeError: if the dtype is not floating point.
        ValueError: if ``temperature`` is not above 0, or there is no such axis.

    Source: Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output
        Distributions".

    Examples:
        >>> from lsmooth.analysis import teacher_entropy
        >>> float(teacher_entropy([[0.0, 0.0, 0.0, 0.0]]).round(4))  # log(4)
        1.3863
    """
    xp = backend_of(teacher_logits=teacher_logits)
    logits = check.float_array(xp, "teacher_logits", teacher_logits)
    front = check.check_axis(axis, xp.shape(logits))
    check.check_range("temperature", temperature, 0.0, float("inf"))
    log_p = log_softmax(xp, centered(xp, accumulate(xp, xp.moveaxis(logits, front, -1))) / temperature)
    p = xp.exp(log_p)
    with quiet(xp):
        entropy = -xp.sum(p * xp.where(xp.equal(p, 0), 0.0, log_p), axis=-1)
    return xp.cast(long_sum(xp, entropy), xp.dtype(entropy)) / _count(xp, entropy)


def match_temperature(labels: Array, teacher_logits: Array, gamma: float, *, axis: int = -1) -> float:
    """The temperature at which a teacher's mass on wrong classes is ``gamma``.

    Solves ``teacher_wrong_class_mass(labels, teacher_logits, temperature=T) == gamma`` for T by
    bisection of log(T), so that teachers can be compared at one gamma.

    Args:
        labels: class ids, integers in the shape of the logits without ``axis``.
        teacher_logits: floating point, any shape, at least two classes along ``axis``; not traced.
        gamma: the mass wanted, between what T = 0.001 and T = 10000 give. 1 is a uniform teacher.
        axis: the class axis.

    Returns:
        T, to 1e-6 of its value or the precision of the logits.

    Raises:
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or the logits are traced.
        ValueError: if shapes do not fit, or no temperature gives ``gamma``.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", section 4.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.analysis import match_temperature
        >>> logits = np.array([[4.0, 0.0], [0.0, 4.0]])  # mass 2 / (1 + exp(4 / T))
        >>> round(match_temperature([0, 1], logits, 0.5), 4)  # 4 / log(3)
        3.641
    """
    gamma = check.check_number("gamma", gamma)
    xp, labels, logits = _labels_and_logits(labels, teacher_logits, axis)
    if not xp.is_concrete(logits):
        raise TypeError("teacher_logits must have values that can be read, but they are traced; call it outside.")

    def excess(log_t: float) -> float:
        return float(_gamma(xp, labels, logits, math.exp(log_t))) - gamma

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    bounds = excess(low), excess(high)
    if not bounds[0] <= 0 <= bounds[1]:
        raise ValueError(
            f"gamma must be between {bounds[0] + gamma:.4g} and {bounds[1] + gamma:.4g}, which this teacher has "
            f"at T = {_LOWEST:g} and {_HIGHEST:g}; got {gamma:g}."
        )
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return math.exp((low + high) / 2)


def _gamma(xp: Backend, labels: Array, logits: Array, temperature: Array) -> Array:
    """From checked arguments, classes last."""
    classes = xp.length(logits, -1, xp.dtype(labels))
    logits = centered(xp, logits) / (temperature if isinstance(temperature, float) else temperature[..., None])
    top, log_sum, alone = log_sum_exp_of(xp, logits, xp.equal(xp.one_hot(labels, classes, xp.dtype(logits)), 0))
    mass = xp.where(alone, 0.0, xp.exp(top + log_sum - xp.logsumexp(logits, axis=-1)))
    mass = mass * xp.one_or_nan((labels >= 0) & (labels < classes), xp.dtype(mass))
    classes = xp.length(logits, -1, xp.dtype(mass))
    return xp.cast(long_sum(xp, mass), xp.dtype(mass)) / _count(xp, mass) * (classes / (classes - 1))


def _count(xp: Backend, x: Array) -> Any:
    """The number of elements: an int, or an array of the dtype of x if it is unknown before the run."""
    size = xp.size(x)
    return xp.cast(size, xp.dtype(x)) if xp.is_array(size) else size


def _labels_and_logits(labels: Array, logits: Array, axis: int) -> tuple[Backend, Array, Array]:
    xp = backend_of(labels=labels, teacher_logits=logits)
    logits = check.logits_array(
        xp, "teacher_logits", logits, labels, "teacher_wrong_class_mass(labels, teacher_logits)"
    )
    labels, front, soft = check.check_labels(xp, labels, logits, axis, "teacher_logits")
    logits = accumulate(xp, xp.moveaxis(logits, front, -1))
    if soft:
        raise ValueError(f"labels must be class ids, got shape {xp.shape(labels)}; take the argmax of one-hot rows.")
    if xp.shape(logits)[-1] in (0, 1):
        raise ValueError(f"teacher_logits must have at least two classes along axis, got {xp.shape(logits)[-1]}.")
    return xp, labels, logits
