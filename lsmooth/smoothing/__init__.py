"""Smoothed target distributions, as plain functions of labels.

All raise a TypeError if tensors of two frameworks meet or an argument has a wrong type or dtype, and a ValueError
if shapes do not fit, a number is out of range or a name is unknown.
"""

from lsmooth.smoothing._circular import circular_angles, circular_bins, circular_smooth_labels, ordinal_smooth_labels
from lsmooth.smoothing._online import OnlineLabelSmoothing
from lsmooth.smoothing._priors import class_prior, label_aware_smoothing, smoothing_of_labels
from lsmooth.smoothing._schedules import cosine_schedule, linear_schedule
from lsmooth.smoothing._spatial import spatial_smooth_labels
from lsmooth.smoothing._structured import hierarchy_similarity, similarity_smooth_labels
from lsmooth.smoothing._uniform import binary_smooth_labels, smooth_labels
from lsmooth.smoothing._variants import multilabel_smooth_labels, negative_smooth_labels, noise_correcting_smoothing

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
