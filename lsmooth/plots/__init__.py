"""Matplotlib pictures of calibration, targets and activations: an ``Axes`` in, the same ``Axes`` out.

Matplotlib is imported by the first call, with the backend its user has chosen.
"""

from lsmooth.plots._analysis import projection
from lsmooth.plots._calibration import confidence_histogram, risk_coverage, temperature_curve
from lsmooth.plots._corp import corp_reliability_diagram
from lsmooth.plots._reliability import classwise_reliability_diagrams, reliability_diagram, reliability_diagrams
from lsmooth.plots._style import BLUE, CLASS_COLORS, GREY, RED
from lsmooth.plots._targets import target_distribution

__all__ = [
    "BLUE",
    "CLASS_COLORS",
    "GREY",
    "RED",
    "classwise_reliability_diagrams",
    "confidence_histogram",
    "corp_reliability_diagram",
    "projection",
    "reliability_diagram",
    "reliability_diagrams",
    "risk_coverage",
    "target_distribution",
    "temperature_curve",
]
