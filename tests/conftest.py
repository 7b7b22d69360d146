"""The frameworks under test, and how close is close.

``LSMOOTH_TEST_BACKENDS=numpy,jax`` names the backends an environment must have: they fail
if they are missing, and other backends are not tested. If unset, all installed backends are tested.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import pathlib
import sys
from collections.abc import Generator, Iterator

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Small tensors, often several test processes: threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from lsmooth.backends import Backend, load_backend

ALL_BACKENDS = ("numpy", "jax", "tensorflow", "torch")
REQUIRED = tuple(filter(None, os.environ.get("LSMOOTH_TEST_BACKENDS", "").split(",")))
TRIED = REQUIRED or ALL_BACKENDS

if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)


def require_backend(name: str) -> Backend:
    """The backend, or a skip that says why, or a failure where this environment must have it."""
    if name not in TRIED:
        pytest.skip(f"{name} is not among LSMOOTH_TEST_BACKENDS={','.join(REQUIRED)}")
    if importlib.util.find_spec(name) is None:
        if name in REQUIRED:
            pytest.fail(f"LSMOOTH_TEST_BACKENDS asks for {name}, which is not installed")
        pytest.skip(f"{name} is not installed")
    return load_backend(name)


@pytest.fixture(params=TRIED)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each installed backend in turn."""
    return require_backend(request.param)


@pytest.fixture(params=[name for name in TRIED if name != "numpy"])
def differentiable_backend(request: pytest.FixtureRequest) -> Backend:
    """Each installed backend that computes gradients."""
    return require_backend(request.param)


@pytest.fixture(params=["host", "device"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, backend: Backend) -> str:
    """Both ways through the rows: NumPy in place on the host's memory, and the backend's operations."""
    if request.param == "device":
        monkeypatch.setattr(type(backend), "host_values", lambda self, x: None)
    return request.param


MOST_MEMORY = 4 * 2**30


def _resident_bytes() -> int:
    """The memory of this process; 0 if the system does not report it."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Forget compiled programs between modules where thousands of them take gigabytes."""
    yield
    if _resident_bytes() < MOST_MEMORY:
        return
    if "jax" in sys.modules:
        jax.clear_caches()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    gc.collect()


# Relative to the float64 reference, with the same absolute slack near zero.
TOLERANCES = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def assert_close(backend: Backend, actual: object, expected: np.ndarray, dtype: str, factor: float = 1.0) -> None:
    """``actual``, of any framework, equals the float64 reference to the parity bar of ``dtype``."""
    tolerance = factor * TOLERANCES[dtype]
    got = backend.to_numpy(actual) if backend.is_array(actual) else np.asarray(actual)
    expected = np.asarray(expected, np.float64)
    finite = expected[np.isfinite(expected)]
    scale = max(1.0, float(np.abs(finite).max())) if finite.size else 1.0
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def as_dtype(backend: Backend, x: np.ndarray, dtype: str) -> object:
    """``x`` as a tensor, or a skip where the backend has no such dtype."""
    try:
        return backend.asarray(x, dtype)
    except TypeError:
        pytest.skip(f"{backend.name} has no {dtype} here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip tests that need SciPy if it is not installed, as in the NumPy-only environment."""
    try:
        yield
    except ImportError as error:
        if "need SciPy" in str(error) and importlib.util.find_spec("scipy") is None:
            pytest.skip("scipy is not installed")
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as ``record_property("summary", line)``."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for name, line in (recorded for report in reports for recorded in report.user_properties):
        if name == "summary":
            terminalreporter.write_line(line)
