"""A pytest plugin for Keras' own tests: they find lsmooth's losses where they look for Keras'.

Loaded by test_keras_own_tests.py into a separate process. What it changes in the modules of
Keras' tests, and why:

- ``losses``, ``Loss`` and ``squeeze_or_expand_to_same_rank`` are lsmooth's.
- Tests that Keras skips on a backend run all the same.
- loss_test.py looks up "mse", which lsmooth has not: it gets "bce".
- In the two tests that end in "different_axis", ``backend.backend()`` answers "torch". They put the
  classes on another axis than the last. Keras' code for PyTorch can do that, and there the tests ask
  for numbers; its code for JAX and TensorFlow cannot, and there they ask for an error. lsmooth's
  numbers do not depend on the backend, so that it is compared on all of them. With nothing
  but the names swapped, these two fail on JAX and TensorFlow, which raise no error.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest

import lsmooth.losses as losses
from lsmooth.integrations import keras  # Keras loads only registered classes.
from lsmooth.losses._loss import squeeze_or_expand_to_same_rank

TESTS = {f"{name}Test" for name in (*keras.__all__, "Loss")}


def pytest_itemcollected(item):
    item.own_markers = [mark for mark in item.own_markers if mark.name != "skipif"]


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if item.cls.__name__ not in TESTS]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    for module in {item.module for item in items}:
        if hasattr(module, "ExampleLoss"):
            _swap_in_loss_test(module)
        else:
            module.losses = losses


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    as_torch = SimpleNamespace(backend=lambda: "torch")
    any_axis = item.name.endswith("different_axis")
    with mock.patch.object(item.module, "backend", as_torch) if any_axis else nullcontext():
        return (yield)


def _swap_in_loss_test(module):
    module.ExampleLoss = type("ExampleLoss", (losses.Loss,), {"call": module.ExampleLoss.call})
    module.squeeze_or_expand_to_same_rank = squeeze_or_expand_to_same_rank
    module.losses_module = SimpleNamespace(
        get=lambda name: losses.get("bce" if name == "mse" else name), mean_squared_error=losses.binary_crossentropy
    )
