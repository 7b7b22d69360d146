"""The smoothed yes-or-no targets of YOLO."""

from __future__ import annotations

from lsmooth.compat import _rows


def smooth_BCE(eps: float = 0.1) -> tuple[float, float]:  # noqa: N802, their name
    """``smooth_BCE`` of YOLOv3 and YOLOv5: the targets of yes and of no, ``(1 - eps / 2, eps / 2)``.

    They are what `lsmooth.smoothing.binary_smooth_labels` makes of 1 and 0.

    Args:
        eps: the smoothing.

    Returns:
        Two numbers.

    Raises:
        TypeError: if eps is no number.

    Source: Ultralytics YOLOv5 7.0, ``utils.loss.smooth_BCE``.

    Examples:
        >>> smooth_BCE(0.1)
        (0.95, 0.05)
    """
    eps = _rows.number("eps", eps)
    return 1.0 - 0.5 * eps, 0.5 * eps
