"""Text tables, ``.csv`` and ``.tsv``, plain or compressed by gzip: dialects, values and line numbers."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class FileError(ValueError):
    """A file with wrong contents; the message names the row and the remedy."""


_HEAD_ROWS = 100
"""The rows that are read to find columns of percentages."""
_COMMENT = re.compile(rb"^[ \t]*#.*(?:\n|\Z)", re.MULTILINE)


@dataclass(frozen=True)
class TextTable:
    """A text table whose first line has been read.

    Attributes:
        path: the file.
        delimiter: the character between fields.
        decimal: the decimal separator.
        names: the names of the columns, or their numbers if the file has no header.
        headed: whether the file has a header.
        percent: the columns whose first value ends in a percent sign.
        texts: the columns whose first value is not a number.
    """

    path: Path
    delimiter: str
    decimal: str
    names: tuple[str, ...]
    headed: bool
    percent: frozenset[str]
    texts: tuple[str, ...]

    def batches(self, columns: Sequence[str], as_text: bool, block_bytes: int) -> Iterator[Any]:
        """Record batches of pyarrow with these columns: float64, or strings.

        Raises:
            FileError: if a value cannot be read; the message names its line and column.
        """
        import pyarrow as pa
        from pyarrow import csv as reader

        kinds = {name: pa.string() if as_text or name in self.percent else pa.float64() for name in columns}
        options: dict[str, Any] = {
            "read_options": reader.ReadOptions(
                column_names=self.names, use_threads=False, block_size=max(block_bytes, 64 * len(self.names))
            ),
            "parse_options": reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            "convert_options": reader.ConvertOptions(
                column_types=kinds,
                include_columns=list(columns),
                strings_can_be_null=True,
                decimal_point=self.decimal,
            ),
        }
        try:
            with _opened(self.path) as file:
                if self.headed:
                    _first_line(file)
                rows = _Uncommented(file)
                if not rows.peek():
                    raise FileError(f"{self.path} holds no rows below its header.")
                with reader.open_csv(rows, **options) as batches:
                    yield from batches
        except (pa.ArrowException, OSError, EOFError) as error:
            raise FileError(self._fault(columns, as_text) or f"{self.path} cannot be read: {error}.") from error

    def line(self, row: int) -> int:
        """The line of the file, from 1, where a row begins; the header is row -1."""
        for index, (line, _) in enumerate(self._records(with_header=True), -self.headed):
            if index == row:
                return line
        return row + 1 + self.headed

    def numbers(self, column: Any, name: str) -> np.ndarray:
        """A column of a batch as float64: NaN for missing values, percentages divided by 100."""
        if name not in self.percent:
            return column.to_numpy(zero_copy_only=False)
        values = [self._number(value.as_py(), True) for value in column]
        if None in values:
            raise FileError(self._fault([name], False) or f"{self.path} has no numbers in column {name!r}.")
        return np.array(values, np.float64)

    def _number(self, text: str | None, percent: bool) -> float | None:
        """The number in a field, NaN if it is missing; None if it is not a number of that kind."""
        text = (text or "").strip()
        if not text or text.lower() in ("na", "n/a", "null", "nan"):
            return np.nan
        if text.endswith("%") != percent:
            return None
        number = _number(text.removesuffix("%"), self.decimal)
        return number if number is None else number / (100.0 if percent else 1.0)

    def _fault(self, columns: Sequence[str], as_text: bool) -> str | None:
        """The error of the first row that cannot be read, and the remedy."""
        for line, fields in self._records():
            if len(fields) != len(self.names):
                cure = "correct or remove that line"
                if len(fields) == len(self.names) + 1:
                    cure += "; if the rows' names stand first, as R writes them, give them a column name too"
                return f"{self.path} has {len(fields)} values in line {line} and {len(self.names)} columns; {cure}."
            for name in columns if not as_text else ():
                text = fields[self.names.index(name)]
                if self._number(text, name in self.percent) is None:
                    return (
                        f"{self.path} has {text!r} in column {name!r}, line {line}, not a number; {self._remedy(text)}."
                    )
        return None

    def _remedy(self, text: str) -> str:
        if self.decimal == "." and re.fullmatch(r"[-+]?\d*,\d+(e[-+]?\d+)?%?", text.strip(), re.IGNORECASE):
            return "if commas are decimal separators, add --decimal ,"
        if self.percent or text.strip().endswith("%"):
            return "write a percent sign on all values of the column or on none"
        return "correct it, or list the columns of the classes with --logits-key a,b,c"

    def _records(self, with_header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Each row's first line, from 1, and its fields."""
        with _opened(self.path) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            pulled: list[int] = []

            def lines() -> Iterator[str]:
                for number, line in enumerate(text, 1):
                    if line.strip() and not line.lstrip().startswith("#"):
                        pulled.append(number)
                        yield line

            records = csv.reader(lines(), delimiter=self.delimiter)
            if self.headed and not with_header:
                next(records, None)
                pulled.clear()
            for fields in records:
                yield pulled[0], fields
                pulled.clear()


