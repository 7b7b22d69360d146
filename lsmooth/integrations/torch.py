"""Losses as ``torch.nn.Module``, in torch's argument order, and a model with a temperature."""

from __future__ import annotations

from typing import Any

from lsmooth.integrations._extras import needs

with needs("torch", "torch"):
    import torch

from lsmooth import _validation as check
from lsmooth import distillation
from lsmooth._rows.reductions import check_reduction
from lsmooth.backends.torch import BACKEND
from lsmooth.backends.torch.cpu.mean import of_few_ids
from lsmooth.integrations._torch_options import (
    LossModule,
    axis_of,
    check_order,
    class_axis,
    class_id,
    ignored_class,
    number_or_tensor,
    per_class,
    real_tensor,
)
from lsmooth.integrations._torch_temperature import TemperatureScaled
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "DistillationLoss", "TemperatureScaled"]


class CrossEntropyLoss(LossModule):
    """`lsmooth.losses.softmax_cross_entropy` as a module: ``loss(input, target)``.

    For integer targets, the numbers are those of ``torch.nn.CrossEntropyLoss``, except that the mean over a batch in
    which every target is ignored is 0, not NaN.

    Tensor options are buffers, which move with the module and are not part of its ``state_dict``; the ``state_dict``
    of ``torch.nn.CrossEntropyLoss(weight)`` loads. A ``torch.nn.Parameter`` as ``temperature`` or
    ``label_smoothing`` becomes a parameter of the module, and is learned.

    Args:
        weight: the class weights, (classes,).
        ignore_index: rows with this class id are excluded from the loss and its mean.
        reduction: any reduction of `softmax_cross_entropy`, including torch's three.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        axis: the class axis; by default as in torch: 1, or 0 for a single row of logits.
        smoothing_prior: the distribution of the smoothing mass, (classes,); uniform if None.
        temperature: T > 0, a number; or a tensor that broadcasts to the rows. The softmax is of the logits / T.
        z_loss: the weight of the squared log-sum-exp, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c).
        num_classes: the number of classes; later logits are padding.
        class_shards: the group that the classes are spread over, as in `lsmooth.losses.softmax_cross_entropy`.
        row_shards: the group that the rows are spread over, as in `lsmooth.losses.softmax_cross_entropy`.

    Source: ``torch.nn.CrossEntropyLoss`` of torch 2.13, for the order and names of the arguments, without its
        deprecated ``size_average`` and ``reduce``.

    Examples:
        >>> import torch
        >>> from lsmooth.integrations.torch import CrossEntropyLoss
        >>> loss = CrossEntropyLoss(label_smoothing=0.1, z_loss=1e-4)
        >>> round(loss(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 2])).item(), 4)
        0.3346
    """

    weight: torch.Tensor | None
    smoothing_prior: torch.Tensor | None
    ignore_index: int
    reduction: str
    label_smoothing: float | torch.Tensor
    axis: int | None
    temperature: float | torch.Tensor
    z_loss: float
    logit_softcap: float | None
    num_classes: int | None
    class_shards: Any
    row_shards: Any

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float | torch.Tensor = 0.0,
        *,
        axis: int | None = None,
        smoothing_prior: torch.Tensor | None = None,
        temperature: float | torch.Tensor = 1.0,
        z_loss: float = 0.0,
        logit_softcap: float | None = None,
        num_classes: int | None = None,
        class_shards: Any = None,
        row_shards: Any = None,
    ):
        super().__init__()
        ignore_index = class_id(ignore_index)
        self.register_buffer("weight", per_class("weight", weight), persistent=False)
        self.register_buffer("smoothing_prior", per_class("smoothing_prior", smoothing_prior), persistent=False)
        check_reduction(reduction)
        self.set_options(
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=number_or_tensor("label_smoothing", label_smoothing, 0.0, 1.0),
            axis=class_axis(axis),
            temperature=number_or_tensor("temperature", temperature, 0.0, float("inf")),
            z_loss=check.check_number("z_loss", z_loss),
            logit_softcap=None if logit_softcap is None else check.check_number("logit_softcap", logit_softcap),
            num_classes=None if num_classes is None else check.check_count("num_classes", num_classes),
            class_shards=class_shards,
            row_shards=row_shards,
        )
        check.check_at_least("z_loss", self.z_loss, 0.0)
        if logit_softcap is not None:
            check.check_range("logit_softcap", logit_softcap, 0.0, float("inf"))

    def forward(self, input: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of logits against targets.

        Args:
            input: logits, (N, classes, ...), or with the classes along ``axis``.
            target: class ids, (N, ...); or distributions, in the shape of ``input``.
            mask: bool, (N, ...); rows that are False are excluded, with distributions too.

        Returns:
            A scalar, or the losses (N, ...) for ``reduction="none"``; float32, or float64 for float64.
        """
        if mask is None and (self.is_plain() if self._plain is None else self._plain):
            loss = of_few_ids(target, input, self.ignore_index)
            if loss is not None:
                return loss
        axis, tensors = self.axis, self._buffers
        axis = min(1, input.dim() - 1) if axis is None else axis
        if (
            self.logit_softcap is self.num_classes is tensors.get("smoothing_prior", self) is None
            and self.class_shards is self.row_shards is None
            and self.reduction == "mean"
            and type(self.temperature) is float
            and self.temperature == 1.0
            and not self.z_loss
        ):  # for small batches, the checks of the other options would take longer than the loss
            ids = None if isinstance(target, torch.Tensor) and target.is_floating_point() else self.ignore_index
            loss = BACKEND.quick_mean(
                "softmax_cross_entropy",
                target,
                input,
                self.label_smoothing,
                ids,
                axis,
                tensors.get("weight", self),
                mask,
            )
            if loss is not None:
                return loss
        check_order(input, target, "loss(input, target)")
        return softmax_cross_entropy(
            target,
            input,
            label_smoothing=self.label_smoothing,
            smoothing_prior=self.smoothing_prior,
            class_weight=self.weight,
            ignore_index=ignored_class(self.ignore_index, input, target, axis),
            mask=mask,
            axis=axis,
            temperature=self.temperature,
            z_loss=self.z_loss,
            logit_softcap=self.logit_softcap,
            num_classes=self.num_classes,
            class_shards=self.class_shards,
            row_shards=self.row_shards,
            reduction=self.reduction,
        )


class DistillationLoss(LossModule):
    """`lsmooth.distillation.DistillationLoss` as a module: ``loss(input, teacher, target)``.

    ``(1 - alpha) CE(target, input) + alpha T^2 D(teacher / T, input / T)``. As in torch, the prediction comes first:
    the student's logits, then the teacher's, then the labels. (In `lsmooth.distillation` the labels come first.) A
    tensor ``temperature`` or ``label_smoothing`` is a buffer, which moves with the module and is not part of its
    ``state_dict``.

    Args:
        alpha: the weight of the teacher, in [0, 1].
        temperature: T > 0, of the divergence: a number; or a tensor that broadcasts to the rows.
        ignore_index: rows with this label are excluded from both terms and their mean.
        reduction: any reduction of `lsmooth.losses.softmax_cross_entropy`, including torch's three.
        label_smoothing: eps in [0, 1], of the cross-entropy: a number; or a tensor that broadcasts to the rows.
        divergence: D, as in `lsmooth.distillation.distillation_loss`.
        beta: for ``"jensen_shannon"``.
        divergence_alpha: the alpha of `lsmooth.distillation.distillation_loss`.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        axis: the class axis; by default as in torch: 1, or 0 for a single row of logits.
        num_classes: the number of classes; later logits are padding, whose amount may differ between the models.
        class_shards: as in `CrossEntropyLoss`; the teacher's logits are this member's slice too.
        row_shards: as in `CrossEntropyLoss`.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; the arguments in the order of
        ``torch.nn.KLDivLoss`` and ``torch.nn.CrossEntropyLoss`` of torch 2.13.

    Examples:
        >>> import torch
        >>> from lsmooth.integrations.torch import DistillationLoss
        >>> loss = DistillationLoss(alpha=0.9, temperature=4.0)
        >>> student, teacher = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[2.0, 1.0, 0.0]])
        >>> round(loss(student, teacher, torch.tensor([0])).item(), 4)
        1.4284
    """

    alpha: float
    temperature: float | torch.Tensor
    ignore_index: int
    reduction: str
    label_smoothing: float | torch.Tensor
    divergence: str
    beta: float
    divergence_alpha: float
    scale_by_temperature_squared: bool
    axis: int | None
    num_classes: int | None
    class_shards: Any
    row_shards: Any

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float | torch.Tensor = 1.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float | torch.Tensor = 0.0,
        *,
        divergence: str = "forward_kl",
        beta: float = 0.5,
        divergence_alpha: float = 0.5,
        scale_by_temperature_squared: bool = True,
        axis: int | None = None,
        num_classes: int | None = None,
        class_shards: Any = None,
        row_shards: Any = None,
    ):
        super().__init__()
        self.set_options(
            alpha=check.check_number("alpha", alpha),
            temperature=number_or_tensor("temperature", temperature, 0.0, float("inf")),
            ignore_index=class_id(ignore_index),
            reduction=reduction,
            label_smoothing=number_or_tensor("label_smoothing", label_smoothing, 0.0, 1.0),
            divergence=divergence,
            beta=check.check_number("beta", beta),
            divergence_alpha=check.check_number("divergence_alpha", divergence_alpha),
            scale_by_temperature_squared=scale_by_temperature_squared,
            axis=class_axis(axis),
            num_classes=None if num_classes is None else check.check_count("num_classes", num_classes),
            class_shards=class_shards,
            row_shards=row_shards,
        )
        self._loss(axis=-1, ignore_index=None)  # checks the options

    def forward(
        self, input: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            input: the student's logits, (N, classes, ...), or with the classes along ``axis``.
            teacher: the teacher's logits, in the same shape; treated as constants.
            target: class ids, (N, ...); or distributions, in the shape of ``input``.
            mask: bool, (N, ...); rows that are False are excluded, with distributions too.

        Returns:
            A scalar, or the losses (N, ...) for ``reduction="none"``; float32, or float64 for float64.
        """
        check_order(input, target, "loss(input, teacher, target)")
        axis = axis_of(input, self.axis)
        loss = self._loss(axis=axis, ignore_index=ignored_class(self.ignore_index, input, target, axis))
        return loss(target, teacher, input, mask=mask)

    def _loss(self, *, axis: int, ignore_index: int | None) -> distillation.DistillationLoss:
        return distillation.DistillationLoss(
            self.alpha,
            self.temperature,
            label_smoothing=self.label_smoothing,
            divergence=self.divergence,
            beta=self.beta,
            divergence_alpha=self.divergence_alpha,
            scale_by_temperature_squared=self.scale_by_temperature_squared,
            ignore_index=ignore_index,
            axis=axis,
            num_classes=self.num_classes,
            class_shards=self.class_shards,
            row_shards=self.row_shards,
            reduction=self.reduction,
        )


