"""Keras' tests of the losses that lsmooth names after it, as the wheel ships them, run on lsmooth's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import ALL_BACKENDS, require_backend

FILES = ("losses_test", "loss_test")


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
    for file in FILES:
        of_file = [case for case in cases if case.attrib["classname"].split(".")[-2] == file]
        ran = [case for case in of_file if case.find("skipped") is None]
        passed = [case for case in ran if case.find("failure") is None and case.find("error") is None]
        record_property(
            "summary", f"{file}.py of Keras with lsmooth's losses on {name}: {len(ran)} ran, {len(passed)} passed"
        )
        assert len(of_file) == len(ran) == len(passed) > 10, run.stdout[-5000:]
    assert run.returncode == 0, run.stdout[-5000:]
