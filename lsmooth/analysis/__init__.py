"""The effects of smoothing on a network: clusters, mutual information, and a teacher's wrong classes."""

from lsmooth.analysis._information import mutual_information
from lsmooth.analysis._projection import Projection, cluster_tightness, penultimate_projection
from lsmooth.analysis._teacher import match_temperature, teacher_entropy, teacher_wrong_class_mass

__all__ = [
    "Projection",
    "cluster_tightness",
    "match_temperature",
    "mutual_information",
    "penultimate_projection",
    "teacher_entropy",
    "teacher_wrong_class_mass",
]
