"""Calibrators of predicted probabilities: fit on held-out logits, transform new ones."""

from lsmooth.calibration._affine_classes import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    MatrixScaling,
    VectorScaling,
)
from lsmooth.calibration._base import Calibrator, ConvergenceWarning
from lsmooth.calibration._binning import HistogramBinning, IsotonicCalibration
from lsmooth.calibration._groups import GroupTemperatureScaling
from lsmooth.calibration._loading import load
from lsmooth.calibration._mixed import MixedTemperatureScaling
from lsmooth.calibration._quadratic import QuadraticScaling
from lsmooth.calibration._scaling import apply_temperature
from lsmooth.calibration._structured import StructuredMatrixScaling, StructuredVectorScaling
from lsmooth.calibration._temperature import TemperatureScaling

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
