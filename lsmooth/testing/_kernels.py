"""Checks of the kernels of a backend with every option, against the formulas in NumPy's float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth.backends import Array, Backend, formulas
from lsmooth.backends.formulas import divergence
from lsmooth.backends.formulas.linear import Call, CrossEntropyOfBlock, Head
from lsmooth.backends.formulas.statistics import row_statistics
from lsmooth.backends.numpy import NumpyBackend
from lsmooth.backends.options import DivergenceOptions, SigmoidOptions, SoftmaxOptions
from lsmooth.testing import reference
from lsmooth.testing._case import Case

# Values other than the default for every option of the kernels, for three rows and four classes.
_ROWS = np.array([0.25, 0.5, 1.0])

_SOFTMAX_VALUES: dict[str, tuple[Any, ...]] = {
    "label_smoothing": (0.25, _ROWS),
    "prior": (np.array([0.5, 0.25, 0.125, 0.125]),),
    "class_weight": (np.array([0.5, 2.0, 1.0, 0.25]),),
    "temperature": (2.0, 2.0 * _ROWS),
    "z_loss": (0.125,),
    "logit_softcap": (4.0,),
    "counted": (np.array([True, False, True]),),
    "scale": (0.5, _ROWS),
    "total": (True,),
    "gamma": (2.0, 0.5),
    "num_classes": (3,),
}

_SIGMOID_VALUES: dict[str, tuple[Any, ...]] = {
    "label_smoothing": (0.25, _ROWS[:, None]),
    "pos_weight": (np.array([0.5, 2.0, 1.0, 0.25]),),
    "counted": (np.arange(12).reshape(3, 4) % 3 > 0,),
    "scale": (0.5, np.arange(12.0).reshape(3, 4) / 8.0),
    "total": (True,),
    "gamma": (2.0, 0.5),
    "alpha": (0.25,),
}

_DIVERGENCE_VALUES: dict[str, tuple[Any, ...]] = {
    "divergence": tuple(divergence.DIVERGENCES),
    "parameter": (0.25,),
    "temperature": (2.0, 2.0 * _ROWS),
    "counted": (np.array([True, False, True]),),
    "scale": (0.5, _ROWS),
    "total": (True,),
    "constant_teacher": (True,),
}

_EXACT = NumpyBackend()


def _cases(values: dict[str, tuple[Any, ...]], together: tuple[str, ...], beside: dict[str, Any]) -> list[Any]:
    """Every option alone, with the options that it depends on, and several options together."""
    alone = [{**beside.get(name, {}), name: value} for name, some in values.items() for value in some]
    return [*alone, {name: values[name][-1] for name in together}]


def _kernels_with_every_option(case: Case) -> None:
    """Compare values and gradients with the formulas in NumPy's float64."""
    rng = np.random.default_rng(1)
    z, other = np.round(8.0 * rng.normal(0.0, 2.0, (2, 3, 4))) / 8.0
    hard, soft, binary = np.array([1, 0, 2]), reference.one_hot(np.array([0, 2, 1]), 4) * 0.5 + 0.125, z > other
    eps, jensen = {"label_smoothing": 0.25}, {"divergence": "jensen_shannon"}
    for given in _cases(
        _SOFTMAX_VALUES, ("label_smoothing", "prior", "class_weight", "temperature", "scale", "counted"), {"prior": eps}
    ):
        for labels in (hard, soft[:, : given.get("num_classes")]):
            _compare_with_formula(case, "softmax_cross_entropy", formulas.softmax_cross_entropy, z, labels, given)
            if given.keys() <= {"temperature", "logit_softcap", "counted", "num_classes"}:
                _statistics(case, z, labels, given)
    for given in _cases(_SIGMOID_VALUES, ("label_smoothing", "pos_weight", "counted", "scale"), {}):
        _compare_with_formula(case, "sigmoid_cross_entropy", formulas.sigmoid_cross_entropy, z, binary * 1.0, given)
    for given in _cases(_DIVERGENCE_VALUES, ("temperature", "counted", "scale", "total"), {"parameter": jensen}):
        _compare_with_formula(case, "softmax_divergence", _divergence_of_student, z, other, given)


def _statistics(case: Case, z: np.ndarray, labels: np.ndarray, given: Any) -> None:
    """Check `Backend.softmax_cross_entropy_with_statistics`: the statistics and the loss."""
    xp, what = case.xp, f"softmax_cross_entropy_with_statistics({', '.join(given)})"
    arrays = case.arrays(given)
    target = xp.asarray(labels, case.dtype if labels.dtype == float else "int32")

    def kernel(x: Array) -> Any:
        return xp.softmax_cross_entropy_with_statistics(x, target, SoftmaxOptions(**arrays))

    def exact(x: np.ndarray) -> Any:
        return row_statistics(_EXACT, x, labels, SoftmaxOptions(**given))

    loss, got = kernel(xp.asarray(z, case.dtype))
    case.equal(
        what, lambda: loss, formulas.softmax_cross_entropy(_EXACT, z, labels, SoftmaxOptions(**given)), case.dtype
    )
    wanted = exact(z)
    for name in wanted._fields:
        case.equal(f"{name} of {what}", lambda name=name: getattr(got, name), getattr(wanted, name))
    for i, name in enumerate(wanted._fields[:3]):
        slope = _differences(lambda x, i=i: exact(x)[i], z)
        case.gradient(f"{name} of {what}", lambda x, i=i: kernel(x)[1][i], z, slope, tolerance=1e-5)


