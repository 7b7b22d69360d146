"""Distillation between models whose classes or rows are spread over the members of a group."""

from __future__ import annotations

from typing import Any

from lsmooth._rows.checks import over_rows, rows_of
from lsmooth._rows.shards import over_members, shared_head, signature
from lsmooth.backends import Array
from lsmooth.backends.formulas.linear import Call, Head
from lsmooth.backends.formulas.questions import CrossEntropyQuestion, DivergenceQuestion
from lsmooth.backends.formulas.sharded import Asked, divergence_and_losses
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, without_arrays
from lsmooth.distillation._pair import LogitOptions, Pair, squared_temperature

HARD = "hard."


def spread_loss(
    pair: Pair,
    heads: tuple[Head, Head],
    forms: tuple[LogitOptions, ...],
    soft: DivergenceOptions,
    scale_by_temperature_squared: bool,
    *,
    labels: Array | None = None,
    label_smoothing: Any = 0.0,
    alpha: float = 1.0,
    num_classes: int | None = None,
    block_size: int | None = None,
) -> Array:
    """``(1 - alpha) CE(labels, student) + alpha T^2 D`` for a member's slice of the classes of both models.

    ``heads`` and ``forms``, the scale and soft-cap of the logits, are those of the teacher and the student.
    """
    xp, members = pair.xp, pair.spread.classes
    assert members is not None
    soft = soft._replace(counted=pair.counted)
    numbers, arrays, _ = without_arrays(xp, soft)
    like = rows_of(xp, pair.student)
    arrays = {name: over_rows(xp, x, like) for name, x in arrays.items()}
    if "temperature" in arrays:
        arrays["temperature"] = members.shared(arrays["temperature"])
    question, hard, hard_question = DivergenceQuestion(numbers), None, None
    if alpha < 1.0:
        assert labels is not None
        hard = SoftmaxOptions(label_smoothing, counted=pair.counted)
        smoothed = xp.is_array(label_smoothing) or label_smoothing != 0.0
        is_soft = len(xp.shape(labels)) > len(xp.shape(like))
        hard_question = CrossEntropyQuestion(SoftmaxOptions(), is_soft, smoothed, prefix=HARD)
        arrays["labels"] = labels
        if pair.counted is not None:
            arrays[f"{HARD}counted"] = pair.counted
    agreed = signature(xp, pair.student, numbers, num_classes, sorted(arrays), hard_question, forms)
    shared = tuple([shared_head(members, head) for head in heads])
    asked = Asked(xp, members, Call(shared, arrays, {}), num_classes, forms, block_size, agreed)
    losses, answer = divergence_and_losses(asked, question, soft, hard_question, hard)
    if scale_by_temperature_squared:
        losses = losses * squared_temperature(pair)
    if answer is not None:
        losses = alpha * losses + (1.0 - alpha) * answer.losses
    losses = losses if pair.scale is None else losses * pair.scale
    if pair.reduction == "none":
        return losses
    return over_members(xp, pair.spread.rows, xp.sum(losses), pair.divisor)
