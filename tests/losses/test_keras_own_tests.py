"""Keras' tests of the losses that lsmooth names after it, as the wheel ships them, run on lsmooth's.

They report how many Keras has, how many ran and how many passed: on each backend, for each of the
seven classes. keras_swap.py says what is changed in Keras' modules for that.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ALL_BACKENDS
from keras_own import run_keras_tests

FILES = ["losses/losses_test.py", "losses/loss_test.py"]
TEST_CLASSES = (
    "LossTest",
    "CategoricalCrossentropyTest",
    "SparseCategoricalCrossentropyTest",
    "BinaryCrossentropyTest",
    "CategoricalFocalCrossentropyTest",
    "BinaryFocalCrossentropyTest",
    "KLDivergenceTest",
)


@pytest.mark.parametrize("name", ALL_BACKENDS)
def test_the_loss_tests_of_keras_pass(name, tmp_path, record_property):
    counts = run_keras_tests(name, FILES, TEST_CLASSES, Path(__file__).with_name("keras_swap.py"), tmp_path)
    record_property("summary", f"Keras' tests of the named losses, with lsmooth's: {counts}")
