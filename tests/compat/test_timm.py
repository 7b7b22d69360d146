"""`lsmooth.compat.timm` on every backend matches the installed timm, whose losses need only torch."""

from __future__ import annotations

from typing import Optional, Union

import numpy as np
import pytest
from peers import assert_same_as_torch_function, original

from lsmooth.compat import timm as compat

torch = pytest.importorskip("torch", reason="timm's losses are torch's")

LOGITS = 3 * np.random.default_rng(0).normal(size=(4, 5))
IDS = np.array([0, 4, 2, 4])
SOFT = np.random.default_rng(1).dirichlet(np.ones(5), size=4)
WEIGHT = np.array([0.5, 0.0, 2.0, 1.3, 1.0])


def timm(file, name):
    namespace = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "Optional": Optional, "Union": Union}
    return original("timm", f"loss/{file}.py", name, namespace)


def assert_same_as_timm(backend, ours, theirs, target, dtype="float64", factor=4.0):
    assert_same_as_torch_function(
        backend,
        lambda x: ours(x, backend.asarray(target)),
        lambda x: theirs(x, torch.tensor(target) if target.dtype.kind == "i" else torch.tensor(target).to(x.dtype)),
        LOGITS,
        dtype,
        factor,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_cross_entropy_matches_timm(backend, smoothing, dtype):
    theirs = timm("cross_entropy", "LabelSmoothingCrossEntropy")(smoothing)
    ours = compat.LabelSmoothingCrossEntropy(smoothing)
    assert ours.confidence == theirs.confidence
    assert_same_as_timm(backend, ours, theirs, IDS, dtype, factor=4.0 if dtype != "bfloat16" else 8.0)


def test_soft_target_cross_entropy_matches_timm(backend):
    assert_same_as_timm(
        backend, compat.SoftTargetCrossEntropy(), timm("cross_entropy", "SoftTargetCrossEntropy")(), SOFT
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"smoothing": 0.0},
        {"smoothing": 0.3, "reduction": "none"},
        {"reduction": "sum"},
        {"sum_classes": True},
        {"target_threshold": 0.2},
        {"smooth_dense": True},
        {"pos_weight": 3.0},
        {"weight": WEIGHT, "pos_weight": WEIGHT + 1},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_binary_cross_entropy_matches_timm(backend, options):
    tensors = {name: torch.tensor(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    for target in (IDS, IDS[:, None], SOFT):
        theirs = timm("binary_cross_entropy", "BinaryCrossEntropy")(**tensors)
        assert_same_as_timm(backend, compat.BinaryCrossEntropy(**options), theirs, target)


def test_arguments_that_timm_refuses_are_refused_and_named(backend):
    with pytest.raises(AssertionError):
        timm("cross_entropy", "LabelSmoothingCrossEntropy")(1.0)
    with pytest.raises(ValueError, match=r"smoothing must be below 1, got 1\.0"):
        compat.LabelSmoothingCrossEntropy(1.0)
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\), got -0\.1"):
        compat.BinaryCrossEntropy(-0.1)
    with pytest.raises(ValueError, match="target must have the shape of x"):
        compat.SoftTargetCrossEntropy()(backend.asarray(LOGITS), backend.asarray(SOFT[:, :4]))
