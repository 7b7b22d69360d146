"""Distillation of a linear head from a teacher's top-k classes equals that of its logits."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend
from loss_parity import jax_jit
from pair_parity import WEIGHTS

from lsmooth.distillation import distillation_loss, linear_sparse_distillation_loss, sparse_distillation_loss
from lsmooth.losses import softmax_cross_entropy

ROWS, CLASSES, FEATURES, KEPT = 5, 7, 3, 3
LABELS = np.array([0, 3, 1, 1, 2])
OPTIONS = {
    "soft alone": {},
    "bucket": {"tail": "bucket", "temperature": 2.0},
    "drop, per row": {"tail": "drop", "temperature": np.linspace(0.5, 3.0, ROWS), "divergence": "jensen_shannon"},
    "hard and soft": {"labels": LABELS, "alpha": 0.7, "label_smoothing": 0.1, "tail": "bucket"},
    "hard alone": {"labels": LABELS, "alpha": 0.0, "label_smoothing": np.linspace(0.0, 0.4, ROWS)},
    "ignore_index": {"labels": LABELS, "ignore_index": 1, "tail": "bucket", "divergence": "reverse_kl"},
    "mask": {"mask": LABELS != 1, "scale_by_temperature_squared": False, "temperature": 2.0},
    "cap and scale": {"labels": LABELS, "logit_softcap": 2.0, "logit_scale": 1.5, "tail": "bucket"},
}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    hidden, weight, bias = (rng.normal(size=shape) for shape in ((ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)))
    teacher = rng.normal(size=(ROWS, CLASSES))
    log_t = teacher - np.log(np.exp(teacher).sum(-1, keepdims=True))
    indices = np.argsort(-teacher, -1)[:, :KEPT]
    return indices, np.take_along_axis(log_t, indices, -1), hidden, weight, bias


def unfused(backend, indices, log_t, hidden, weight, bias, **options):
    """The two losses of the logits, which other tests hold to their formulas."""
    z = (hidden @ backend.moveaxis(weight, 0, 1) + bias) * options.pop("logit_scale", 1.0)
    cap = options.pop("logit_softcap", None)
    z = z if cap is None else cap * backend.tanh(z / cap)
    labels, eps = options.pop("labels", None), options.pop("label_smoothing", 0.0)
    alpha = options.pop("alpha", 1.0 if labels is None else 0.5)
    hard = {name: options[name] for name in ("ignore_index", "mask", "reduction", "sample_weight") if name in options}
    given = {"labels": labels} if "ignore_index" in options else {}
    soft = sparse_distillation_loss(indices, log_t, z, **given, **options)
    if alpha == 1.0:
        return soft
    return alpha * soft + (1 - alpha) * softmax_cross_entropy(labels, z, label_smoothing=eps, **hard)


@pytest.mark.parametrize(("name", "reduction"), list(zip(OPTIONS, ["none", "mean"] * 4, strict=True)))
def test_values_and_gradients(backend, name, reduction):
    """The gradients of hidden states, weight and bias go in as one vector."""
    options = OPTIONS[name] | {"reduction": reduction, "sample_weight": WEIGHTS}
    indices, log_t, *head = arrays()
    ends = np.cumsum([0] + [x.size for x in head])
    flat = backend.asarray(np.concatenate([x.ravel() for x in head]))

    def parts(x):
        return [backend.reshape(x[a:b], y.shape) for a, b, y in zip(ends, ends[1:], head, strict=False)]

    def fused(x):
        return linear_sparse_distillation_loss(indices, log_t, *parts(x), block_size=2, **options)

    def whole(x):
        return unfused(backend, indices, log_t, *parts(x), **options)

    if backend.name == "numpy":
        assert_close(backend, fused(flat), whole(flat), "float64", 8.0)
        return
    wrap = jax_jit if backend.name == "jax" else lambda function: function
    (value, slope), (expected, right) = (
        wrap(lambda x, f=f: backend.value_and_grad(lambda y: backend.sum(f(y) * WEIGHTS.mean()), x))(flat)
        for f in (fused, whole)
    )
    assert_close(backend, value, backend.to_numpy(expected), "float64", 8.0)
    assert_close(backend, slope, backend.to_numpy(right), "float64", 20.0)


@pytest.mark.parametrize(
    ("tail", "divergence"), [("renormalize", "forward_kl"), ("drop", "reverse_kl"), ("bucket", "jensen_shannon")]
)
def test_all_classes_kept_is_the_dense_divergence(backend, tail, divergence):
    _, _, hidden, weight, bias = arrays()
    teacher = np.random.default_rng(1).normal(size=(ROWS, CLASSES))
    every = np.tile(np.arange(CLASSES)[::-1], (ROWS, 1))
    log_t = np.take_along_axis(teacher - np.log(np.exp(teacher).sum(-1, keepdims=True)), every, -1)
    options = {"temperature": 2.0, "divergence": divergence, "reduction": "none"}
    expected = distillation_loss(teacher, hidden @ weight.T + bias, **options)
    head = [backend.asarray(x) for x in (hidden, weight, bias)]
    found = linear_sparse_distillation_loss(every, log_t, *head, tail=tail, block_size=2, **options)
    assert_close(backend, found, expected, "float64", 20.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_in_half_precision_are_not_rounded(backend, dtype):
    if backend.name == "numpy" and dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")
    indices, log_t, *head = arrays()
    head = [backend.asarray(8.0 * x, dtype) for x in head]
    exact = [backend.to_numpy(x).astype(np.float64) for x in head]
    options = {"tail": "bucket", "reduction": "none"}
    expected = sparse_distillation_loss(indices, log_t, exact[0] @ exact[1].T + exact[2], **options)
    found = backend.to_numpy(linear_sparse_distillation_loss(indices, log_t, *head, **options))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_teacher_gets_a_gradient_if_asked(differentiable_backend):
    xp, (indices, log_t, *head) = differentiable_backend, arrays()
    head = [xp.asarray(x) for x in head]
    options = {"tail": "bucket", "stop_teacher_gradient": False}
    log_t = xp.asarray(log_t)
    _, found = xp.value_and_grad(
        lambda x: linear_sparse_distillation_loss(indices, x, *head, block_size=2, **options), log_t
    )
    _, right = xp.value_and_grad(lambda x: unfused(xp, indices, x, *head, **options), log_t)
    assert_close(xp, found, xp.to_numpy(right), "float64", 20.0)


def test_torch_compile(monkeypatch):
    require_backend("torch")
    import torch

    from lsmooth.backends.torch import thresholds

    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", 1)  # so that the operator is called
    indices, log_t, *head = (torch.from_numpy(x) for x in arrays())
    head = [x.requires_grad_() for x in head]

    def loss(*head):
        return linear_sparse_distillation_loss(
            indices, log_t, *head, tail="bucket", labels=torch.from_numpy(LABELS), logit_softcap=3.0, block_size=2
        )

    found, right = torch.compile(loss, backend="aot_eager", fullgraph=True)(*head), loss(*head)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(*(torch.autograd.grad(x, head) for x in (found, right)))


def test_torch_holds_no_array_of_the_size_of_the_logits():
    require_backend("torch")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    rows, classes = 64, 50

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.size = max(self.size, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    log_t, indices = torch.log_softmax(torch.randn(rows, classes), -1).topk(3)
    hidden, weight = torch.randn(rows, 4, requires_grad=True), torch.randn(classes, 4, requires_grad=True)
    with Largest() as largest:
        linear_sparse_distillation_loss(indices, log_t, hidden, weight, tail="bucket", block_size=8).backward()
    assert 8 * classes <= largest.size < rows * classes // 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tail": "spread"}, ValueError, "tail must be one of"),
        ({"divergence": "alpha"}, ValueError, "divergence must be one of forward_kl"),
        ({"alpha": 0.5}, ValueError, "alpha must be 1 without labels"),
        ({"logit_softcap": -1.0}, ValueError, "logit_softcap must be"),
        ({"logit_scale": 0.0}, ValueError, "logit_scale must be"),
        ({"block_size": 0}, ValueError, "block_size must be"),
    ],
)
def test_bad_options_are_named(change, error, message):
    with pytest.raises(error, match=message):
        linear_sparse_distillation_loss(*arrays(), **change)


def test_bad_arguments_are_named():
    indices, log_t, hidden, weight, _ = arrays()
    with pytest.raises(TypeError, match="teacher_indices come first"):
        linear_sparse_distillation_loss(log_t, indices, hidden, weight)
    with pytest.raises(ValueError, match="teacher_log_probs must fit hidden of shape"):
        linear_sparse_distillation_loss(indices[:2], log_t[:2], hidden, weight)
    with pytest.raises(ValueError, match="weight must have shape"):
        linear_sparse_distillation_loss(indices, log_t, hidden, weight.T)
