"""The information of a network's logits about its input."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth._sums import long_sum
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import accumulate


def mutual_information(differences: Array) -> Array:
    """Information, in nats, between an example and a network's logit difference of two classes.

    With d_xl the difference for draw l of example x (the example under a random augmentation),
    mu_x = mean_l d_xl and sigma^2 = mean_xl (d_xl - mu_x)^2, the differences of an example are
    modelled as normal around mu_x with variance sigma^2, and

    ``I = mean_xl [ -(d_xl - mu_x)^2 / (2 sigma^2) - log mean_x' exp(-(d_xl - mu_x')^2 / (2 sigma^2)) ]``.

    It is at most log(examples), if each difference identifies its example; log(2) if it identifies the class alone; and
    0 without information, or slightly below by the noise of the draws.

    Args:
        differences: (examples, draws), floating point. It takes memory for examples^2 x draws numbers.

    Returns:
        A scalar, float64 for float64 differences, else float32.

    Raises:
        TypeError: if the dtype is not floating point.
        ValueError: if there are not two axes.

    Source: Müller et al. 2019, "When Does Label Smoothing Help?", section 4.

    Examples:
        >>> from lsmooth.analysis import mutual_information
        >>> float(mutual_information([[-9.1, -8.9], [8.9, 9.1]]).round(4))  # log(2)
        0.6931
    """
    xp = backend_of(differences=differences)
    differences = accumulate(xp, check.float_array(xp, "differences", differences))
    shape = xp.shape(differences)
    if len(shape) != 2:
        raise ValueError(f"differences must have shape (examples, draws), got {shape}.")
    dtype = xp.dtype(differences)
    examples, draws = (xp.length(differences, axis, dtype) for axis in (0, 1))
    center = xp.sum(differences, axis=1) / draws
    own = (differences - center[:, None]) ** 2
    variance = xp.cast(long_sum(xp, own), xp.dtype(own)) / (examples * draws)
    # Draws without variance: the limit of small noise.
    variance = xp.where(xp.equal(variance, 0), 1e-30, variance)
    distance = (differences[:, :, None] - center[None, None, :]) ** 2
    count = xp.sum(xp.ones_like(differences[:, 0], dtype))
    mixture = xp.logsumexp(-distance / (2 * variance), axis=-1) - xp.log(count)
    return xp.cast(long_sum(xp, -own / (2 * variance) - mixture), xp.dtype(own)) / (examples * draws)
