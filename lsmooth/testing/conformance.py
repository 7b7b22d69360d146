"""What lsmooth asks of a backend, as checks that run: operations against NumPy, kernels against the reference."""

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

FLOATS = ("float64", "float32", "bfloat16", "float16")
# Relative to the largest number of the answer.
TOLERANCES = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def check_backend(backend: Backend) -> None:
    """Check that a backend does what lsmooth relies on.

    Every operation of `lsmooth.backends.Backend` is compared with NumPy, both cross-entropies with
    `lsmooth.testing.reference`, every kernel with every option with the formulas in NumPy's float64, and
    gradients with theirs where the backend computes any. Float dtypes other than float32 are checked
    where the backend has them.

    Args:
        backend: an instance of a `Backend` subclass; it need not be registered.

    Raises:
        TypeError: if it is no `Backend`.
        AssertionError: if something differs; the message names the operation, what it gave, and
            what was expected.

    Examples:
        >>> from lsmooth.backends import load_backend
        >>> check_backend(load_backend("numpy"))
    """
    if not isinstance(backend, Backend):
        raise TypeError(f"backend must be an instance of lsmooth.backends.Backend, got {type(backend).__name__}.")
    dtypes = [dtype for dtype in FLOATS if _has(backend, dtype)]
    if "float32" not in dtypes:
        raise AssertionError(f"The {backend.name} backend must have float32: asarray([1.0], 'float32') gives no such.")
    for dtype in dtypes:
        checks = _CHECKS if dtype in ("float64", "float32") else _HALF_PRECISION_CHECKS
        for check in checks if dtype != dtypes[0] else (*checks, *_CHECKS_OF_WIDEST):
            check(_Case(backend, dtype))


def _has(xp: Backend, dtype: str) -> bool:
    try:
        return xp.dtype(xp.asarray(np.ones(1), dtype)) == dtype
    except (TypeError, ValueError, KeyError):
        return False


class _Case:
    """A backend and a float dtype, and how to compare what the one gives in the other."""

    def __init__(self, xp: Backend, dtype: str):
        self.xp, self.dtype = xp, dtype

    def floats(self, *values: Any) -> Array:
        return self.xp.asarray(np.asarray(values, np.float64), self.dtype)

    def integers(self, *values: Any) -> Array:
        return self.xp.asarray(np.asarray(values), "int32")

    def equal(
        self,
        what: str,
        got: Callable[[], Array],
        expected: Any,
        dtype: str | None = None,
        tolerance: float | None = None,
    ) -> None:
        """``got()`` is an array of this dtype and of these values; errors are named after the operation."""
        xp, expected = self.xp, np.asarray(expected)
        try:
            array = got()
            is_array, is_of, values = xp.is_array(array), xp.dtype(array), xp.to_numpy(array)
        except Exception as error:
            raise AssertionError(f"{xp.name} backend, {self.dtype}: {what} raised {error!r}.") from error
        self.require(is_array, what, f"gave a {type(array).__name__}, which is_array does not know")
        self.require(dtype is None or is_of == dtype, what, f"gave {is_of}, expected {dtype}")
        self.require(values.shape == expected.shape, what, f"gave shape {values.shape}, expected {expected.shape}")
        finite = np.abs(expected[np.isfinite(expected)]).max(initial=1.0) if expected.dtype.kind == "f" else 1.0
        tolerance = (tolerance or TOLERANCES[dtype if dtype in TOLERANCES else self.dtype]) * float(finite)
        close = np.allclose(values.astype(np.float64), expected.astype(np.float64), 0.0, tolerance, equal_nan=True)
        self.require(close, what, f"gave {values.tolist()}, expected {expected.tolist()}")

    def require(self, holds: bool, what: str, instead: str) -> None:
        if not holds:
            raise AssertionError(f"{self.xp.name} backend, {self.dtype}: {what} {instead}.")

    def gradient(
        self,
        what: str,
        function: Callable[[Array], Array],
        x: np.ndarray,
        expected: Any,
        tolerance: float | None = None,
    ) -> None:
        """The gradient of the sum of ``function`` at ``x``, if the backend computes gradients."""
        point = self.xp.asarray(x, self.dtype)
        try:
            answer = self.xp.value_and_grad(lambda x: self.xp.sum(function(x)), point)
        except NotImplementedError:
            return
        except Exception as error:
            raise AssertionError(
                f"{self.xp.name} backend, {self.dtype}: the gradient of {what} raised {error!r}."
            ) from error
        self.equal(f"the gradient of {what}", lambda: answer[1], expected, self.dtype, tolerance)


