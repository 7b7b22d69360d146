"""The contents of the pictures, by their artists and data."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.figure import Figure

from lsmooth.plots import projection


def axes():
    return Figure().subplots()


def test_a_projection_shows_each_class_and_its_template(backend):
    points, labels = backend.asarray(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])), [7, 2, 7]
    ax = projection(points, labels, templates=[[0.0, 0.0], [1.0, 1.0]], names=("two", "seven"), ax=axes())
    two, seven, templates = (artist.get_offsets().tolist() for artist in ax.collections)
    assert two == [[2, 3]]
    assert seven == [[0, 1], [4, 5]]
    assert templates == [[0, 0], [1, 1]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["two", "seven"]


def test_a_projection_has_two_coordinates():
    with pytest.raises(ValueError, match=r"points must have shape \(rows, 2\) and labels \(rows,\), got \(2, 3\)"):
        projection(np.ones((2, 3)), [0, 1], ax=axes())


def test_a_projection_has_a_name_for_each_class():
    with pytest.raises(ValueError, match=r"names must have a name for each of the 2 classes, got 1: \['two'\]"):
        projection(np.ones((2, 2)), [2, 7], names=["two"], ax=axes())
