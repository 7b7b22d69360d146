"""Checks of linear heads, whose hidden states and weight stand in for logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Backend
from lsmooth.backends.formulas.linear import Head


def head_without_padding(xp: Backend, head: Head, num_classes: int | None, prefix: str = "") -> Head:
    """The head of the first ``num_classes`` classes; of all if None."""
    given = xp.shape(head.weight)[0]
    if num_classes is None or check.check_count("num_classes", num_classes) == given:
        return head
    if given is not None and num_classes > given:
        raise ValueError(
            f"num_classes must be at most {given}, the number of classes of {prefix}weight; got {num_classes}."
        )
    bias = None if head.bias is None else head.bias[:num_classes]
    return head._replace(weight=head.weight[:num_classes, ...], bias=bias)


def check_block_size(block_size: int | None) -> int | None:
    """A positive integer as Python's int, or None."""
    if block_size is not None and not (check.is_integer_number(block_size) and block_size > 0):
        raise ValueError(f"block_size must be a positive number of rows, or None; got {block_size!r}.")
    return int(block_size) if isinstance(block_size, np.integer) else block_size


def check_head(
    xp: Backend, hidden: Any, weight: Any, bias: Any, axis: int = -1, like: Any = None, prefix: str = ""
) -> Head:
    """Hidden states, weight and bias that fit one another, in the widest of their dtypes."""
    if callable(weight):
        raise TypeError(
            f"{prefix}weight must be an array (classes, features), got a layer ({type(weight).__name__}); pass "
            f"{'its kernel, transposed' if hasattr(weight, 'kernel') else 'layer.weight'}, and layer.bias as "
            f"{prefix}bias."
        )
    order = ("labels", like, "linear_softmax_cross_entropy(labels, hidden, weight)") if not prefix else None
    others = [x for x in (weight, like) if xp.is_array(x)]
    first = hidden if xp.is_array(hidden) else others[0] if others else None
    hidden = check.float_array(xp, f"{prefix}hidden", hidden, first, order)
    for other in others:  # if one of the tensors is a DTensor, all become DTensors
        hidden = xp.asarray(hidden, like=other)
    weight = check.float_array(xp, f"{prefix}weight", weight, hidden, order)
    shape = xp.shape(hidden)
    features = shape[check.check_axis(axis, shape)]
    if len(xp.shape(weight)) != 2 or not check.same_shape(xp.shape(weight)[1:], (features,)):
        transposed = len(xp.shape(weight)) == 2 and xp.shape(weight)[0] == features
        hint = " Transpose it: the kernels of Keras and Flax are (features, classes)." if transposed else ""
        raise ValueError(
            f"{prefix}weight must have shape (classes, features), and {prefix}hidden, of shape {shape}, has {features} "
            f"features along axis {axis}; got {xp.shape(weight)}.{hint}"
        )
    if bias is not None:
        bias = check.float_array(xp, f"{prefix}bias", bias, like=hidden)
        if not check.same_shape(xp.shape(bias), xp.shape(weight)[:1]):
            raise ValueError(
                f"{prefix}bias must have shape {xp.shape(weight)[:1]}, one number per class; got {xp.shape(bias)}."
            )
    if check.is_validating(xp, weight):
        check.check_not_nan(xp, f"{prefix}weight", weight)
    dtype = _common_dtype([xp.dtype(x) for x in (hidden, weight) if x is not None])
    cast = [x if x is None or xp.dtype(x) == dtype else xp.cast(x, dtype) for x in (hidden, weight, bias)]
    return Head(*cast)


def _common_dtype(dtypes: list[str]) -> str:
    """The widest dtype; float32 for the two half precisions."""
    if set(dtypes) == {"bfloat16", "float16"}:
        return "float32"
    return min(dtypes, key=check.FLOATS.index)