def _arrays(case: _Case) -> None:
    xp, dtype = case.xp, case.dtype
    values = np.array([[0.0, 1.5, -2.0], [3.0, -0.25, 8.0]])
    x = xp.asarray(values, dtype)
    case.require(xp.is_array(x), "is_array", "does not know what asarray gives")
    for other in ("text", None, object(), [1.0]):
        case.require(not xp.is_array(other), "is_array", f"takes {other!r} for an array")
    case.equal("asarray of a list", lambda: xp.asarray(values.tolist(), dtype), values, dtype)
    case.equal("asarray of a number", lambda: xp.asarray(0.1, dtype), np.float64(0.1), dtype)
    case.equal("asarray of its own array", lambda: xp.asarray(x), values, dtype)
    case.equal("asarray of its own array and a dtype", lambda: xp.asarray(x, "int32"), values.astype(int), "int32")
    case.equal("asarray beside another array", lambda: xp.asarray(values, dtype, like=x), values, dtype)
    case.equal("asarray of integers", lambda: xp.asarray(np.array([3, 200]), "uint8"), [3, 200], "uint8")
    expected = np.float32 if dtype in ("bfloat16", "float16") else np.dtype(dtype)
    case.require(isinstance(xp.to_numpy(x), np.ndarray), "to_numpy", "gave no NumPy array")
    case.require(xp.to_numpy(x).dtype == expected, "to_numpy", f"gave {xp.to_numpy(x).dtype}, expected {expected}")
    # Sums ask for float64; a framework without it answers in float32, in which they are taken in pairs then.
    case.require(xp.dtype(xp.cast(x, "float64")) in ("float64", "float32"), "cast to float64", "gave neither")
    for to in ("int32", "int64", "float32", dtype):
        if _has(xp, to):
            case.equal(f"cast to {to}", lambda to=to: xp.cast(x, to), values.astype(to if to != dtype else float), to)
    case.equal("cast of bool", lambda: xp.cast(x > 0, dtype), (values > 0).astype(float), dtype)
    case.require(xp.shape(x) == (2, 3), "shape", f"gave {xp.shape(x)}, expected (2, 3)")
    case.require(xp.shape(case.floats()) == (0,), "shape", "is wrong of an empty array")
    case.require(int(xp.size(x)) == 6, "size", f"gave {xp.size(x)}, expected 6")
    case.require(xp.is_concrete(x) is True, "is_concrete", "must be True of an array that has values")
    case.equal("ones_like", lambda: xp.ones_like(x, "int32"), np.ones((2, 3), int), "int32")
    index = case.integers([0, 2], [-1, 3])
    one_hot = np.zeros((2, 2, 3))
    one_hot[0, 0, 0] = one_hot[0, 1, 2] = 1.0
    case.equal("one_hot", lambda: xp.one_hot(index, 3, dtype), one_hot, dtype)
    view = xp.host_values(x)
    case.require(view is None or np.array_equal(view, values), "host_values", "differs from the values")


