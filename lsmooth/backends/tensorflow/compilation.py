"""When XLA compiles a kernel, and how a kernel's reductions are written for it.

XLA compiles a program for every shape, which takes a second or two of CPU time. Inside a `tf.function`
the shape is known while tracing, and large logits are compiled. Eagerly, a shape is compiled once it has
come back so often that the time saved pays for compiling.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.tensorflow import thresholds
from lsmooth.backends.tensorflow.thresholds import ROW_PARTS

_seen: OrderedDict[Any, int] = OrderedDict()
# The collection of a program's numbers, which no gradient is taken of.
_CONSTANTS = "lsmooth/constants"


@functools.cache
def compiled(function: Any) -> Any:
    """The function under XLA."""
    return tf.function(function, jit_compile=True, autograph=False)


def compile_pays(name: str, *arrays: Array, elements: int | None = None, least: int | None = None) -> bool:
    """Whether the kernel of this name should be compiled for arrays of these shapes.

    Args:
        name: of the kernel.
        *arrays: those whose shapes the compiled program depends on.
        elements: the number of logits; of the first array if None.
        least: the smallest number of logits worth compiling, `thresholds.XLA_ELEMENTS` if None.
    """
    elements = num_elements(arrays[0]) if elements is None else elements
    if elements is None or elements < (thresholds.XLA_ELEMENTS if least is None else least):
        return False
    if not tf.executing_eagerly():
        return not _in_branch()
    key = (name, *((x.dtype, tuple(x.shape)) for x in arrays))
    before = _seen.pop(key, 0)
    _seen[key] = before + elements
    if len(_seen) > thresholds.COUNTED_SHAPES:
        _seen.popitem(last=False)
    return before >= thresholds.COMPILE_AFTER


def mark_constant(scalars: list[Array]) -> None:
    """Say of tensors of the graph being traced that no gradient is taken of them: kernels take them for numbers."""
    for x in scalars:
        tf.compat.v1.add_to_collection(_CONSTANTS, x)


def is_constant(x: Any) -> bool:
    """Whether an option is a number, or marked as constant."""
    graph = getattr(x, "graph", None)  # eager tensors have none
    return isinstance(x, float) or (graph is not None and any(x is y for y in graph.get_collection(_CONSTANTS)))


def _in_branch() -> bool:
    """Whether a branch of `tf.cond` is traced, whose gradient cannot find the arguments of a compiled function."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if type(graph).__name__ == "CondBranchFuncGraph":
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def num_elements(x: Array) -> int | None:
    """The number of elements, None where it is not known before the run."""
    return x.shape.num_elements() if x.shape.is_fully_defined() else None


def is_small(x: Array) -> bool:
    """Whether ``x`` is known to have at most `thresholds.SMALL` elements."""
    elements = num_elements(x)
    return elements is not None and elements <= thresholds.SMALL


def in_xla() -> bool:
    """Whether the caller is being compiled by XLA."""
    return tf.__internal__.get_enclosing_xla_context() is not None


def row_sum(terms: Callable[..., Array], *arrays: Array) -> Array:
    """The sum of ``terms(*arrays)`` over the last axis."""
    return reduced(tf.add, tf.reduce_sum, *arrays, terms=terms)


def reduced(combine: Any, reduce: Any, *arrays: Array, terms: Callable[..., Array] = lambda x: x) -> Array:
    """The reduction of ``terms(*arrays)`` over the last axis.

    XLA stores what a reduction reads. Combining the terms of several parts of a row first makes the
    stored array as small as one part.
    """
    size, rest = divmod(arrays[0].shape.as_list()[-1] or 0, ROW_PARTS)
    if size < ROW_PARTS or not in_xla():
        return reduce(terms(*arrays), axis=-1)
    sizes = [size] * ROW_PARTS + [rest] * (rest > 0)
    parts = [terms(*part) for part in zip(*(tf.split(x, sizes, axis=-1) for x in arrays), strict=True)]
    result = reduce(functools.reduce(combine, parts[:ROW_PARTS]), axis=-1)
    return combine(result, reduce(parts[-1], axis=-1)) if rest else result


def closed_form(
    value: Callable[..., Any], gradient: Callable[..., Any], arguments: list[Array], constants: list[Array | None]
) -> Array:
    """``value(*arguments, *constants)``, differentiated by ``gradient``.

    All arrays are arguments of the differentiated function: TensorFlow does not find the variables of a
    closure when it differentiates `tf.cond` and `tf.while_loop`.

    Args:
        value: gives the result, and after it the arrays that the gradient needs, or None.
        gradient: ``gradient(*arguments, *constants, *saved, upstream)`` gives one gradient per argument.
        arguments: the arrays to differentiate by.
        constants: the other arrays; None stands for an option that is off.
    """
    given = [x for x in constants if x is not None]

    @tf.custom_gradient
    def function(*arrays: Array) -> Any:
        moving, rest = arrays[: len(arguments)], iter(arrays[len(arguments) :])
        fixed = [None if x is None else next(rest) for x in constants]
        # No tape, of whatever order, follows the value: its derivative is `gradient`'s alone.
        result, *saved = value(*map(tf.stop_gradient, moving), *fixed)

        def backward(upstream: Array) -> list[Array | None]:
            return [*gradient(*moving, *fixed, *saved, upstream), *[None] * len(given)]

        return result, backward

    arrays = [*arguments, *given]
    if not tf.executing_eagerly():
        # Tensors of the branch's own graph, because the gradient of `tf.cond` cannot use those of the outer graph.
        arrays = [tf.identity(x) for x in arrays]
    return function(*arrays)
