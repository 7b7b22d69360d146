"""Scalers that make predicted probabilities honest: fit on held-out logits, transform new ones."""

from lsmooth.calibration._base import Calibrator, ConvergenceWarning
from lsmooth.calibration.affine import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    MatrixScaling,
    VectorScaling,
)
from lsmooth.calibration.binning import HistogramBinning, IsotonicCalibration
from lsmooth.calibration.temperature import TemperatureScaling, apply_temperature

__all__ = [
    "BiasCorrectedTemperatureScaling",
    "Calibrator",
    "ConvergenceWarning",
    "DirichletCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "apply_temperature",
]
