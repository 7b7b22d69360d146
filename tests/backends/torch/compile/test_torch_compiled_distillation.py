"""Distillation of linear heads in a compiled program equals that in eager mode."""

import numpy as np
import pytest
from compiled_heads import CLASSES, FEATURES, LABELS, ROWS, head, in_torch, run_any, torch
from conftest import require_backend

from lsmooth.backends.torch import thresholds
from lsmooth.distillation import linear_distillation_loss

DISTILLED = {
    "soft": {"temperature": 2.0},
    "soft and hard": {"labels": LABELS, "alpha": 0.7, "label_smoothing": 0.1, "temperature": 2.0, "ignore_index": 5},
    "jensen_shannon": {"divergence": "jensen_shannon", "beta": 0.3, "temperature": np.linspace(0.5, 2.0, ROWS)},
    "mse_logits": {"divergence": "mse_logits", "sample_weight": np.linspace(0.0, 2.0, ROWS)},
}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with operators also for few classes."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


def heads(dtype=torch.float64):
    """Teacher's and student's."""
    rng = np.random.default_rng(2)
    shapes = (ROWS, 4), (CLASSES, 4), (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return [torch.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("options", DISTILLED.values(), ids=DISTILLED)
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("stop_teacher", [False, True])
def test_distillation_matches_eager_mode(options, reduction, stop_teacher):
    given = heads()
    options = in_torch(options) | {"reduction": reduction, "stop_teacher_gradient": stop_teacher, "block_size": 3}

    def distil(*arrays):
        return linear_distillation_loss(*arrays[:4], student_bias=arrays[4], **options)

    loss, is_operator = run_any(distil)(*given)
    eager = distil(*given)
    assert is_operator
    torch.testing.assert_close(loss, eager, rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    found, right = (
        torch.autograd.grad(x, given, upstream, allow_unused=True, materialize_grads=True) for x in (loss, eager)
    )
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_teacher_of_another_precision(dtype):
    given = [x.detach() for x in heads(torch.float32)]
    given = [*(x.to(dtype) for x in given[:2]), *(x.requires_grad_() for x in given[2:4])]

    def distil(*arrays):
        return linear_distillation_loss(*arrays, temperature=2.0)

    loss, is_operator = run_any(distil)(*given)
    assert is_operator
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distil(*given))
    found, right = (torch.autograd.grad(x, given[2:]) for x in (loss, distil(*given)))
    torch.testing.assert_close(found, right)


def test_weights_that_are_tied():
    """One tensor is the student's head, the teacher's, and a part of the hidden states."""
    weight = head()[1]

    def fused(weight):
        hidden = weight[:ROWS]
        return linear_distillation_loss(hidden.flip(0), weight, hidden, weight, stop_teacher_gradient=False)

    loss, is_operator = run_any(fused)(weight)
    assert is_operator
    torch.testing.assert_close(loss, fused(weight))
    found, right = (torch.autograd.grad(x, weight) for x in (loss, fused(weight)))
    torch.testing.assert_close(found, right)
