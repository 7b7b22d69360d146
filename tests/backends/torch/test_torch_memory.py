"""The memory that large gradients are written into."""

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends.torch import memory, thresholds  # noqa: E402
from lsmooth.distillation import distillation_loss  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy, softmax_focal_loss  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is torch.empty_like")


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    require_backend("torch")
    monkeypatch.setattr(thresholds, "MAPPED_BYTES", 2**16)
    monkeypatch.setattr(memory, "_spare", [])


def test_empty_like_keeps_the_layout_and_is_contiguous():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = torch.zeros(3, 200, 400, dtype=dtype).transpose(0, 1)
        y = memory.empty_like(x)
        assert (y.shape, y.dtype, y.device, y.is_contiguous()) == (x.shape, dtype, x.device, True)


def test_two_tensors_at_a_time_share_nothing():
    x = torch.zeros(200, 400)
    first, second = memory.empty_like(x), memory.empty_like(x)
    first.fill_(1.0)
    second.fill_(2.0)
    assert (first == 1.0).all()


def test_the_next_tensor_reuses_scratch_memory():
    x = torch.zeros(200, 400)
    y = memory.empty_like(x)
    at = y.data_ptr()
    view = y[10:]
    del y
    assert memory.empty_like(x).data_ptr() != at  # a view keeps the memory alive
    del view
    assert memory.empty_like(x[:150]).data_ptr() == at


def test_memory_twice_the_needed_size_is_freed():
    memory.empty_like(torch.zeros(1000, 400))
    assert len(memory._spare[0]) >= 1000 * 400 * 4
    memory.empty_like(torch.zeros(200, 400))
    assert len(memory._spare[0]) < 1000 * 400 * 4


def test_at_most_one_block_is_kept():
    x = torch.zeros(200, 400)
    several = [memory.empty_like(x) for _ in range(3)]
    del several
    assert len(memory._spare) == 1


def test_training_steps_do_not_modify_stored_gradients():
    torch.manual_seed(0)
    labels = torch.randint(0, 300, (300,))
    kept = []
    for _ in range(3):
        logits = torch.randn(300, 300, requires_grad=True)
        softmax_cross_entropy(labels, logits, label_smoothing=0.1).backward()
        kept.append((logits, logits.grad))
        gc.collect()
    for logits, gradient in kept:
        again = logits.detach().requires_grad_()
        torch.nn.functional.cross_entropy(again, labels, label_smoothing=0.1).backward()
        torch.testing.assert_close(gradient, again.grad)


def test_scratch_memory_serves_the_next_call_of_its_thread():
    first = memory.scratch((2, 3, 4), torch.float32)
    assert memory.scratch((5,), torch.float32).data_ptr() == first.data_ptr()
    assert memory.scratch((5,), torch.float64).data_ptr() != first.data_ptr()
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(memory.scratch, (5,), torch.float32).result()
    assert elsewhere.data_ptr() != first.data_ptr()


def test_large_scratch_memory_is_freed(monkeypatch):
    monkeypatch.setattr(thresholds, "SCRATCH_BYTES", 2**10)
    monkeypatch.setattr(memory, "_of_thread", threading.local())
    large = memory.scratch((2**10,), torch.float32)
    assert memory.scratch((2**10,), torch.float32).data_ptr() != large.data_ptr()


def test_scratch_memory_of_inference_mode_can_be_used_outside_it(monkeypatch):
    monkeypatch.setattr(memory, "_of_thread", threading.local())
    with torch.inference_mode(), torch.device("meta"):
        inside = memory.scratch((3,), torch.float32)
        assert inside.device.type == "cpu"
        inside.fill_(1.0)
    memory.scratch((3,), torch.float32).fill_(2.0)


@pytest.mark.parametrize("loss", ["sigmoid", "divergence", "soft", "odds"])
def test_no_result_uses_scratch_memory(loss, monkeypatch):
    calls = {
        "sigmoid": lambda z: sigmoid_cross_entropy(z.detach().sigmoid(), z, reduction="none"),
        "divergence": lambda z: distillation_loss(z.detach().flip(0), z, temperature=2.0, reduction="none"),
        "soft": lambda z: softmax_cross_entropy(z.detach().softmax(-1), z, logit_softcap=3.0, reduction="none"),
        "odds": lambda z: softmax_focal_loss(torch.zeros(len(z), dtype=torch.int64), z, reduction="none"),
    }
    z = torch.randn(300, 400, requires_grad=True)
    losses = calls[loss](z)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    expected = losses.detach().clone(), gradient.clone()
    for dtype in (torch.float32, torch.float64):
        memory.scratch((2**20,), dtype).fill_(float("nan"))
    other = calls[loss](torch.randn(300, 400, requires_grad=True))
    other.sum().backward()
    assert torch.equal(losses, expected[0])
    assert torch.equal(gradient, expected[1])
