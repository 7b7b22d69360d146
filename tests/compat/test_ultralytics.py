"""`lsmooth.compat.ultralytics`: the two numbers of YOLO."""

import pytest

from lsmooth.compat.ultralytics import smooth_BCE
from lsmooth.smoothing import binary_smooth_labels


@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
def test_binary_labels_are_the_smoothed_1_and_0(eps):
    assert smooth_BCE(eps) == (1 - eps / 2, eps / 2)
    assert smooth_BCE(eps) == pytest.approx(tuple(binary_smooth_labels([1, 0], eps)), abs=1e-15)


def test_the_default_matches_the_originals():
    assert smooth_BCE() == (0.95, 0.05)