class BCEWithLogitsLoss(LossModule):
    """`lsmooth.losses.sigmoid_cross_entropy` as a module: ``loss(input, target)``.

    The numbers are those of ``torch.nn.BCEWithLogitsLoss`` with targets smoothed to ``(1 - eps) t + eps / 2``. Tensor
    options are buffers, which move with the module and are not part of its ``state_dict``; the ``state_dict`` of
    ``torch.nn.BCEWithLogitsLoss(weight)`` loads.

    Args:
        weight: multiplies the losses; broadcasts to them. "mean" divides by their number, not by the weights.
        reduction: any reduction of `sigmoid_cross_entropy`, including torch's three.
        pos_weight: the weight of positive targets; broadcasts to the logits.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the logits.

    Source: ``torch.nn.BCEWithLogitsLoss`` of torch 2.13, for the order and names of the arguments, without its
        deprecated ``size_average`` and ``reduce``.

    Examples:
        >>> import torch
        >>> from lsmooth.integrations.torch import BCEWithLogitsLoss
        >>> loss = BCEWithLogitsLoss(label_smoothing=0.1)
        >>> round(loss(torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.0]])).item(), 4)
        0.2809
    """

    weight: torch.Tensor | None
    pos_weight: torch.Tensor | None
    reduction: str
    label_smoothing: float | torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        reduction: str = "mean",
        pos_weight: torch.Tensor | None = None,
        *,
        label_smoothing: float | torch.Tensor = 0.0,
    ):
        super().__init__()
        self.register_buffer("weight", real_tensor("weight", weight), persistent=False)
        self.register_buffer("pos_weight", real_tensor("pos_weight", pos_weight), persistent=False)
        if reduction is None:  # torch's positional size_average
            raise ValueError('reduction must be a name such as "mean", got None; for no reduction, give "none".')
        check_reduction(reduction)
        self.set_options(
            reduction=reduction, label_smoothing=number_or_tensor("label_smoothing", label_smoothing, 0.0, 1.0)
        )

    def forward(self, input: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of logits against targets.

        Args:
            input: logits, any shape.
            target: numbers in [0, 1], in the shape of ``input``.
            mask: bool, in the shape of ``input``; elements that are False are excluded.

        Returns:
            A scalar, or the losses in the shape of ``input`` for ``reduction="none"``; float32, or float64 for float64.
        """
        check_order(input, target, "loss(input, target)")
        return sigmoid_cross_entropy(
            target,
            input,
            label_smoothing=self.label_smoothing,
            pos_weight=self.pos_weight,
            sample_weight=None if self.weight is None else torch.broadcast_to(self.weight, input.shape),
            mask=mask,
            reduction="sum_over_batch_size" if self.reduction == "mean" else self.reduction,
        )
