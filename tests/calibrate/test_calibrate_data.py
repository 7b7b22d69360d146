"""Rows are checked one by one, and split so that each class is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsmooth.calibrate import data as module
from lsmooth.calibrate.checks import check
from lsmooth.calibrate.data import Block, fit_rows, open_data
from lsmooth.calibrate.passes import Passes
from lsmooth.calibrate.text import FileError

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(40, 5)).astype(np.float32)
Y = RNG.integers(0, 5, 40)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 35)


def checked(folder: Path, logits: np.ndarray, labels: np.ndarray, **options):
    np.save(folder / "z.npy", logits)
    np.save(folder / "y.npy", labels)
    data = open_data(folder / "z.npy", folder / "y.npy", folder, lambda *_: None, **options)
    return check(data, Passes([data], None, 1, lambda *_: None))


def changed(array: np.ndarray, where, value) -> np.ndarray:
    array = array.copy()
    array[where] = value
    return array


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("label_dtype", ["uint8", "int32", "int64", "float64"])
def test_good_rows_are_counted(tmp_path, dtype, label_dtype):
    counts = checked(tmp_path, Z.astype(dtype), Y.astype(label_dtype))
    assert (counts.rows, counts.ignored) == (40, 0)
    np.testing.assert_array_equal(counts.per_class, np.bincount(Y, minlength=5))


def test_ignored_rows_may_hold_any_value(tmp_path):
    counts = checked(tmp_path, changed(Z, 7, np.nan), changed(Y, 7, -1), ignore_index=-1)
    assert (counts.rows, counts.ignored) == (39, 1)


def test_masked_classes_give_finite_results(tmp_path):
    logits = changed(Z, (slice(None), 4), -np.inf)
    assert checked(tmp_path, logits, Y % 4).rows == 40


def test_the_classes_may_be_on_any_axis_but_the_first(tmp_path):
    logits, labels = RNG.normal(size=(3, 5, 2, 4)), RNG.integers(0, 5, (3, 2, 4))
    assert checked(tmp_path, logits, labels, axis=1).rows == 24
    assert checked(tmp_path, np.moveaxis(logits, 1, -1), labels).rows == 24


@pytest.mark.parametrize(
    ("logits", "labels", "options", "message"),
    [
        (changed(Z, (33, 2), np.nan), Y, {}, "have NaN in row 33; correct"),
        (changed(Z, (8, 2), np.inf), Y, {}, "have an infinity in row 8"),
        (changed(Z, 8, -np.inf), Y, {}, "have no class that is not masked in row 8"),
        (Z, changed(Y, 17, 5), {}, "must be class ids in 0..4, got 5 in row 17. Are they counted from 1? Subtract 1."),
        (Z, changed(Y, 17, -1), {}, "got -1 in row 17. Rows to leave out: --ignore-index -1."),
        (Z, changed(Y, 17, 0).astype(float) + (np.arange(40) == 21) / 2, {}, "must be integers, got "),
        (Z, changed(Y.astype(float), 21, np.nan), {}, "must be integers, got nan in row 21"),
        (Z, np.full(40, 9), {"ignore_index": 9}, "are all 9, the --ignore-index"),
        (Z, Y[:39], {}, "must have shape (40,), one for each row of logits (40, 5); got (39,)."),
        (Z, np.eye(5)[Y], {}, "Of distributions take the argmax"),
        (Z.astype(int), Y, {}, "must be floating point, got int64; save them as float32"),
        (
            Z[:, 0],
            Y,
            {},
            "name the label whose probability or logit the number of each row is, e.g. --positive-",
        ),
        (Z[:, :1], Y, {}, "name the label whose probability or logit the number of each row is"),
        (Z[:, :1, None], Y[:, None], {}, "must have at least two classes"),
        (Z[:0], Y[:0], {}, "hold no rows"),
        (Z, Y, {"axis": 0}, "--axis must be the class axis, 1 to 1 or negative"),
        (Z, Y, {"axis": 2}, "--axis must be the class axis"),
        (Z, Y, {"from_logits": False}, "are not probabilities: row 0 has a value of"),
        (np.full((40, 5), 0.3), Y, {"from_logits": False}, "row 0 has a sum of 1.5; add --from-logits"),
    ],
)
def test_an_unusable_row_is_named(tmp_path, logits, labels, options, message):
    with pytest.raises(FileError) as caught:
        checked(tmp_path, logits, labels, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("label_dtype", ["bool", "uint8"])
def test_labels_of_two_classes_may_be_bools(tmp_path, label_dtype):
    counts = checked(tmp_path, Z[:, :2], (Y % 2).astype(label_dtype))
    np.testing.assert_array_equal(counts.per_class, np.bincount(Y % 2))


@pytest.mark.parametrize("from_logits", [True, False])
def test_rows_whose_label_has_the_probability_0_are_counted(tmp_path, from_logits):
    p = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    for row in (9, 21, 33):
        p[row] = 0.0
        p[row, (Y[row] + 1) % 5] = 1.0
    with np.errstate(divide="ignore"):
        counts = checked(tmp_path, np.log(p) if from_logits else p, Y, from_logits=from_logits)
    assert (counts.rows, counts.impossible, counts.first_impossible) == (40, 3, "row 9")
    ignored = checked(tmp_path, p, np.where(np.arange(40) == 9, -1, Y), from_logits=False, ignore_index=-1)
    assert (ignored.rows, ignored.impossible, ignored.first_impossible) == (39, 2, "row 21")


@pytest.mark.parametrize("classes", [5, 100, 1000])
@pytest.mark.parametrize("rounding", [2, 3, 5, np.float16, np.float32, "bfloat16"])
def test_rounded_probabilities_are_accepted(tmp_path, classes, rounding):
    logits = np.random.default_rng(1).normal(0, 3, (20, classes))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if isinstance(rounding, int):
        p = p.round(rounding)
    elif rounding == "bfloat16":
        p = (((p.astype(np.float32).view(np.uint32) + 0x8000) >> 16) << 16).view(np.float32)
    else:
        p = p.astype(rounding)
    assert checked(tmp_path, p, p.argmax(-1), from_logits=False).rows == 20
    for wrong in (np.full_like(p, 2 / classes), 0.5 * p):
        with pytest.raises(FileError, match="are not probabilities: row 0 has a sum of"):
            checked(tmp_path, wrong, p.argmax(-1), from_logits=False)


def test_positions_are_named_as_indices(tmp_path):
    logits, labels = RNG.normal(size=(6, 5, 2, 3)), RNG.integers(0, 5, (6, 2, 3))
    with pytest.raises(FileError, match=r"row 4, position \(1, 2\)"):
        checked(tmp_path, changed(logits, (4, 3, 1, 2), np.nan), labels, axis=1)


def test_one_npy_file_needs_another_for_the_labels(tmp_path):
    np.save(tmp_path / "z.npy", Z)
    with pytest.raises(FileError, match="give the labels' file after it"):
        open_data(tmp_path / "z.npy", None, tmp_path, lambda *_: None)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.75])
def test_the_split_takes_its_fraction_of_each_class(fraction):
    labels = RNG.integers(0, 4, 1000) ** 2 % 5
    chosen = fit_rows(0, fraction, Block(0, labels, labels))
    assert abs(chosen.sum() - 1000 * fraction) <= 1
    for k in np.unique(labels):
        assert abs(chosen[labels == k].sum() - fraction * (labels == k).sum()) <= 1


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    labels = np.repeat([0, 1], 50)
    split = [fit_rows(seed, 0.5, Block(start, labels, labels)) for seed, start in ((0, 0), (0, 0), (1, 0), (0, 100))]
    assert (split[0] == split[1]).all()
    assert (split[0] != split[2]).any()
    assert (split[0] != split[3]).any()


def test_small_blocks_get_their_fraction_on_average():
    taken = [fit_rows(0, 0.3, Block(start, np.zeros(2), np.zeros(2))).sum() for start in range(2000)]
    assert np.mean(taken) == pytest.approx(0.6, abs=0.05)


def test_dense_rows_are_split_whole():
    labels = RNG.integers(0, 3, (50, 4, 4))
    assert fit_rows(0, 0.5, Block(0, labels, labels)).shape == (50,)
