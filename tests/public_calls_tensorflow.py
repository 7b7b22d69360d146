"""Every public call in one of TensorFlow's stricter modes; run as ``python public_calls_tensorflow.py MODE``.

Prints what failed, a line a call, and exits with 1 if anything did.
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
        for floats, integers in (("float64", "int64"), ("float32", "int32")):
            try:
                _call_and_gradient(row, floats, integers)
            except Exception as error:
                failures[f"{row} ({floats})"] = error
    return failures


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
        print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else error!r}")
    sys.exit(1 if failed else 0)
