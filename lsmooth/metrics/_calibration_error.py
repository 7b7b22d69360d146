"""The distance between confidence and accuracy, bin by bin."""

from __future__ import annotations

from lsmooth.backends import Array
from lsmooth.metrics._bins import BinSums
from lsmooth.metrics._inputs import prepare, row_blocks
from lsmooth.metrics._tables import Scheme, calibration_error, classwise_table, top_label_table


def expected_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    norm: str = "l1",
    debias: bool = False,
    convention: str = "guo",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Mean distance between confidence and accuracy over bins of confidence.

    ``sum_b (n_b / N) |acc_b - conf_b|``, the confidence being that in the likeliest class.

    Bins are (lo, hi] and of equal width; 0 is in the first, 1 in the last. Empty bins add
    nothing, and without rows the error is 0. Of equal classes the first is the likeliest.

    | convention | bins | a confidence of 1 | two classes |
    |---|---|---|---|
    | ``"guo"`` | (lo, hi] | last bin | the likelier one |
    | ``"torchmetrics"`` | [lo, hi) | a bin of its own | the likelier one; P(class 1) if ``binary`` |
    | ``"netcal"`` | [lo, hi) | last bin | P(class 1) |
    | ``"tfp"`` | [lo, hi), rounded as n_bins p | last bin | the likelier one |
    | ``"sklearn"`` | (lo, hi] | last bin | P(class 1) |
    | ``"relplot"`` | [lo, hi), rounded as p / (1 / n_bins) | a bin of its own | as torchmetrics |

    Args:
        labels: class ids, integers in the shape of the predictions without ``axis``. One outside
            0..classes-1 makes the result NaN; under `lsmooth.validate` it is an error.
        predictions: probabilities, or logits if ``from_logits``; floating point, any shape,
            classes along ``axis``.
        from_logits: whether ``predictions`` are logits; never guessed.
        n_bins: the number of bins. (The default of netcal and relplot is 10, of scikit-learn 5.)
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each bin, equal
            confidences in the same.
        norm: ``"l1"``; ``"l2"``: ``sqrt(sum_b (n_b / N) (acc_b - conf_b)^2)``; ``"max"``: the
            largest distance of any bin.
        debias: for ``"l2"``: subtract the variance of each bin's accuracy, acc (1 - acc) / (n_b - 1).
        convention: the library whose bins are used; see the table.
        binary: labels are 0 or 1, and predictions the probability (or logit) of 1, in the same
            shape: yes-or-no questions, multi-label ones too.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows, at least 0: a scalar, or of their rank, each dimension equal or 1.

    Returns:
        A scalar, float64 for float64 predictions, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit or an option is unknown.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; ``debias``: Kumar et al.
        2019, "Verified Uncertainty Calibration"; conventions: torchmetrics 1.9, netcal 1.4,
        tensorflow-probability, scikit-learn 1.9, relplot 1.0.

    Examples:
        >>> from lsmooth.metrics import expected_calibration_error
        >>> probabilities = [[0.5, 0.5], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8]]
        >>> float(expected_calibration_error([0, 1, 0, 1], probabilities, n_bins=2).round(6))
        0.125
    """
    scheme = Scheme(n_bins, binning, norm, debias, convention)
    whole = (labels, predictions, sample_weight)
    blocks = row_blocks(*whole, axis, binary) if binning == "equal_width" else [whole]
    parts = [prepare(y, p, w, axis, ignore_index, from_logits, binary) for y, p, w in blocks]
    tables = [top_label_table(part, scheme, binary) for part in parts]
    sums = tables[0] if len(tables) == 1 else BinSums(*map(sum, zip(*tables, strict=True)))
    return parts[0].answer(calibration_error(parts[0].xp, sums, norm, debias))


def maximum_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    convention: str = "guo",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Largest distance between confidence and accuracy of any bin: ``max_b |acc_b - conf_b|``.

    Args:
        labels: as in `expected_calibration_error`, and so are the other arguments.
        predictions: probabilities, or logits if ``from_logits``.
        from_logits: whether ``predictions`` are logits.
        n_bins: the number of bins.
        binning: ``"equal_width"`` or ``"equal_mass"``.
        convention: the library whose bins are used.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".

    Examples:
        >>> from lsmooth.metrics import maximum_calibration_error
        >>> float(maximum_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
    """
    return expected_calibration_error(
        labels,
        predictions,
        from_logits=from_logits,
        n_bins=n_bins,
        binning=binning,
        norm="max",
        convention=convention,
        binary=binary,
        axis=axis,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
    )


def classwise_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    binning: str = "equal_width",
    norm: str = "l1",
    debias: bool = False,
    reduction: str = "mean",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Calibration error of every class's probability, averaged over classes.

    ``mean_k sum_b (n_kb / N) |freq_kb - conf_kb|``: rows are binned by p_k, conf_kb is the mean of
    p_k and freq_kb the fraction of label k in the bin.

    Args:
        labels: as in `expected_calibration_error`, and so are the other arguments.
        predictions: probabilities, or logits if ``from_logits``.
        from_logits: whether ``predictions`` are logits.
        n_bins: the number of bins of each class.
        binning: ``"equal_width"`` (static), or ``"equal_mass"`` (adaptive).
        norm: ``"l1"``; ``"l2"``, the root of the mean over classes of squared errors; ``"max"``, of
            all bins of all classes.
        debias: for ``"l2"``: subtract the variance of each bin's frequency.
        reduction: ``"mean"``; or ``"none"``: the error of each class.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, or (classes,) if ``reduction="none"``; float64 for float64 predictions, else float32.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning" (static calibration error);
        Kumar et al. 2019 (marginal calibration error, ``norm="l2"``).

    Examples:
        >>> from lsmooth.metrics import classwise_calibration_error
        >>> float(classwise_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
        >>> classwise_calibration_error([0, 1], [[0.75, 0.25], [0.6, 0.4]], reduction="none")
        array([0.425, 0.425])
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be mean or none, got {reduction!r}.")
    scheme = Scheme(n_bins, binning, norm, debias)
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    sums = classwise_table(inputs, scheme)
    return inputs.answer(calibration_error(inputs.xp, sums, norm, debias, reduction))


def adaptive_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    n_bins: int = 15,
    norm: str = "l1",
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Calibration error of every class over bins of equal mass, averaged over classes.

    ``mean_k sum_b (n_kb / N) |freq_kb - conf_kb|``, each class's bins holding about N / n_bins rows.

    Other libraries use this name for other numbers: for torch-uncertainty's, over top labels, use
    `expected_calibration_error` with ``binning="equal_mass"``; netcal's is an unweighted mean over
    the bins of equal width that are not empty.

    Args:
        labels: as in `expected_calibration_error`, and so are the other arguments.
        predictions: probabilities, or logits if ``from_logits``.
        from_logits: whether ``predictions`` are logits.
        n_bins: the number of bins of each class.
        norm: ``"l1"``, ``"l2"`` or ``"max"``, as in `classwise_calibration_error`.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning".

    Examples:
        >>> from lsmooth.metrics import adaptive_calibration_error
        >>> float(adaptive_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
    """
    return classwise_calibration_error(
        labels,
        predictions,
        from_logits=from_logits,
        n_bins=n_bins,
        binning="equal_mass",
        norm=norm,
        binary=binary,
        axis=axis,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
    )
