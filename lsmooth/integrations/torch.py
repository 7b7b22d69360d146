"""Losses as ``torch.nn.Module``, in torch's argument order: prediction first, target second."""

from __future__ import annotations

from typing import Any

import torch

from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy


class CrossEntropyLoss(torch.nn.Module):
    """`lsmooth.losses.softmax_cross_entropy` as a module: ``loss(input, target)``.

    The formula is that function's. For integer targets the numbers are those of
    ``torch.nn.CrossEntropyLoss``, but for a batch in which every target is ignored: 0, not NaN.

    Weights are buffers that follow the module to its device and stay out of its ``state_dict``. A
    ``torch.nn.Parameter`` as ``temperature`` becomes one of the module's parameters, and is learned.

    Args:
        weight: the class weights, (classes,).
        ignore_index: targets with this class id cost nothing and count in no mean.
        reduction: any that `softmax_cross_entropy` knows, torch's three among them.
        label_smoothing: eps in [0, 1].
        axis: the class axis; as in torch by default: 1, or 0 for a single row of logits.
        smoothing_prior: where the smoothing mass goes, (classes,); evenly if None.
        temperature: T > 0, a number or a tensor; the softmax is of the logits / T.
        z_loss: the weight of the squared log-sum-exp, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c).

    Source: ``torch.nn.CrossEntropyLoss`` of torch 2.13, for the order and names of the arguments.

    Example:
        >>> import torch
        >>> from lsmooth.integrations.torch import CrossEntropyLoss
        >>> loss = CrossEntropyLoss(label_smoothing=0.1, z_loss=1e-4)
        >>> round(loss(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 2])).item(), 4)
        0.3346
    """

    weight: torch.Tensor | None
    smoothing_prior: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        axis: int | None = None,
        smoothing_prior: torch.Tensor | None = None,
        temperature: float | torch.Tensor = 1.0,
        z_loss: float = 0.0,
        logit_softcap: float | None = None,
    ):
        super().__init__()
        _register(self, weight=weight, smoothing_prior=smoothing_prior)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.axis = axis
        self.temperature = temperature
        self.z_loss = z_loss
        self.logit_softcap = logit_softcap

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits against targets.

        Args:
            input: logits, (N, classes, ...), or with the classes along ``axis``.
            target: class ids, (N, ...); or distributions, in the shape of ``input``.

        Returns:
            A scalar, or the losses (N, ...) for ``reduction="none"``; float32, or float64 for float64.
        """
        return softmax_cross_entropy(
            target,
            input,
            label_smoothing=self.label_smoothing,
            smoothing_prior=self.smoothing_prior,
            class_weight=self.weight,
            # Distributions have no class id that could be ignored.
            ignore_index=None if target.is_floating_point() else self.ignore_index,
            axis=min(1, input.dim() - 1) if self.axis is None else self.axis,
            temperature=self.temperature,
            z_loss=self.z_loss,
            logit_softcap=self.logit_softcap,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What ``repr`` says of the options."""
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"


class BCEWithLogitsLoss(torch.nn.Module):
    """`lsmooth.losses.sigmoid_cross_entropy` as a module: ``loss(input, target)``.

    The formula is that function's and the numbers those of ``torch.nn.BCEWithLogitsLoss``, with
    targets smoothed to ``(1 - eps) t + eps / 2``. Weights are buffers that follow the module to its
    device and stay out of its ``state_dict``.

    Args:
        weight: multiplies the losses; broadcasts to them. "mean" divides by their number all the same.
        reduction: any that `sigmoid_cross_entropy` knows, torch's three among them.
        pos_weight: the weight of the positive answers; broadcasts to the logits.
        label_smoothing: eps in [0, 1].

    Source: ``torch.nn.BCEWithLogitsLoss`` of torch 2.13, for the order and names of the arguments.

    Example:
        >>> import torch
        >>> from lsmooth.integrations.torch import BCEWithLogitsLoss
        >>> loss = BCEWithLogitsLoss(label_smoothing=0.1)
        >>> round(loss(torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.0]])).item(), 4)
        0.2809
    """

    weight: torch.Tensor | None
    pos_weight: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        reduction: str = "mean",
        pos_weight: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        _register(self, weight=weight, pos_weight=pos_weight)
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits against targets.

        Args:
            input: logits, any shape.
            target: numbers in [0, 1], in the shape of ``input``.

        Returns:
            A scalar, or the losses in the shape of ``input`` for ``reduction="none"``; float32, or
            float64 for float64.
        """
        return sigmoid_cross_entropy(
            target,
            input,
            label_smoothing=self.label_smoothing,
            pos_weight=self.pos_weight,
            sample_weight=None if self.weight is None else torch.broadcast_to(self.weight, input.shape),
            reduction="sum_over_batch_size" if self.reduction == "mean" else self.reduction,
        )

    def extra_repr(self) -> str:
        """What ``repr`` says of the options."""
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"


def _register(module: torch.nn.Module, **buffers: Any) -> None:
    for name, value in buffers.items():
        module.register_buffer(name, None if value is None else torch.as_tensor(value), persistent=False)
