"""Importing lsmooth imports no framework, and plain arrays use the chosen backend."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import numpy as np
import pytest

import lsmooth
from lsmooth.backends import Backend
from lsmooth.losses import softmax_cross_entropy

FRAMEWORKS = ("jax", "torch", "tensorflow", "keras", "sklearn", "matplotlib")


def test_importing_lsmooth_imports_no_framework() -> None:
    program = (
        "import sys, lsmooth; lsmooth.losses.softmax_cross_entropy([0], [[0.0, 1.0]]);"
        f"sys.exit(' '.join(name for name in {FRAMEWORKS} if name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not run.stderr.strip(), run.stderr


PACKAGES = ["losses", "metrics", "calibration", "distillation", "smoothing", "preference", "analysis", "plots"]


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_export_exactly_their_public_names(name: str) -> None:
    if name == "plots":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    package = importlib.import_module(f"lsmooth.{name}")
    assert {x for x in dir(package) if not x.startswith("_")} == set(package.__all__)


def test_plain_arrays_go_to_the_backend_of_the_block(backend: Backend) -> None:
    with lsmooth.use_backend(backend.name):
        assert backend.is_array(softmax_cross_entropy([0], [[0.0, 1.0]]))
        with lsmooth.use_backend("numpy"):
            assert lsmooth.get_backend() == "numpy"
        assert lsmooth.get_backend() == backend.name


def test_a_block_chooses_for_its_own_thread_alone(backend: Backend) -> None:
    seen: list[str] = []
    with lsmooth.use_backend(backend.name):
        thread = threading.Thread(target=lambda: seen.append(lsmooth.get_backend()))
        thread.start()
        thread.join()
    assert seen == ["numpy"]


def test_numpy_arrays_beside_a_tensor_join_its_framework(backend: Backend) -> None:
    logits = np.array([[0.0, 1.0]], np.float32)
    assert backend.is_array(softmax_cross_entropy(np.array([0]), backend.asarray(logits)))
    assert backend.is_array(softmax_cross_entropy(backend.asarray(np.array([0])), logits))