def open_text(path: Path, role: str, decimal: str) -> TextTable:
    """Read the first lines of a text table.

    Raises:
        FileError: if the file is empty, or not text in UTF-8.
    """
    comments: list[bytes] = []
    try:
        with _opened(path) as file:
            lines = [_first_line(file, comments).decode("utf-8-sig").rstrip("\r\n")]
            last_comment = b"".join(comments[-1:]).decode("utf-8-sig").strip()
            lines += [_first_line(file).decode("utf-8").rstrip("\r\n") for _ in range(_HEAD_ROWS)]
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise FileError(
            f"{role} in {path} cannot be read: it is not text in UTF-8 ({error}); save it as CSV in UTF-8."
        ) from error
    if not lines[0]:
        raise FileError(f"{path} is empty.")
    delimiter = _delimiter(path, lines[0], decimal)
    rows = [next(csv.reader([line], delimiter=delimiter), []) for line in lines if line]
    headed = any(_number(text.strip().removesuffix("%"), decimal) is None for text in rows[0])
    names = [name.strip() or f"Unnamed: {k}" for k, name in enumerate(rows[0])] if headed else []
    if not headed:
        names = [str(k) for k in range(len(rows[0]))]
        if len(names) == len(last_comment.split(delimiter)) > 1:
            raise FileError(
                f"{path} has no header but the comment {last_comment!r}; if those are the names of the columns, remove "
                "the # before them."
            )
    first = rows[1] if headed and len(rows) > 1 else rows[0]
    return TextTable(
        path,
        delimiter,
        decimal,
        tuple(names),
        headed,
        frozenset(
            name for row in rows[headed:] for name, text in zip(names, row, strict=False) if text.strip().endswith("%")
        ),
        tuple(
            name for name, text in zip(names, first, strict=False) if _number(text.removesuffix("%"), decimal) is None
        ),
    )


def check_new(path: Path, names: Sequence[str], new: Sequence[str]) -> None:
    """Raise if a table already has a column of a name to be added."""
    double = [name for name in new if name in names]
    if double:
        raise FileError(f"{path} has a column {double[0]!r} already; drop it, or calibrate the file without it.")


def write_text(table: TextTable, target: Path, names: Sequence[str], blocks: Iterable[np.ndarray]) -> None:
    """Write a table with additional columns: (rows, columns) of numbers, block by block.

    Raises:
        FileError: if the table has a column of that name.
    """
    check_new(table.path, table.names, names)
    numbers = (row for block in blocks for row in block.reshape(len(block), -1).tolist())
    compressed = target.suffix.lower() == ".gz"
    with (gzip.open if compressed else open)(target, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        if table.headed:
            writer.writerow(
                ["" if name == f"Unnamed: {k}" else name for k, name in enumerate(table.names)] + list(names)
            )
        for (_, fields), row in zip(table._records(), numbers, strict=True):
            writer.writerow(fields + [repr(number).replace(".", table.decimal) for number in row])


def _delimiter(path: Path, header: str, decimal: str) -> str:
    """The delimiter: tabs in .tsv files, semicolons if the header has any or commas are decimal separators."""
    if ".tsv" in path.suffixes or "\t" in header:
        return "\t"
    return ";" if ";" in header or (decimal == "," and "," not in header) else ","


def _number(text: str, decimal: str) -> float | None:
    try:
        return float(text.strip().replace(decimal, "."))
    except ValueError:
        return None


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _first_line(file: Iterable[bytes], comments: list[bytes] | None = None) -> bytes:
    """The next line that is neither blank nor a comment; comments before it are added to the list."""
    for line in file:
        content = line.removeprefix(b"\xef\xbb\xbf").strip()
        if content.startswith(b"#"):
            if comments is not None:
                comments.append(content)
        elif content:
            return line
    return b""


class _Uncommented(io.RawIOBase):
    """A binary file without the lines that begin with ``#``."""

    def __init__(self, file: Any):
        self._file, self._rest = file, b""

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        """The next bytes; empty at the end."""
        while not self._rest.strip(b"\xef\xbb\xbf \t\r\n"):
            chunk = self._file.read(2**20)
            if not chunk:
                return b""
            chunk += self._file.readline()
            self._rest = _COMMENT.sub(b"", chunk) if b"#" in chunk else chunk
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        return self._rest

    def readinto(self, buffer: Any) -> int:
        content = self.peek()[: len(buffer)]
        self._rest = self._rest[len(content) :]
        buffer[: len(content)] = content
        return len(content)
