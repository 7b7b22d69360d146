"""lsmooth needs only NumPy, and reports the installed packages."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ALL_BACKENDS, REQUIRED

import lsmooth
from lsmooth.backends import installed_backends
from lsmooth.losses import softmax_cross_entropy

FRAMEWORKS = ("jax", "tensorflow", "torch", "keras", "flax", "optax")
OPTIONAL = (*FRAMEWORKS, "matplotlib", "sklearn", "scipy", "typer", "rich")


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running ``code``."""
    report = "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_no_framework():
    assert not modules_after("import lsmooth") & set(OPTIONAL)


def test_every_part_of_the_front_door_loads_without_a_framework():
    parts = ", ".join(f"lsmooth.{name}" for name in lsmooth._SUBMODULES if name != "plots")
    assert not modules_after(f"import {parts}") & set(FRAMEWORKS)


def test_a_call_with_plain_arrays_loads_no_framework():
    call = "import lsmooth; lsmooth.losses.softmax_cross_entropy([0], [[0.0, 1.0]], label_smoothing=0.1)"
    assert not modules_after(call) & set(FRAMEWORKS)


@pytest.mark.skipif(not REQUIRED, reason="LSMOOTH_TEST_BACKENDS does not say what must be here")
def test_the_environment_holds_the_frameworks_that_it_names_and_no_other():
    assert {name for name in ALL_BACKENDS if importlib.util.find_spec(name)} == set(REQUIRED)
    assert set(installed_backends()) >= set(REQUIRED)


def test_the_error_for_a_missing_backend_says_what_to_install():
    missing = [name for name in ALL_BACKENDS if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("every framework is installed")
    for name in missing:
        with pytest.raises(ImportError, match=rf"pip install 'lsmooth\[{name}\]'"), lsmooth.use_backend(name):
            softmax_cross_entropy([0], [[0.0, 1.0]])


def test_the_workflow_runs_every_environment_of_tox():
    root = Path(__file__).parents[1]
    workflow = root / ".github" / "workflows" / "tests.yml"
    if not workflow.exists():
        pytest.skip("an sdist has no workflow")
    (listed,) = re.findall(r"^env_list = (.*)$", (root / "tox.ini").read_text(), re.MULTILINE)
    run = ", ".join(re.findall(r"env: \[(.*)\]", workflow.read_text()))
    assert set(run.split(", ")) == set(listed.split(", "))
