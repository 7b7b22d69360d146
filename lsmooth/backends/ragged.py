"""Losses of ``tf.RaggedTensor``s and ``DTensor``s, which are called again with plain tensors.

The plain tensors are the flat values of a ragged tensor, or the local part of a ``DTensor``.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class CalledAgainError(TypeError):
    """An argument that must be converted; ``call`` calls the function with converted arguments."""

    @staticmethod
    def call(function: Any, arguments: inspect.BoundArguments, logits: str, elementwise: bool) -> Any:
        raise NotImplementedError


class RaggedArgumentError(CalledAgainError):
    """A ragged tensor was given; the message is for functions that cannot take one."""

    @staticmethod
    def call(function: Any, arguments: inspect.BoundArguments, logits: str, elementwise: bool) -> Any:
        from lsmooth.backends.tensorflow import ragged

        rows = ragged.RaggedRows(arguments.arguments, logits, elementwise)
        arguments.arguments.update(rows.flat_arguments())
        return rows.put_back(function(*arguments.args, **arguments.kwargs))


class SpreadArgumentError(CalledAgainError):
    """A ``DTensor`` was given, of which this process holds a part."""

    @staticmethod
    def call(function: Any, arguments: inspect.BoundArguments, logits: str, elementwise: bool) -> Any:
        from lsmooth.backends.torch import dtensors

        return dtensors.call(function, arguments, logits, elementwise)


def over_ragged_rows(logits: str, *, elementwise: bool = False) -> Callable[[Function], Function]:
    """Let a loss take ragged tensors, as long as the classes are not the ragged axis.

    With ragged arguments, the loss is called again on their flat values, and losses of rows become a ragged tensor
    with the rows of ``logits``.

    Args:
        logits: the name of the argument with the classes along its last axis; ragged if any argument is.
        elementwise: whether each element is a row, so that every axis may be ragged.

    Returns:
        The decorator.
    """

    def decorate(function: Function) -> Function:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except called_again as error:
                arguments, call = signature_of(function).bind(*args, **kwargs), error.call
            return call(function, arguments, logits, elementwise)

        called_again, signature_of = CalledAgainError, inspect.signature
        # With the globals of the function's module, because doctest looks for examples by module.
        code, closure, names = wrapper.__code__, wrapper.__closure__, inspect.unwrap(function).__globals__
        wrapped = types.FunctionType(code, names, function.__name__, None, closure)
        functools.update_wrapper(wrapped, function)
        wrapped.__dict__["autograph_info__"] = {}  # AutoGraph does not convert functions with this attribute
        return wrapped  # type: ignore[return-value]

    return decorate
