"""Labels of any kind find their class, or the message says what to add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsmooth.calibrate.checks import Counts, check
from lsmooth.calibrate.classes import UNKNOWN
from lsmooth.calibrate.data import Data, open_data
from lsmooth.calibrate.passes import Passes
from lsmooth.calibrate.text import FileError

pytest.importorskip("pyarrow")
RNG = np.random.default_rng(0)


def checked(data: Data) -> Counts:
    return check(data, Passes([data], None, 1, lambda *_: None))


def table(folder: Path, header: str, labels: list, **options) -> Data:
    """Data of a table with a column ``label``, and a column of random numbers for each other name."""
    names = header.split(",")
    values = RNG.normal(size=(len(labels), len(names))).tolist()
    rows = [
        [str(label) if name == "label" else str(k) for name, k in zip(names, row, strict=True)]
        for label, row in zip(labels, values, strict=True)
    ]
    path = folder / "table.csv"
    path.write_text("\n".join(",".join(row) for row in [names, *rows]))
    return open_data(path, None, folder, lambda *_: None, **options)


def arrays(folder: Path, logits, labels, **options) -> Data:
    np.save(folder / "z.npy", logits)
    np.save(folder / "y.npy", labels)
    return open_data(folder / "z.npy", folder / "y.npy", folder, lambda *_: None, **options)


def ids(data: Data) -> list[int]:
    return np.concatenate([block.labels for block in data.blocks()]).tolist()


ANIMALS = ["dog", "cat", "hen", "cat"] * 3
NAMED = {
    "columns of the classes' names": ("id,cat,dog,hen,label", ANIMALS, {}, "cat,dog,hen"),
    "in another order": ("hen,label,dog,cat", ANIMALS, {}, "hen,dog,cat"),
    "with a prefix": ("id,prob_cat,prob_dog,prob_hen,label,fold", ANIMALS, {}, "cat,dog,hen"),
    "with a prefix without separator": ("label,pcat,pdog,phen", ANIMALS, {}, "cat,dog,hen"),
    "with a suffix": ("cat score,dog score,hen score,label", ANIMALS, {}, "cat,dog,hen"),
    "with a prefix, one class without rows": ("p_ant,p_cat,p_dog,p_hen,label", ANIMALS, {}, "ant,cat,dog,hen"),
    "listed": ("VF,F,M,L,label", ["F", "VF", "M", "F"], {"logits_key": "VF,F,M,L"}, "VF,F,M,L"),
    "listed classes": ("a0,a1,a2,label", ANIMALS, {"classes": ("hen", "cat", "dog")}, "hen,cat,dog"),
    "listed classes reorder columns": ("cat,dog,hen,label", ANIMALS, {"classes": ("hen", "cat", "dog")}, "hen,cat,dog"),
    "listed classes leave out columns": ("cat,dog,age,label", ["dog", "cat"], {"classes": ("cat", "dog")}, "cat,dog"),
    "ids of listed classes": ("p0,p1,p2,label", [2, 0, 1], {"classes": ("cat", "dog", "hen")}, "cat,dog,hen"),
    "integers in the columns' names": ("p_30,p_10,p_20,label", [30, 10, 20, 10], {}, "10,20,30"),
    "integers from 1": ("p1,p2,p3,label", [3, 1, 2], {}, "1,2,3"),
    "negative integers": ("p0,p1,label", [-1, 1, 1], {"classes": ("-1", "1")}, "-1,1"),
    "listed integers": ("a,b,c,label", [700, -5, 13], {"classes": ("13", "-5", "700")}, "13,-5,700"),
    "true and false": ("p0,p1,label", ["True", "False", "True"], {}, "False,True"),
    "labels as long as their columns' names": ("a_x,a_y,label", ["a_y", "a_x"], {}, "a_x,a_y"),
}


@pytest.mark.parametrize("how", NAMED)
def test_labels_match_classes_by_name(tmp_path, how):
    header, labels, options, names = NAMED[how]
    data = table(tmp_path, header, labels, **options)
    known = names.split(",")
    assert data.names == tuple(known)
    assert data.classes == len(known)
    expected = labels if how == "ids of listed classes" else [known.index(str(label)) for label in labels]
    assert ids(data) == expected
    checked(data)


def test_columns_are_in_the_order_of_the_listed_classes(tmp_path):
    data = table(tmp_path, "cat,dog,hen,label", ANIMALS, classes=("hen", "cat", "dog"))
    assert data.logits.columns == ("hen", "cat", "dog")


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.int8, str])
def test_arrays_accept_listed_classes(tmp_path, kind):
    data = arrays(tmp_path, RNG.normal(size=(4, 3)), np.array([9, 3, 7, 9]).astype(kind), classes=("3", "7", "9"))
    assert ids(data) == [2, 0, 1, 2]
    assert data.names == ("3", "7", "9")


@pytest.mark.parametrize("kind", [np.int64, bool])
def test_ids_do_not_need_class_names(tmp_path, kind):
    data = arrays(tmp_path, RNG.normal(size=(4, 2)), np.array([1, 0, 0, 1]).astype(kind))
    assert ids(data) == [1, 0, 0, 1]
    assert data.names == (("False", "True") if kind is bool else ("0", "1"))


def test_dense_labels_may_be_names(tmp_path):
    labels = np.array([["sky", "road"], ["road", "tree"]])
    data = arrays(tmp_path, RNG.normal(size=(2, 3, 2)), labels, classes=("road", "sky", "tree"))
    assert data.axis == 1
    assert ids(data) == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("labels", "ignored"), [(["cat", "?", "dog"], "?"), ([0, 255, 1], "255"), ([0, -100, 1], "-100"), ([0, 2, 1], 2)]
)
def test_labels_of_every_dtype_can_be_ignored(tmp_path, labels, ignored):
    data = table(tmp_path, "p_cat,p_dog,label", labels, ignore_index=ignored)
    counts = checked(data)
    assert (counts.rows, counts.ignored, counts.per_class.tolist()) == (2, 1, [1, 1])
    with pytest.raises(FileError, match=f"are all {str(ignored).replace('?', '.')}, the --ignore-index"):
        checked(table(tmp_path, "p_cat,p_dog,label", [ignored] * 3, ignore_index=ignored))


ONE = {
    "integers": ([0, 1, 1, 0], {}, "p", "0,1"),
    "floats": ([0.0, 1.0, 1.0, 0.0], {}, "p", "0,1"),
    "bools": (["False", "True", "True", "False"], {}, "p", "False,True"),
    "lower-case bools": (["false", "true", "true", "false"], {}, "p", "False,True"),
    "names": (["ham", "spam", "spam", "ham"], {"positive_label": "spam"}, "p", "ham,spam"),
    "names, the first positive": (["spam", "ham", "ham", "spam"], {"positive_label": "ham"}, "p", "spam,ham"),
    "one of many": (["a", "c", "c", "b"], {"positive_label": "c"}, "p", "not c,c"),
    "named by the column": (["ham", "spam", "spam", "ham"], {}, "p_spam", "ham,spam"),
    "minus 1 and 1": ([-1, 1, 1, -1], {"positive_label": "1"}, "p", "-1,1"),
    "1 and 2": ([2, 1, 1, 2], {"positive_label": "1"}, "p", "2,1"),
    "listed classes": (["ham", "spam", "spam", "ham"], {"classes": ("ham", "spam")}, "p", "ham,spam"),
    "with --binary": ([0, 1, 1, 0], {"binary": True}, "p", "0,1"),
}


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("how", ONE)
def test_one_number_a_row_is_that_of_the_positive_class(tmp_path, how, from_logits):
    labels, options, column, names = ONE[how]
    p = np.array([0.2, 0.7, 0.9, 0.4])
    lines = [f"{column},label", *(f"{a},{b}" for a, b in zip(p, labels, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    data = open_data(tmp_path / "table.csv", None, tmp_path, lambda *_: None, from_logits=from_logits, **options)
    checked(data)
    (block,) = data.blocks()
    assert data.names == tuple(names.split(","))
    assert (data.shape, data.classes) == ((4, 2), 2)
    np.testing.assert_array_equal(block.labels, [0, 1, 1, 0])
    np.testing.assert_array_equal(block.logits, np.stack([0 * p if from_logits else 1 - p, p], -1))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("label_shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_array_of_one_number_a_row_is_binary(tmp_path, shape, label_shape, dtype):
    p = np.array([0.25, 0.5, 0.75, 1.0], dtype)
    data = arrays(tmp_path, p.reshape(shape), np.array([0, 1, 1, 1]).reshape(label_shape), from_logits=False)
    checked(data)
    (block,) = data.blocks()
    np.testing.assert_array_equal(block.logits, np.stack([1 - p, p], -1))
    assert ids(data) == [0, 1, 1, 1]


def test_a_pair_of_columns_is_two_classes_with_or_without_binary(tmp_path):
    p = RNG.uniform(size=6)
    pair, labels = np.stack([1 - p, p], -1), np.array([0, 1, 1, 0, 0, 1])
    for binary in (False, True):
        data = arrays(tmp_path, pair, labels, from_logits=False, binary=binary)
        checked(data)
        (block,) = data.blocks()
        np.testing.assert_array_equal(block.logits, pair)
    data = arrays(tmp_path, pair, np.where(labels, "yes", "no"), from_logits=False, positive_label="yes")
    assert (ids(data), data.names) == (labels.tolist(), ("no", "yes"))


def test_every_number_has_a_label_of_its_own_where_binary(tmp_path):
    z, labels = RNG.normal(size=(5, 3)), RNG.integers(0, 2, (5, 3))
    data = arrays(tmp_path, z, labels, binary=True, classes=("cat", "dog", "hen"))
    counts = checked(data)
    assert (counts.rows, data.questions, data.names) == (15, 3, ("cat", "dog", "hen"))
    (block,) = data.blocks()
    np.testing.assert_array_equal(block.logits, np.stack([0 * z, z], -1))
    np.testing.assert_array_equal(block.labels, labels)
    columns = [f"z_{k}" for k in "abc"] + [f"y_{k}" for k in "abc"]
    rows = [",".join(map(str, row)) for row in np.concatenate([z, labels], 1).tolist()]
    (tmp_path / "table.csv").write_text("\n".join([",".join(columns), *rows]))
    data = open_data(
        tmp_path / "table.csv", None, tmp_path, lambda *_: None, binary=True, labels_key="y_*", logits_key="z_*"
    )
    (block,) = data.blocks()
    np.testing.assert_array_equal(block.labels, labels)
    assert data.names == ("a", "b", "c")


REFUSED = {
    "names without columns of them": ("p0,p1,p2,label", ANIMALS, {}, "add --classes cat,dog,hen with the names in"),
    "names and other columns": ("x_a,x_b,x_c,label", ANIMALS, {}, "and the columns 'a', 'b', 'c': add --classes cat,"),
    "a column that may be a class": ("id,cat,dog,hen,owl,label", ANIMALS, {}, "'owl', which may be classes without"),
    "too few classes": ("p0,p1,p2,label", ANIMALS, {"classes": ("cat", "dog")}, "--classes must name the 3 classes of"),
    "a class twice": ("p0,p1,label", [0, 1], {"classes": ("a", "a")}, "--classes must name each class once, got a,a"),
    "a label that is no class": ("p0,p1,label", ["a", "c"], {"classes": ("a", "b")}, "and --classes a,b lacks 'c'; co"),
    "classes in another order than listed columns": (
        "cat,dog,label",
        ["dog", "cat"],
        {"classes": ("dog", "cat"), "logits_key": "cat,dog"},
        "--classes dog,cat must be in the order of the columns, cat,dog",
    ),
    "integers that may be names or ids": (
        "p1,p2,p3,label",
        [1, 2, 1],
        {},
        "choose with --classes 1,2,3 or --classe",
    ),
    "integers that are no ids": (
        "a,b,c,label",
        [3, 7, 9],
        {},
        "add --classes 3,7,9 with the names in the order of the",
    ),
    "one column and names": (
        "p,label",
        ["ham", "spam"],
        {},
        "whose probability or logit the column p is",
    ),
    "one column and 1 and 2": ("p,label", [1, 2], {}, "e.g. --positive-label 2"),
    "a positive label that is none": (
        "p,label",
        [0, 1],
        {"positive_label": "2"},
        "must be one of the labels, '0', '1';",
    ),
    "a positive label of many": (
        "a,b,c,label",
        [0, 1, 2],
        {"positive_label": "1"},
        "is for one probability a row, got",
    ),
    "a positive label whose column is first": (
        "yes,no,label",
        ["yes", "no"],
        {"positive_label": "yes"},
        "must be the second of the columns yes, no; give them in the other order, --logits-key no,yes",
    ),
    "an ignored label that is none": (
        "p0,p1,label",
        [0, 1],
        {"ignore_index": "x"},
        "--ignore-index must be a label of",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_the_message_for_unknown_classes_names_the_option(tmp_path, how):
    header, labels, options, message = REFUSED[how]
    with pytest.raises(FileError) as caught:
        table(tmp_path, header, labels, **options)
    assert message in str(caught.value)


def test_fixes_named_in_error_messages_work(tmp_path):
    for how, more in {
        "names without columns of them": {"classes": ("cat", "dog", "hen")},
        "a column that may be a class": {"logits_key": "cat,dog,hen,owl"},
        "integers that may be names or ids": {"classes": ("1", "2", "3")},
        "integers that are no ids": {"classes": ("3", "7", "9")},
        "one column and names": {"positive_label": "spam"},
        "one column and 1 and 2": {"positive_label": "2"},
        "a positive label whose column is first": {"logits_key": "no,yes"},
    }.items():
        header, labels, options, _ = REFUSED[how]
        checked(table(tmp_path, header, labels, **{**options, **more}))


@pytest.mark.parametrize("missing", ["", "NA"])
def test_a_missing_label_is_named_by_its_line(tmp_path, missing):
    for labels in (["cat", missing, "dog"], [0, missing, 1]):
        with pytest.raises(FileError, match="in line 3"):
            checked(table(tmp_path, "p_cat,p_dog,label", labels))


def test_labels_that_the_first_file_lacks_are_no_class_of_another(tmp_path):
    first = table(tmp_path, "p_cat,p_dog,label", ["cat", "dog"])
    other = table(tmp_path, "p_cat,p_dog,label", ["dog", "hen"], like=first)
    assert ids(other) == [1, UNKNOWN]
    with pytest.raises(FileError, match="'hen' in line 3, which is not one of the classes cat, dog"):
        checked(other)
