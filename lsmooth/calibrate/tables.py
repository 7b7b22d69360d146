"""Logits and labels in tables, ``.parquet`` and ``.csv``, read by pyarrow a batch of rows at a time."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np


class FileError(ValueError):
    """A file that does not hold what is wanted; the message names the row and the remedy."""


def stream(
    path: Path, suffix: str, role: str, key: str, other: str, named: bool, slab_bytes: int
) -> tuple[tuple[int, ...], np.dtype, int, Iterator[np.ndarray], tuple[str, ...]]:
    """The shape of a row, dtype, number of rows or 0, slabs of rows, and the columns' names.

    Logits are a column of lists called ``key``; or else the columns that ``key`` stands for: names
    between commas, in that order, a pattern such as ``p_*``, or how the names begin; or else, where
    the user has not chosen the key, all columns but ``other``, which holds the labels. Columns that
    end in numbers are in the order of the numbers, others in the table's.

    Raises:
        ImportError: if pyarrow is not installed.
        FileError: if there are no such columns, or they are not named alike and not listed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Reading {suffix} needs pyarrow: pip install 'lsmooth[calibrate]'.") from error
    read = _parquet if suffix == ".parquet" else _csv
    return read(path, role, key, other, named, slab_bytes)


def _parquet(path: Path, role: str, key: str, other: str, named: bool, slab_bytes: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise FileError(
            f"{role} in {path} cannot be read: {error} The file is no .parquet file, or cut short."
        ) from error
    schema = file.schema_arrow
    nested = {field.name for field in schema if _is_list(field.type)}
    columns = _columns(path, role, key, other, named, schema.names, nested)
    types = [schema.field(column).type for column in columns]
    if columns[0] in nested:
        types = [types[0].value_type]
    for column, kind in zip(columns, types, strict=True):
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise FileError(
                f"Column {column!r} of {path} holds {kind}, no numbers; drop it, or name the right columns with "
                f"--{role}-key (a column of lists, or how the names of all of them begin)."
            )
    dtype = np.result_type(*(pa.array([], kind).to_numpy(zero_copy_only=False).dtype for kind in types))
    first = next(file.iter_batches(batch_size=1, columns=list(columns)), None)
    if first is None or not len(first):
        raise FileError(f"{path} holds no rows.")
    width = _table_of(first, columns, columns[0] in nested, path, 0, None).shape[1]
    rows = max(1, slab_bytes // (8 * max(1, width)))

    def slabs() -> Iterator[np.ndarray]:
        start = 0
        try:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                yield _shaped(_table_of(batch, columns, columns[0] in nested, path, start, width), role)
                start += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise FileError(f"{role} in {path} are damaged after row {start - 1}: {error}") from error

    dtype = np.dtype(np.float64) if dtype.kind in "iu" and role == "labels" and _has_nulls(file, columns) else dtype
    return (width,) if role == "logits" else (), dtype, file.metadata.num_rows, slabs(), columns


def _csv(path: Path, role: str, key: str, other: str, named: bool, slab_bytes: int) -> Any:
    import pyarrow as pa
    from pyarrow import csv as reader

    names, headed = _header(path, role)
    if not headed and named:
        raise FileError(f"{path} has no header, so there is no column {key!r}; write the names into its first line.")
    if not headed and role == "labels" and len(names) > 1:
        raise FileError(
            f"{path} has no header, so its labels cannot be told from the logits; write the columns' names into its "
            "first line, or give a file of labels."
        )
    columns = _columns(path, role, key, other, named, names, set()) if headed else tuple(names)
    options = reader.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.float64()), include_columns=list(columns), strings_can_be_null=True
    )
    block = max(slab_bytes // 4, 64 * len(names))  # more than a row
    reading = reader.ReadOptions(column_names=None if headed else names, use_threads=False, block_size=block)

    def slabs() -> Iterator[np.ndarray]:
        try:
            with reader.open_csv(path, read_options=reading, convert_options=options) as batches:
                for batch in batches:
                    yield _shaped(_table_of(batch, columns, False, path, 0, None), role)
        except (pa.ArrowException, OSError) as error:
            raise FileError(
                f"{role} in {path} cannot be read: {error}. (Rows are lines, from 1.) All columns but the labels' must "
                f"be numbers: correct the row, or name the columns with --{role}-key."
            ) from error

    return (len(columns),) if role == "logits" else (), np.dtype(np.float64), 0, slabs(), columns if headed else ()


def _header(path: Path, role: str) -> tuple[list[str], bool]:
    """The columns' names, and whether they are the file's own."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{role} in {path} cannot be read: it is no text in UTF-8 ({error}).") from error
    if not names:
        raise FileError(f"{path} is empty.")
    if all(_is_number(name) for name in names):
        return [str(index) for index in range(len(names))], False
    return names, True


def _columns(
    path: Path, role: str, key: str, other: str, named: bool, names: Sequence[str], nested: set[str]
) -> tuple[str, ...]:
    """The columns that hold the logits, or the one that holds the labels."""
    listed = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    if len(set(names)) < len(names):
        raise FileError(f"{path} has two columns of the same name among {listed}; rename one.")
    unnamed = [name for name in names if not name.strip() or name.startswith(("Unnamed:", "__index_level_"))]
    if unnamed:
        raise FileError(
            f"{path} has a column without a name, which looks like a pandas index; write the file with index=False."
        )
    if role == "labels":
        if key not in names and not named and len(names) == 1:
            return (names[0],)
        if key not in names:
            raise FileError(f"{path} has no column {key!r}, but {listed}; name the labels' with --labels-key.")
        return (key,)
    if key in nested:
        return (key,)
    others = [name for name in names if name != other]
    if named and "," in key:
        return _listed(path, key, names, listed)
    pattern = named and any(character in key for character in "*?[")
    chosen = [name for name in others if (fnmatchcase(name, key) if pattern else name.startswith(key))]
    if named and not chosen:
        how = "matches" if pattern else "begins with"
        raise FileError(f"{path} has no column whose name {how} {key!r}, but {listed}; see --logits-key.")
    prefix = key if chosen else ""
    chosen = chosen or others
    if len(chosen) < 2:
        raise FileError(
            f"{path} must have a column of logits for each class, got {listed}; columns are separated by commas."
        )
    numbers = _numbers(chosen)
    if numbers is not None:
        return tuple(name for _, name in sorted(zip(numbers, chosen, strict=True)))
    if not pattern and not _alike(chosen, prefix):
        shown = ", ".join(map(repr, chosen[:12])) + (", ..." if len(chosen) > 12 else "")
        raise FileError(
            f"{path} has columns that are not named alike, {shown}, so it is not known which of them are classes; list "
            f"the classes' columns in order, --logits-key {','.join(chosen[-2:])}, or give a pattern, --logits-key "
            "'p_*'."
        )
    return tuple(chosen)


def _listed(path: Path, key: str, names: Sequence[str], listed: str) -> tuple[str, ...]:
    """The columns whose names stand in the key, between commas."""
    chosen = [name.strip() for name in key.split(",") if name.strip()]
    absent = [name for name in chosen if name not in names]
    if absent:
        raise FileError(f"{path} has no column {absent[0]!r}, but {listed}; correct --logits-key.")
    if len(set(chosen)) < max(2, len(chosen)):
        raise FileError(f"--logits-key must list two columns or more, each once; got {key!r}.")
    return tuple(chosen)


def _numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers in names that differ in one number and in nothing else, such as ``p0`` and ``p1``."""
    parts = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", name) for name in names]
    if not all(parts):
        return None
    numbers = [int(part[2]) for part in parts if part]
    same = len({(part[1], part[3]) for part in parts if part}) == 1
    return numbers if same and len(set(numbers)) == len(numbers) else None


def _alike(names: Sequence[str], prefix: str) -> bool:
    """Whether names without such numbers are of one kind: ``p_cat`` and ``p_dog``, or ``a`` and ``b``.

    A common beginning counts if it was asked for, or ends in a separator; and then no name goes on with
    a number alone, since another does not.
    """
    if all(len(name) == 1 and name.isalpha() for name in names):
        return True
    first, last = min(names), max(names)
    differs = [k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b]
    common = prefix or first[: differs[0] if differs else len(first)]
    rests = [name.removeprefix(common) for name in names]
    separated = bool(prefix) or bool(common and not common[-1].isalnum())
    return separated and not any(rest.strip("_-. ").isdigit() for rest in rests)


def _table_of(
    batch: Any, columns: Sequence[str], nested: bool, path: Path, start: int, width: int | None
) -> np.ndarray:
    """(rows, columns) of a batch; what is missing is NaN."""
    if not nested:
        return np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns], axis=1)
    lists = batch.column(columns[0])
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if width is None else width
    bad = np.flatnonzero(lengths != width)
    if len(bad) or width < 2:
        row = int(bad[0]) if len(bad) else 0
        raise FileError(
            f"Column {columns[0]!r} of {path} must hold as many logits in each row, at least 2; row {start + row} "
            f"holds {lengths[row]}, the first {width}."
        )
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _shaped(rows: np.ndarray, role: str) -> np.ndarray:
    return rows if role == "logits" else rows[:, 0]


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _has_nulls(file: Any, columns: Sequence[str]) -> bool:
    return any(batch.column(name).null_count for batch in file.iter_batches(columns=list(columns)) for name in columns)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
