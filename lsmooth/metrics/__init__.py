"""Measures of predicted probabilities: calibration errors and scores."""

from lsmooth.metrics.calibration_error import ReliabilityCurve, expected_calibration_error, reliability_curve
from lsmooth.metrics.scores import brier_score, negative_log_likelihood, top_k_accuracy

__all__ = [
    "ReliabilityCurve",
    "brier_score",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability_curve",
    "top_k_accuracy",
]
