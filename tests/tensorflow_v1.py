"""Every public call in a mode of TensorFlow 1, as a program: prints the rows that fail, and why.

Modes: ``graph``, placeholders in a graph inside TensorFlow 2; ``disabled``, the same with the behaviour of
version 2 disabled; ``equality``, eager tensors whose ``==`` compares identities.
"""

from __future__ import annotations

import sys
from typing import Any

import public_calls
import tensorflow as tf

from lsmooth.backends import load_backend

MODES = ("graph", "disabled", "equality")
SHAPES = ("known", "unknown batch", "unknown")


def shape_of(value: Any, shapes: str) -> list[int | None]:
    """The shape that a placeholder for the value declares."""
    known = list(value.shape)
    if shapes == "unknown":
        return [None] * len(known)
    return [None, *known[1:]] if shapes == "unknown batch" and known else known


def run_in_graph(row: str, shapes: str) -> Any:
    """The results of a session for a row fed through placeholders."""
    xp = load_backend("tensorflow")
    with tf.Graph().as_default():
        values = {name: public_calls.INPUTS[name] for name in public_calls.input_names(row)}
        holders = {
            name: tf.compat.v1.placeholder(value.dtype, shape_of(value, shapes)) for name, value in values.items()
        }
        result = public_calls.call(row, holders)
        tensors = tensors_of(xp, result)
        if not tensors:
            return result
        with tf.compat.v1.Session() as session:
            found = iter(session.run(tensors, {holders[name]: value for name, value in values.items()}))
        return replaced(xp, result, found)


def tensors_of(xp: Any, result: Any) -> list[Any]:
    if xp.is_array(result):
        return [result]
    return [x for part in result for x in tensors_of(xp, part)] if isinstance(result, list | tuple) else []


def replaced(xp: Any, result: Any, found: Any) -> Any:
    """The result with its tensors' numbers in their place."""
    if xp.is_array(result):
        return next(found)
    return [replaced(xp, part, found) for part in result] if isinstance(result, list | tuple) else result


def main(mode: str, shapes: str, rows: list[str]) -> int:
    """Run the rows, all if none is named; the number that fail."""
    if mode == "disabled":
        tf.compat.v1.disable_v2_behavior()
    if mode == "equality":
        tf.compat.v1.disable_tensor_equality()
    failed = 0
    for row in rows or sorted(set(public_calls.CALLS) - set(public_calls.READ_VALUES)):
        try:
            if mode == "equality":
                xp = load_backend("tensorflow")
                public_calls.check(xp, row, public_calls.call(row, public_calls.converted(xp, row)))
            else:
                public_calls.check(load_backend("numpy"), row, run_in_graph(row, shapes))
        except Exception as error:
            failed += 1
            print(f"{row}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1], sys.argv[2], sys.argv[3:]), 100))