def _operators(case: _Case) -> None:
    values = np.array([[0.5, 1.5, -2.0], [3.0, -0.25, 8.0]])
    x, y = case.floats(*values), case.floats(1.0, 2.0, 4.0)
    w = np.array([1.0, 2.0, 4.0])
    binary = {
        "x + y": (lambda: x + y, values + w),
        "x - y": (lambda: x - y, values - w),
        "x * y": (lambda: x * y, values * w),
        "x / y": (lambda: x / y, values / w),
        "x @ y": (lambda: x @ case.xp.moveaxis(x, 0, 1), values @ values.T),
        "abs(x)": (lambda: abs(x), abs(values)),
        "x[1, ...]": (lambda: x[1, ...], values[1]),
        "x[:1, ...]": (lambda: x[:1, ...], values[:1]),
        "x ** 2": (lambda: x**2, values**2),
        "-x": (lambda: -x, -values),
        "1.0 - x": (lambda: 1.0 - x, 1.0 - values),
        "0.1 * x": (lambda: 0.1 * x, 0.1 * values),
        "1.0 / x": (lambda: 1.0 / x, 1.0 / values),
        "x + 0.1": (lambda: x + 0.1, values + 0.1),
        "x[..., None]": (lambda: x[..., None], values[..., None]),
        "x[..., 0]": (lambda: x[..., 0], values[..., 0]),
        "sum of x[..., :0]": (lambda: case.xp.sum(x[..., :0], -1), np.zeros(values.shape[:-1])),
    }
    for what, (got, expected) in binary.items():
        case.equal(what, got, expected, case.dtype)
    logical = {
        "x > 0": (lambda: x > 0, values > 0),
        "x >= y": (lambda: x >= y, values >= w),
        "x < y": (lambda: x < y, values < w),
        "equal(x, 8)": (lambda: case.xp.equal(x, 8), values == 8),
        "equal(x, y)": (lambda: case.xp.equal(x, y), values == w),
        "a & b": (lambda: (x > 0) & (x < 2), (values > 0) & (values < 2)),
        "a | b": (lambda: (x > 2) | (x < 0), (values > 2) | (values < 0)),
        "~a": (lambda: ~(x > 0), ~(values > 0)),
    }
    for what, (got, expected) in logical.items():
        case.equal(what, got, expected, "bool")


def _elementwise(case: _Case) -> None:
    xp, dtype = case.xp, case.dtype
    values = np.array([-1000.0, -40.0, -1.0, 0.0, 0.5, 1.0, 40.0, 1000.0])
    x, small = case.floats(*values), np.clip(values, -80.0, 1.0)
    case.equal("exp", lambda: xp.exp(case.floats(*small)), np.exp(small), dtype)
    case.equal("exp of -inf", lambda: xp.exp(case.floats(-np.inf)), [0.0], dtype)
    case.equal("log", lambda: xp.log(case.floats(0.0, 0.5, 1.0, 7.0)), [-np.inf, *np.log([0.5, 1.0, 7.0])], dtype)
    case.equal("tanh", lambda: xp.tanh(x), np.tanh(values), dtype)
    case.equal("softplus", lambda: xp.softplus(x), np.logaddexp(values, 0.0), dtype)
    tail = xp.to_numpy(xp.softplus(case.floats(-30.0))) / np.exp(-30.0)
    case.require(abs(tail[0] - 1.0) < 1e-5, "softplus", f"is off by the factor {tail[0]} at -30")
    case.equal("ceil", lambda: xp.ceil(case.floats(-1.5, 0.0, 0.2, 2.0)), [-1.0, 0.0, 1.0, 2.0], dtype)
    y, positive = case.floats(*range(8)), values > 0
    case.equal("where", lambda: xp.where(x > 0, x, y), np.where(positive, values, np.arange(8.0)), dtype)
    case.equal("where with a number first", lambda: xp.where(x > 0, 0.1, y), np.where(positive, 0.1, range(8)), dtype)
    case.equal("where with a number last", lambda: xp.where(x > 0, x, 0.1), np.where(positive, values, 0.1), dtype)
    case.gradient("exp", xp.exp, small, np.exp(small))
    case.gradient("log", xp.log, np.array([0.5, 2.0]), [2.0, 0.5])
    case.gradient("tanh", xp.tanh, small, 1.0 - np.tanh(small) ** 2)
    case.gradient("softplus", xp.softplus, values, 0.5 * (1.0 + np.tanh(values / 2.0)))
    case.gradient("where", lambda x: xp.where(x > 0, x * x, 0.0), small, np.where(small > 0, 2.0 * small, 0.0))


