"""``overwrite_logits``: the gradient overwrites the logits, and later reads raise an error."""

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.losses import softmax_cross_entropy

IDS = np.random.default_rng(0).integers(0, 700, 40)
CASES = {
    "mean": {},
    "smoothed": {"label_smoothing": 0.1, "temperature": 2.0, "logit_softcap": 4.0},
    "rows": {"reduction": "none", "label_smoothing": 0.1, "z_loss": 0.01},
    "mask": {"mask": np.arange(40) % 3 > 0},
    "padding": {"num_classes": 700, "label_smoothing": 0.1},
}


def logits_of(torch, dtype="float64", rows=40):
    """The output of a layer that does not need it again, and the layer's weight."""
    make = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 750, generator=make, dtype=torch.float64).to(getattr(torch, dtype)).requires_grad_()
    hidden = torch.randn(rows, 16, generator=make, dtype=torch.float64).to(weight.dtype)
    return hidden @ weight, weight


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_gradient_has_the_memory_layout_of_the_logits(options, dtype):
    require_backend("torch")
    import torch

    found = []
    for overwrite in (False, True):
        z, weight = logits_of(torch, dtype)
        if "mask" in options:
            with torch.no_grad():
                z[0] = torch.nan
        gradients = []
        z.register_hook(gradients.append)
        loss = softmax_cross_entropy(IDS, z, overwrite_logits=overwrite, **options)
        loss.mean().backward()
        found.append((loss.detach(), gradients[0].clone(), weight.grad))
        assert (gradients[0].data_ptr() == z.data_ptr()) == overwrite
    tolerance = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-7}[dtype]
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_masked_classes_and_labels_out_of_range_keep_their_meaning():
    require_backend("torch")
    import torch

    found = []
    for overwrite in (False, True):
        z, _ = logits_of(torch)
        z = z.masked_fill(torch.arange(750) > 740, -torch.inf)
        ids = np.where(np.arange(40) == 3, -1, IDS)
        loss = softmax_cross_entropy(ids, z, label_smoothing=0.1, reduction="none", overwrite_logits=overwrite)
        (gradient,) = torch.autograd.grad(loss.nansum(), z)
        found.append((loss.detach(), gradient))
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_autograd_detects_overwritten_logits():
    require_backend("torch")
    import torch

    z, _ = logits_of(torch)
    z = torch.exp(z)  # keeps its result for the backward pass
    loss = softmax_cross_entropy(IDS, z, overwrite_logits=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

    z, _ = logits_of(torch)
    loss = softmax_cross_entropy(IDS, z, overwrite_logits=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_logits_are_unchanged_until_the_backward_pass():
    require_backend("torch")
    import torch

    z, weight = logits_of(torch)
    before = z.detach().clone()
    loss = softmax_cross_entropy(IDS, z, overwrite_logits=True)
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.equal(z, before)  # a differentiable gradient has its own memory
    assert gradient.requires_grad


def test_leaves_are_not_overwritten():
    require_backend("torch")
    import torch

    leaf = torch.zeros(40, 750, requires_grad=True)
    for z in (leaf, leaf[:, :720], leaf.view(40, 750)):
        with pytest.raises(ValueError, match="overwrite_logits=True would overwrite logits"):
            softmax_cross_entropy(IDS, z, overwrite_logits=True)
    softmax_cross_entropy(IDS, leaf.detach(), overwrite_logits=True)
    with torch.no_grad():
        part = torch.randn(2, 40, 750)
    expanded = part[:1].expand(2, 40, 750).requires_grad_(False)
    assert softmax_cross_entropy(np.stack([IDS, IDS]), expanded, overwrite_logits=True).isfinite()


def test_overwriting_strided_logits_leaves_other_memory_unchanged():
    require_backend("torch")
    import torch

    z, weight = logits_of(torch)
    whole = z.view(4, 10, 750)
    loss = softmax_cross_entropy(IDS.reshape(4, 10)[:, 1:], whole[:, :-1], overwrite_logits=True)
    loss.backward()
    other, again = logits_of(torch)
    softmax_cross_entropy(IDS.reshape(4, 10)[:, 1:], other.view(4, 10, 750)[:, :-1]).backward()
    torch.testing.assert_close(weight.grad, again.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(z.view(4, 10, 750)[:, -1], other.view(4, 10, 750)[:, -1])


@pytest.mark.parametrize("name", ["numpy", "jax", "tensorflow"])
def test_arrays_that_cannot_be_overwritten_are_refused(name):
    xp = require_backend(name)
    with pytest.raises(ValueError, match="overwrite_logits=True needs PyTorch tensors"):
        softmax_cross_entropy([0], xp.asarray([[0.0, 1.0]]), overwrite_logits=True)


def test_the_option_must_be_a_bool(backend):
    with pytest.raises(TypeError, match="overwrite_logits"):
        softmax_cross_entropy([0], backend.asarray([[0.0, 1.0]]), overwrite_logits="yes")
