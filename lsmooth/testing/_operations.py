"""Checks of the array operations of a backend, against NumPy."""

from __future__ import annotations

import numpy as np

from lsmooth.testing import reference
from lsmooth.testing._case import Case, has_dtype


def check_arrays(case: Case) -> None:
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
        if has_dtype(xp, to):
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


def _operators(case: Case) -> None:
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


def _elementwise(case: Case) -> None:
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


def _reductions(case: Case) -> None:
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


def _moving(case: Case) -> None:
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


def _top(case: Case) -> None:
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


def _gradients(case: Case) -> None:
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


CHECKS = (check_arrays, _operators, _elementwise, _reductions, _moving, _gradients)
