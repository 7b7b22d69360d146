"""Errors name the invalid argument, on every backend."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import require_backend

import lsmooth
from lsmooth.backends import Backend, registry
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy

LOGITS = np.array([[2.0, 0.0, 0.5], [0.0, 1.0, 3.0]], np.float32)
IDS = np.array([0, 2])


@pytest.mark.parametrize(
    ("error", "labels", "options", "message"),
    [
        (ValueError, np.zeros((2, 3, 1), int), {}, r"labels must have shape \(2,\)"),
        (ValueError, np.zeros(3, int), {}, r"labels must have shape \(2,\).*got \(3,\)"),
        (TypeError, np.zeros(2, np.float32), {}, "class ids and must be integers, got float32"),
        (ValueError, IDS, {"label_smoothing": 1.5}, r"label_smoothing must be in \[0, 1\], got 1.5"),
        (ValueError, IDS, {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\], got -0.1"),
        (ValueError, IDS, {"label_smoothing": float("nan")}, "label_smoothing must be in"),
        (ValueError, IDS, {"label_smoothing": np.zeros(3, np.float32)}, "label_smoothing must broadcast"),
        (ValueError, IDS, {"temperature": 0.0}, "temperature must be a finite number above 0"),
        (ValueError, IDS, {"z_loss": -1.0}, "z_loss must be"),
        (ValueError, IDS, {"logit_softcap": 0.0}, "logit_softcap must be a finite number above 0"),
        (ValueError, IDS, {"reduction": "average"}, "reduction must be None or one of.*'average'"),
        (ValueError, IDS, {"axis": 2}, "axis must be an integer in"),
        (ValueError, IDS, {"class_weight": np.ones(2)}, r"class_weight must have shape \(3,\)"),
        (ValueError, IDS, {"smoothing_prior": np.ones(4)}, r"smoothing_prior must have shape \(3,\)"),
        (ValueError, IDS, {"sample_weight": np.ones((2, 1))}, "sample_weight must be a scalar or have shape"),
        (ValueError, np.ones((2, 3), np.float32), {"ignore_index": 0}, "ignore_index needs integer labels"),
    ],
)
def test_a_bad_argument_of_softmax_cross_entropy_is_named(
    backend: Backend, error: type[Exception], labels: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(error, match=message):
        softmax_cross_entropy(labels, backend.asarray(LOGITS), **options)


def test_logits_must_be_floating_point(backend: Backend) -> None:
    with pytest.raises(TypeError, match="logits must be floating point, got int32"):
        softmax_cross_entropy(IDS, backend.asarray(np.ones((2, 3), np.int32)))


def test_logits_must_have_classes(backend: Backend) -> None:
    with pytest.raises(ValueError, match="at least one axis"):
        softmax_cross_entropy(0, backend.asarray(np.float32(1.0)))
    with pytest.raises(ValueError, match="at least one class"):
        softmax_cross_entropy(IDS, backend.asarray(np.ones((2, 0), np.float32)))


def test_a_bad_argument_of_sigmoid_cross_entropy_is_named(backend: Backend) -> None:
    logits = backend.asarray(LOGITS)
    with pytest.raises(ValueError, match="labels must have the shape of the logits"):
        sigmoid_cross_entropy(np.ones(2), logits)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        sigmoid_cross_entropy(LOGITS, logits, label_smoothing=2.0)
    with pytest.raises(ValueError, match="pos_weight must broadcast"):
        sigmoid_cross_entropy(LOGITS, logits, pos_weight=np.ones(2))


def test_values_are_checked_under_validate_and_only_there(backend: Backend) -> None:
    logits = backend.asarray(LOGITS)
    missing = backend.asarray(np.where(LOGITS == 3.0, np.nan, LOGITS).astype(np.float32))
    assert np.isnan(backend.to_numpy(softmax_cross_entropy([0, 3], logits)))
    with lsmooth.validate():
        with pytest.raises(ValueError, match=r"labels must be class ids in 0..2, got 3 at index \(1,\)"):
            softmax_cross_entropy([0, 3], logits)
        with pytest.raises(ValueError, match=r"logits must hold no NaN, got nan at index \(1, 2\)"):
            softmax_cross_entropy(IDS, missing)
        assert np.isfinite(backend.to_numpy(softmax_cross_entropy([0, -100], logits, ignore_index=-100)))
        with lsmooth.validate(False):
            softmax_cross_entropy([0, 3], logits)


@pytest.mark.parametrize(("value", "code"), [("1", 1), ("0", 0)])
def test_the_environment_variable_enables_the_check(value: str, code: int) -> None:
    program = "import lsmooth; lsmooth.losses.softmax_cross_entropy([3], [[0.0, 1.0]])"
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "LSMOOTH_VALIDATE": value}, capture_output=True, text=True
    )
    assert run.returncode == code, run.stderr
    assert ("got 3 at index (0,)" in run.stderr) is bool(code)


@pytest.mark.parametrize(("first", "second"), [("torch", "jax"), ("jax", "tensorflow"), ("tensorflow", "torch")])
def test_two_frameworks_in_one_call_are_refused(first: str, second: str) -> None:
    labels = require_backend(first).asarray(IDS)
    logits = require_backend(second).asarray(LOGITS)
    with pytest.raises(TypeError, match=r"labels is a .* and logits a .*; convert one of them, e.g. .*logits"):
        softmax_cross_entropy(labels, logits)


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"No backend is called 'mxnet'\. Installed backends: numpy"):
        lsmooth.set_backend("mxnet")


def test_a_backend_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'lsmooth\[torch\]'"):
        lsmooth.set_backend("torch")


def test_a_bad_default_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSMOOTH_BACKEND", "mxnet")
    with pytest.raises(ValueError, match="No backend is called 'mxnet'"):
        softmax_cross_entropy([0], [[0.0, 1.0]])
