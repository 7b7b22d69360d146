"""Losses of small batches, whose checks take longer than the loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lsmooth._keras_settings import refuse_a_mean
from lsmooth.backends import Array, backend_of

Function = TypeVar("Function", bound=Callable[..., Any])

# The options of a loss that `Backend.quick_mean` takes, by their names there.
SOFTMAX = {name: name for name in ("label_smoothing", "ignore_index", "axis", "class_weight", "mask")}


def quick_mean_first(names: dict[str, str]) -> Callable[[Function], Function]:
    """Let a loss ask `Backend.quick_mean` first, before it checks its arguments.

    The loss itself is called if the backend has no quicker way, or if any other option is off its default.

    Args:
        names: the options that ``quick_mean`` takes, and their names there.

    Returns:
        The decorator, for a function of labels, logits and keyword-only options.
    """

    def decorate(function: Function) -> Function:
        defaults: dict[str, Any] = function.__kwdefaults__ or {}
        loss_name = function.__name__

        @functools.wraps(function)
        def wrapper(labels: Array, logits: Array, **options: Any) -> Any:
            known = {}
            for name, value in options.items():
                if name in names:
                    known[name] = value
                elif name not in defaults or not _is(value, defaults[name]):
                    return function(labels, logits, **options)
            xp = backend_of(labels=labels, logits=logits, **known)
            refuse_a_mean(xp, logits, "mean", loss_name)
            loss = xp.quick_mean(loss_name, labels, logits, **{names[name]: value for name, value in known.items()})
            return function(labels, logits, **options) if loss is None else loss

        return wrapper  # type: ignore[return-value]

    return decorate


def _is(value: Any, default: Any) -> bool:
    # Compare the types first: `==` of an array would compare its elements.
    return value is default or (type(value) is type(default) and value == default)
