"""Smoothed target distributions, as plain functions of labels."""

from lsmooth.smoothing.circular import (
    circular_angles,
    circular_bins,
    circular_smooth_labels,
    ordinal_smooth_labels,
)
from lsmooth.smoothing.online import OnlineLabelSmoothing
from lsmooth.smoothing.priors import class_prior, label_aware_smoothing, smoothing_of_labels
from lsmooth.smoothing.schedules import cosine_schedule, linear_schedule
from lsmooth.smoothing.spatial import spatial_smooth_labels
from lsmooth.smoothing.structured import hierarchy_similarity, similarity_smooth_labels
from lsmooth.smoothing.uniform import binary_smooth_labels, smooth_labels
from lsmooth.smoothing.variants import multilabel_smooth_labels, negative_smooth_labels, noise_correcting_smoothing

__all__ = [
    "OnlineLabelSmoothing",
    "binary_smooth_labels",
    "circular_angles",
    "circular_bins",
    "circular_smooth_labels",
    "class_prior",
    "cosine_schedule",
    "hierarchy_similarity",
    "label_aware_smoothing",
    "linear_schedule",
    "multilabel_smooth_labels",
    "negative_smooth_labels",
    "noise_correcting_smoothing",
    "ordinal_smooth_labels",
    "similarity_smooth_labels",
    "smooth_labels",
    "smoothing_of_labels",
    "spatial_smooth_labels",
]
