"""Rows of ``.parquet``, ``.csv`` and ``.tsv`` files, read by pyarrow in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from lsmooth.calibrate.columns import Encoder, Stream, Wanted, find_columns, row_shape, shaped
from lsmooth.calibrate.parquet import stream_parquet
from lsmooth.calibrate.text import FileError, TextTable, open_text


def stream(path: Path, wanted: Wanted, slab_bytes: int) -> Stream:
    """The rows of the columns to read.

    Logits are a column of lists, or the columns of the key: names between commas in this order, a pattern such as
    ``p_*``, one name, or a prefix. Without a key they are the columns named after the classes, or else all other
    columns if their names are alike. Columns whose names end in numbers are sorted by them, others keep the table's
    order. A column without a name, such as a pandas index, is left out.

    Raises:
        ImportError: if pyarrow is not installed.
        FileError: if there are no such columns, or several choices.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Reading {path.name} needs pyarrow: pip install 'lsmooth[calibrate]'.") from error
    return (stream_parquet if path.suffix.lower() == ".parquet" else _text)(path, wanted, slab_bytes)


def _text(path: Path, wanted: Wanted, slab_bytes: int) -> Stream:
    table = open_text(path, wanted.role, wanted.decimal)
    if not table.headed and wanted.key is not None:
        raise FileError(
            f"{path} has no header, so there is no column {wanted.key!r}; write the names into its first line."
        )
    if not table.headed and wanted.role == "labels" and len(table.names) > 1:
        raise FileError(
            f"{path} has no header, so its labels cannot be distinguished from the logits; write the columns' names "
            "into its first line, or give a file of labels."
        )
    columns = find_columns(path, wanted, table.names, set(), table.texts) if table.headed else table.names
    coded = len(columns) == 1 and wanted.coded
    values: list[str] | None = [] if coded else None

    def slabs() -> Iterator[np.ndarray]:
        encode = None if values is None else Encoder(values)
        for batch in table.batches(columns, coded, slab_bytes // 4):
            if encode is not None:
                yield encode(batch.column(0))
            else:
                parts = [table.numbers(batch.column(name), name) for name in columns]
                yield shaped(np.stack(parts, axis=1), wanted, columns)

    dtype = np.dtype(np.int64 if coded else np.float64)
    names = columns if table.headed else ()
    return Stream(row_shape(wanted, columns), dtype, 0, slabs(), names, values, partial(_line, table))


def place_in(path: Path, wanted: Wanted) -> Callable[[int], str] | None:
    """A function that names a row of a text table in messages; None for other files."""
    if suffix_is_text(path):
        return partial(_line, open_text(path, wanted.role, wanted.decimal))
    return None


def suffix_is_text(path: Path) -> bool:
    """Whether a file's name is that of a text table."""
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def _line(table: TextTable, row: int) -> str:
    return f"line {table.line(row)}"
