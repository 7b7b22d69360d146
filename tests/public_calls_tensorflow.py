"""Every public call in one of TensorFlow's stricter modes; run as ``python public_calls_tensorflow.py MODE``.

Prints one line per failed call, and exits with 1 if there are any.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import public_calls
import tensorflow as tf

from lsmooth.backends import load_backend


def check_numerics() -> dict[str, Exception]:
    """Calls and gradients while every operation's result is looked at for inf and NaN."""
    tf.debugging.enable_check_numerics()
    failures = {}
    for row in sorted(public_calls.CALLS):
        traced = [] if row in public_calls.READ_VALUES else [("float32", "int32", True)]
        for floats, integers, graph in [("float64", "int64", False), ("float32", "int32", False), *traced]:
            try:
                (_traced if graph else _call_and_gradient)(row, floats, integers)
            except Exception as error:
                failures[f"{row} ({floats}, {'tf.function' if graph else 'eager'})"] = error
    return failures


def _traced(row: str, floats: str, integers: str) -> None:
    """The value and the gradients in a ``tf.function``, and its constants."""
    xp = load_backend("tensorflow")
    arrays = public_calls.converted(xp, row, floats, integers)

    @tf.function(autograph=False)
    def value_and_gradients(arrays):
        floating = [x for x in arrays.values() if x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(floating)
            total = public_calls.total(xp, public_calls.call(row, arrays))
        return (tf.zeros(()), []) if total is None else (total, tape.gradient(total, floating))

    try:
        value, gradients = value_and_gradients(arrays)
    except TypeError as error:
        if "call it outside tracing" in str(error):
            return
        raise
    assert np.isfinite(value.numpy())
    assert all(g is None or np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients)


def _call_and_gradient(row: str, floats: str, integers: str) -> None:
    xp = load_backend("tensorflow")
    arrays = public_calls.converted(xp, row, floats, integers)
    floating = [x for x in arrays.values() if x.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(floating)
        result = public_calls.call(row, arrays)
        total = public_calls.total(xp, result)
    public_calls.check(xp, row, result, floats)
    if total is not None and row not in public_calls.READ_VALUES:
        gradients = tape.gradient(total, floating)
        assert all(g is None or np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients)


MODES = {"check_numerics": check_numerics}

if __name__ == "__main__":
    failed = MODES[sys.argv[1]]()
    for name, error in failed.items():
        print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[-300:]}")
    sys.exit(1 if failed else 0)
