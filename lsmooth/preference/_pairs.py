"""Losses of pairs of a chosen and a rejected answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from lsmooth import _validation as check
from lsmooth._rows.checks import row_mask, weighted_reduction
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import match_rank


def dpo_loss(
    policy_chosen: Array,
    policy_rejected: Array,
    reference_chosen: Array,
    reference_rejected: Array,
    *,
    beta: float | Array = 0.1,
    label_smoothing: float | Array = 0.0,
    loss_type: str = "sigmoid",
    sample_weight: Array | None = None,
    mask: Array | None = None,
    reduction: str | None = "mean",
) -> Array:
    """Direct preference optimisation (DPO) of a language model on pairs of a chosen and a rejected answer.

    With m = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected), x = beta m, and
    eps the label smoothing, the loss of a pair is

    | loss_type | loss | label_smoothing |
    |---|---|---|
    | sigmoid | ``-(1 - eps) log sigmoid(x) - eps log sigmoid(-x)`` | in [0, 1]; above 0, conservative DPO |
    | robust | ``(-(1 - eps) log sigmoid(x) + eps log sigmoid(-x)) / (1 - 2 eps)`` | in [0, 1/2) |
    | exo_pair | ``KL((p, 1 - p), (1 - eps, eps))``, p = sigmoid(x) | in (0, 1); 0.001 in the paper |
    | hinge | ``max(0, 1 - x)`` | must be 0 |
    | ipo | ``(m - 1 / (2 beta))^2`` | must be 0 |

    eps is the probability that the annotator swapped the two answers. ``sigmoid`` is the cross-entropy with smoothed
    preferences. ``robust`` is an unbiased estimate: its expectation over swapped answers is the ``sigmoid`` loss with
    eps = 0 of the pairs in their correct order.

    Args:
        policy_chosen: log-probabilities of the chosen answers under the trained model, as of `sequence_log_prob`;
            floating point, any shape, one number per pair.
        policy_rejected: those of the rejected answers, in the same shape.
        reference_chosen: those of the chosen answers under the reference model, treated as constants.
        reference_rejected: those of the rejected answers under the reference model, treated as constants.
        beta: above 0, a number; or a tensor that broadcasts to the pairs.
        label_smoothing: eps, a number; or a tensor that broadcasts to the pairs.
        loss_type: one of the table. For ``ipo``, TRL divides the log-probabilities by the number of tokens, as
            ``sequence_log_prob(..., length_normalized=True)`` does.
        sample_weight: weights of the pairs: a scalar, or of the pairs' rank, each dimension equal or 1.
        mask: bool, in the shape of the pairs; pairs that are False are excluded.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`, each pair being a row.

    Returns:
        A scalar; or the pairs' losses for ``reduction="none"``. float64 if a log-probability of the policy is, else
        float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, a number is out of range, or a name is unknown.

    Source: Rafailov et al. 2023, "Direct Preference Optimization"; Mitchell 2023, "A note on DPO with noisy
        preferences and relationship to IPO"; Chowdhury et al. 2024, "Provably Robust DPO"; Ji et al. 2024, "Towards
        Efficient Exact Optimization of Language Model Alignment" (EXO, eq. 16); Zhao et al. 2023, "SLiC-HF" (hinge);
        Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences" (IPO).

    Examples:
        >>> import numpy as np
        >>> from lsmooth.preference import dpo_loss
        >>> chosen, rejected = np.array([-10.0, -12.0]), np.array([-14.0, -11.0])
        >>> reference = np.array([-12.0, -12.0])
        >>> float(dpo_loss(chosen, rejected, reference, reference, label_smoothing=0.1).round(6))
        0.643706
    """
    xp = backend_of(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        beta=beta,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        mask=mask,
    )
    loss = _loss_type(loss_type).loss
    policy, counted, dtype = _pair(xp, {"policy_chosen": policy_chosen, "policy_rejected": policy_rejected}, mask)
    references = {"reference_chosen": reference_chosen, "reference_rejected": reference_rejected}
    reference = [xp.stop_gradient(_like_policy(xp, name, x, policy[0])) for name, x in references.items()]
    beta = check.number_or_rows(xp, "beta", beta, xp.shape(policy[0]), policy[0], dtype, low=0.0, high=float("inf"))
    beta = _of_rows(xp, beta, policy[0])
    eps = _smoothing(xp, label_smoothing, policy[0], dtype, loss_type)
    difference = _counted(xp, (policy[0] - policy[1]) - (reference[0] - reference[1]), counted)
    losses = loss(xp, beta * difference, eps, beta)
    return weighted_reduction(xp, losses, sample_weight, reduction, counted)


def reward_loss(
    chosen: Array,
    rejected: Array,
    *,
    margin: float | Array | None = None,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    mask: Array | None = None,
    reduction: str | None = "mean",
) -> Array:
    """Bradley-Terry loss of a reward model on pairs of a chosen and a rejected answer.

    ``-(1 - eps) log sigmoid(x) - eps log sigmoid(-x)``, with x = chosen - rejected - margin.

    Args:
        chosen: the rewards of the chosen answers, floating point, any shape, one number per pair.
        rejected: those of the rejected answers, in the same shape.
        margin: subtracted from the difference of the rewards: a number, or a tensor that broadcasts to the pairs.
        label_smoothing: eps in [0, 1], the probability that a preference is wrong; a number or a tensor likewise.
        sample_weight: weights of the pairs: a scalar, or of the pairs' rank, each dimension equal or 1.
        mask: bool, in the shape of the pairs; pairs that are False are excluded.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`, each pair being a row.

    Returns:
        A scalar; or the pairs' losses for ``reduction="none"``. float64 if a reward is, else float32.

    Source: Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs"; the margin: Touvron et al. 2023,
        "Llama 2"; the label smoothing: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.preference import reward_loss
        >>> float(reward_loss(np.array([2.0, 0.5]), np.array([1.0, 1.0]), label_smoothing=0.1).round(6))
        0.668669
    """
    xp = backend_of(
        chosen=chosen,
        rejected=rejected,
        margin=margin,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        mask=mask,
    )
    (better, worse), counted, dtype = _pair(xp, {"chosen": chosen, "rejected": rejected}, mask)
    eps = _smoothing(xp, label_smoothing, better, dtype)
    difference = better - worse
    if margin is not None:
        if isinstance(margin, Real):
            margin = check.check_number("margin", margin)  # pyright: ignore[reportArgumentType]
            if not math.isfinite(margin):
                raise ValueError(f"margin must be a finite number or a tensor, got {margin:g}.")
        else:
            margin = check.to_array(xp, "margin", margin, dtype, like=better)
            check.check_broadcast("margin", xp.shape(margin), xp.shape(better))
        difference = difference - _of_rows(xp, margin, difference)
    difference = _counted(xp, difference, counted)
    losses = _cross_entropy(xp, difference, eps)
    return weighted_reduction(xp, losses, sample_weight, reduction, counted)


# The formulas, as functions of x = beta m, the label smoothing and beta.


def _cross_entropy(xp: Backend, x: Array, eps: Any, beta: Any = None) -> Array:
    if isinstance(eps, float) and eps == 0.0:  # avoids 0 * inf for a sequence of probability 0
        return xp.softplus(-x)
    return (1.0 - eps) * xp.softplus(-x) + eps * xp.softplus(x)


def _robust(xp: Backend, x: Array, eps: Any, beta: Any) -> Array:
    # Uses softplus(x) = x + softplus(-x), to avoid the difference of two large terms.
    loss = xp.softplus(-x)
    return loss if isinstance(eps, float) and eps == 0.0 else loss - eps / (1.0 - 2.0 * eps) * x


def _exo_pair(xp: Backend, x: Array, eps: Any, beta: Any) -> Array:
    def log(p: Any) -> Any:
        return math.log(p) if isinstance(p, float) else xp.log(p)

    def part(y: Array, q: Any) -> Array:
        log_p = -xp.softplus(-y)
        p = xp.exp(log_p)
        return p * (xp.where(xp.equal(p, 0), 0.0, log_p) - log(q))

    return part(x, 1.0 - eps) + part(-x, eps)


def _hinge(xp: Backend, x: Array, eps: Any, beta: Any) -> Array:
    return xp.where(x < 1.0, 1.0 - x, 0.0)


def _ipo(xp: Backend, x: Array, eps: Any, beta: Any) -> Array:
    distance = (x - 0.5) / beta
    return distance * distance


class _LossType(NamedTuple):
    """A formula, and the label smoothing that it allows."""

    loss: Callable[[Backend, Array, Any, Any], Array]
    allows: Callable[[Any], Any]
    range: str


_LOSS_TYPES = {
    "sigmoid": _LossType(_cross_entropy, lambda eps: (eps >= 0.0) & (eps <= 1.0), "be in [0, 1]"),
    "robust": _LossType(_robust, lambda eps: (eps >= 0.0) & (eps < 0.5), "be in [0, 1/2)"),
    "hinge": _LossType(_hinge, lambda eps: eps == 0.0, "be 0, because the loss has no smoothed form,"),
    "ipo": _LossType(_ipo, lambda eps: eps == 0.0, "be 0, because the loss has no smoothed form,"),
    "exo_pair": _LossType(_exo_pair, lambda eps: (eps > 0.0) & (eps < 1.0), "be above 0 and below 1, e.g. 0.001,"),
}


def _loss_type(name: str) -> _LossType:
    if name not in _LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(_LOSS_TYPES)}; got {name!r}.")
    return _LOSS_TYPES[name]


def _smoothing(xp: Backend, eps: Any, rows: Array, dtype: str, name: str = "sigmoid") -> Any:
    """The label smoothing, checked, as a float or as an array of the rows' rank."""
    kind, shape = _LOSS_TYPES[name], xp.shape(rows)
    if isinstance(eps, Real):
        eps = check.check_number("label_smoothing", eps)  # pyright: ignore[reportArgumentType]
        refused = [] if kind.allows(eps) else [f"{eps:g}"]
    else:
        eps = check.number_or_rows(xp, "label_smoothing", eps, shape, rows, dtype, low=0.0, high=1.0)
        refused = [] if kind.allows(0.25) else ["a tensor"]
        if check.is_validating(xp, eps):
            values = xp.to_numpy(eps)
            refused += [f"{x:g}" for x in values[~kind.allows(values)].flat]
    if refused:
        raise ValueError(f"label_smoothing must {kind.range} with loss_type={name!r}; got {refused[0]}.")
    return _of_rows(xp, eps, rows)


