"""``.parquet`` files, read and written by pyarrow in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth.calibrate.columns import Encoder, Stream, Wanted, find_columns, row_shape, shaped
from lsmooth.calibrate.text import FileError, check_new


def stream_parquet(path: Path, wanted: Wanted, slab_bytes: int) -> Stream:
    """The rows of the columns to read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise FileError(
            f"{wanted.role} in {path} cannot be read: {error} The file is no .parquet file, or cut short."
        ) from error
    schema = file.schema_arrow
    nested = {field.name for field in schema if _is_list(field.type)}
    texts = [field.name for field in schema if _is_text(field.type)]
    columns = find_columns(path, wanted, schema.names, nested, texts)
    types = [schema.field(column).type for column in columns]
    is_nested = columns[0] in nested
    if is_nested:
        types = [types[0].value_type]
    coded = len(columns) == 1 and wanted.coded and (_is_text(types[0]) or pa.types.is_dictionary(types[0]))
    for column, kind in zip(columns, types, strict=True):
        numbers = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if not coded and not numbers and not (pa.types.is_boolean(kind) and wanted.coded):
            raise FileError(
                f"Column {column!r} of {path} holds {kind}, no numbers; drop it, or name the right columns with "
                f"{wanted.option} (a,b,c, a pattern such as 'p_*', or a column of lists)."
            )
    first = next(file.iter_batches(batch_size=1, columns=list(columns)), None)
    if first is None or not len(first):
        raise FileError(f"{path} holds no rows.")
    width = _lists(first, columns[0], path, 0, None).shape[1] if is_nested else len(columns)
    rows, values = max(1, slab_bytes // (8 * max(1, width))), [] if coded else None
    dtype = np.dtype(np.int64)
    if not coded:
        dtype = np.result_type(*(pa.array([], kind).to_numpy(zero_copy_only=False).dtype for kind in types))
        if dtype.kind not in "fiub" or (dtype.kind in "iub" and _has_nulls(file, columns)):
            dtype = np.dtype(np.float64)

    def slabs() -> Iterator[np.ndarray]:
        start = 0
        encode = None if values is None else Encoder(values)
        try:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                if encode is not None:
                    yield encode(batch.column(0))
                elif is_nested:
                    yield _lists(batch, columns[0], path, start, width)
                else:
                    parts = [_filled(batch.column(name)) for name in columns]
                    yield shaped(np.stack(parts, axis=1), wanted, columns)
                start += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise FileError(f"{wanted.role} in {path} are damaged after row {start - 1}: {error}") from error

    shape = (width,) if is_nested else row_shape(wanted, columns)
    return Stream(shape, dtype, file.metadata.num_rows, slabs(), columns, values, None)


def _lists(batch: Any, column: str, path: Path, start: int, width: int | None) -> np.ndarray:
    """(rows, width) of a column of lists."""
    lists = batch.column(column)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if width is None else width
    bad = np.flatnonzero(lengths != width)
    if len(bad) or width < 2:
        row = int(bad[0]) if len(bad) else 0
        raise FileError(
            f"Column {column!r} of {path} must hold the same number of logits in each row, at least 2; row "
            f"{start + row} holds {lengths[row]}, the first {width}."
        )
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _filled(column: Any) -> np.ndarray:
    """Numbers of a column; NaN where they are missing."""
    array = column.to_numpy(zero_copy_only=False)
    return array.astype(np.float64) if array.dtype == object else array


def write_parquet(path: Path, target: Path, names: Sequence[str], blocks: Iterator[np.ndarray], as_list: bool) -> None:
    """Write a table with additional columns: (rows, columns) of numbers, block by block.

    Raises:
        FileError: if the table has a column of that name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    check_new(path, file.schema_arrow.names, names)
    writer = None
    for rows, table in _in_step(file, blocks):
        columns = [pa.array(list(rows))] if as_list else [pa.array(column) for column in rows.T]
        for name, column in zip(names, columns, strict=True):
            table = table.append_column(name, column)
        writer = writer or pq.ParquetWriter(target, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _in_step(file: Any, blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, Any]]:
    """Blocks of new columns, and the same rows of the table."""
    import pyarrow as pa

    batches = file.iter_batches()
    held = None
    for block in blocks:
        while held is None or len(held) < len(block):
            batch = pa.Table.from_batches([next(batches)])
            held = batch if held is None else pa.concat_tables([held, batch])
        yield block.reshape(len(block), -1), held.slice(0, len(block))
        held = held.slice(len(block))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _has_nulls(file: Any, columns: Sequence[str]) -> bool:
    return any(batch.column(name).null_count for batch in file.iter_batches(columns=list(columns)) for name in columns)
