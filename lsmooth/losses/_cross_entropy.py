"""Softmax and sigmoid cross-entropy with label smoothing."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import RowOptions, Rows, binary_loss, per_class, prepare, reduced
from lsmooth._rows.shards import cross_entropy_call, over_all_rows
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.linear import Head
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.losses._quick import SOFTMAX, quick_mean_first


@over_ragged_rows("logits")
@quick_mean_first(SOFTMAX)
def softmax_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    label_smoothing: float | Array = 0.0,
    smoothing_prior: Array | None = None,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    temperature: float | Array = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    overwrite_logits: bool = False,
) -> Array:
    """Cross-entropy between smoothed labels and the softmax of logits.

    With p = softmax(z), q = (1 - eps) t + eps u, and lse = log(sum(exp(z))), the loss of a row is

    ``sum_k w_k q_k (lse - z_k) + a lse^2``,

    where t is the label's one-hot form or the given distribution, u the prior (uniform by default) and w the
    class weights (1 by default). The gradient of an unweighted row is p - q. A logit of -inf masks its class:
    the smoothing mass goes to the other classes.

    Args:
        labels: class ids, integers in the shape of the logits without ``axis``; or distributions, in the shape
            of the logits. An id outside 0..classes-1 makes its row NaN; under `lsmooth.validate` it is an error.
            Distributions are not rescaled to sum to one.
        logits: floating point, any shape, classes along ``axis``.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        smoothing_prior: u, (classes,), non-negative; scaled to sum to one.
        class_weight: w, (classes,).
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean, and get a zero gradient;
            integer labels only.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the class axis.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows; the softmax is of z / T.
        z_loss: a >= 0, the weight of lse^2 (PaLM's stabiliser).
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later logits are padding, which the softmax leaves out. Per-class
            options have this length; distributions have this length or that of the logits.
        class_shards: the group whose members each hold a slice of the classes: a ``torch.distributed`` process
            group or a one-dimensional ``DeviceMesh``; the name of a ``jax.shard_map`` or ``jax.pmap`` axis; or
            ``tf.distribute.get_replica_context()``. Logits, distributions and per-class options are this member's
            slice, in the order of the members; labels and ``num_classes`` refer to all classes. Every member
            gets the loss and the gradient of its slice.
        row_shards: the group, of the same kinds, whose members each hold a part of the rows: sums and means are
            taken over all of them. Gradients are those of the member's rows; add up those of shared parameters.
        reduction: ``"none"`` or None; ``"sum"``; or what the sum is divided by: ``"mean"``, the sum of sample
            weights times class weights of the rows that are not excluded, or their number if no weights are
            given; ``"sum_over_batch_size"``, their number; ``"mean_with_sample_weight"``, the sum of their sample
            weights; ``"sum_by_nonzero_weights"``, the number of sample weights other than 0. A mean of no rows is 0.
        overwrite_logits: PyTorch only. Let the backward pass overwrite the logits with their gradient, which
            saves memory of their size and costs a second pass over them. The logits, and tensors that share
            their memory, are lost: call ``backward`` once, and read them before. PyTorch raises an error if
            another operation has saved them for its own backward pass, or if they are a leaf tensor. Compiled
            calls and logits that are not contiguous get memory of their own.

    Returns:
        A scalar; or the rows' losses, in the shape of the logits without ``axis``, for
        ``reduction="none"``. float64 for float64 logits, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, a number is out of range, or the reduction is unknown.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture"; z-loss: Chowdhery et al. 2022, "PaLM".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import softmax_cross_entropy
        >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        >>> float(softmax_cross_entropy([0, 2], logits, label_smoothing=0.1).round(6))
        0.333901
    """
    xp = backend_of(
        labels=labels,
        logits=logits,
        label_smoothing=label_smoothing,
        smoothing_prior=smoothing_prior,
        class_weight=class_weight,
        sample_weight=sample_weight,
        mask=mask,
        temperature=temperature,
    )
    xp.refuse_spread(logits)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    given = given._replace(class_weight=class_weight, class_shards=class_shards)
    rows = prepare(xp, labels, logits, given)
    options = kernel_options(rows, rows.logits, smoothing_prior, temperature, z_loss, logit_softcap)
    overwrite = check.check_flag("overwrite_logits", overwrite_logits)
    if rows.spread.classes is not None:
        if overwrite:
            raise ValueError("overwrite_logits must be False with class_shards, whose gradients need the logits.")
        answer, _ = cross_entropy_call(
            xp, rows.spread.classes, Head(rows.logits, None), rows.labels, options, rows.soft
        )
        return reduced(rows, answer.losses, answer.label_weight)
    kernel = xp.overwriting_softmax_cross_entropy if overwrite else xp.softmax_cross_entropy
    return over_all_rows(rows, kernel(rows.logits, rows.labels, options))


@over_ragged_rows("logits", elementwise=True)
def sigmoid_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    label_smoothing: float | Array = 0.0,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    mask: Array | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Cross-entropy between smoothed binary labels and the sigmoid of logits, element by element.

    With l = (1 - eps) t + eps / 2, the loss of an element is

    ``w l log(1 + exp(-z)) + (1 - l) log(1 + exp(z))``.

    Args:
        labels: t in [0, 1], any dtype, in the shape of the logits.
        logits: z, floating point, any shape: independent yes-or-no questions.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the logits.
        pos_weight: w, the weight of the positive answers; broadcasts to the logits.
        sample_weight: weights of the elements: a scalar, or of the logits' rank, each dimension equal or 1.
        mask: bool, in the shape of the logits; elements that are False are excluded.
        row_shards: the group whose members hold the rows, as in `softmax_cross_entropy`.
        reduction: as in `softmax_cross_entropy`, each element being a row.

    Returns:
        A scalar; or the elements' losses, in the shape of the logits, for ``reduction="none"``.
        float64 for float64 logits, else float32. Raises as `softmax_cross_entropy` does.

    Source: ``tf.compat.v1.losses.sigmoid_cross_entropy``; ``pos_weight`` as in
        ``torch.nn.functional.binary_cross_entropy_with_logits``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import sigmoid_cross_entropy
        >>> float(sigmoid_cross_entropy([[1, 0]], np.array([[3.0, -1.0]]), label_smoothing=0.1).round(6))
        0.280925
    """
    xp = backend_of(
        labels=labels,
        logits=logits,
        label_smoothing=label_smoothing,
        pos_weight=pos_weight,
        sample_weight=sample_weight,
        mask=mask,
    )
    given = RowOptions(label_smoothing, sample_weight, mask=mask, reduction=reduction, row_shards=row_shards)
    return binary_loss(xp, labels, logits, given, pos_weight)


def kernel_options(
    rows: Rows, classes: Array, smoothing_prior: Any, temperature: Any, z_loss: float, logit_softcap: float | None
) -> SoftmaxOptions:
    """The kernel's options for a checked call; the last axis of ``classes`` is the class axis."""
    xp = rows.xp
    temperature = check.number_or_rows(
        xp, "temperature", temperature, rows.shape, rows.logits, rows.dtype, low=0.0, high=float("inf")
    )
    prior = per_class(
        xp, "smoothing_prior", smoothing_prior, rows.own_classes or xp.shape(classes)[-1], classes, rows.dtype
    )
    check.check_at_least("z_loss", z_loss, 0.0)
    if logit_softcap is not None:
        logit_softcap = check.check_range("logit_softcap", logit_softcap, 0.0, float("inf"))
    return SoftmaxOptions(
        label_smoothing=rows.label_smoothing,
        prior=prior,
        class_weight=rows.class_weight,
        temperature=temperature,
        z_loss=float(z_loss),
        logit_softcap=logit_softcap,
        counted=rows.counted,
        scale=rows.scale,
        total=rows.reduction != "none",
        num_classes=rows.num_classes,
    )
