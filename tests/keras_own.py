"""Keras' own tests, from its wheel, run on the replacements of lsmooth."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from conftest import require_backend


@dataclass
class Tally:
    """How many tests of a class Keras has, how many ran, and how many passed."""

    found: int = 0
    ran: int = 0
    passed: int = 0


def run_keras_tests(name: str, files: list[str], classes: tuple[str, ...], plugin: Path, folder: Path) -> str:
    """Run the test files, paths below keras/src, on the Keras backend of that name, with a pytest plugin that swaps.

    Every test of the classes has to run and pass; says in a line how many that were.
    """
    require_backend(name)
    if name == "numpy":
        require_backend("jax")  # which Keras' NumPy backend imports
    keras = importlib.util.find_spec("keras")
    if keras is None or keras.origin is None:
        pytest.skip("Keras is not installed")
    tests = [Path(keras.origin).parent / "src" / file for file in files]
    if not all(test.exists() for test in tests):
        pytest.skip("this Keras ships no tests of its own")
    report = folder / "report.xml"
    options = ["-p", plugin.stem, "-p", "no:cacheprovider", "-c", os.devnull, f"--junitxml={report}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, tests)],
        env={
            **os.environ,
            "KERAS_BACKEND": name,
            "LSMOOTH_BACKEND": name,
            "PYTHONPATH": str(plugin.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), run.stdout + run.stderr
    tallies = {test_class: Tally() for test_class in classes}
    for case in ET.parse(report).iter("testcase"):
        tally = tallies[case.attrib["classname"].rpartition(".")[2]]
        tally.found += 1
        tally.ran += case.find("skipped") is None
        tally.passed += not any(case.find(outcome) is not None for outcome in ("skipped", "failure", "error"))
    for tally in tallies.values():
        assert 0 < tally.found == tally.ran == tally.passed, run.stdout[-5000:]
    assert run.returncode == 0, run.stdout[-5000:]
    found, ran, passed = (sum(column) for column in zip(*map(astuple, tallies.values()), strict=True))
    each = ", ".join(f"{name.removesuffix('Test')} {tally.passed}/{tally.found}" for name, tally in tallies.items())
    return f"{found} on {name}: {ran} ran, {passed} passed ({each})"
