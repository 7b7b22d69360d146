"""Checks of the losses of a backend, against the reference in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth.backends import Array
from lsmooth.backends.options import SigmoidOptions, SoftmaxOptions
from lsmooth.testing import reference
from lsmooth.testing._case import Case


def _softmax_cross_entropy(case: Case) -> None:
    """Check the kernel with several options, masked classes and labels out of range."""
    xp, rng = case.xp, np.random.default_rng(0)
    result = "float64" if case.dtype == "float64" else "float32"
    logits = np.round(8.0 * rng.normal(0.0, 3.0, (4, 2, 5))) / 8.0  # exact in every dtype
    logits[0, 0, 1] = -np.inf
    hard = np.array([[0, 1], [4, 2], [3, 3], [0, 4]])
    soft = rng.gamma(1.0, 1.0, (4, 2, 5)).astype(np.float32)
    soft[0, 0, 1] = 0.0
    per_row, per_class = (
        rng.uniform(0.2, 1.0, (4, 2)).astype(np.float32),
        np.array([0.5, 0.25, 1.0, 2.0, 0.0], np.float32),
    )
    options: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.25},
        {"label_smoothing": per_row, "temperature": 2.0 * per_row},
        {"label_smoothing": 0.25, "prior": per_class, "scale": per_row},
        {"label_smoothing": 0.25, "class_weight": per_class, "z_loss": 0.125},
        {"label_smoothing": 0.25, "logit_softcap": 4.0, "temperature": 0.5, "scale": 0.5},
        {"label_smoothing": 0.25, "counted": hard != 3, "scale": per_row},
        {"label_smoothing": 0.25, "scale": 0.125, "total": True},
    ]
    z = xp.asarray(logits, case.dtype)
    for given in options:
        for labels in (hard, soft):
            what = f"softmax_cross_entropy({'soft labels' if labels is soft else 'class ids'}, {', '.join(given)})"
            expected, gradient = _reference(labels, logits, **given)
            arrays = case.arrays(given)
            target = xp.asarray(labels, result if labels is soft else "int32")

            def kernel(z: Array, target: Array = target, arrays: dict[str, Any] = arrays) -> Array:
                return xp.softmax_cross_entropy(z, target, SoftmaxOptions(**arrays))

            case.equal(what, lambda kernel=kernel: kernel(z), expected, result)
            case.gradient(what, kernel, logits, gradient)
    lost = case.integers([0, 1], [-1, 5], [3, 3], [0, 4])
    for eps in (0.0, 0.25):
        expected, _ = _reference(xp.to_numpy(lost), logits, label_smoothing=eps)
        got = xp.softmax_cross_entropy(z, lost, SoftmaxOptions(eps))
        case.equal("softmax_cross_entropy with labels out of range", lambda got=got: got, expected, result)


def _reference(labels: np.ndarray, logits: np.ndarray, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    names = {"prior": "smoothing_prior", "scale": "sample_weight"}
    options = {names.get(name, name): x for name, x in given.items() if name not in ("counted", "total")}
    if "counted" in given:
        options["mask"] = given["counted"]
    reduction = "sum" if given.get("total") else "none"
    return reference.softmax_cross_entropy(labels, logits, reduction=reduction, **options)


def _label_log_odds(case: Case) -> None:
    xp = case.xp
    logits = np.array([[0.5, -2.0, 1.0], [0.0, 60.0, 3.0], [1.0, 2.0, 4.0], [-50.0, 0.0, 1.0]])
    ids = np.array([0, 1, 2, 0])
    at_label = np.arange(3) == ids[:, None]
    others = np.exp(np.where(at_label, -np.inf, logits))
    expected = logits[at_label] - np.log(others.sum(-1))
    gradient = at_label - others / others.sum(-1, keepdims=True)

    def kernel(z: Array) -> Array:
        return xp.label_log_odds(z, xp.asarray(ids, "int32"))

    z = xp.asarray(logits, case.dtype)
    result = "float64" if case.dtype == "float64" else "float32"
    case.equal("label_log_odds", lambda: kernel(z), expected, result)
    case.gradient("label_log_odds", kernel, logits, gradient)


def _sigmoid_cross_entropy(case: Case) -> None:
    xp = case.xp
    result = "float64" if case.dtype == "float64" else "float32"
    logits = np.array([[0.5, -2.0, 100.0], [0.0, -100.0, 3.0]])
    labels = np.array([[0.0, 1.0, 0.75], [0.5, 1.0, 0.0]])
    target, weight = xp.asarray(labels, result), np.array([0.5, 1.0, 4.0])
    scale = np.array([[1.0, 0.5, 0.25], [0.0, 2.0, 1.0]])
    given: dict[str, Any]
    for given in (
        {},
        {"pos_weight": weight},
        {"label_smoothing": 0.25, "scale": 0.5, "total": True},
        {"label_smoothing": 0.25, "pos_weight": weight, "scale": scale},
        {"scale": scale, "total": True},
    ):
        what = f"sigmoid_cross_entropy with {sorted(given)}" if given else "sigmoid_cross_entropy"
        expected, gradient = _binary_reference(labels, logits, **given)
        options = case.arrays(given)

        def kernel(z: Array, options: dict[str, Any] = options) -> Array:
            return xp.sigmoid_cross_entropy(z, target, SigmoidOptions(**options))

        z = xp.asarray(logits, case.dtype)
        case.equal(what, lambda kernel=kernel, z=z: kernel(z), expected, result)
        case.gradient(what, kernel, logits, gradient)


def _binary_reference(labels: np.ndarray, logits: np.ndarray, *, scale: Any = 1.0, total: bool = False, **given: Any):
    value, gradient = reference.sigmoid_cross_entropy(labels, logits, reduction="none", **given)
    return (scale * value).sum() if total else scale * value, scale * gradient


CHECKS = (_softmax_cross_entropy, _sigmoid_cross_entropy, _label_log_odds)
