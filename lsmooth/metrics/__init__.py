"""Measures of predicted probabilities: calibration errors and scores."""

from lsmooth.metrics.calibration_error import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)
from lsmooth.metrics.reliability import ReliabilityCurve, reliability_curve
from lsmooth.metrics.scores import brier_score, negative_log_likelihood, top_k_accuracy

__all__ = [
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "brier_score",
    "classwise_calibration_error",
    "expected_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_curve",
    "top_k_accuracy",
]