def _pair(xp: Backend, pair: dict[str, Any], mask: Any) -> tuple[list[Array], Array | None, str]:
    """Both arrays in the dtype of the result, the mask or None, and that dtype."""
    (name, chosen), (other, rejected) = pair.items()
    chosen = check.float_array(xp, name, chosen, rejected if xp.is_array(rejected) else None)
    rejected = check.float_array(xp, other, rejected, chosen)
    if not check.same_shape(xp.shape(rejected), xp.shape(chosen)):
        raise ValueError(f"{other} must have the shape of {name}, {xp.shape(chosen)}; got {xp.shape(rejected)}.")
    counted = row_mask(xp, mask, chosen)
    if check.is_validating(xp, chosen, rejected):
        check.check_not_nan(xp, name, chosen, counted)
        check.check_not_nan(xp, other, rejected, counted)
    dtype = "float64" if "float64" in (xp.dtype(chosen), xp.dtype(rejected)) else "float32"
    return [xp.cast(x, dtype) for x in (chosen, rejected)], counted, dtype


def _like_policy(xp: Backend, name: str, value: Any, policy: Array) -> Array:
    """A floating array, checked to have the shape of the policy's log-probabilities, in their dtype."""
    value = check.float_array(xp, name, value, policy)
    if not check.same_shape(xp.shape(value), xp.shape(policy)):
        raise ValueError(f"{name} must have the shape of policy_chosen, {xp.shape(policy)}; got {xp.shape(value)}.")
    return xp.cast(value, xp.dtype(policy))


def _counted(xp: Backend, x: Array, counted: Array | None) -> Array:
    return x if counted is None else xp.where(counted, x, 0.0)


def _of_rows(xp: Backend, value: Any, rows: Array) -> Any:
    """A number unchanged; a tensor with leading axes added up to the rank of the rows."""
    return match_rank(xp, value, rows) if xp.is_array(value) else value
