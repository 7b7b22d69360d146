"""The Triton kernel overwrites the logits of linear heads with the gradient if no other code reads them."""

import numpy as np
import pytest
from conftest import assert_close
from triton_cases import IGNORE_WARNINGS, OPTIONS, ROWS, arrays, torch

from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.gpu import cross_entropy
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy
from lsmooth.testing import reference

pytestmark = IGNORE_WARNINGS


@pytest.mark.parametrize("block_size", [2, None])
def test_blocks_of_a_linear_head_go_through_the_kernel(backend, block_size, written_over, blocks):
    labels, _, _ = arrays(37)
    hidden, weight = torch.randn(ROWS, 8), torch.randn(37, 8)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = linear_softmax_cross_entropy(labels, h, w, label_smoothing=0.1, block_size=block_size)
    loss.backward()
    assert written_over == [True] * (3 if block_size else 1)
    z = hidden.double().numpy() @ weight.double().numpy().T
    expected, gradient = reference.softmax_cross_entropy(labels.numpy(), z, label_smoothing=0.1)
    assert_close(backend, loss, expected, "float32")
    assert_close(backend, h.grad, gradient @ weight.double().numpy(), "float32")
    assert_close(backend, w.grad, gradient.T @ hidden.double().numpy(), "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_linear_heads_with_options_and_rows_that_do_not_count(backend, dtype, written_over, blocks):
    labels, _, options = arrays(37, **OPTIONS["everything"])
    hidden, weight = (torch.randn(n, 8).to(getattr(torch, dtype)).requires_grad_() for n in (ROWS, 37))
    losses = linear_softmax_cross_entropy(labels, hidden, weight, block_size=2, **options)
    found = torch.autograd.grad(losses.sum(), (hidden, weight))
    blocks_of_counted = -(-int((labels != options["ignore_index"]).sum()) // 2)  # ignored rows are dropped before
    # The gradient of rows waits for their upstream gradients.
    assert written_over == [False] * blocks_of_counted + [True] * blocks_of_counted
    z = (hidden.detach().double() @ weight.detach().double().T).requires_grad_()  # accumulated in float32
    expected = softmax_cross_entropy(labels, z, **options)
    (g,) = torch.autograd.grad(expected.sum(), z)
    assert_close(backend, losses, expected.detach().numpy(), "float32")
    for ours, theirs in zip(found, (g @ weight.double(), g.T @ hidden.double()), strict=True):
        theirs = theirs.detach()
        assert_close(backend, ours / theirs.abs().max(), (theirs / theirs.abs().max()).numpy(), dtype, factor=4.0)


@pytest.mark.parametrize("layout", ["as it is", "part of something wider", "by column"])
def test_only_contiguous_rows_are_overwritten(layout, blocks):
    labels, logits, _ = arrays(37)
    labels[2] = -100
    options = SoftmaxOptions(0.2, counted=labels >= 0, total=True)
    plain, wide = logits.clone().requires_grad_(), torch.cat([logits, logits], 1)
    z = {
        "as it is": logits.clone(),
        "part of something wider": wide[:, :37],
        "by column": logits.t().contiguous().t(),
    }[layout]
    expected = cross_entropy.rows(plain, labels, None, options)
    loss = cross_entropy.rows(z.requires_grad_(), labels, None, options, overwrite=True)
    assert loss == expected
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(z, gradient) == (layout == "as it is")
    assert torch.equal(gradient, *torch.autograd.grad(expected, plain))
    assert torch.equal(wide[:, 37:], logits)


def test_the_gradient_is_written_over_the_logits(backend, blocks):
    leaf = torch.randn(ROWS, 300, requires_grad=True)
    z, ids = leaf * 1.0, np.arange(ROWS)
    before = z.detach().clone()
    softmax_cross_entropy(ids, z, label_smoothing=0.1, overwrite_logits=True).backward()
    softmax_cross_entropy(ids, other := before.requires_grad_(), label_smoothing=0.1).backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    torch.testing.assert_close(z.detach(), other.grad)
