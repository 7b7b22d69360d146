"""Distillation on logits, loss and the student's gradient, beside what each framework's users write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from lsmooth.bench.rows import Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.bench.suites.linear import KEPT, top_classes, torch_top_classes
from lsmooth.distillation import DistillationLoss, distillation_loss, sparse_distillation_loss

TEMPERATURE, ALPHA = 2.0, 0.9
LARGE, SMALL = (2048, 32000), (256, 1000)
DIVERGENCES = ("reverse_kl", "jensen_shannon")
TAILS = ("renormalize", "drop", "bucket")
BOTH = "forward_kl and cross-entropy"
BARS: Mapping[str, Mapping[str, float]] = {
    "torch": {"copies": 6.0, "F.kl_div": 10.0},
    "jax": {"optax": 3.0},
    "tensorflow, eager": {"keras": 3.0},
    "tensorflow, function": {"keras": 3.0},
    "tensorflow, XLA": {"keras": 3.0},
}
# What Liger-Kernel calls a generalised JSD.
_LIGER_BETA = {"reverse_kl": 1.0, "jensen_shannon": 0.5}


def rows(plan: Plan) -> Iterator[Row]:
    """The suite: the forward KL beside its peers, and in PyTorch the others beside the formula in its functions."""
    for size in ((64, 1000),) if plan.quick else (LARGE, SMALL):
        row = functools.partial(_row, size, BARS if size == LARGE else {})
        teacher, student = (functools.cache(functools.partial(_logits, size, seed)) for seed in (0, 1))
        labels = functools.partial(_labels, size)
        if frameworks.wanted(plan, "torch"):
            yield from _torch_rows(plan, row, teacher, student, labels)
        if frameworks.wanted(plan, "jax"):
            contenders = {
                "lsmooth": frameworks.jax_step(student, _ours, teacher),
                "optax": frameworks.jax_step(student, _optax_peer, teacher),
            }
            yield row("forward_kl", "jax", contenders, frameworks.jax_copy(student))
            contenders = {
                "lsmooth": frameworks.jax_step(student, _both, teacher, labels),
                "optax": frameworks.jax_step(student, _optax_both, teacher, labels),
            }
            yield row(BOTH, "jax", contenders, frameworks.jax_copy(student))
        if frameworks.wanted(plan, "tensorflow"):
            for mode in ("eager", "function", "XLA"):
                contenders = {
                    "lsmooth": frameworks.tensorflow_step(student, lambda t=teacher: _tensorflow_ours(t), mode),
                    "keras": frameworks.tensorflow_step(student, lambda t=teacher: _keras_peer(t), mode),
                }
                yield row("forward_kl", f"tensorflow, {mode}", contenders, frameworks.tensorflow_copy(plan, student))


def _torch_rows(
    plan: Plan,
    row: Callable[..., Row],
    teacher: frameworks.Data,
    student: frameworks.Data,
    labels: frameworks.Data,
) -> Iterator[Row]:
    copy = frameworks.torch_copy(plan, student)

    def step(loss: Callable[[], Any], *others: frameworks.Data, compiled: bool = False) -> Setup:
        return frameworks.torch_step(plan, student, loss, teacher, *others, compiled=compiled)

    contenders = {"lsmooth": step(_ours), "F.kl_div": step(_torch_peer)}
    if frameworks.has_gpu_peer(plan, "liger-kernel"):
        contenders["Liger-Kernel"] = step(_liger_kl)
    if frameworks.can_compile_torch(plan):
        contenders["F.kl_div, compiled"] = step(_torch_peer, compiled=True)
    yield row("forward_kl", "torch", contenders, copy)
    for name in DIVERGENCES:
        contenders = {
            "lsmooth": step(functools.partial(_ours, name)),
            "F.kl_div": step(functools.partial(_torch_peer, name)),
        }
        if frameworks.has_gpu_peer(plan, "liger-kernel"):
            contenders["Liger-Kernel"] = step(functools.partial(_liger_jsd, _LIGER_BETA[name]))
        yield row(name, "torch", contenders, copy)
    contenders = {
        "lsmooth": step(_both, labels),
        "F.kl_div + F.cross_entropy": step(_torch_both_peer, labels),
    }
    yield row(BOTH, "torch", contenders, copy)
    kept = [lambda i=i: top_classes(*np.shape(student()), KEPT)[i] for i in range(2)]  # pyright: ignore[reportCallIssue]
    for tail in TAILS:
        losses = (functools.partial(_ours_of_top_classes, tail), functools.partial(torch_top_classes, tail))
        steps = (frameworks.torch_step(plan, student, loss, *kept) for loss in losses)
        yield row(
            f"{KEPT} largest classes, {tail}", "torch", dict(zip(("lsmooth", "formula"), steps, strict=True)), copy
        )


def _row(size: tuple[int, int], bars: Mapping[str, Any], work: str, backend: str, contenders: Any, copy: Any) -> Row:
    sizes = {"rows": size[0], "classes": size[1]}
    unit = 4 * size[0] * size[1] if size[0] * size[1] >= 2**20 else 0
    held = bars.get(backend, {}) if work == "forward_kl" else {}
    return Row(f"distillation, {work}, T = 2, loss and gradient", backend, sizes, contenders, copy, unit, held)


def _logits(size: tuple[int, int], seed: int) -> np.ndarray:
    return 3.0 * np.random.default_rng(seed).standard_normal(size, np.float32)


def _labels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, size[1], size[0])


def _ours(divergence: str = "forward_kl") -> frameworks.Loss:
    return lambda x, teacher: distillation_loss(teacher, x, temperature=TEMPERATURE, divergence=divergence)


def _ours_of_top_classes(tail: str) -> Callable[..., Any]:
    return lambda x, i, log_t: sparse_distillation_loss(i, log_t, x, tail=tail, temperature=TEMPERATURE)


def _torch_peer(divergence: str = "forward_kl") -> frameworks.Loss:
    import torch
    from torch.nn.functional import kl_div, log_softmax, softmax

    def forward_kl(x: Any, teacher: Any) -> Any:
        return kl_div(log_softmax(x / TEMPERATURE, -1), softmax(teacher / TEMPERATURE, -1), reduction="batchmean")

    def reverse_kl(x: Any, teacher: Any) -> Any:
        log_t, log_s = log_softmax(teacher / TEMPERATURE, -1), log_softmax(x / TEMPERATURE, -1)
        return kl_div(log_t, log_s, reduction="batchmean", log_target=True)

    def jensen_shannon(x: Any, teacher: Any) -> Any:
        log_t, log_s = log_softmax(teacher / TEMPERATURE, -1), log_softmax(x / TEMPERATURE, -1)
        log_m = torch.logaddexp(log_t, log_s) - float(np.log(2.0))
        halves = (kl_div(log_m, log_p, reduction="batchmean", log_target=True) for log_p in (log_t, log_s))
        return sum(halves) / 2

    loss = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jensen_shannon": jensen_shannon}[divergence]
    return lambda x, teacher: TEMPERATURE**2 * loss(x, teacher)


def _liger_kl() -> frameworks.Loss:
    """Its kernel is of the divergence alone; the softmaxes are PyTorch's."""
    from liger_kernel.transformers import LigerKLDIVLoss  # type: ignore[import-not-found]
    from torch.nn.functional import log_softmax, softmax

    loss: Any = LigerKLDIVLoss(reduction="batchmean")
    return lambda x, t: TEMPERATURE**2 * loss(log_softmax(x / TEMPERATURE, -1), softmax(t / TEMPERATURE, -1))


