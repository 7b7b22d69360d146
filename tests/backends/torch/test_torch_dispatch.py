"""Which kernel PyTorch's tensors take."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from lsmooth.backends import torch as torch_backend  # noqa: E402
from lsmooth.backends.torch import thresholds  # noqa: E402
from lsmooth.backends.torch.cpu import cross_entropy  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402

choose = torch_backend.kernel_for.__wrapped__


def test_tensors_on_the_cpu_use_the_sweep(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cross_entropy, "rows", lambda *args, rows=cross_entropy.rows, **to: seen.append(1) or rows(*args, **to)
    )
    for size in ((2, 3), (thresholds.SMALL_CROSS_ENTROPY // 2, 3)):
        labels, logits = torch.tensor([0, 2]).repeat(size[0] // 2), torch.randn(size)
        softmax_cross_entropy(labels, logits, reduction="sum")
    assert seen == [1, 1]


def test_a_type_is_looked_up_once():
    program = (
        "import torch, lsmooth; from lsmooth.backends import registry;"
        "registry.backend_of(logits=torch.randn(1, 3));"
        "assert registry._backend_of_type[torch.Tensor].name == 'torch';"
        "registry._find = None; registry.backend_of(logits=torch.nn.Parameter(torch.ones(1)), labels=torch.ones(1))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("device", "capability"), [("cuda", (9, 0)), ("cuda", (6, 1)), ("meta", None)], ids=["no triton", "old", "other"]
)
@pytest.mark.parametrize("loss", ["cross_entropy", "divergence"])
def test_devices_without_a_kernel_use_the_formula(loss, device, capability, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("cross_entropy", "divergence", "rows"):
        monkeypatch.delitem(sys.modules, f"lsmooth.backends.torch.gpu.{name}", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose(loss, torch.device(device)) is None


def test_triton_is_not_needed_and_not_imported():
    program = (
        "import sys; sys.modules['triton'] = None; import torch, lsmooth;"
        "lsmooth.losses.softmax_cross_entropy(torch.tensor([0]), torch.randn(1, 3));"
        "sys.exit(any('triton_' in name for name in sys.modules if name.startswith('lsmooth')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_eager_loss_does_not_import_the_compiler():
    program = (
        "import sys, torch; loaded = set(sys.modules); from lsmooth.losses import softmax_cross_entropy;"
        "softmax_cross_entropy(torch.tensor([0]), torch.ones(1, 3, requires_grad=True)).backward();"
        "brought = set(sys.modules) - loaded;"
        "assert not brought & {'torch._dynamo', 'torch._inductor', 'sympy'}, brought"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
