"""Calibration of object detectors: the distance between scores and the precision of detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsmooth import _validation as check
from lsmooth._probabilities import ROUNDING
from lsmooth.backends import Array, backend_of
from lsmooth.metrics._bins import bin_index, bin_sums
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import calibration_error

CONVENTIONS = ("guo", "netcal")


def detection_calibration_error(
    matches: Array,
    scores: Array,
    boxes: Array | None = None,
    *,
    n_bins: int | Sequence[int] = 15,
    min_count: float = 0,
    convention: str = "guo",
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Detection calibration error (D-ECE): mean distance between score and precision over bins.

    ``sum_b (n_b / N) |precision_b - score_b|``, bins being cells of the score and, where boxes are
    given, of each of their coordinates.

    Args:
        matches: 1 or True if a detection matches an object by a rule of yours (such as IoU >= 0.5), else 0 or False;
            any shape.
        scores: the detections' confidences, in the shape of the matches.
        boxes: (..., coordinates), such as centre x, centre y, width and height, relative to the
            image: in [0, 1].
        n_bins: the number of bins of the score and of each coordinate; or one number for each, the
            score's first.
        min_count: cells with fewer detections are left out, of N too. (Küppers et al. use 8.)
        convention: ``"guo"``: bins (lo, hi], 0 in the first; ``"netcal"``: [lo, hi), 1 in the last, and N includes
            the detections of cells that are left out.
        ignore_index: detections whose match is this number do not count.
        sample_weight: of detections.

    Returns:
        A scalar, float64 for float64 scores, else float32; 0 without detections. A score or a
        coordinate outside [0, 1] makes it NaN.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Source: Küppers et al. 2020, "Multivariate Confidence Calibration for Object Detection"; netcal's
        ``ECE(detection=True)``.

    Examples:
        >>> from lsmooth.metrics import detection_calibration_error
        >>> boxes = [[0.2], [0.2], [0.8], [0.8]]  # the centre's x
        >>> matches, scores = [1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]
        >>> float(detection_calibration_error(matches, scores)), float(
        ...     detection_calibration_error(matches, scores, boxes, n_bins=(15, 2))
        ... )
        (0.0, 0.5)
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}.")
    min_count = check.check_at_least("min_count", min_count, 0)
    given = {} if boxes is None else {"boxes": boxes}
    home = backend_of(matches=matches, scores=scores, sample_weight=sample_weight, **given)
    inputs = prepare(matches, scores, sample_weight, -1, ignore_index, False, True)
    xp, weight, parts = inputs.xp, inputs.weight, [inputs.predictions[:, 1]]
    if boxes is not None:
        boxes = check.float_array(home, "boxes", boxes, like=inputs.given)
        shape = home.shape(boxes)
        if not check.same_shape(shape[:-1], home.shape(inputs.given)):
            raise ValueError(
                f"boxes must have the shape of the scores, {home.shape(inputs.given)}, and an axis of coordinates; "
                f"got {shape}."
            )
        coordinates = check.known_classes("boxes", shape)
        flat: Any = xp.reshape(boxes if xp is home else home.to_numpy(boxes), (-1, coordinates))
        counted = ~xp.equal(weight, 0)
        for k in range(coordinates):
            inside = (flat[:, k] >= -ROUNDING) & (flat[:, k] <= 1.0 + ROUNDING)
            weight = xp.where(counted & ~inside, float("nan"), weight)
            parts.append(flat[:, k])
    lengths = _lengths(n_bins, len(parts))
    index, cells = 0, 1
    for values, length in zip(parts, lengths, strict=True):
        index = index * length + bin_index(xp, values, length, convention)
        cells *= length
    correct = xp.cast(inputs.labels, inputs.dtype)
    sums = bin_sums(xp, index, weight, parts[0], correct, cells)
    if min_count:
        few = sums.weight < min_count
        weight = sums.weight if convention == "netcal" else xp.where(few, 0.0, sums.weight)
        sums = sums._replace(weight=weight, gap=xp.where(few, 0.0, sums.gap))
    return inputs.answer(calibration_error(xp, sums, "l1"))


def _lengths(n_bins: int | Sequence[int], dimensions: int) -> list[int]:
    """The number of bins of each dimension."""
    if not isinstance(n_bins, (list, tuple)):
        return [check.check_count("n_bins", n_bins)] * dimensions
    if len(n_bins) != dimensions:
        raise ValueError(
            f"n_bins must be a number, or one for the score and each of {dimensions - 1} coordinates; got {n_bins!r}."
        )
    return [check.check_count("n_bins", one) for one in n_bins]