def _liger_jsd(beta: float) -> frameworks.Loss:
    """Likewise; it gives the reverse KL at beta 1."""
    from liger_kernel.transformers import LigerJSD  # type: ignore[import-not-found]
    from torch.nn.functional import log_softmax

    loss: Any = LigerJSD(beta=beta)
    return lambda x, t: TEMPERATURE**2 * loss(log_softmax(x / TEMPERATURE, -1), log_softmax(t / TEMPERATURE, -1))


def _both() -> frameworks.Loss:
    loss = DistillationLoss(ALPHA, TEMPERATURE)
    return lambda x, teacher, labels: loss(labels, teacher, x)


def _torch_both_peer() -> frameworks.Loss:
    from torch.nn.functional import cross_entropy

    soft = _torch_peer()
    return lambda x, teacher, labels: (1.0 - ALPHA) * cross_entropy(x, labels) + ALPHA * soft(x, teacher)


def _optax_both() -> Callable[..., Any]:
    import optax

    soft = _optax_peer()

    def loss(x: Any, teacher: Any, labels: Any) -> Any:
        hard = optax.losses.softmax_cross_entropy_with_integer_labels(x, labels).mean()
        return (1.0 - ALPHA) * hard + ALPHA * soft(x, teacher)

    return loss


def _optax_peer() -> Callable[[Any, Any], Any]:
    import jax
    import optax

    def loss(x: Any, teacher: Any) -> Any:
        log_t, log_s = (jax.nn.log_softmax(z / TEMPERATURE) for z in (teacher, x))
        return TEMPERATURE**2 * optax.losses.kl_divergence_with_log_targets(log_s, log_t).mean()

    return loss


def _tensorflow_ours(data: frameworks.Data) -> frameworks.Loss:
    import tensorflow as tf

    teacher, loss = tf.constant(data()), _ours()
    return lambda x: loss(x, teacher)


def _keras_peer(data: frameworks.Data) -> frameworks.Loss:
    import keras
    import tensorflow as tf

    teacher, divergence = tf.constant(data()), cast("Any", keras.losses.KLDivergence())

    def loss(x: Any) -> Any:
        return TEMPERATURE**2 * divergence(tf.nn.softmax(teacher / TEMPERATURE), tf.nn.softmax(x / TEMPERATURE))

    return loss
