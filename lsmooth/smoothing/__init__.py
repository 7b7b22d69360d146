"""Smoothed target distributions, as plain functions of labels."""

from lsmooth.smoothing.uniform import binary_smooth_labels, smooth_labels

__all__ = ["binary_smooth_labels", "smooth_labels"]
