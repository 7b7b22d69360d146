"""Fixtures of the tests under Triton's interpreter: the kernels take tensors on the CPU."""

import pytest
from conftest import require_backend


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, which takes the kernels for tensors of every device, small ones too."""
    from lsmooth.backends import torch as torch_backend
    from lsmooth.backends.torch.gpu import cross_entropy, divergence

    kernels = {"cross_entropy": cross_entropy, "divergence": divergence}
    monkeypatch.setattr(torch_backend, "kernel_for", lambda loss, device: kernels[loss])
    monkeypatch.setattr(torch_backend.TorchBackend, "quick_mean", lambda *_, **__: None)
    return require_backend("torch")


@pytest.fixture(params=["one block", "blocks"])
def blocks(request, monkeypatch):
    """All columns at once; and in blocks, the last one short."""
    if request.param == "blocks":
        from lsmooth.backends.torch import thresholds

        monkeypatch.setattr(thresholds, "GPU_COLUMNS", 16)


@pytest.fixture
def written_over(monkeypatch):
    """Of each call of a kernel, whether the gradient takes the memory of the logits."""
    from lsmooth.backends.torch.gpu import cross_entropy, divergence, rows

    seen, sweep = [], rows.sweep

    def watched(kernel, logits, *args, **options):
        losses, gradient = sweep(kernel, logits, *args, **options)
        seen.append(gradient is not None and gradient.data_ptr() == logits.data_ptr())
        return losses, gradient

    monkeypatch.setattr(cross_entropy, "sweep_rows", watched)
    monkeypatch.setattr(divergence, "sweep", watched)
    return seen
