"""Arrays in files of every format are read row by row, and unusable files are refused with a clear error."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lsmooth.calibrate import files
from lsmooth.calibrate.columns import Wanted
from lsmooth.calibrate.files import StoredArray
from lsmooth.calibrate.parts import open_arrays
from lsmooth.calibrate.text import FileError

Z = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
Y = np.arange(23) % 4


def opened(path: Path, role: str = "logits", key: str | None = None, decimal: str = ".") -> StoredArray:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    taken = frozenset({"labels"}) if role == "logits" else frozenset()
    return open_arrays([path], Wanted(role, key, taken, decimal=decimal), scratch, lambda *_: None)


def save_npy(path: Path) -> None:
    np.save(path, Z)


def save_npy_by_columns(path: Path) -> None:
    np.save(path, np.asfortranarray(Z))


def save_npy_big_endian(path: Path) -> None:
    np.save(path, Z.astype(">f4"))


def save_npz(path: Path) -> None:
    np.savez(path, logits=Z, labels=Y)


def save_npz_compressed(path: Path) -> None:
    np.savez_compressed(path, logits=Z, labels=Y)


def save_safetensors(path: Path) -> None:
    save = pytest.importorskip("safetensors.numpy").save_file
    save({"logits": Z, "labels": Y}, path)


def save_parquet(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"labels": Y, "logits": list(Z)}), path, row_group_size=5)


def save_parquet_columns(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = {f"logits_{k}": Z[:, k] for k in range(4)}
    pq.write_table(pa.table({"note": ["x"] * 23, **names, "labels": Y}), path)


def save_csv(path: Path) -> None:
    pytest.importorskip("pyarrow")
    lines = ["logit cat,logit dog,logit cow,labels,logit hen"]
    lines += [",".join(map(repr, map(float, (*z[:3], y, z[3])))) for z, y in zip(Z, Y, strict=True)]
    path.write_text("\n".join(lines))


def save_csv_without_header(path: Path) -> None:
    pytest.importorskip("pyarrow")
    np.savetxt(path, Z, delimiter=",", fmt="%.9g")


SAVED: dict[str, tuple[str, Callable[[Path], None]]] = {
    save.__name__: (suffix, save)
    for suffix, save in (
        (".npy", save_npy),
        (".npy", save_npy_by_columns),
        (".npy", save_npy_big_endian),
        (".npz", save_npz),
        (".npz", save_npz_compressed),
        (".safetensors", save_safetensors),
        (".parquet", save_parquet),
        (".parquet", save_parquet_columns),
        (".csv", save_csv),
        (".csv", save_csv_without_header),
    )
}


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    monkeypatch.setattr(files, "STREAMED_BYTES", 64)


@pytest.mark.parametrize("how", SAVED)
def test_logits_survive_the_round_trip(tmp_path, how):
    suffix, save = SAVED[how]
    path = tmp_path / f"file{suffix}"
    save(path)
    array = opened(path)
    assert array.shape == (23, 4)
    for start, stop in ((0, 23), (5, 9), (22, 23)):
        rows = array.read(start, stop)
        assert rows.dtype.isnative
        np.testing.assert_array_equal(rows.astype(np.float32), Z[start:stop])


@pytest.mark.parametrize("how", ["save_npz", "save_safetensors", "save_parquet", "save_parquet_columns", "save_csv"])
def test_labels_come_from_the_same_file(tmp_path, how):
    suffix, save = SAVED[how]
    path = tmp_path / f"file{suffix}"
    save(path)
    array = opened(path, "labels")
    assert array.shape == (23,)
    np.testing.assert_array_equal(array.read(3, 20), Y[3:20])


def test_bfloat16_becomes_float32(tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("ml_dtypes")
    bits = (Z.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"z": {"dtype": "BF16", "shape": [23, 4], "data_offsets": [0, bits.nbytes]}}).encode()
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    array = opened(path, key="z")
    assert array.dtype == "bfloat16"
    expected = (bits[4:9].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(array.read(4, 9), expected)
    assert array.read(4, 9).dtype == np.float32


def test_a_slab_of_a_mapped_file_is_mapped_separately(tmp_path):
    np.save(tmp_path / "z.npy", Z)
    rows = opened(tmp_path / "z.npy").read(3, 5)
    assert isinstance(rows, np.memmap)
    assert rows.nbytes == 2 * 16


@pytest.mark.parametrize(
    ("suffix", "save", "message"),
    [
        (".npy", lambda p: np.save(p, np.array([{}, {}], object), allow_pickle=True), "pickled Python objects"),
        (".npy", lambda p: p.write_bytes(b""), "cut short at 0 bytes"),
        (".npy", lambda p: (save_npy(p), p.write_bytes(p.read_bytes()[:-5])), "cut short at 491 bytes; copy the file"),
        (".npy", lambda p: p.write_bytes(b"\x80\x04K\x01."), "pickled Python objects, or no .npy file"),
        (".npz", lambda p: np.savez(p, logits=np.array([{}], object)), "pickled Python objects"),
        (
            ".npz",
            lambda p: np.savez(p, x=Z, y=Y),
            "holds no array 'logits', but 'x', 'y'; name the logits with --logits-key",
        ),
        (".npz", lambda p: (save_npz(p), p.write_bytes(p.read_bytes()[:200])), "no .npz file, or cut short"),
        (".npz", lambda p: np.savez(p, logits=np.asfortranarray(Z)), "stored column after column"),
        (".npz", lambda p: np.savez(p, logits=np.float32(1)), "a single number"),
        (".npz", lambda p: np.savez(p, logits=np.array([["a"]])), "must be numbers, got dtype <U1"),
        (
            ".txt",
            lambda p: p.write_text("1"),
            "must be in a file that ends in .npy, .npz, .safetensors, .parquet, .csv",
        ),
        (".npy", lambda p: p.mkdir(), "is a folder"),
        (".npy", lambda p: None, "is not there"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, suffix, save, message):
    path = tmp_path / f"file{suffix}"
    save(path)
    with pytest.raises(FileError) as caught:
        opened(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_npz_that_ends_early_names_the_row(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (23, 4)})
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("logits.npy", content.getvalue() + Z.tobytes()[: 10 * 16])
    with pytest.raises(FileError, match="ends in row 10"):
        opened(tmp_path / "z.npz")


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:40] + b[60:]])
def test_a_damaged_safetensors_is_refused(tmp_path, damage):
    path = tmp_path / "file.safetensors"
    save_safetensors(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=r"no .safetensors file, or cut short"):
        opened(path)


def test_a_damaged_parquet_is_refused(tmp_path):
    path = tmp_path / "file.parquet"
    save_parquet(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FileError, match=r"no .parquet file, or cut short"):
        opened(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"logits": [[1.0, 2.0], [3.0]]},
            "must hold the same number of logits in each row, at least 2; row 1 holds 1, the first 2",
        ),
        ({"logits": [[1.0, 2.0], None]}, "row 1 holds 0"),
        ({"logits": [["a", "b"]]}, "holds string, no numbers"),
        ({"a": [1.0], "b": ["x"]}, "Column 'b' of"),
        ({"labels": [1.0]}, "must have a column of logits for each class, or one of P(class 1), beside 'labels'"),
        ({"logits": []}, "holds no rows"),
    ],
)
def test_a_parquet_without_logits_is_refused(tmp_path, columns, message):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    kinds = {"logits": pa.array(columns["logits"], pa.list_(pa.float32()))} if columns.get("logits") == [] else columns
    pq.write_table(pa.table(kinds), tmp_path / "file.parquet")
    with pytest.raises(FileError) as caught:
        opened(tmp_path / "file.parquet")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "role", "message"),
    [
        ("", "logits", "is empty"),
        ("a,b\n", "logits", "holds no rows below its header"),
        ("a,b\n1,2\n\n3,x\n", "logits", "has 'x' in column 'b', line 4, not a number; correct it, or list the columns"),
        ("# of 2026\na,b\n1,2\n3\n", "logits", "has 1 values in line 4 and 2 columns; correct or remove that line."),
        ("a,b\n1,2\n'x',3,4\n", "logits", "if the rows' names stand first, as R writes them, give them a column name"),
        (
            "a;b\n1,5;2,5\n",
            "logits",
            "has '1,5' in column 'a', line 2, not a number; if commas are decimal separators, add ",
        ),
        ("a,b\n1%,2%\n3,4%\n", "logits", "has '3' in column 'a', line 3, not a number; write a percent sign on all"),
        (
            "#a,b\n1,2\n",
            "logits",
            "no header but the comment '#a,b'; if those are the names of the columns, remove the #",
        ),
        ("a,b\n1,\xff\n", "logits", "it is not text in UTF-8"),
        ("a,a\n1,2\n", "logits", "two columns of the same name"),
        ("a,b\n1,2\n", "labels", "has no column 'labels' but 'a', 'b'; name the labels' with --labels-key"),
        ("1,2\n3,4\n", "labels", "has no header"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path, text, role, message):
    pytest.importorskip("pyarrow")
    (tmp_path / "file.csv").write_text(text, encoding="latin-1")
    with pytest.raises(FileError) as caught:
        opened(tmp_path / "file.csv", role)
    assert message in str(caught.value)
    with gzip.open(tmp_path / "file.csv.gz", "wb") as file:
        file.write(text.encode("latin-1"))
    with pytest.raises(FileError) as again:
        opened(tmp_path / "file.csv.gz", role)
    assert str(again.value) == str(caught.value).replace("file.csv", "file.csv.gz")


TEXTS = {
    "tabs": (".tsv", "a\tb\n1\t2\n3\t4\n", "."),
    "semicolons": (".csv", "a;b\n1;2\n3;4\n", "."),
    "decimal commas": (".csv", "a;b\n1,0;2e0\n3,0;4\n", ","),
    "quoted decimal commas": (".csv", 'a,b\n"1,0","2,0"\n"3,0","4,0"\n', ","),
    "decimal commas and tabs": (".tsv", "a\tb\n1,0\t2,0\n3\t4\n", ","),
    "a pandas index": (".csv", ",a,b\n0,1,2\n1,3,4\n", "."),
    "a pandas index, saved twice": (".csv", ",Unnamed: 0,a,b\n0,0,1,2\n1,1,3,4\n", "."),
    "comments": (".csv", "# by a model\n#\na,b\n1,2\n # between\n3,4\n# the end", "."),
    "percent signs": (".csv", "a,b\n100%,200 %\n300%,400%\n", "."),
    "percent signs of columns among others": (".csv", "note,b,a\nx,200%,100%\n,400%,300%\n", "."),
    "a byte-order mark": (".csv", "\ufeffa,b\n1,2\n3,4\n", "."),
    "a byte-order mark and comments": (".csv", "\ufeff# x\na,b\n1,2\n3,4\n", "."),
    "Windows' line ends": (".csv", "a,b\r\n1,2\r\n\r\n3,4\r\n", "."),
    "quoted text with line ends": (".csv", 'note,p_a,p_b\n"x\ny, z",1,2\n"",3,4\n', "."),
    "no header": (".csv", "1,2\n3,4\n", "."),
    "no header and semicolons": (".csv", "1,0;2\n3;4\n", ","),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("how", TEXTS)
def test_text_tables_are_read_as_they_are_written(tmp_path, how, compressed):
    pytest.importorskip("pyarrow")
    suffix, text, decimal = TEXTS[how]
    path = tmp_path / f"file{suffix}{'.gz' if compressed else ''}"
    with (gzip.open if compressed else open)(path, "wb") as file:
        file.write(text.encode())
    key = "p_*" if "p_a" in text else "a,b" if text.startswith("note") else None
    array = opened(path, key=key, decimal=decimal)
    np.testing.assert_array_equal(array.read(0, 2), [[1, 2], [3, 4]])


def test_rows_of_text_tables_are_named_by_their_lines(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "file.csv"
    path.write_text('# comment\nnote,p_a,p_b\n"x\ny",1,2\n\n# another\nz,3,4\n')
    array = opened(path, key="p_*")
    assert [array.place(row) for row in (0, 1)] == ["line 3", "line 7"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
@pytest.mark.parametrize("labels", [["cat", "dog", "cat"], ["7", "x y", "7"], ["", "a", "b"]])
def test_text_labels_become_indices(tmp_path, suffix, labels):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / f"file{suffix}"
    if suffix == ".npy":
        np.save(path, np.array(labels))
    elif suffix == ".npz":
        np.savez(path, labels=np.array(labels))
    elif suffix == ".csv":
        path.write_text("labels,p\n" + "".join(f"{label},1\n" for label in labels))
    else:
        pq.write_table(pa.table({"labels": pa.array(labels).dictionary_encode()}), path)
    array = opened(path, "labels")
    assert array.values is not None
    assert [array.values[code] for code in array.read(0, 3)] == labels


def test_labels_that_are_written_as_integers_are_integers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"labels": pa.array([30, 10, 30]).dictionary_encode()}), tmp_path / "file.parquet")
    (tmp_path / "file.csv").write_text("labels,p\n30,1\n10.0,1\n 30,1\n")
    for name in ("file.parquet", "file.csv"):
        array = opened(tmp_path / name, "labels")
        assert (array.values, array.dtype) == (None, "int64")
        np.testing.assert_array_equal(array.read(0, 3), [30, 10, 30])


@pytest.mark.parametrize("name", ["label", "y_true", "Target", "class"])
def test_usual_names_of_label_columns_are_recognised(tmp_path, name):
    pytest.importorskip("pyarrow")
    (tmp_path / "file.csv").write_text(f"p0,p1,{name}\n0.5,0.5,1\n")
    assert opened(tmp_path / "file.csv", "labels").columns == (name,)
    np.savez(tmp_path / "file.npz", **{name: Y, "probs": Z})
    np.testing.assert_array_equal(opened(tmp_path / "file.npz", "labels").read(0, 23), Y)
    np.testing.assert_array_equal(opened(tmp_path / "file.npz").read(0, 23), Z)


COLUMNS = {
    "p0,p1,p2,labels": (None, ["p0", "p1", "p2"]),
    "labels,p_2,p_10,p_1": (None, ["p_1", "p_2", "p_10"]),
    "c2,c1,c0": (None, ["c0", "c1", "c2"]),
    "p_cat,labels,p_dog": (None, ["p_cat", "p_dog"]),
    "id,logits_1,logits_0,labels": (None, ["logits_0", "logits_1"]),
    "id,VF,F,labels,M": ("F,M,VF", ["F", "M", "VF"]),
    "id,p.a,p.b,labels": ("p.*", ["p.a", "p.b"]),
    "id,a_prob,labels,b_prob": ("*_prob", ["a_prob", "b_prob"]),
    "id,x2,x1,labels": ("x", ["x1", "x2"]),
    "id,p1,p0,patient,labels": ("p[0-9]", ["p0", "p1"]),
    "id,p1,p0,labels": ("p1, p0", ["p1", "p0"]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("header", COLUMNS)
def test_the_columns_of_the_classes_are_found(tmp_path, suffix, header):
    pa = pytest.importorskip("pyarrow")
    key, expected = COLUMNS[header]
    names = header.split(",")
    path = tmp_path / f"file{suffix}"
    if suffix == ".csv":
        path.write_text(f"{header}\n{','.join(str(k) for k in range(len(names)))}\n")
    else:
        import pyarrow.parquet as pq

        pq.write_table(pa.table({name: [float(k)] for k, name in enumerate(names)}), path)
    array = opened(path, key=key)
    assert array.columns == tuple(expected)
    np.testing.assert_array_equal(array.read(0, 1), [[names.index(name) for name in expected]])


@pytest.mark.parametrize(
    ("header", "key", "message"),
    [
        ("id,p0,p1,labels", None, "columns that are not named alike, 'id', 'p0', 'p1'"),
        ("id,cat,dog,labels", None, "columns that are not named alike, 'id', 'cat', 'dog'"),
        ("p_0,p_1,p_fold,labels", None, "columns that are not named alike"),
        ("logits_0,logits_1,logits_scale,labels", None, "columns that are not named alike"),
        ("fold_id,row_id,labels", None, "columns that are not named alike"),
        ("p0,p1,patient,labels", "p", "columns that are not named alike, 'p0', 'p1', 'patient'"),
        ("id,p0,p1,labels", "p0,p2", "has no column 'p2'"),
        ("id,p0,p1,labels", "q*", "has no column whose name matches 'q*'"),
        ("id,p0,p1,labels", "p0,p0", "must list two columns or more, each once"),
    ],
)
def test_columns_that_may_not_be_classes_are_refused(tmp_path, header, key, message):
    pytest.importorskip("pyarrow")
    path = tmp_path / "file.csv"
    path.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(FileError) as caught:
        opened(path, key=key)
    assert message in str(caught.value)
    assert "--logits-key" in str(caught.value)


def test_missing_table_entries_are_nan(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "file.csv").write_text("a,b\n1,2\n3,\n")
    np.testing.assert_array_equal(opened(tmp_path / "file.csv").read(0, 2), [[1, 2], [3, np.nan]])


def test_one_column_of_labels_needs_no_name(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "file.csv").write_text("class\n1\n0\n")
    np.testing.assert_array_equal(opened(tmp_path / "file.csv", "labels").read(0, 2), [1, 0])


def test_missing_labels_in_a_table_are_an_error(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"labels": pa.array([1, None], pa.int64())}), tmp_path / "file.parquet")
    np.testing.assert_array_equal(opened(tmp_path / "file.parquet", "labels").read(0, 2), [1, np.nan])


@pytest.mark.parametrize(("suffix", "package"), [(".csv", "pyarrow"), (".safetensors", "safetensors")])
def test_missing_packages_are_named(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    (tmp_path / f"file{suffix}").write_text("a,b\n1,2\n")
    with pytest.raises(ImportError, match=rf"needs {package}.*pip install 'lsmooth\[calibrate\]'"):
        opened(tmp_path / f"file{suffix}")
