"""Data in several files: finding the files, and concatenating their rows to one array."""

from __future__ import annotations

import glob
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lsmooth.calibrate.columns import Wanted, quoted
from lsmooth.calibrate.files import SUFFIXES, Progress, StoredArray, decoded, is_stored_alone, open_array, suffix_of
from lsmooth.calibrate.processes import in_order, new_pool
from lsmooth.calibrate.text import FileError, open_text


def find_files(arguments: Sequence[str], labels: Sequence[str] = ()) -> tuple[list[Path], list[Path] | None]:
    """The files of the logits and of the labels; None if the labels are in the files of the logits.

    Without ``labels``, the second of two arguments is the labels, unless both files have the same arrays or columns:
    then they are two parts of the data.

    Args:
        arguments: files, patterns or folders.
        labels: files of labels, in the order of those of the logits.

    Raises:
        FileError: if a pattern or a folder has no file, or a file is named twice.
    """
    lists = [expanded(argument) for argument in arguments]
    if labels:
        return _without_repeats(lists), _without_repeats([expanded(argument) for argument in labels])
    if len(lists) == 2 and not _have_the_same_names(lists[0][0], lists[1][0]):
        return lists[0], lists[1]
    return _without_repeats(lists), None


def open_arrays(
    paths: Sequence[Path], wanted: Wanted, scratch: Path, progress: Progress, n_jobs: int = 1
) -> StoredArray:
    """The concatenated rows of one array of each file; arguments and errors are those of `open_array`."""
    arrays: list[StoredArray] = []
    try:
        arrays.extend(_opened(paths, wanted, scratch, progress, n_jobs))
    except FileError as error:
        names = [_names(paths[0]), _names(path := paths[len(arrays)])]
        raise (_other_columns(path, paths[0], *reversed(names)) if names[0] != names[1] else error) from error
    return decoded(arrays[0] if len(arrays) == 1 else _chained(arrays, wanted.role))


def _opened(
    paths: Sequence[Path], wanted: Wanted, scratch: Path, progress: Progress, n_jobs: int
) -> Iterator[StoredArray]:
    if n_jobs == 1 or len(paths) == 1 or suffix_of(paths[0]) in (".npy", ".safetensors"):
        for path in paths:
            yield open_array(path, wanted, scratch, progress)
        return
    with new_pool(n_jobs) as pool:
        tasks = ((path, wanted, scratch, no_progress) for path in paths)
        for done, (array, task) in enumerate(in_order(pool, open_array, tasks, 2 * n_jobs), 1):
            progress(f"unpacking {task[0].name}", done, len(paths))
            yield array


