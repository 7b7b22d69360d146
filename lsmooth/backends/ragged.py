"""Losses over ``tf.RaggedTensor``s: computed on the flat values, whose rows are the rows of the batch."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class RaggedArgumentError(TypeError):
    """A ragged tensor was given; the message is for functions that cannot take one."""


def over_ragged_rows(logits: str, *, elementwise: bool = False) -> Callable[[Function], Function]:
    """Let a loss take ragged tensors, as long as the classes are not the ragged axis.

    A loss without ragged arguments is called as it is. With them it is called again, on their flat values, and its
    losses of rows are put back into the rows of ``logits``.

    Args:
        logits: the name of the argument, ragged if any is, whose last axis holds the classes.
        elementwise: whether each element is a row, so that every axis may be ragged.

    Returns:
        The decorator.
    """

    def decorate(function: Function) -> Function:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except ragged_error:
                arguments = signature_of(function).bind(*args, **kwargs)
            return call(function, arguments, logits, elementwise)

        ragged_error, signature_of, call = RaggedArgumentError, inspect.signature, _call_with_flat_values
        # With the globals of the function, among whose module's functions doctest looks for examples.
        code, closure = wrapper.__code__, wrapper.__closure__
        wrapped = types.FunctionType(code, function.__globals__, function.__name__, None, closure)
        functools.update_wrapper(wrapped, function)
        wrapped.__dict__["autograph_info__"] = {}  # by this name TensorFlow's AutoGraph leaves functions alone
        return wrapped  # type: ignore[return-value]

    return decorate


def _call_with_flat_values(function: Any, arguments: inspect.BoundArguments, logits: str, elementwise: bool) -> Any:
    from lsmooth.backends.tensorflow import ragged

    rows = ragged.RaggedRows(arguments.arguments, logits, elementwise)
    arguments.arguments.update(rows.flat_arguments())
    return rows.put_back(function(*arguments.args, **arguments.kwargs))
