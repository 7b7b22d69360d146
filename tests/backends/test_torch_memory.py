"""The memory that large gradients are written into."""

import gc
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends.torch import memory  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is torch.empty_like")


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    require_backend("torch")
    monkeypatch.setattr(memory, "LARGE", 2**16)
    monkeypatch.setattr(memory, "_spare", [])


def test_it_is_like_the_tensor_but_contiguous():
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


def test_the_next_tensor_takes_what_the_last_one_left():
    x = torch.zeros(200, 400)
    y = memory.empty_like(x)
    at = y.data_ptr()
    view = y[10:]
    del y
    assert memory.empty_like(x).data_ptr() != at  # a view still lives in it
    del view
    assert memory.empty_like(x[:150]).data_ptr() == at


def test_memory_twice_the_size_is_let_go():
    memory.empty_like(torch.zeros(1000, 400))
    assert len(memory._spare[0]) >= 1000 * 400 * 4
    memory.empty_like(torch.zeros(200, 400))
    assert len(memory._spare[0]) < 1000 * 400 * 4


def test_one_block_at_most_is_kept():
    x = torch.zeros(200, 400)
    several = [memory.empty_like(x) for _ in range(3)]
    del several
    assert len(memory._spare) == 1


def test_training_steps_do_not_write_into_gradients_that_are_kept():
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
