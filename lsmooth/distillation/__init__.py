"""Distillation losses between a teacher and a student.

Options that several losses share are described in full in `distillation_loss`, and so are the errors.
"""

from lsmooth.distillation._features import (
    attention_transfer_loss,
    contrastive_distillation_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_preserving_loss,
)
from lsmooth.distillation._linear import linear_distillation_loss, linear_sparse_distillation_loss
from lsmooth.distillation._logits import decoupled_distillation_loss, distillation_loss, standardized_distillation_loss
from lsmooth.distillation._loss import DistillationLoss
from lsmooth.distillation._methods import (
    MovingAverageTeacher,
    ensemble_distillation_loss,
    gkd_loss,
    mutual_distillation_losses,
    virtual_teacher_logits,
)
from lsmooth.distillation._sparse import sparse_distillation_loss

__all__ = [
    "DistillationLoss",
    "MovingAverageTeacher",
    "attention_transfer_loss",
    "contrastive_distillation_loss",
    "decoupled_distillation_loss",
    "distillation_loss",
    "ensemble_distillation_loss",
    "gkd_loss",
    "hint_loss",
    "linear_distillation_loss",
    "linear_sparse_distillation_loss",
    "mutual_distillation_losses",
    "relational_angle_loss",
    "relational_distance_loss",
    "similarity_preserving_loss",
    "sparse_distillation_loss",
    "standardized_distillation_loss",
    "virtual_teacher_logits",
]
