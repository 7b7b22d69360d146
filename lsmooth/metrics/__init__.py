"""Measures of predicted probabilities: calibration errors and scores, as functions and over batches."""

from lsmooth.metrics._calibration_error import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)
from lsmooth.metrics._corp import CorpCurve, CorpDecomposition, corp_decomposition, corp_reliability_curve
from lsmooth.metrics._decomposition import BrierDecomposition, brier_decomposition
from lsmooth.metrics._detection import detection_calibration_error
from lsmooth.metrics._explain import Explanation, explain_difference
from lsmooth.metrics._intervals import Interval, metric_interval
from lsmooth.metrics._reliability import (
    ConsistencyBand,
    ReliabilityCurve,
    classwise_reliability_curve,
    consistency_band,
    reliability_curve,
)
from lsmooth.metrics._scores import brier_score, negative_log_likelihood, top_k_accuracy
from lsmooth.metrics._selective import RiskCoverageCurve, area_under_risk_coverage, risk_coverage_curve
from lsmooth.metrics._slope import CalibrationSlope, calibration_slope
from lsmooth.metrics._smooth import smooth_calibration_error
from lsmooth.metrics._streaming import BrierScore, CalibrationError, Metric, NegativeLogLikelihood, TopKAccuracy

__all__ = [
    "BrierDecomposition",
    "BrierScore",
    "CalibrationError",
    "CalibrationSlope",
    "ConsistencyBand",
    "CorpCurve",
    "CorpDecomposition",
    "Explanation",
    "Interval",
    "Metric",
    "NegativeLogLikelihood",
    "ReliabilityCurve",
    "RiskCoverageCurve",
    "TopKAccuracy",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "brier_decomposition",
    "brier_score",
    "calibration_slope",
    "classwise_calibration_error",
    "classwise_reliability_curve",
    "consistency_band",
    "corp_decomposition",
    "corp_reliability_curve",
    "detection_calibration_error",
    "expected_calibration_error",
    "explain_difference",
    "maximum_calibration_error",
    "metric_interval",
    "negative_log_likelihood",
    "reliability_curve",
    "risk_coverage_curve",
    "smooth_calibration_error",
    "top_k_accuracy",
]