def no_progress(stage: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def check_pairs(z: StoredArray, y: StoredArray) -> None:
    """Raise if there are as many files of labels as of logits, with different numbers of rows."""
    if len(z.parts) != len(y.parts):
        return
    for logits, labels in zip(z.parts, y.parts, strict=True):
        if logits.shape[0] != labels.shape[0]:
            raise FileError(
                f"{labels.name} are {labels.shape[0]:,} rows and {logits.name}, the file beside it, "
                f"{logits.shape[0]:,}; files are taken in the order of their names: pair them by their names."
            )


@dataclass(frozen=True)
class _Chain:
    """Reads the concatenated rows of several arrays."""

    parts: tuple[StoredArray, ...]
    ends: np.ndarray
    """The cumulative number of rows."""
    dtype: np.dtype
    codes: tuple[np.ndarray, ...]
    """For each part, the index of each of its texts among all texts; empty for numbers."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from ``start`` to before ``stop``."""
        first = int(np.searchsorted(self.ends[:-1], start, "right"))
        pieces = []
        for k in range(first, len(self.parts)):
            begin = int(self.ends[k - 1]) if k else 0
            rows = self.parts[k].read(start - begin, min(stop, int(self.ends[k])) - begin)
            pieces.append((self.codes[k][rows] if self.codes else rows).astype(self.dtype, copy=False))
            start = int(self.ends[k])
            if start >= stop:
                break
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def place(self, row: int) -> str:
        """The name of a row in messages, with its file."""
        k = int(np.searchsorted(self.ends[:-1], row, "right"))
        return f"{self.parts[k].place(row - (int(self.ends[k - 1]) if k else 0))} of {self.parts[k].path}"


def _chained(arrays: list[StoredArray], role: str) -> StoredArray:
    first = arrays[0]
    arrays = [first, *(_in_order_of(array, first, role) for array in arrays[1:])]
    values: dict[str, int] = {}
    for array in arrays:
        for text in array.values or ():
            values.setdefault(text, len(values))
    coded = first.values is not None
    codes = tuple(np.array([values[text] for text in array.values or ()], np.int64) for array in arrays)
    dtypes = {array.dtype for array in arrays}
    read_as = np.result_type(*("float32" if dtype == "bfloat16" else dtype for dtype in dtypes))
    ends = np.cumsum([array.shape[0] for array in arrays])
    chain = _Chain(tuple(arrays), ends, read_as, codes if coded else ())
    return replace(
        first,
        name=f"{role} in {len(arrays)} files, {first.path} to {arrays[-1].path},",
        shape=(int(ends[-1]), *first.shape[1:]),
        dtype=first.dtype if len(dtypes) == 1 else read_as.name,
        values=tuple(values) if coded else None,
        parts=tuple(arrays),
        _read=chain.read,
        place=chain.place,
    )


def _in_order_of(array: StoredArray, first: StoredArray, role: str) -> StoredArray:
    """The array with its columns in the order of the first file.

    Raises:
        FileError: if it has other columns, another number of classes, or texts in place of numbers.
    """
    where = f"{role} in {array.path}"
    if set(array.columns) != set(first.columns):
        raise _other_columns(array.path, first.path, array.columns, first.columns)
    if array.shape[1:] != first.shape[1:]:
        raise FileError(
            f"{where} have rows of shape {array.shape[1:]}, those in {first.path} of {first.shape[1:]}; all files must "
            "have the same number of classes."
        )
    if (array.values is None) != (first.values is None):
        kinds = ("numbers", "texts") if array.values is None else ("texts", "numbers")
        raise FileError(f"{where} are {kinds[0]}, those in {first.path} {kinds[1]}; save them alike.")
    if array.columns == first.columns:
        return array
    order = [array.columns.index(name) for name in first.columns]
    return replace(array, columns=first.columns, _read=partial(_read_columns, array, order))


def _read_columns(array: StoredArray, order: list[int], start: int, stop: int) -> np.ndarray:
    return array.read(start, stop)[:, order]


def _other_columns(path: Path, first: Path, names: Collection[str], expected: Collection[str]) -> FileError:
    where, what = f"{path}", "columns"
    if suffix_of(path) in (".npz", ".safetensors"):
        what = "arrays"
    elif suffix_of(path) != ".parquet":
        table = open_text(path, "logits", ".")
        where += f", line {table.line(-1 if table.headed else 0)},"
    listed = [quoted(sorted(each)) or "none with a name" for each in (names, expected)]
    return FileError(
        f"{where} has the {what} {listed[0]}, and {first} {listed[1]}; all files must have the same {what}."
    )


def expanded(argument: str) -> list[Path]:
    """The files of a folder or a pattern, sorted by name, or the one file."""
    path = Path(argument)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if suffix_of(each) and not each.name.startswith("."))
        if not found:
            raise FileError(f"{path} is a folder without a file that ends in {', '.join(SUFFIXES)}.")
        return found
    if path.exists() or not glob.has_magic(argument):
        return [path]
    found = sorted(each for each in map(Path, glob.glob(argument, recursive=True)) if each.is_file())
    if not found:
        raise FileError(f"No file matches {argument}; correct the pattern.")
    return found


def _without_repeats(lists: list[list[Path]]) -> list[Path]:
    paths = [path for each in lists for path in each]
    double = [path for k, path in enumerate(paths) if path in paths[:k]] if len(set(paths)) < len(paths) else []
    if double:
        raise FileError(f"{double[0]} is given twice, by itself or by a pattern or folder; give each file once.")
    return paths


def _have_the_same_names(first: Path, second: Path) -> bool:
    """Whether two files have the same arrays or columns, and more than one."""
    names = _names(first) if first != second else set()
    return len(names) > 1 and names == _names(second)


def _names(path: Path) -> set[str]:
    """The names of a file's arrays or columns; none if it cannot be read, which is an error later."""
    suffix = suffix_of(path)
    try:
        if suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return set(archive.namelist())
        if suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                return set(file.keys())
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return set(pq.read_schema(path).names)
        return set() if not suffix or is_stored_alone(path) else set(open_text(path, "logits", ".").names)
    except Exception:
        return set()
