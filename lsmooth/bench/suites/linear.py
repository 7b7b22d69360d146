"""A linear layer and the loss of its logits, or of the log-probabilities of sequences, in one call or in two."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth import distillation, losses, preference
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites._frameworks import EPS, SEQUENCES, TEMPERATURE, Loss, loss_rows, peer

# Rows, features, classes.
LARGE, SMALL = (4096, 512, 32000), (64, 16, 500)
KEPT = 64
# The least speed relative to a peer, and the most memory relative to the logits.
BARS: Mapping[str, Mapping[str, float]] = {
    "torch": {"matmul, F.cross_entropy": 1 / 0.7, "matmul, F.kl_div": 1 / 0.7, "matmul, formula": 1.0, "memory": 0.4},
    "jax": {"matmul, optax": 1 / 0.7, "memory": 0.4},
    "tensorflow, function": {"matmul, tf.losses": 1.0, "matmul, keras": 1.0},
}


def rows(plan: Plan) -> Iterator[Row]:
    """The suite: losses of linear heads beside the head and then the loss of all its logits."""
    num_rows, features, classes = size = SMALL if plan.quick else LARGE
    sizes = {"rows": num_rows, "features": features, "classes": classes}

    @functools.cache
    def heads() -> list[np.ndarray]:
        rng, shapes = np.random.default_rng(1), ((1.0, (num_rows, features)), (0.05, (classes, features)))
        return [scale * rng.standard_normal(shape, np.float32) for _ in range(2) for scale, shape in shapes]

    others = {
        "labels": functools.cache(lambda: [np.random.default_rng(0).integers(0, classes, num_rows)]),
        "teacher": lambda: heads()[2:],
        "top classes": functools.cache(lambda: top_classes(num_rows, classes, KEPT)),
    }
    for work, other, ours, peers in _WORKS:
        yield from loss_rows(
            plan,
            work,
            sizes,
            lambda other=other: [*heads()[:2], *others[other]()],
            ours,
            peers,
            watched=2,
            bars=BARS if size == LARGE else None,
            with_copy=False,
        )


def top_classes(num_rows: int, classes: int, kept: int) -> list[np.ndarray]:
    """Class ids, each once in its row, and log-probabilities that leave a tenth of the mass to the others."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, classes, (num_rows, 1))
    probs = 0.9 * rng.dirichlet(np.ones(kept), num_rows)
    return [(first + np.arange(kept)) % classes, np.log(probs).astype(np.float32)]


def _cross_entropy(h: Any, w: Any, y: Any, eps: float = EPS) -> Any:
    return losses.linear_softmax_cross_entropy(y, h, w, label_smoothing=eps)


def _with_statistics(h: Any, w: Any, y: Any) -> Any:
    return losses.linear_softmax_cross_entropy_with_statistics(y, h, w, label_smoothing=EPS)[0]


def _forward_kl(h: Any, w: Any, teacher_h: Any, teacher_w: Any) -> Any:
    return distillation.linear_distillation_loss(teacher_h, teacher_w, h, w, temperature=TEMPERATURE)


def _of_top_classes(h: Any, w: Any, indices: Any, log_t: Any) -> Any:
    options: dict[str, Any] = {"tail": "bucket", "temperature": TEMPERATURE}
    return distillation.linear_sparse_distillation_loss(indices, log_t, h, w, **options)


def _dpo(h: Any, w: Any, y: Any) -> Any:
    log_p = preference.linear_sequence_log_prob(y.reshape(SEQUENCES, -1), h.reshape(SEQUENCES, -1, h.shape[-1]), w)
    chosen, rejected = log_p[: SEQUENCES // 2], log_p[SEQUENCES // 2 :]
    return preference.dpo_loss(chosen, rejected, 0.0 * chosen, 0.0 * rejected)


# The work, the arrays beside the head, lsmooth's loss, and the peers of each backend.
_WORKS: tuple[tuple[str, str, Loss, Mapping[str, Mapping[str, Loss]]], ...] = (
    (
        "linear layer and smoothed cross-entropy, loss and gradients",
        "labels",
        _cross_entropy,
        {
            "torch": {
                "matmul, F.cross_entropy": peer("linear_cross_entropy"),
                "Liger-Kernel": peer("liger_linear_cross_entropy", label_smoothing=EPS),
            },
            "jax": {"matmul, optax": peer("linear_cross_entropy")},
            "tensorflow, function": {"matmul, tf.losses": peer("linear_cross_entropy")},
        },
    ),
    (
        "linear layer and cross-entropy, loss and gradients",
        "labels",
        functools.partial(_cross_entropy, eps=0.0),
        {
            "torch": {
                "F.linear_cross_entropy": peer("linear_cross_entropy_in_blocks"),
                "Liger-Kernel": peer("liger_linear_cross_entropy"),
                "cut-cross-entropy": peer("cut_linear_cross_entropy"),
            }
        },
    ),
    (
        "linear layer, smoothed cross-entropy and statistics, loss and gradients",
        "labels",
        _with_statistics,
        {"torch": {"loss alone": _cross_entropy}},
    ),
    (
        "linear layers of teacher and student and their KL, T = 2, loss and the student's gradients",
        "teacher",
        _forward_kl,
        {
            "torch": {
                "matmul, F.kl_div": peer("linear_forward_kl"),
                "Liger-Kernel": peer("liger_linear_forward_kl"),
            },
            "jax": {"matmul, optax": peer("linear_forward_kl")},
            "tensorflow, function": {"matmul, keras": peer("linear_forward_kl")},
        },
    ),
    (
        "linear layer, log-probabilities of sequences and their DPO loss, loss and gradients",
        "labels",
        _dpo,
        {backend: {"matmul, log_softmax": peer("dpo")} for backend in ("torch", "jax")},
    ),
    (
        "linear layer and a teacher's 64 largest classes, bucket, T = 2, loss and gradients",
        "top classes",
        _of_top_classes,
        {"torch": {"matmul, formula": peer("linear_top_classes")}},
    ),
)
