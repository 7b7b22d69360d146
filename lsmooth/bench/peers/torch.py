"""Losses in PyTorch's own functions and in other libraries of its tensors."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    log_softmax,
    logsigmoid,
    softmax,
)

import lsmooth.integrations.torch
from lsmooth.bench.suites._frameworks import ALPHA, EPS, SEQUENCES, TEMPERATURE

module = torch.nn.CrossEntropyLoss()
lsmooth_module = lsmooth.integrations.torch.CrossEntropyLoss()


def cross_entropy_with_statistics(x: Tensor, y: Tensor) -> Tensor:
    """The loss, and the statistics of its rows from the log-probabilities."""
    with torch.no_grad():
        log_p = log_softmax(x, -1)
        entropy = -(log_p.exp() * log_p).sum()
        statistics = entropy + log_p.gather(-1, y[:, None]).sum() + (x.argmax(-1) == y).sum()
    return cross_entropy(x, y, label_smoothing=EPS) + 1e-30 * statistics


def z_loss(x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy and the squared log-sum-exp."""
    return cross_entropy(x, y) + 1e-4 * torch.logsumexp(x, 1).square().mean()


def cross_entropy_with_temperatures(x: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
    """A temperature for each row."""
    return cross_entropy(x / temperature[:, None], y)


def cross_entropy_after_adding(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """As many operations as with a masked class, for which PyTorch's smoothed loss would be infinite."""
    return cross_entropy(x + 0 * mask[1], y.clamp_min(1), label_smoothing=EPS)


def cross_entropy_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Each row's loss, added up afterwards."""
    return cross_entropy(x, y, label_smoothing=EPS, reduction="none").sum()


def focal(x: Tensor, y: Tensor) -> Tensor:
    """The formula over the cross-entropy."""
    nll = cross_entropy(x, y, reduction="none")
    return ((1 - torch.exp(-nll)) ** 2 * nll).mean()


def sigmoid_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Smoothed by eps / 2."""
    return binary_cross_entropy_with_logits(x, y * (1 - EPS) + EPS / 2)


def sigmoid_focal(x: Tensor, y: Tensor) -> Tensor:
    """``torchvision.ops.sigmoid_focal_loss``, written out."""
    p, cost = torch.sigmoid(x), binary_cross_entropy_with_logits(x, y, reduction="none")
    error = 1 - (p * y + (1 - p) * (1 - y))
    return ((0.25 * y + 0.75 * (1 - y)) * cost * error**2).mean()


def sigmoid_cross_entropy_with_pos_weight(x: Tensor, y: Tensor, pos_weight: Tensor) -> Tensor:
    """One weight for each class."""
    return binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight)


def sigmoid_cross_entropy_with_mask(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The mean over the elements that count."""
    return binary_cross_entropy_with_logits(x, y, mask.to(x.dtype), reduction="sum") / mask.sum()


def sigmoid_cross_entropy_of_elements(x: Tensor, y: Tensor) -> Tensor:
    """The sum of losses that are formed one by one."""
    return binary_cross_entropy_with_logits(x, y, reduction="none").sum()


def forward_kl(x: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher, student)."""
    p = softmax(teacher / TEMPERATURE, -1)
    return TEMPERATURE**2 * kl_div(log_softmax(x / TEMPERATURE, -1), p, reduction="batchmean")


def reverse_kl(x: Tensor, teacher: Tensor) -> Tensor:
    """KL(student, teacher)."""
    log_t, log_s = (log_softmax(z / TEMPERATURE, -1) for z in (teacher, x))
    return TEMPERATURE**2 * kl_div(log_t, log_s, reduction="batchmean", log_target=True)


def jensen_shannon(x: Tensor, teacher: Tensor) -> Tensor:
    """The mean of both divergences to the mixture."""
    log_t, log_s = (log_softmax(z / TEMPERATURE, -1) for z in (teacher, x))
    log_m = torch.logaddexp(log_t, log_s) - math.log(2.0)
    halves = [kl_div(log_m, log_p, reduction="batchmean", log_target=True) for log_p in (log_t, log_s)]
    return TEMPERATURE**2 * (halves[0] + halves[1]) / 2


def forward_kl_of_images(x: Tensor, teacher: Tensor) -> Tensor:
    """The forward KL over axis 1."""
    student, target = (log_softmax(z / TEMPERATURE, 1) for z in (x, teacher))
    return kl_div(student, target, reduction="sum", log_target=True) * (TEMPERATURE**2 * x.shape[1] / x.numel())


def forward_kl_and_cross_entropy(x: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
    """The weighted sum of both."""
    return (1.0 - ALPHA) * cross_entropy(x, y) + ALPHA * forward_kl(x, teacher)


def top_classes(x: Tensor, indices: Tensor, log_t: Tensor, tail: str, temperature: float = TEMPERATURE) -> Tensor:
    """The forward KL to a teacher's largest classes, from all log-probabilities."""
    pair = [log_t, log_softmax(x, -1).gather(-1, indices)]
    if tail != "renormalize":
        pair = [torch.cat([log_p, torch.log1p(-log_p.exp().sum(-1, keepdim=True))], -1) for log_p in pair]
    log_t, log_s = (log_softmax(log_p / temperature, -1) for log_p in pair)
    terms = log_t.exp() * (log_t - log_s)
    return temperature**2 * (terms[:, :-1] if tail == "drop" else terms).sum(-1).mean()


def linear_cross_entropy(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The head, then the smoothed loss."""
    return cross_entropy(h @ w.T, y, label_smoothing=EPS)


def linear_cross_entropy_of_one_in_twenty(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The head and the loss of the rows that count alone."""
    return cross_entropy(h[19::20] @ w.T, y[19::20])


def linear_cross_entropy_in_blocks(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """PyTorch's own loss by blocks of rows, which does not know smoothing."""
    options = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(h, w, y, options=options)


def linear_forward_kl(h: Tensor, w: Tensor, teacher_h: Tensor, teacher_w: Tensor) -> Tensor:
    """Both heads, then the forward KL."""
    return forward_kl(h @ w.T, teacher_h @ teacher_w.T)


def linear_top_classes(h: Tensor, w: Tensor, indices: Tensor, log_t: Tensor) -> Tensor:
    """The head, then the forward KL to the largest classes, with the others in one."""
    return top_classes(h @ w.T, indices, log_t, "bucket")


def dpo(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The DPO loss of sequences, chosen ones first; the reference's log-probabilities are equal."""
    tokens = log_softmax(h @ w.T, -1).gather(-1, y[:, None])
    log_p = tokens.reshape(SEQUENCES, -1).sum(-1)
    return -logsigmoid(0.1 * (log_p[: SEQUENCES // 2] - log_p[SEQUENCES // 2 :])).mean()


@functools.cache
def _liger(name: str, **options: float | str) -> Any:
    return getattr(importlib.import_module("liger_kernel.transformers"), name)(**options)


def liger_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """It overwrites the logits with the gradient: from the second call on, the logits are a gradient."""
    return _liger("LigerCrossEntropyLoss", label_smoothing=EPS)(x, y)


def liger_forward_kl(x: Tensor, teacher: Tensor) -> Tensor:
    """Its kernel computes the divergence alone; the softmaxes are PyTorch's."""
    loss, p = _liger("LigerKLDIVLoss", reduction="batchmean"), softmax(teacher / TEMPERATURE, -1)
    return TEMPERATURE**2 * loss(log_softmax(x / TEMPERATURE, -1), p)


def liger_jsd(x: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Likewise; at beta 1 it is the reverse KL."""
    log_s, log_t = (log_softmax(z / TEMPERATURE, -1) for z in (x, teacher))
    return TEMPERATURE**2 * _liger("LigerJSD", beta=beta)(log_s, log_t)


def liger_linear_cross_entropy(h: Tensor, w: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The head and the loss in one."""
    return _liger("LigerFusedLinearCrossEntropyLoss", label_smoothing=label_smoothing)(w, h, y)


def liger_linear_forward_kl(h: Tensor, w: Tensor, teacher_h: Tensor, teacher_w: Tensor) -> Tensor:
    """Its generalised JSD, which at beta 0 is the forward KL."""
    loss = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_jsd
    return TEMPERATURE**2 * loss(h, w, teacher_h, teacher_w, jsd_beta=0.0, temperature=TEMPERATURE)


def cut_linear_cross_entropy(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """Cut cross-entropy, which does not know smoothing."""
    return importlib.import_module("cut_cross_entropy").linear_cross_entropy(h, w, y)
