"""Statistics of rows from the Triton kernel equal those of the formula."""

import pytest
from triton_cases import IGNORE_WARNINGS, OPTIONS, ROWS, arrays, took_the_kernel, torch

from lsmooth.backends.torch import thresholds
from lsmooth.losses import softmax_cross_entropy_with_statistics

pytestmark = IGNORE_WARNINGS

STATISTICS = [name for name in OPTIONS if name not in ("sample_weight", "none")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", STATISTICS)
@pytest.mark.parametrize("soft", [False, True])
def test_statistics_match_the_formula(options, soft, dtype, blocks, monkeypatch):
    monkeypatch.setattr(thresholds, "ONE_BLOCK", 0)  # the tensors are on the CPU here
    labels, logits, options = arrays(37, dtype, **OPTIONS[options])
    if soft:
        labels = torch.eye(37)[labels] * 0.5 + 0.3 / 37
        options = {name: x for name, x in options.items() if name not in ("ignore_index", "class_weight")}
    logits[1, 5:9] = logits[1, 20] = 16.0  # ties, in two blocks
    logits[2, 3:20] = -torch.inf
    if not soft:
        labels[2] = 30
    z, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss, found = softmax_cross_entropy_with_statistics(labels, z, **options)
    assert took_the_kernel(loss)
    soft_labels = labels.double() if soft else labels
    _, expected = softmax_cross_entropy_with_statistics(soft_labels, exact, **options)
    for ours, theirs in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs.detach().float(), rtol=2e-6, atol=2e-6)
    assert torch.equal(found.predicted, expected.predicted)
    assert torch.equal(found.correct, expected.correct)
    finite = expected.log_prob.isfinite()
    total, exact_total = (x.entropy.sum() + 0.5 * x.log_prob[finite].sum() for x in (found, expected))
    (ours,), (theirs,) = torch.autograd.grad(total, z), torch.autograd.grad(exact_total, exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6)


def test_statistics_of_padded_logits(blocks, monkeypatch):
    monkeypatch.setattr(thresholds, "ONE_BLOCK", 0)
    labels, logits, _ = arrays(37)
    padded = torch.cat([logits, torch.full((ROWS, 11), 50.0)], 1)
    found = softmax_cross_entropy_with_statistics(labels, padded, num_classes=37)[1]
    expected = softmax_cross_entropy_with_statistics(labels, logits)[1]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
