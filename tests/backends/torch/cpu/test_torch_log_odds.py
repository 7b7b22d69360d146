"""The kernel for the log-odds of a label, for PyTorch's tensors on the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

from lsmooth.backends.torch import thresholds  # noqa: E402
from lsmooth.losses import softmax_focal_loss  # noqa: E402

# In few calls; the most of those, and one row more; several blocks, the last one short.
SIZES = [(4, 3), (128, 128), (129, 128), (1000, 700)]


@pytest.fixture(autouse=True)
def backend():
    """PyTorch, which every test here needs."""
    return require_backend("torch")


def arrays(size, dtype):
    rng = np.random.default_rng(0)
    logits = 5.0 * rng.standard_normal(size)
    labels = rng.integers(0, size[1], size[0])
    logits[0, labels[0]] = 90.0  # its probability is 1 in any precision
    logits[1, (labels[1] + 1) % size[1]] = -np.inf
    return torch.from_numpy(labels), torch.from_numpy(logits).to(getattr(torch, dtype))


def oracle(labels, logits):
    """Value and gradient."""
    labels, logits = labels.numpy(), logits.double().numpy()
    at_label = np.arange(logits.shape[1]) == labels[:, None]
    others = np.exp(np.where(at_label, -np.inf, logits))
    total = others.sum(-1, keepdims=True)
    return logits[at_label] - np.log(total[:, 0]), at_label - others / total


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_equals_its_formula(backend, size, dtype):
    labels, logits = arrays(size, dtype)
    expected, gradient = oracle(labels, logits)
    z = logits.requires_grad_()
    odds = backend.label_log_odds(z, labels)
    assert ("Attach" in type(odds.grad_fn).__name__) == (logits.numel() > thresholds.SMALL_LOG_ODDS)
    assert_close(backend, odds, expected, "float64" if dtype == "float64" else "float32")
    upstream = torch.linspace(0.5, 2.0, size[0], dtype=odds.dtype)
    odds.backward(upstream)
    assert_close(backend, z.grad, upstream.double().numpy()[:, None] * gradient, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_a_shift_of_all_logits_rounds_no_gradient_away(backend, size):
    labels, logits = arrays(size, "float32")
    logits = logits.round()
    gradients = []
    for shift in (0.0, 4096.0):
        z = (logits + shift).requires_grad_()
        backend.label_log_odds(z, labels).sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)


def test_non_finite_inputs_use_the_formula(backend):
    labels = torch.tensor([0, 1, 5])
    z = torch.tensor([[1.0, -torch.inf], [0.0, 1.0], [0.0, 1.0]], requires_grad=True)
    odds = backend.label_log_odds(z, labels)
    assert odds[0] == torch.inf  # the only class
    assert odds[2].isnan()  # no class
    odds[:2].sum().backward()
    assert z.grad[:2].isfinite().all()


def test_second_derivatives(backend):
    labels, logits = torch.tensor([0, 2]), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: backend.label_log_odds(z, labels), logits)


def test_a_focal_loss_compiles_to_the_same_number():
    labels, logits = torch.tensor([0, 2]), torch.randn(2, 3)
    compiled = torch.compile(lambda z: softmax_focal_loss(labels, z), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), softmax_focal_loss(labels, logits))
