"""Arrays in files, read a slab of rows at a time; nothing in a file is unpickled.

``.npy`` and ``.safetensors`` files are mapped, one slab at a time, so that at most one slab counts as memory of this
process. Other formats can only be read in order; they are unpacked once into a scratch file, which is mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth.calibrate import tables
from lsmooth.calibrate.columns import Stream, Wanted, named_like
from lsmooth.calibrate.text import FileError

STREAMED_BYTES = 2**24
"""The bytes of a slab of a file that is unpacked."""
SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
Progress = Callable[[str, int, int], None]
"""Called with the stage, the rows that are done, and their total, or 0 if it is unknown."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes:
        path: the file, or the first of several.
        name: the array and the file, for messages.
        shape: rows first.
        dtype: a name of NumPy's, or ``bfloat16``.
        columns: the names of a table's columns, else empty.
        values: the texts that rows are indices of, such as the names of classes; None for numbers.
        place: the name of a row in messages; in a text file its line.
        parts: the arrays of several files.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...]
    _read: Callable[[int, int], np.ndarray]
    values: tuple[str, ...] | None = None
    place: Callable[[int], str] = field(default="row {}".format, repr=False)
    parts: tuple[StoredArray, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(part.path for part in self.parts) or (self.path,)

    @property
    def source(self) -> str:
        """The file's name, or the number of files."""
        return f"{len(self.parts)} files" if self.parts else self.path.name

    @property
    def is_table(self) -> bool:
        """Whether the file is a table."""
        return suffix_of(self.path) not in ("", ".npy", ".npz", ".safetensors")

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from ``start`` to before ``stop``; bfloat16 as float32."""
        rows = self._read(start, stop)
        if self.dtype == "bfloat16":
            return rows.astype(np.float32)
        return rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("="))


def is_stored_alone(path: Path) -> bool:
    """Whether a file of that name contains one array."""
    return path.suffix.lower() == ".npy"


def suffix_of(path: Path) -> str:
    """The suffix of the name, of a compressed file both suffixes."""
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), "")


def open_array(path: Path, wanted: Wanted, scratch: Path, progress: Progress) -> StoredArray:
    """Open one array of a file by its suffix; texts become indices into `StoredArray.values`.

    Raises:
        FileError: if the file does not hold such an array.
        ImportError: if a package for the format is missing.
    """
    suffix, role = suffix_of(path), wanted.role
    if not suffix:
        raise FileError(f"{role} must be in a file that ends in {', '.join(SUFFIXES)}; got {path}.")
    if not path.is_file():
        raise FileError(f"{role} must be a file; {path} is {'a folder' if path.is_dir() else 'not there'}.")
    name, target = f"{role} in {path}", scratch / f"{_digest(path, wanted)}.bin"
    entry = target.with_suffix(".json")
    if entry.exists():
        return _restored(json.loads(entry.read_text(encoding="utf-8")), path, name, wanted, target)
    if suffix == ".npy":
        array = _open_npy(path, name, wanted, target, progress)
    elif suffix == ".safetensors":
        array = _open_safetensors(path, name, wanted)
    elif suffix == ".npz":
        array = _unpacked(_stream_npz(path, name, wanted), path, name, wanted, target, progress)
    else:
        array = _unpacked(tables.stream(path, wanted, STREAMED_BYTES), path, name, wanted, target, progress)
    if target.exists():
        stored = np.dtype(array._read.args[3]).str  # type: ignore[attr-defined]
        content = {"shape": array.shape, "dtype": stored, "columns": array.columns, "values": array.values}
        write_whole(entry, json.dumps(content).encode())
    return array


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def identity(path: Path) -> list[Any]:
    """The name, size and modification time of a file."""
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def digest(content: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _digest(path: Path, wanted: Wanted) -> str:
    return digest([*identity(path), wanted._replace(taken=tuple(sorted(wanted.taken)))])  # type: ignore[arg-type]


def _restored(content: dict[str, Any], path: Path, name: str, wanted: Wanted, target: Path) -> StoredArray:
    """The array that an earlier run has unpacked."""
    shape, dtype = tuple(content["shape"]), np.dtype(content["dtype"])
    values = None if content["values"] is None else tuple(content["values"])
    read, columns = _mapping(target, 0, shape, dtype), tuple(content["columns"])
    array = StoredArray(path, name, shape, dtype.name, columns, read, values)
    place = tables.place_in(path, wanted)
    return array if place is None else replace(array, place=place)


def decoded(array: StoredArray) -> StoredArray:
    """The array with texts converted to numbers, integers if possible, if all texts of a table are numbers."""
    if array.values is None or not array.is_table:
        return array
    values = array.values
    try:
        numbers = np.array([float(text) if text else np.nan for text in values])
    except ValueError:
        return array
    if np.isfinite(numbers).all() and (numbers == np.round(numbers)).all() and (np.abs(numbers) < 2**53).all():
        numbers = numbers.astype(np.int64)
    return replace(array, dtype=numbers.dtype.name, _read=partial(_read_numbers, numbers, array), values=None)


def _read_numbers(numbers: np.ndarray, codes: StoredArray, start: int, stop: int) -> np.ndarray:
    return numbers[codes.read(start, stop)]


def _open_npy(path: Path, name: str, wanted: Wanted, target: Path, progress: Progress) -> StoredArray:
    def mapped() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        array = mapped()
    except (ValueError, EOFError, OSError) as error:
        raise _npy_error(path, name, str(error)) from error
    if not isinstance(array, np.memmap):
        raise FileError(f"{name} is not an array; save it with numpy.save.")
    shape, dtype = array.shape, array.dtype
    if dtype.kind in "USO":
        return _unpacked(Stream(shape[1:], dtype, len(array), iter([array])), path, name, wanted, target, progress)
    if len(shape) < 2 or array.flags.c_contiguous:
        offset = array.offset
        return StoredArray(path, name, shape, dtype.name, (), _mapping(path, offset, shape, dtype))
    # In column-major order a slab of rows is spread over the file, so it is copied once to row-major order.
    step = max(1, STREAMED_BYTES // max(1, dtype.itemsize * math.prod(shape[1:])))
    slabs = (np.ascontiguousarray(mapped()[i : i + step]) for i in range(0, shape[0], step))
    return _unpacked(Stream(shape[1:], dtype, shape[0], slabs), path, name, wanted, target, progress)


def _npy_error(path: Path, name: str, reason: str) -> FileError:
    if "Python objects" in reason or "pickle" in reason:
        return FileError(
            f"{name} are pickled Python objects, or no .npy file at all, and are not loaded; save an array of numbers "
            "with numpy.save(file, array, allow_pickle=False)."
        )
    if "mmap length" in reason or "No data left" in reason or "EOF" in reason or "empty file" in reason:
        return FileError(f"{name} are cut short at {path.stat().st_size} bytes; copy the file or save it again.")
    return FileError(f"{name} cannot be read: {reason} Save an array of numbers with numpy.save.")


def _mapping(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[int, int], np.ndarray]:
    return partial(_read_mapped, path, offset, shape[1:], dtype)


def _read_mapped(path: Path, offset: int, row: tuple[int, ...], dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    shape = (stop - start, *row)
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset + start * dtype.itemsize * math.prod(row), shape)


def _open_safetensors(path: Path, name: str, wanted: Wanted) -> StoredArray:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            "Reading .safetensors needs safetensors and ml_dtypes: pip install 'lsmooth[calibrate]'."
        ) from error
    try:
        with safe_open(path, framework="numpy") as file:
            key = _key(path, wanted, list(file.keys()))
            part = file.get_slice(key)
            shape, dtype = tuple(part.get_shape()), part.get_dtype()
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{name} cannot be read: {error}. The file is no .safetensors file, or cut short; copy or save it again."
        ) from error
    known = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
    integers = {f"{letter}{bits}": f"{word}{bits}" for letter, word in (("I", "int"), ("U", "uint")) for bits in _BITS}
    if dtype == "BF16":
        _need_ml_dtypes()
    return StoredArray(path, name, shape, {**known, **integers}.get(dtype, dtype), (), partial(_read_slice, path, key))


def _read_slice(path: Path, key: str, start: int, stop: int) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.get_slice(key)[start:stop]


_BITS = (8, 16, 32, 64)


def _need_ml_dtypes() -> None:
    try:
        import ml_dtypes  # noqa: F401
    except ImportError as error:
        raise ImportError("Reading bfloat16 needs ml_dtypes: pip install 'lsmooth[calibrate]'.") from error


def _stream_npz(path: Path, name: str, wanted: Wanted) -> Stream:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
            key = _key(path, wanted, names)
            with archive.open(f"{key}.npy") as file:
                shape, fortran, dtype = _npy_header(file)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise FileError(
            f"{name} cannot be read: {error}. The file is no .npz file, or cut short; copy it or save it again "
            "with numpy.savez."
        ) from error
    except ValueError as error:
        raise error if isinstance(error, FileError) else _npy_error(path, name, str(error)) from error
    if dtype.hasobject:
        raise _npy_error(path, name, "pickle")
    if fortran and len(shape) > 1:
        raise FileError(
            f"{name} are stored column after column, so that rows cannot be read one after the other; save them with "
            "numpy.savez(file, logits=numpy.ascontiguousarray(logits), ...), or as .npy."
        )
    if not shape:
        raise FileError(f"{name} are a single number; save an array of shape (rows, classes).")

    def slabs() -> Iterator[np.ndarray]:
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        step = max(1, STREAMED_BYTES // max(1, row_bytes))
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
                _npy_header(file)
                for start in range(0, shape[0], step):
                    rows = min(step, shape[0] - start)
                    content = file.read(rows * row_bytes)
                    if len(content) < rows * row_bytes:
                        raise EOFError(f"it ends in row {start + len(content) // max(1, row_bytes)}")
                    yield np.frombuffer(content, dtype).reshape(rows, *shape[1:])
        except (zipfile.BadZipFile, OSError, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise FileError(f"{name} are damaged or cut short: {error}. Copy the file or save it again.") from error

    return Stream(shape[1:], dtype, shape[0], slabs())


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its .npy format {version[0]}.{version[1]} is not for plain numbers.")
    return readers[version](file)


def _key(path: Path, wanted: Wanted, names: list[str]) -> str:
    """The name of the array to read."""
    found = [wanted.key] if wanted.key is not None else named_like(names, wanted.role)
    if len(found) == 1 and found[0] in names:
        return found[0]
    raise FileError(
        f"{path} holds no array {wanted.key or wanted.role!r}, but {', '.join(map(repr, names)) or 'none at all'}; "
        f"name the {wanted.role} with {wanted.option}."
    )


def _unpacked(stream: Stream, path: Path, name: str, wanted: Wanted, target: Path, progress: Progress) -> StoredArray:
    """Write a stream to a file and map it; texts become indices."""
    coded = stream.dtype.kind in "US" and wanted.coded
    if stream.dtype.hasobject or (stream.dtype.kind not in "fiub" and not coded):
        raise FileError(
            f"{name} must be numbers, got dtype {stream.dtype}; save floating-point logits, integer labels."
        )
    index: dict[str, int] = {}
    dtype = np.dtype(np.int64) if coded else stream.dtype
    rows = 0
    with target.open("wb") as file:
        for slab in stream.slabs:
            if coded:
                texts, position = np.unique(slab.astype(str), return_inverse=True)
                codes = [index.setdefault(text, len(index)) for text in texts.tolist()]
                slab = np.array(codes, np.int64)[position].reshape(slab.shape)
            file.write(np.ascontiguousarray(slab, dtype).data)
            rows += len(slab)
            progress(f"unpacking {path.name}", rows, stream.length)
    shape, texts = (rows, *stream.row_shape), index if coded else stream.values
    values = None if texts is None else tuple(texts)
    array = StoredArray(path, name, shape, dtype.name, stream.columns, _mapping(target, 0, shape, dtype), values)
    return array if stream.place is None else replace(array, place=stream.place)
