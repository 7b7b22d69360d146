"""Keras' tests of the losses that lsmooth names after it, as the wheel ships them, run on lsmooth's.

They report how many Keras has, how many ran and how many passed: on each backend, for each of the
seven classes. keras_swap.py says what is changed in Keras' modules for that.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from conftest import ALL_BACKENDS, require_backend

FILES = ("losses_test", "loss_test")
TEST_CLASSES = (
    "LossTest",
    "CategoricalCrossentropyTest",
    "SparseCategoricalCrossentropyTest",
    "BinaryCrossentropyTest",
    "CategoricalFocalCrossentropyTest",
    "BinaryFocalCrossentropyTest",
    "KLDivergenceTest",
)


@dataclass
class Tally:
    """How many tests of a class Keras has, how many ran, and how many passed."""

    found: int = 0
    ran: int = 0
    passed: int = 0


@pytest.mark.parametrize("name", ALL_BACKENDS)
def test_all_of_keras_own_tests_of_the_named_losses_pass(name, tmp_path, record_property):
    require_backend(name)
    keras = importlib.util.find_spec("keras")
    if keras is None or keras.origin is None:
        pytest.skip("Keras is not installed")
    tests = [Path(keras.origin).parent / "src" / "losses" / f"{file}.py" for file in FILES]
    if not all(test.exists() for test in tests):
        pytest.skip("this Keras ships no tests of its own")
    report = tmp_path / "report.xml"
    options = ["-p", "keras_swap", "-p", "no:cacheprovider", "-c", os.devnull, f"--junitxml={report}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, tests)],
        env={
            **os.environ,
            "KERAS_BACKEND": name,
            "LSMOOTH_BACKEND": name,
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    cases = list(ET.parse(report).iter("testcase"))
    tallies = {test_class: Tally() for test_class in TEST_CLASSES}
    for case in cases:
        tally = tallies[case.attrib["classname"].rpartition(".")[2]]
        tally.found += 1
        tally.ran += case.find("skipped") is None
        tally.passed += not any(case.find(outcome) is not None for outcome in ("skipped", "failure", "error"))
    found, ran, passed = (sum(column) for column in zip(*map(astuple, tallies.values()), strict=True))
    each = ", ".join(f"{name.removesuffix('Test')} {tally.passed}/{tally.found}" for name, tally in tallies.items())
    record_property(
        "summary", f"Keras' {found} tests of the named losses, with lsmooth's, on {name}: {ran} ran, {passed} passed"
    )
    record_property("summary", f"  ({each})")
    for tally in tallies.values():
        assert 0 < tally.found == tally.ran == tally.passed, run.stdout[-5000:]
    assert run.returncode == 0, run.stdout[-5000:]
