"""Every public call is in the table, gives the same numbers on every backend, and works in strict modes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import public_calls
import pytest
from conftest import require_backend

from lsmooth.backends import Backend

ROWS = sorted(public_calls.CALLS)
TRACED = [row for row in ROWS if row not in public_calls.READ_VALUES]
DTYPES = (("float64", "int64"), ("float32", "int32"))


def test_every_public_name_has_a_row_or_a_reason():
    names, rows = set(public_calls.public_names()), {public_calls.public_name(row) for row in ROWS}
    assert names - rows - set(public_calls.WITHOUT_A_ROW) == set()
    assert (rows | set(public_calls.WITHOUT_A_ROW)) - names == set()
    assert not rows & set(public_calls.WITHOUT_A_ROW)


def test_every_row_takes_arrays_of_the_table():
    for row in ROWS:
        assert set(public_calls.input_names(row)) <= set(public_calls.INPUTS), row


@pytest.mark.parametrize("row", ROWS)
def test_public_calls_give_the_same_numbers_on_every_backend(backend: Backend, row: str):
    public_calls.check(backend, row, public_calls.call(row, public_calls.converted(backend, row)))


@pytest.mark.parametrize("row", ROWS)
def test_numpy_raises_no_floating_point_error(row: str):
    xp = require_backend("numpy")
    for floats, integers in DTYPES:
        arrays = public_calls.converted(xp, row, floats, integers)
        with np.errstate(all="raise"):
            result = public_calls.call(row, arrays)
        public_calls.check(xp, row, result, floats)


@contextmanager
def jax_strict() -> Iterator[None]:
    """JAX's stricter settings, all at once, for the calls inside."""
    jax = pytest.importorskip("jax")
    with jax.debug_nans(True), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("row", ROWS)
def test_jax_calls_work_in_strict_modes(row: str):
    xp = require_backend("jax")
    for floats, integers in DTYPES:
        arrays = public_calls.converted(xp, row, floats, integers)
        with jax_strict():
            result = public_calls.call(row, arrays)
        public_calls.check(xp, row, result, floats)


@pytest.mark.parametrize("row", TRACED)
def test_jax_compiles_calls_and_gradients_in_strict_modes(row: str):
    xp = require_backend("jax")
    import jax

    arrays = public_calls.converted(xp, row, "float32", "int32")
    floating = {name: x for name, x in arrays.items() if "float" in xp.dtype(x)}
    structure: list[Any] = []

    def loss(floating: dict[str, Any]) -> tuple[Any, list[Any]]:
        result = public_calls.call(row, {**arrays, **floating})
        total = public_calls.total(xp, result)
        leaves, structure[:] = (split := jax.tree.flatten(result))[0], [split[1]]
        return 0.0 if total is None else total, leaves

    with jax_strict():
        (_, leaves), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(floating)
    public_calls.check(xp, row, jax.tree.unflatten(structure[0], leaves), "float32")
    assert all(np.isfinite(xp.to_numpy(g)).all() for g in gradients.values())


@contextmanager
def torch_mode(mode: str) -> Iterator[None]:
    """One of torch's stricter settings, for the calls inside."""
    torch = pytest.importorskip("torch")
    if mode == "detect_anomaly":
        with torch.autograd.set_detect_anomaly(True):
            yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("mode", ["detect_anomaly", "deterministic"])
@pytest.mark.parametrize("row", ROWS)
def test_torch_calls_and_gradients_work_in_strict_modes(row: str, mode: str):
    xp = require_backend("torch")
    for floats, integers in DTYPES:
        arrays = public_calls.converted(xp, row, floats, integers)
        floating = [x.requires_grad_() for x in arrays.values() if x.is_floating_point()]
        with torch_mode(mode):
            result = public_calls.call(row, arrays)
            total = public_calls.total(xp, result)
            if total is not None and total.requires_grad:
                total.backward()
        public_calls.check(xp, row, result, floats)
        assert all(x.grad is None or bool(x.grad.isfinite().all()) for x in floating)


def changed_in_place(result: Any) -> int:
    """Divide every tensor that is differentiated by 4, as loops that accumulate gradients do; how many there were."""
    if isinstance(result, list | tuple):
        return sum(map(changed_in_place, result))
    if not getattr(result, "requires_grad", False):
        return 0
    result /= 4
    result *= 2.0
    result += 0.0
    result.clamp_(-1e6, 1e6)
    result.masked_fill_(result.detach() > 1e6, 0.0)
    result[...] = result * 0.5
    return 1


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith(("losses.", "distillation.", "compat."))])
def test_torch_losses_may_be_changed_in_place_before_backward(row: str):
    xp = require_backend("torch")
    gradients = []
    for change in (False, True):
        arrays = public_calls.converted(xp, row)
        floating = [x.requires_grad_() for x in arrays.values() if x.is_floating_point()]
        result = public_calls.call(row, arrays)
        if change and not changed_in_place(result):
            return
        total = public_calls.total(xp, result)
        if total is None or not total.requires_grad:
            return
        total.backward()
        gradients.append([x.grad for x in floating])
    for plain, changed in zip(*gradients, strict=True):
        if plain is not None:
            np.testing.assert_allclose(changed, plain / 4, rtol=1e-12, atol=1e-15)


def numpy_numbers(public, integer, number):
    """The public object, called with NumPy numbers in place of Python numbers and defaults."""
    kinds = {int: integer, float: number}

    def converted(value):
        if type(value) is tuple:
            return tuple(map(converted, value))
        return kinds.get(type(value), lambda x: x)(value)

    signature = inspect.signature(public)

    def called(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        for name, parameter in signature.parameters.items():
            if name in bound.arguments or type(parameter.default) in kinds:
                bound.arguments[name] = converted(bound.arguments.get(name, parameter.default))
        return public(*bound.args, **bound.kwargs)

    return called


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.filterwarnings("ignore")
def test_options_may_be_numpys_numbers(backend: Backend, row: str):
    path, _, name = public_calls.public_name(row).rpartition(".")
    public = getattr(importlib.import_module(f"lsmooth.{path}"), name)
    arrays = public_calls.converted(backend, row)
    for integer, number in ((np.int64, np.float64), (np.int16, np.float64)):
        result = public_calls.CALLS[row](numpy_numbers(public, integer, number), **arrays)
        public_calls.check(backend, row, result)
