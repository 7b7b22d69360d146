"""Dtypes that no loss takes: complex and float8 logits, class ids of bool, complex labels; named on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth import calibration, distillation, losses, metrics
from lsmooth.backends import Backend
from lsmooth.compat import fairseq, optax, timm, transformers
from lsmooth.compat import torch as compat_torch

RNG = np.random.default_rng(0)
LOGITS, SOFT, IDS = RNG.normal(size=(2, 3)), RNG.dirichlet(np.ones(3), 2), np.array([0, 1])
HARD_AND_SOFT = distillation.DistillationLoss()


def by_ids(loss):
    return lambda ids, soft, z, x: loss(ids, x)


def by_rows(loss):
    return lambda ids, soft, z, x: loss(soft, x)


# Class ids, distributions, logits, and invalid values in place of logits.
OF_LOGITS = {
    "softmax": by_ids(losses.softmax_cross_entropy),
    "softmax focal": by_ids(losses.softmax_focal_loss),
    "poly": by_ids(losses.poly_cross_entropy),
    "generalized": by_ids(losses.generalized_cross_entropy),
    "symmetric": by_ids(losses.symmetric_cross_entropy),
    "bootstrap": by_ids(losses.bootstrap_cross_entropy),
    "margin": by_ids(losses.margin_label_smoothing),
    "max suppression": by_ids(losses.max_suppression),
    "confidence penalty": by_ids(losses.confidence_penalty),
    "logit penalty": by_ids(losses.logit_penalty),
    "sigmoid": by_rows(losses.sigmoid_cross_entropy),
    "sigmoid focal": by_rows(losses.sigmoid_focal_loss),
    "hidden": lambda ids, soft, z, x: losses.linear_softmax_cross_entropy(ids, x, z),
    "weight": lambda ids, soft, z, x: losses.linear_softmax_cross_entropy(ids, z, x),
    "teacher": lambda ids, soft, z, x: distillation.distillation_loss(x, z),
    "student": lambda ids, soft, z, x: distillation.distillation_loss(z, x),
    "hard and soft, teacher": lambda ids, soft, z, x: HARD_AND_SOFT(ids, x, z),
    "hard and soft, student": lambda ids, soft, z, x: HARD_AND_SOFT(ids, z, x),
    "decoupled": lambda ids, soft, z, x: distillation.decoupled_distillation_loss(z, x, labels=ids),
    "calibration error": by_ids(metrics.expected_calibration_error),
    "likelihood": by_ids(metrics.negative_log_likelihood),
    "brier": by_ids(metrics.brier_score),
    "temperature scaling": lambda ids, soft, z, x: calibration.TemperatureScaling().fit(x, ids),
    "vector scaling": lambda ids, soft, z, x: calibration.VectorScaling().fit(x, ids),
    "isotonic": lambda ids, soft, z, x: calibration.IsotonicCalibration().fit(x, ids),
    "temperature": lambda ids, soft, z, x: calibration.apply_temperature(x, 2.0),
    "torch": lambda ids, soft, z, x: compat_torch.cross_entropy(x, ids),
    "timm": lambda ids, soft, z, x: timm.LabelSmoothingCrossEntropy()(x, ids),
    "transformers": lambda ids, soft, z, x: transformers.LabelSmoother()((x,), ids),
}
OF_IDS = {
    "softmax": losses.softmax_cross_entropy,
    "softmax focal": losses.softmax_focal_loss,
    "confidence penalty": losses.confidence_penalty,
    "linear": lambda y, z: losses.linear_softmax_cross_entropy(y, z, z),
    "hard and soft": lambda y, z: HARD_AND_SOFT(y, z, z),
    "decoupled": lambda y, z: distillation.decoupled_distillation_loss(z, z, labels=y),
    "calibration error": lambda y, z: metrics.expected_calibration_error(y, z, from_logits=True),
    "likelihood": lambda y, z: metrics.negative_log_likelihood(y, z, from_logits=True),
    "brier": lambda y, z: metrics.brier_score(y, z, from_logits=True),
    "temperature scaling": lambda y, z: calibration.TemperatureScaling().fit(z, y),
    "isotonic": lambda y, z: calibration.IsotonicCalibration().fit(z, y),
    "torch": lambda y, z: compat_torch.cross_entropy(z, y),
    "timm": lambda y, z: timm.LabelSmoothingCrossEntropy()(z, y),
    "transformers": lambda y, z: transformers.LabelSmoother()((z,), y),
    "optax": lambda y, z: optax.softmax_cross_entropy_with_integer_labels(z, y),
    "fairseq": lambda y, z: fairseq.label_smoothed_nll_loss(z, y, 0.1),
}
OF_DISTRIBUTIONS = {
    "softmax": ("labels", losses.softmax_cross_entropy),
    "softmax focal": ("labels", losses.softmax_focal_loss),
    "sigmoid": ("labels", losses.sigmoid_cross_entropy),
    "class weight": ("class_weight", lambda t, z: losses.softmax_cross_entropy(IDS, z, class_weight=t[0])),
    "sample weight": ("sample_weight", lambda t, z: losses.softmax_cross_entropy(IDS, z, sample_weight=t[:, 0])),
    "smoothing": ("label_smoothing", lambda t, z: losses.softmax_cross_entropy(IDS, z, label_smoothing=t[:, 0])),
    "torch": ("target", lambda t, z: compat_torch.cross_entropy(z, t)),
    "timm": ("target", lambda t, z: timm.SoftTargetCrossEntropy()(z, t)),
}


def in_dtype(xp: Backend, x: np.ndarray, dtype: str):
    """An array of a dtype that the backends' own ``asarray`` need not know."""
    if dtype == "complex64":
        x = x.astype(np.complex64)
        module = {"jax": "jax.numpy", "tensorflow": "tensorflow", "torch": "torch"}.get(xp.name)
        return (
            getattr(pytest.importorskip(module), "asarray" if xp.name != "tensorflow" else "constant")(x)
            if module
            else x
        )
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no float8 of its own")
    if xp.name == "torch":
        torch = pytest.importorskip("torch")
        return torch.tensor(x).to(getattr(torch, dtype))
    if xp.name == "tensorflow":
        tensorflow = pytest.importorskip("tensorflow")
        return tensorflow.cast(tensorflow.constant(x, "float32"), dtype)
    x = x.astype(getattr(ml_dtypes, dtype))
    return pytest.importorskip("jax.numpy").asarray(x) if xp.name == "jax" else x


@pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("case", OF_LOGITS)
def test_logits_of_another_dtype_are_named(backend, case, dtype):
    ids, soft, z = (backend.asarray(x) for x in (IDS, SOFT, LOGITS))
    with pytest.raises(TypeError, match=rf"must be floating point, got {dtype}; cast it"):
        OF_LOGITS[case](ids, soft, z, in_dtype(backend, LOGITS, dtype))


@pytest.mark.parametrize("case", OF_IDS)
def test_class_ids_of_bool_are_named(backend, case):
    with pytest.raises(TypeError, match=r"must be integer.*, got bool; cast them"):
        OF_IDS[case](backend.asarray(np.array([True, False])), backend.asarray(LOGITS))


@pytest.mark.parametrize("case", OF_DISTRIBUTIONS)
def test_complex_numbers_are_refused(backend, case):
    name, call = OF_DISTRIBUTIONS[case]
    with pytest.raises(TypeError, match=f"{name} must hold real numbers, got complex64"):
        call(in_dtype(backend, SOFT, "complex64"), backend.asarray(LOGITS))
