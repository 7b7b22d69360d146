"""Matplotlib pictures of calibration and of activations: an ``Axes`` in, the same ``Axes`` out.

Matplotlib is imported by the first call, with the backend its user has chosen.
"""

from lsmooth.plots._style import BLUE, CLASS_COLORS, GREY, RED
from lsmooth.plots.analysis import projection
from lsmooth.plots.calibration import reliability_diagram

__all__ = ["BLUE", "CLASS_COLORS", "GREY", "RED", "projection", "reliability_diagram"]
