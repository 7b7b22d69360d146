"""The smoothed binary targets of YOLO, as in Ultralytics YOLOv5 7.0."""

from __future__ import annotations

from lsmooth.compat import _rows


def smooth_BCE(eps: float = 0.1) -> tuple[float, float]:  # noqa: N802, their name
    """``smooth_BCE`` of YOLOv3 and YOLOv5: the smoothed targets of 1 and 0, ``(1 - eps / 2, eps / 2)``.

    Args:
        eps: the smoothing.

    Returns:
        Two numbers, the results of `lsmooth.smoothing.binary_smooth_labels` for 1 and 0.

    Examples:
        >>> smooth_BCE(0.1)
        (0.95, 0.05)
    """
    eps = _rows.number("eps", eps)
    return 1.0 - 0.5 * eps, 0.5 * eps