def _reductions(case: _Case) -> None:
    xp, dtype, inf = case.xp, case.dtype, np.inf
    values = np.array([[0.5, 8.0, -2.0, 8.0], [3.0, -0.25, 1e4, 1e4], [0.0, -inf, 1.0, -inf], [-inf] * 4])
    x, finite = case.floats(*values), values[:2]
    for axis in (None, 0, 1, -1):
        case.equal(f"sum over {axis}", lambda axis=axis: xp.sum(x[:2, ...], axis), finite.sum(axis), dtype)
    case.equal("max", lambda: xp.max(x, -1), values.max(-1), dtype)
    case.equal("argmax", lambda: xp.argmax(x, -1), values.argmax(-1))
    p = np.exp(values[:3] - reference.logsumexp(values[:3])[:, None])
    case.equal("logsumexp", lambda: xp.logsumexp(x, -1), reference.logsumexp(values), dtype)
    shift = case.floats(1.0, 1000.0, -0.5)
    case.equal(
        "unmasked_mean",
        lambda: xp.unmasked_mean(x[:3, ...], shift),
        [14.5 / 4 - 1.0, 20002.75 / 4 - 1000.0, 1.0],
        dtype,
    )
    case.gradient("sum", lambda x: xp.sum(x, 0), finite, np.ones_like(finite))
    case.gradient("logsumexp", lambda x: xp.logsumexp(x, -1), values[:3], p)
    kept = np.isfinite(values[:3])
    case.gradient("unmasked_mean", lambda x: xp.unmasked_mean(x, shift), values[:3], kept / kept.sum(-1, keepdims=True))


def _moving(case: _Case) -> None:
    xp, dtype = case.xp, case.dtype
    values = np.arange(24.0).reshape(2, 3, 4)
    x = xp.asarray(values, dtype)
    for source, destination in [(1, -1), (0, 2), (-1, 0), (1, 1)]:
        expected = np.moveaxis(values, source, destination)
        case.equal("moveaxis", lambda a=source, b=destination: xp.moveaxis(x, a, b), expected, dtype)
    case.equal("reshape", lambda: xp.reshape(x, (6, -1)), values.reshape(6, 4), dtype)
    index = case.integers([1, 0, 1], [0, 0, 1])
    at = xp.to_numpy(index)
    case.equal("take", lambda: xp.take(x, index), values[at], dtype)
    case.equal("take of numbers", lambda: xp.take(x[0, 0, :], index), values[0, 0][at], dtype)
    case.equal("pick", lambda: xp.pick(x, index), np.take_along_axis(values, at[..., None], -1)[..., 0], dtype)
    several = np.stack([at, 3 - at], -1)
    case.equal("gather", lambda: xp.gather(x, case.integers(*several)), np.take_along_axis(values, several, -1), dtype)
    put = values.copy()
    np.put_along_axis(put, several, -9.0, -1)
    nines = xp.ones_like(x[..., :2], dtype) * -9.0
    case.equal("put", lambda: xp.put(x, case.integers(*several), nines), put, dtype)
    _top(case)
    flat, weights = case.integers(0, 2, 2, 0, 3), case.floats(1.0, 2.0, 0.5, 4.0, 8.0)
    case.equal("bincount", lambda: xp.bincount(flat, weights, 5), [5.0, 0.0, 2.5, 8.0, 0.0], dtype)
    unsorted = case.floats([3.0, 1.0, 3.0, -2.0, 1.0], [0.0, 5.0, 4.0, 5.0, 9.0])
    case.equal("argsort", lambda: xp.argsort(unsorted), [[3, 1, 4, 0, 2], [0, 2, 1, 3, 4]])
    case.equal(
        "cumsum", lambda: xp.cumsum(case.floats([3.0, 1.0, -2.0], [1.0, 1.0, 2.0])), [[3, 4, 2], [1, 2, 4]], dtype
    )
    steps, among = case.floats(0.0, 1.0, 1.0, 2.0), case.floats(-1.0, 1.0, 1.5, 3.0)
    case.equal("searchsorted, left", lambda: xp.searchsorted(steps, among, "left"), [0, 1, 3, 4])
    case.equal("searchsorted, right", lambda: xp.searchsorted(steps, among, "right"), [0, 3, 3, 4])
    picked = np.zeros_like(values)
    np.put_along_axis(picked, at[..., None], 1.0, -1)
    case.gradient("pick", lambda x: xp.pick(x, index), values, picked)
    case.gradient("take", lambda x: xp.take(x, index), values, np.full_like(values, 3.0))
    case.gradient("moveaxis", lambda x: xp.moveaxis(x, 1, -1) * x[:, :1, :1], values, _moveaxis_gradient(values))


