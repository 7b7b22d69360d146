"""Scalers that make predicted probabilities honest: fit on held-out logits, transform new ones."""

from lsmooth.calibration._base import ConvergenceWarning
from lsmooth.calibration.temperature import TemperatureScaling, apply_temperature

__all__ = ["ConvergenceWarning", "TemperatureScaling", "apply_temperature"]
