"""Divergences between a teacher and a student, and the losses made of them."""

from lsmooth.distillation.features import (
    attention_transfer_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_preserving_loss,
)
from lsmooth.distillation.logits import (
    decoupled_distillation_loss,
    distillation_loss,
    standardized_distillation_loss,
)
from lsmooth.distillation.loss import DistillationLoss
from lsmooth.distillation.sparse import sparse_distillation_loss

__all__ = [
    "DistillationLoss",
    "attention_transfer_loss",
    "decoupled_distillation_loss",
    "distillation_loss",
    "hint_loss",
    "relational_angle_loss",
    "relational_distance_loss",
    "similarity_preserving_loss",
    "sparse_distillation_loss",
    "standardized_distillation_loss",
]
