"""The heat map of smoothed targets."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need it")
from matplotlib.figure import Figure

from lsmooth.compat.annotated_transformer import LabelSmoothing
from lsmooth.plots import target_distribution


def axes():
    return Figure().subplots()


def test_rows_are_examples_and_columns_classes(backend):
    criterion = LabelSmoothing(size=5, padding_idx=0, smoothing=0.5)
    criterion(backend.asarray(np.log(np.full((3, 5), 0.2))), backend.asarray(np.array([2, 1, 0])))
    ax = axes()
    assert target_distribution(criterion.true_dist, ax=ax) is ax
    (image,) = ax.images
    rest = 1 / 6
    expected = [[0, rest, 0.5, rest, rest], [0, 0.5, rest, rest, rest], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-6)
    assert [text.get_text() for text in ax.texts[:5]] == ["0", ".17", ".5", ".17", ".17"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("class", "example")


def test_the_picture_of_many_classes_omits_numbers():
    assert not target_distribution(np.full((2, 50), 0.02), ax=axes()).texts
    ax = target_distribution(np.eye(2), names=("no", "yes"), title="hard", ax=axes())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["no", "yes"]
    assert ax.get_title() == "hard"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"targets must have shape \(examples, classes\), got \(3,\)"):
        target_distribution([0.1, 0.2, 0.7], ax=axes())
    with pytest.raises(ValueError, match="names must be as many as the classes, 2; got 1"):
        target_distribution(np.eye(2), names=("a",), ax=axes())