def _top(case: _Case) -> None:
    """Several entries with the maximum, and entries that are hardly below it."""
    xp, inf, nan = case.xp, np.inf, np.nan
    below = np.nextafter(np.asarray(0.5, case.dtype), np.asarray(0.0, case.dtype))
    values = np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [below, 0.5, 0.5], [-inf] * 3, [inf, 0.0, inf]])
    x = case.floats(*values)
    for k in range(3):
        index = case.integers(*[k] * len(values))
        case.equal("the maximum of top", lambda index=index: xp.top(x, index)[0], values.max(-1), case.dtype)
        case.equal(f"the hit of top at {k}", lambda index=index: xp.top(x, index)[1], values.argmax(-1) == k, "bool")
    lost = case.floats([0.5, nan, 0.25])
    case.equal("the maximum of top with NaN", lambda: xp.top(lost, case.integers(0))[0], [nan], case.dtype)


def _moveaxis_gradient(values: np.ndarray) -> np.ndarray:
    gradient = np.broadcast_to(values[:, :1, :1], values.shape).copy()
    gradient[:, 0, 0] += values.sum((1, 2))
    return gradient


def _gradients(case: _Case) -> None:
    xp, values = case.xp, np.array([0.5, -1.0, 2.0])
    x = case.floats(*values)
    case.equal("stop_gradient", lambda: xp.stop_gradient(x), values, case.dtype)
    case.gradient("x * stop_gradient(x)", lambda x: x * xp.stop_gradient(x), values, values)
    case.gradient("x ** 3 / 3", lambda x: x * x * x / 3.0, values, values**2)
    try:
        value, _ = xp.value_and_grad(lambda x: xp.sum(x * x), x)
    except NotImplementedError:
        return
    case.equal("the value of value_and_grad", lambda: value, np.float64(5.25), case.dtype)


def _softmax_cross_entropy(case: _Case) -> None:
    """The kernel's options are the public ones, resolved; rows that are not counted hold a label of 0."""
    xp, rng = case.xp, np.random.default_rng(0)
    result = "float64" if case.dtype == "float64" else "float32"
    logits = np.round(8.0 * rng.normal(0.0, 3.0, (4, 2, 5))) / 8.0  # exact in every dtype
    logits[0, 0, 1] = -np.inf
    hard = np.array([[0, 1], [4, 2], [3, 3], [0, 4]])
    soft = rng.gamma(1.0, 1.0, (4, 2, 5)).astype(np.float32)
    soft[0, 0, 1] = 0.0
    per_row, per_class = (
        rng.uniform(0.2, 1.0, (4, 2)).astype(np.float32),
        np.array([0.5, 0.25, 1.0, 2.0, 0.0], np.float32),
    )
    options: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.25},
        {"label_smoothing": per_row, "temperature": 2.0 * per_row},
        {"label_smoothing": 0.25, "prior": per_class, "scale": per_row},
        {"label_smoothing": 0.25, "class_weight": per_class, "z_loss": 0.125},
        {"label_smoothing": 0.25, "logit_softcap": 4.0, "temperature": 0.5, "scale": 0.5},
        {"label_smoothing": 0.25, "counted": hard != 3, "scale": per_row},
        {"label_smoothing": 0.25, "scale": 0.125, "total": True},
    ]
    z = xp.asarray(logits, case.dtype)
    for given in options:
        for labels in (hard, soft):
            what = f"softmax_cross_entropy({'soft labels' if labels is soft else 'class ids'}, {', '.join(given)})"
            expected, gradient = _reference(labels, logits, **given)
            arrays = {
                name: xp.asarray(x, "bool" if name == "counted" else result) if isinstance(x, np.ndarray) else x
                for name, x in given.items()
            }
            target = xp.asarray(labels, result if labels is soft else "int32")

            def kernel(z: Array, target: Array = target, arrays: dict[str, Any] = arrays) -> Array:
                return xp.softmax_cross_entropy(z, target, SoftmaxOptions(**arrays))

            case.equal(what, lambda kernel=kernel: kernel(z), expected, result)
            case.gradient(what, kernel, logits, gradient)
    lost = case.integers([0, 1], [-1, 5], [3, 3], [0, 4])
    for eps in (0.0, 0.25):
        expected, _ = _reference(xp.to_numpy(lost), logits, label_smoothing=eps)
        got = xp.softmax_cross_entropy(z, lost, SoftmaxOptions(eps))
        case.equal("softmax_cross_entropy with labels out of range", lambda got=got: got, expected, result)


