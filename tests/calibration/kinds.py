"""Every calibrator by a name, as a function of its options."""

from __future__ import annotations

from functools import partial
from typing import Any

from lsmooth.calibration import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    GroupTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    MixedTemperatureScaling,
    QuadraticScaling,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
    VectorScaling,
)

TEMPERATURES: dict[str, Any] = {
    "temperature": TemperatureScaling,
    "mixed": MixedTemperatureScaling,
    "group": partial(GroupTemperatureScaling, by="prediction"),
}
MAPS: dict[str, Any] = {
    "bias": BiasCorrectedTemperatureScaling,
    "vector": VectorScaling,
    "structured vector": StructuredVectorScaling,
    "matrix": partial(MatrixScaling, off_diagonal=0.1),
    "structured matrix": StructuredMatrixScaling,
    "dirichlet": partial(DirichletCalibration, off_diagonal=0.1),
}
"""Those that SciPy fits."""
STEPS: dict[str, Any] = {
    "histogram": partial(HistogramBinning, n_bins=5),
    "isotonic": IsotonicCalibration,
    "top versus all": partial(HistogramBinning, n_bins=5, strategy="top_versus_all"),
}
LIKELIHOODS = {**TEMPERATURES, **MAPS}
"""Those that are fitted by likelihood."""
KINDS = {**LIKELIHOODS, **STEPS}
"""Those of any number of classes."""
TWO_CLASSES: dict[str, Any] = {"quadratic": QuadraticScaling}
