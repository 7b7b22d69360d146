"""Scalers that make predicted probabilities honest: fit on held-out logits, transform new ones."""

from lsmooth.calibration._base import Calibrator, ConvergenceWarning
from lsmooth.calibration._scaling import apply_temperature
from lsmooth.calibration.affine import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    MatrixScaling,
    VectorScaling,
)
from lsmooth.calibration.binning import HistogramBinning, IsotonicCalibration
from lsmooth.calibration.groups import GroupTemperatureScaling
from lsmooth.calibration.loading import load
from lsmooth.calibration.mixed import MixedTemperatureScaling
from lsmooth.calibration.quadratic import QuadraticScaling
from lsmooth.calibration.structured import StructuredMatrixScaling, StructuredVectorScaling
from lsmooth.calibration.temperature import TemperatureScaling

__all__ = [
    "BiasCorrectedTemperatureScaling",
    "Calibrator",
    "ConvergenceWarning",
    "DirichletCalibration",
    "GroupTemperatureScaling",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "MixedTemperatureScaling",
    "QuadraticScaling",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "TemperatureScaling",
    "VectorScaling",
    "apply_temperature",
    "load",
]
