"""The options of the drop-ins: one of a wrong type is an error that names it, when a class is built or a call made."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.compat import annotated_transformer, fairseq, megatron, opennmt, optax, timm, transformers, ultralytics
from lsmooth.compat import torch as compat_torch

NUMBERS = {
    "torch": ("label_smoothing", lambda x: compat_torch.CrossEntropyLoss(label_smoothing=x)),
    "torch's function": (
        "label_smoothing",
        lambda x: compat_torch.cross_entropy(np.zeros((2, 3)), np.array([0, 1]), label_smoothing=x),
    ),
    "timm": ("smoothing", timm.LabelSmoothingCrossEntropy),
    "timm's binary": ("smoothing", timm.BinaryCrossEntropy),
    "annotated transformer": ("smoothing", lambda x: annotated_transformer.LabelSmoothing(5, 0, x)),
    "opennmt": ("label_smoothing", lambda x: opennmt.LabelSmoothingLoss(x, 5)),
    "transformers": ("epsilon", transformers.LabelSmoother),
    "fairseq": ("epsilon", lambda x: fairseq.label_smoothed_nll_loss(np.zeros((2, 3)), np.array([0, 1]), x)),
    "megatron": (
        "label_smoothing",
        lambda x: megatron.vocab_parallel_cross_entropy(np.zeros((2, 3)), np.array([0, 1]), x),
    ),
    "optax' focal": ("gamma", lambda x: optax.sigmoid_focal_loss(np.zeros(3), np.ones(3), gamma=x)),
    "optax' poly": ("epsilon", lambda x: optax.poly_loss_cross_entropy(np.zeros(3), np.ones(3) / 3, epsilon=x)),
    "ultralytics": ("eps", ultralytics.smooth_BCE),
}


@pytest.mark.parametrize("value", [None, "0.1", True, [0.1]], ids=["None", "text", "bool", "list"])
@pytest.mark.parametrize("case", NUMBERS)
def test_options_that_are_not_numbers_are_named(case, value):
    name, build = NUMBERS[case]
    with pytest.raises(TypeError, match=f"^{name} must be a number, got"):
        build(value)


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_of_numpy_and_of_tensors_are_numbers(backend, case):
    _, build = NUMBERS[case]
    for number in (np.float32(0.25), np.float64(0.25), backend.asarray(0.25, "float32")):
        build(number)


INTEGERS = {
    "torch": ("ignore_index", lambda x: compat_torch.CrossEntropyLoss(ignore_index=x)),
    "annotated transformer": ("padding_idx", lambda x: annotated_transformer.LabelSmoothing(5, x)),
    "opennmt": ("ignore_index", lambda x: opennmt.LabelSmoothingLoss(0.1, 5, x)),
    "transformers": ("ignore_index", lambda x: transformers.LabelSmoother(ignore_index=x)),
    "fairseq": (
        "ignore_index",
        lambda x: fairseq.label_smoothed_nll_loss(np.zeros((2, 3)), np.array([0, 1]), 0.1, ignore_index=x),
    ),
}


@pytest.mark.parametrize("value", ["0", True, 1.0, [1]], ids=["text", "bool", "float", "list"])
@pytest.mark.parametrize("case", INTEGERS)
def test_arguments_that_are_not_class_ids_are_named(case, value):
    name, build = INTEGERS[case]
    with pytest.raises(TypeError, match=f"^{name} must be an integer, got"):
        build(value)
    build(np.int64(1))


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        # torch's CrossEntropyLoss(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        (lambda: compat_torch.CrossEntropyLoss(0.5), ValueError, r"weight must have shape \(classes,\)"),
        (lambda: compat_torch.CrossEntropyLoss("mean"), TypeError, "weight must be an array, a tensor or numbers"),
        (lambda: compat_torch.CrossEntropyLoss([1j, 2]), TypeError, "weight must be an array, a tensor or numbers"),
        (lambda: compat_torch.CrossEntropyLoss(np.array([1j, 2])), TypeError, "weight must hold real numbers"),
        (lambda: compat_torch.CrossEntropyLoss(np.array([True])), TypeError, "weight must hold real numbers, got bool"),
        (lambda: compat_torch.CrossEntropyLoss(None, "mean"), TypeError, "size_average must be True, False or None"),
        (lambda: compat_torch.CrossEntropyLoss(reduce=1), TypeError, "reduce must be True, False or None"),
        (lambda: compat_torch.CrossEntropyLoss(reduction="avg"), ValueError, "reduction must be one of"),
        (lambda: compat_torch.CrossEntropyLoss(reduction=None), ValueError, "reduction must be one of"),
        (
            lambda: compat_torch.CrossEntropyLoss(label_smoothing=1.5),
            ValueError,
            r"label_smoothing must be in \[0, 1\]",
        ),
        (lambda: timm.BinaryCrossEntropy(reduction="avg"), ValueError, "reduction must be one of"),
        (lambda: timm.BinaryCrossEntropy(target_threshold="0.2"), TypeError, "target_threshold must be a number"),
        (lambda: timm.BinaryCrossEntropy(weight="mean"), TypeError, "weight must be an array, a tensor or numbers"),
        (lambda: timm.BinaryCrossEntropy(pos_weight=np.array([1j])), TypeError, "pos_weight must hold real numbers"),
        (lambda: timm.BinaryCrossEntropy(sum_classes="no"), TypeError, "sum_classes must be True or False"),
        (lambda: timm.BinaryCrossEntropy(smooth_dense=None), TypeError, "smooth_dense must be True or False"),
        (lambda: annotated_transformer.LabelSmoothing("5", 0), ValueError, "size must be an integer of at least 3"),
        (
            lambda: annotated_transformer.LabelSmoothing(2, 0),
            ValueError,
            "size must be an integer of at least 3, got 2",
        ),
        (
            lambda: annotated_transformer.LabelSmoothing(5, 0, 1.5),
            ValueError,
            r"smoothing must be in \[0, 1\], got 1.5",
        ),
        (lambda: opennmt.LabelSmoothingLoss(0.1, None), ValueError, "tgt_vocab_size must be an integer of at least 3"),
        (lambda: optax.smooth_labels(np.eye(3), "0.1"), TypeError, "alpha must be an array, a tensor or numbers"),
    ],
)
def test_a_wrong_option_is_named_when_the_loss_is_built(build, error, match):
    with pytest.raises(error, match=f"^{match}"):
        build()


def test_a_traced_smoothing_is_differentiated(differentiable_backend):
    xp = differentiable_backend
    x, ids = xp.asarray(np.array([[0.5, -1.0, 0.25]])), xp.asarray(np.array([0]))
    slope = xp.value_and_grad(lambda eps: fairseq.label_smoothed_nll_loss(x, ids, eps)[0], xp.asarray(0.25))[1]
    change = [float(xp.to_numpy(fairseq.label_smoothed_nll_loss(x, ids, eps)[0])) for eps in (0.0, 1.0)]
    np.testing.assert_allclose(xp.to_numpy(slope), change[1] - change[0], rtol=1e-9)
