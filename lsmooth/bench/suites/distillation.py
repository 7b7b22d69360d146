"""Distillation on logits, loss and the student's gradient, beside what each framework's users write."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites._frameworks import ALPHA, TEMPERATURE, Loss, loss_rows, peer
from lsmooth.bench.suites.linear import KEPT, top_classes
from lsmooth.distillation import DistillationLoss, distillation_loss, sparse_distillation_loss

LARGE, SMALL = (2048, 32000), (256, 1000)
TAILS = ("renormalize", "drop", "bucket")
BARS: Mapping[str, Mapping[str, float]] = {
    "torch": {"copies": 6.0, "F.kl_div": 10.0},
    "jax": {"optax": 3.0},
    "tensorflow, eager": {"keras": 3.0},
    "tensorflow, function": {"keras": 3.0},
    "tensorflow, XLA": {"keras": 3.0},
}


def rows(plan: Plan) -> Iterator[Row]:
    """The suite: the forward KL beside its peers, and in PyTorch the others beside the formula in its functions."""
    for size in ((64, 1000),) if plan.quick else (LARGE, SMALL):
        student, teacher = (functools.cache(functools.partial(_logits, size, seed)) for seed in (1, 0))
        pair = functools.cache(lambda s=student, t=teacher: (s(), t()))
        with_labels = functools.cache(lambda size=size, pair=pair: (*pair(), _labels(size)))
        of_top = functools.cache(lambda size=size, s=student: (s(), *top_classes(size[0], size[1], KEPT)))
        row = functools.partial(_rows, plan, size)
        yield from row("forward_kl", pair, _divergence, _FORWARD_KL, bars=BARS if size == LARGE else None)
        for name, beta in (("reverse_kl", 1.0), ("jensen_shannon", 0.5)):
            peers = {"F.kl_div": peer(name), "Liger-Kernel": peer("liger_jsd", beta=beta)}
            yield from row(name, pair, functools.partial(_divergence, divergence=name), {"torch": peers})
        yield from row("forward_kl and cross-entropy", with_labels, _forward_kl_and_cross_entropy, _BOTH)
        for tail in TAILS:
            peers = {"formula": peer("top_classes", tail=tail)}
            ours = functools.partial(_of_top_classes, tail=tail)
            yield from row(f"{KEPT} largest classes, {tail}", of_top, ours, {"torch": peers})


def _rows(plan: Plan, size: tuple[int, int], work: str, arrays: Any, ours: Loss, peers: Any, **options: Any) -> Any:
    sizes = {"rows": size[0], "classes": size[1]}
    work = f"distillation, {work}, T = {TEMPERATURE:g}, loss and gradient"
    return loss_rows(plan, work, sizes, arrays, ours, peers, **options)


def _logits(size: tuple[int, int], seed: int) -> np.ndarray:
    return 3.0 * np.random.default_rng(seed).standard_normal(size, np.float32)


def _labels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, size[1], size[0])


def _divergence(x: Any, teacher: Any, divergence: str = "forward_kl") -> Any:
    return distillation_loss(teacher, x, temperature=TEMPERATURE, divergence=divergence)


_hard_and_soft = DistillationLoss(ALPHA, TEMPERATURE)


def _forward_kl_and_cross_entropy(x: Any, teacher: Any, labels: Any) -> Any:
    return _hard_and_soft(labels, teacher, x)


def _of_top_classes(x: Any, indices: Any, log_t: Any, tail: str) -> Any:
    return sparse_distillation_loss(indices, log_t, x, tail=tail, temperature=TEMPERATURE)


_FORWARD_KL = {
    "torch": {
        "F.kl_div": peer("forward_kl"),
        "Liger-Kernel": peer("liger_forward_kl"),
        "F.kl_div, compiled": peer("forward_kl"),
    },
    "jax": {"optax": peer("forward_kl")},
    "tensorflow": {"keras": peer("forward_kl")},
}
_BOTH = {
    "torch": {"F.kl_div + F.cross_entropy": peer("forward_kl_and_cross_entropy")},
    "jax": {"optax": peer("forward_kl_and_cross_entropy")},
}
