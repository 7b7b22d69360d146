"""Numbers are arguments of compiled programs: another value of an option needs no compilation."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import compilations
import public_calls
import pytest
from conftest import require_backend

from lsmooth.backends import Backend

VALUES = {
    "temperature": (1.5, 2.5),
    "logit_softcap": (5.0, 6.0),
    "gamma": (1.5, 2.5),
    "log_zero": (-3.0, -4.0),
    "confidence": (0.5, 0.75),
}
"""Two numbers of an option, where 0.25 and 0.5 would not do."""


def numeric_options() -> list[tuple[str, str]]:
    """A row of the table of public calls for each numeric option of each loss, with the option's name."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for row in public_calls.CALLS:
        module, _, name = public_calls.public_name(row).rpartition(".")
        if module not in ("losses", "distillation", "preference") or name[0].isupper():
            continue
        function = getattr(importlib.import_module(f"lsmooth.{module}"), name)
        for option, parameter in inspect.signature(function).parameters.items():
            if (isinstance(parameter.default, float) or option in VALUES) and option not in public_calls.input_names(
                row
            ):
                found.setdefault((name, option), (row, option))
    return list(found.values())


def value_and_gradients(xp: Backend, loss: Any, arrays: dict[str, Any]) -> Any:
    """Of the sum of all that the loss of the arrays returns."""
    floating = {name: x for name, x in arrays.items() if "float" in xp.dtype(x)}

    def total(floating: dict[str, Any]) -> Any:
        return public_calls.total(xp, loss(arrays | floating))

    if xp.name == "jax":
        import jax

        return jax.value_and_grad(total)(floating)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(floating)
        value = total(floating)
    return value, tape.gradient(value, floating)


@pytest.mark.parametrize("name", compilations.OF)
@pytest.mark.parametrize(("row", "option"), numeric_options())
def test_another_number_of_any_option_of_a_public_loss_compiles_nothing(row: str, option: str, name: str):
    xp = require_backend(name)
    arrays = public_calls.converted(xp, row, "float32", "int32")

    def call(value: float) -> None:
        def loss(arrays: dict[str, Any]) -> Any:
            def with_option(function: Any) -> Any:
                return lambda *given, **options: function(*given, **{**options, option: value})

            return public_calls.call(row, arrays, with_option)

        loss(arrays)
        value_and_gradients(xp, loss, arrays)

    first, second = VALUES.get(option, (0.25, 0.5))
    with compilations.OF[name]() as count:
        call(first)
        before = count()
        call(second)
        assert count() == before