def _reference(labels: np.ndarray, logits: np.ndarray, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    names = {"prior": "smoothing_prior", "scale": "sample_weight"}
    options = {names.get(name, name): x for name, x in given.items() if name not in ("counted", "total")}
    if "counted" in given:
        options["mask"] = given["counted"]
    reduction = "sum" if given.get("total") else "none"
    return reference.softmax_cross_entropy(labels, logits, reduction=reduction, **options)


def _label_log_odds(case: _Case) -> None:
    xp = case.xp
    logits = np.array([[0.5, -2.0, 1.0], [0.0, 60.0, 3.0], [1.0, 2.0, 4.0], [-50.0, 0.0, 1.0]])
    ids = np.array([0, 1, 2, 0])
    at_label = np.arange(3) == ids[:, None]
    others = np.exp(np.where(at_label, -np.inf, logits))
    expected = logits[at_label] - np.log(others.sum(-1))
    gradient = at_label - others / others.sum(-1, keepdims=True)

    def kernel(z: Array) -> Array:
        return xp.label_log_odds(z, xp.asarray(ids, "int32"))

    z = xp.asarray(logits, case.dtype)
    result = "float64" if case.dtype == "float64" else "float32"
    case.equal("label_log_odds", lambda: kernel(z), expected, result)
    case.gradient("label_log_odds", kernel, logits, gradient)


def _sigmoid_cross_entropy(case: _Case) -> None:
    xp = case.xp
    result = "float64" if case.dtype == "float64" else "float32"
    logits = np.array([[0.5, -2.0, 100.0], [0.0, -100.0, 3.0]])
    labels = np.array([[0.0, 1.0, 0.75], [0.5, 1.0, 0.0]])
    target, weight = xp.asarray(labels, result), np.array([0.5, 1.0, 4.0])
    scale = np.array([[1.0, 0.5, 0.25], [0.0, 2.0, 1.0]])
    given: dict[str, Any]
    for given in (
        {},
        {"pos_weight": weight},
        {"label_smoothing": 0.25, "scale": 0.5, "total": True},
        {"label_smoothing": 0.25, "pos_weight": weight, "scale": scale},
        {"scale": scale, "total": True},
    ):
        what = f"sigmoid_cross_entropy with {sorted(given)}" if given else "sigmoid_cross_entropy"
        expected, gradient = _binary_reference(labels, logits, **given)
        options = {name: xp.asarray(x, result) if isinstance(x, np.ndarray) else x for name, x in given.items()}

        def kernel(z: Array, options: dict[str, Any] = options) -> Array:
            return xp.sigmoid_cross_entropy(z, target, SigmoidOptions(**options))

        z = xp.asarray(logits, case.dtype)
        case.equal(what, lambda kernel=kernel, z=z: kernel(z), expected, result)
        case.gradient(what, kernel, logits, gradient)


def _binary_reference(labels: np.ndarray, logits: np.ndarray, *, scale: Any = 1.0, total: bool = False, **given: Any):
    value, gradient = reference.sigmoid_cross_entropy(labels, logits, reduction="none", **given)
    return (scale * value).sum() if total else scale * value, scale * gradient


# A value off its default for every option of the kernels. Arrays are those of three rows and of four classes.
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
    """Every option alone, beside what it needs to have an effect, and several together."""
    alone = [{**beside.get(name, {}), name: value} for name, some in values.items() for value in some]
    return [*alone, {name: values[name][-1] for name in together}]


def _kernels_with_every_option(case: _Case) -> None:
    """Values and gradients against the formulas in NumPy's float64."""
    rng = np.random.default_rng(1)
    z, other = np.round(8.0 * rng.normal(0.0, 2.0, (2, 3, 4))) / 8.0
    hard, soft, binary = np.array([1, 0, 2]), reference.one_hot(np.array([0, 2, 1]), 4) * 0.5 + 0.125, z > other
    eps, jensen = {"label_smoothing": 0.25}, {"divergence": "jensen_shannon"}
    for given in _cases(
        _SOFTMAX_VALUES, ("label_smoothing", "prior", "class_weight", "temperature", "scale", "counted"), {"prior": eps}
    ):
        for labels in (hard, soft[:, : given.get("num_classes")]):
            _held_to_formula(case, "softmax_cross_entropy", formulas.softmax_cross_entropy, z, labels, given)
            if given.keys() <= {"temperature", "logit_softcap", "counted", "num_classes"}:
                _statistics(case, z, labels, given)
    for given in _cases(_SIGMOID_VALUES, ("label_smoothing", "pos_weight", "counted", "scale"), {}):
        _held_to_formula(case, "sigmoid_cross_entropy", formulas.sigmoid_cross_entropy, z, binary * 1.0, given)
    for given in _cases(_DIVERGENCE_VALUES, ("temperature", "counted", "scale", "total"), {"parameter": jensen}):
        _held_to_formula(case, "softmax_divergence", _divergence_of_student, z, other, given)


def _statistics(case: _Case, z: np.ndarray, labels: np.ndarray, given: Any) -> None:
    """Those of `Backend.softmax_cross_entropy_with_statistics`, and the loss beside them."""
    xp, what = case.xp, f"softmax_cross_entropy_with_statistics({', '.join(given)})"
    arrays = {
        key: xp.asarray(x, "bool" if x.dtype == bool else case.dtype) if isinstance(x, np.ndarray) else x
        for key, x in given.items()
    }
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


def _held_to_formula(case: _Case, name: str, formula: Any, z: np.ndarray, second: np.ndarray, given: Any) -> None:
    xp, options = case.xp, _OPTIONS[name]
    what = f"{name}({'soft labels, ' if second.dtype == float else ''}{', '.join(given)})"
    other = xp.asarray(second, case.dtype if second.dtype == float else "int32")
    arrays = {
        key: xp.asarray(x, "bool" if x.dtype == bool else case.dtype) if isinstance(x, np.ndarray) else x
        for key, x in given.items()
    }

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


def _joint_kernels(case: _Case) -> None:
    """`Backend.hard_and_soft`, and `Backend.linear_rows` in blocks of every size."""
    xp, rng = case.xp, np.random.default_rng(2)
    z, teacher = np.round(8.0 * rng.normal(0.0, 2.0, (2, 3, 4))) / 8.0
    hidden, weight, bias = (np.round(8.0 * rng.normal(size=shape)) / 8.0 for shape in ((3, 2), (4, 2), (4,)))
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


_HALF_PRECISION_CHECKS = (_arrays, _softmax_cross_entropy, _sigmoid_cross_entropy, _label_log_odds)
_CHECKS = (
    _arrays,
    _operators,
    _elementwise,
    _reductions,
    _moving,
    _gradients,
    _softmax_cross_entropy,
    _sigmoid_cross_entropy,
    _label_log_odds,
)
# Of the widest dtype alone: they go through many calls, whose arithmetic is that of the checks above.
_CHECKS_OF_WIDEST = (_kernels_with_every_option, _joint_kernels)