def _divergence_of_student(xp: Backend, student: Array, teacher: Array, options: Any) -> Array:
    return formulas.softmax_divergence(xp, teacher, student, options)


_OPTIONS = {
    "softmax_cross_entropy": SoftmaxOptions,
    "sigmoid_cross_entropy": SigmoidOptions,
    "softmax_divergence": DivergenceOptions,
}


def _compare_with_formula(case: Case, name: str, formula: Any, z: np.ndarray, second: np.ndarray, given: Any) -> None:
    xp, options = case.xp, _OPTIONS[name]
    what = f"{name}({'soft labels, ' if second.dtype == float else ''}{', '.join(given)})"
    other = xp.asarray(second, case.dtype if second.dtype == float else "int32")
    arrays = case.arrays(given)

    def kernel(x: Array) -> Array:
        pair = (other, x) if name == "softmax_divergence" else (x, other)
        return getattr(xp, name)(*pair, options(**arrays))

    def exact(x: np.ndarray) -> np.ndarray:
        return formula(_EXACT, x, second, options(**given))

    case.equal(what, lambda: kernel(xp.asarray(z, case.dtype)), exact(z), case.dtype)
    case.gradient(what, kernel, z, _differences(exact, z), tolerance=1e-5)


def _differences(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """The gradient of the sum of ``function``, by central differences."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        gradient[index] = (function(x + step) - function(x - step)).sum() / 2e-6
    return gradient


def _hard_and_soft(case: Case) -> None:
    """Check `Backend.hard_and_soft`."""
    xp, rng = case.xp, np.random.default_rng(2)
    z, teacher = np.round(8.0 * rng.normal(0.0, 2.0, (2, 3, 4))) / 8.0
    ids = np.array([1, 0, 3])
    labels = xp.asarray(ids, "int32")
    hard, soft = SoftmaxOptions(label_smoothing=0.25, scale=0.5), DivergenceOptions(temperature=2.0, scale=4.0)

    def both(x: Array) -> Array:
        return xp.hard_and_soft(labels, xp.asarray(teacher, case.dtype), x, hard, soft)

    def exact_both(x: np.ndarray) -> np.ndarray:
        losses = formulas.softmax_cross_entropy(_EXACT, x, ids, hard)
        return losses + formulas.softmax_divergence(_EXACT, teacher, x, soft)

    case.equal("hard_and_soft", lambda: both(xp.asarray(z, case.dtype)), exact_both(z), case.dtype)
    case.gradient("hard_and_soft", both, z, _differences(exact_both, z), tolerance=1e-5)


def _linear_rows(case: Case) -> None:
    """Check `Backend.linear_rows` with several block sizes."""
    xp, rng = case.xp, np.random.default_rng(3)
    hidden, weight, bias = (np.round(8.0 * rng.normal(size=shape)) / 8.0 for shape in ((3, 2), (4, 2), (4,)))
    ids = np.array([1, 0, 3])
    labels = xp.asarray(ids, "int32")
    for block_size in (None, 1, 2, 3):
        for total in (False, True):
            options = SoftmaxOptions(label_smoothing=0.25, scale=0.5, total=total)

            def linear(x: Array, options: SoftmaxOptions = options, block_size: int | None = block_size) -> Array:
                head = Head(x, xp.asarray(weight, case.dtype), xp.asarray(bias, case.dtype))
                loss = CrossEntropyOfBlock(xp, options._replace(scale=None, total=False), 0.5, options.total)
                return xp.linear_rows(loss, Call((head,), {"labels": labels}, {}), block_size)

            def exact_linear(x: np.ndarray, options: SoftmaxOptions = options) -> np.ndarray:
                return formulas.softmax_cross_entropy(_EXACT, x @ weight.T + bias, ids, options)

            what = f"linear_rows(block_size={block_size}, total={total})"
            expected = exact_linear(hidden)
            case.equal(what, lambda linear=linear: linear(xp.asarray(hidden, case.dtype)), expected, case.dtype)
            case.gradient(what, linear, hidden, _differences(exact_linear, hidden), tolerance=1e-5)


CHECKS = (_kernels_with_every_option, _hard_and_soft, _linear_rows)
