"""Data sets are split once, and a file's faults are named."""

import numpy as np
import pytest

from lsmooth.study.data import DATASETS, load_data

pytest.importorskip("sklearn", reason="the study's data come with scikit-learn")


@pytest.mark.parametrize("dataset", DATASETS)
def test_parts_are_fixed_disjoint_and_hold_every_class(dataset):
    data, again = load_data(dataset), load_data(dataset)
    rows = np.concatenate(list(data.inputs.values()))
    assert len(rows) == {"digits": 1797, "breast_cancer": 569, "wine": 178}[dataset]
    for part, labels in data.labels.items():
        assert set(labels.tolist()) == set(range(len(data.classes)))
        np.testing.assert_array_equal(data.inputs[part], again.inputs[part])
        assert data.inputs[part].dtype == np.float32


def test_a_file_is_read(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2, 3)), np.where(np.arange(50) % 2, 7, 3)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    data = load_data(file=tmp_path / "own.npz")
    assert data.classes == ("3", "7")
    assert data.name == "own.npz"
    assert {part: array.shape for part, array in data.inputs.items()} == {
        "train": (15, 6),
        "validation": (15, 6),
        "test": (20, 6),
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((40, 2))}, "must hold arrays x and y, got x in"),
        ({"x": np.ones((40, 2)), "y": np.zeros(39, int)}, r"got x \(40, 2\) and y \(39,\)"),
        ({"x": np.full((40, 2), np.nan), "y": np.zeros(40, int)}, "NaN or infinity in row 0"),
        ({"x": np.ones((40, 2)), "y": np.zeros(40)}, "integer labels, got dtype float64"),
        ({"x": np.ones((40, 2)), "y": np.zeros(40, int)}, "at least 2 classes and 30 rows, got 1 and 40"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_data(file=tmp_path / "bad.npz")


def test_files_that_are_not_npz_are_refused(tmp_path):
    with pytest.raises(ValueError, match="which is not there"):
        load_data(file=tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ValueError, match=r"which .*text\.npz is not"):
        load_data(file=tmp_path / "text.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}] * 40, object), y=np.zeros(40, int))
    with pytest.raises(ValueError, match=r"which .*objects\.npz is not"):
        load_data(file=tmp_path / "objects.npz")


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="dataset must be one of digits, breast_cancer, wine; got 'mnist'"):
        load_data("mnist")
