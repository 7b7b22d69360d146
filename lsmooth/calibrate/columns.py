"""The columns of a table, chosen by their names, and streams of rows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lsmooth.calibrate.text import FileError

SYNONYMS = {
    "labels": ("labels", "label", "y", "y_true", "true_label", "target", "targets", "truth", "class", "obs"),
    "logits": ("logits", "logit", "probabilities", "probs", "proba", "y_prob", "y_score"),
}
"""The names of arrays and columns that are used if the user gives none."""
LABELS = SYNONYMS["labels"]
_BOOKKEEPING = re.compile(r"(.*_)?(id|idx|index|row|fold|split|group|weight|weights|seed|epoch)", re.IGNORECASE)


class Wanted(NamedTuple):
    """The array or the columns to read from a file."""

    role: str
    """``"logits"``, ``"labels"``, ``"weights"`` or ``"group"``."""
    key: str | None = None
    """The name that the user gave."""
    taken: frozenset[str] = frozenset()
    """Columns with other contents."""
    classes: tuple[str, ...] = ()
    """The classes that the user named, or the names among the labels."""
    all_classes: bool = False
    """Whether these are all classes, in order."""
    decimal: str = "."
    alone: bool = False
    """Whether the file contains nothing else."""

    @property
    def option(self) -> str:
        """The option for the name."""
        return f"--{self.role}-key"

    @property
    def coded(self) -> bool:
        """Whether texts are read as indices into a list of the texts."""
        return self.role in ("labels", "group")


class Stream(NamedTuple):
    """Rows that can be read once, in slabs of any length."""

    row_shape: tuple[int, ...]
    dtype: np.dtype
    length: int
    """The number of rows, or 0 if it is unknown."""
    slabs: Iterator[np.ndarray]
    columns: tuple[str, ...] = ()
    values: list[str] | None = None
    """The texts that rows are indices of, if they are; the list grows as slabs are read."""
    place: Callable[[int], str] | None = None
    """The name of a row in messages."""


class Encoder:
    """Converts texts to indices into a list, which new texts are added to; a missing text is ``""``."""

    def __init__(self, values: list[str]):
        self._values = values
        self._index: dict[str, int] = {}

    def __call__(self, column: Any) -> np.ndarray:
        """The indices of a column of texts."""
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        encoded = column.cast(pa.string()).fill_null("").dictionary_encode()
        for text in map(str.strip, encoded.dictionary.to_pylist()):
            if text not in self._index:
                self._index[text] = len(self._values)
                self._values.append(text)
        positions = [self._index[text.strip()] for text in encoded.dictionary.to_pylist()]
        return np.array(positions, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]


def find_columns(
    path: Path, wanted: Wanted, names: Sequence[str], nested: set[str], texts: Sequence[str]
) -> tuple[str, ...]:
    """The columns to read."""
    names = [name for name in names if not name.startswith(("Unnamed:", "__index_level_")) or name == wanted.key]
    listed = quoted(names)
    if len(set(names)) < len(names):
        raise FileError(f"{path} has two columns of the same name among {listed}; rename one.")
    key = wanted.key
    if key is not None and key in names:
        return (key,)
    if wanted.role == "logits":
        return _logit_columns(path, wanted, names, nested, listed)
    if key is not None:
        if wanted.role == "labels" and ("," in key or any(mark in key for mark in "*?[")):
            return _matching(path, wanted, names, listed)
        raise FileError(f"{path} has no column {key!r}, but {listed}; correct {wanted.option}.")
    if len(names) == 1:
        return (names[0],)
    found = named_like(names, wanted.role)
    if len(found) != 1:
        several = f"several columns that may hold the labels, {quoted(found)}," if found else "no column 'labels'"
        likely = [name for name in texts if name in names and not _BOOKKEEPING.fullmatch(name)]
        example = f" {(found or likely)[0]}" if found or likely else ""
        order = " Predictions come first: lsmooth calibrate PREDICTIONS LABELS." if wanted.alone and not example else ""
        raise FileError(f"{path} has {several} but {listed}; name the labels' with --labels-key{example}.{order}")
    return (found[0],)


def named_like(names: Sequence[str], role: str) -> list[str]:
    """The usual names of such an array; only the documented name, if it is present."""
    known = SYNONYMS[role]
    if known[0] in names:
        return [known[0]]
    return [name for name in names if name.lower() in known]


def _logit_columns(path: Path, wanted: Wanted, names: Sequence[str], nested: set[str], listed: str) -> tuple[str, ...]:
    if wanted.key is not None:
        return _matching(path, wanted, names, listed)
    others = [name for name in names if name not in wanted.taken]
    lists = [name for name in named_like(others, "logits") if name in nested]
    if lists:
        return (lists[0],)
    chosen = _columns_of_classes(path, wanted, others) if wanted.classes else ()
    if chosen:
        return chosen
    chosen = [name for name in others if name.startswith("logits")] or others
    if not chosen:
        raise FileError(
            f"{path} must have a column of logits for each class, or one of P(class 1), beside {listed}; name them "
            "with --logits-key."
        )
    if len(chosen) > 1 and _numbers(chosen) is None and not _are_alike(chosen, ""):
        raise FileError(
            f"{path} has columns that are not named alike, {quoted(chosen)}, so the columns of the classes are "
            f"unknown; {_advice(chosen)}."
        )
    return _ordered(chosen)


def _advice(names: Sequence[str]) -> str:
    """Advice on naming the columns, with the likely ones."""
    likely = [name for name in names if not _BOOKKEEPING.fullmatch(name)] or list(names)
    if len(likely) == 1:
        return f"if {likely[0]} holds the probability or the logit of the positive class, add --logits-key {likely[0]}"
    columns = shlex.quote(",".join(likely[:20]))
    return f"list the classes' columns in order, --logits-key {columns}, or give a pattern, --logits-key 'p_*'"


def _matching(path: Path, wanted: Wanted, names: Sequence[str], listed: str) -> tuple[str, ...]:
    """The columns of a key: a list of names, a pattern or a prefix."""
    key, option = wanted.key or "", wanted.option
    if "," in key:
        chosen = [name.strip() for name in key.split(",") if name.strip()]
        absent = [name for name in chosen if name not in names]
        if absent:
            raise FileError(f"{path} has no column {absent[0]!r}, but {listed}; correct {option}.")
        if len(set(chosen)) < max(2, len(chosen)):
            raise FileError(f"{option} must list two columns or more, each once; got {key!r}.")
        return tuple(chosen)
    others = [name for name in names if name not in wanted.taken]
    pattern = any(mark in key for mark in "*?[")
    chosen = [name for name in others if (fnmatchcase(name, key) if pattern else name.startswith(key))]
    if not chosen:
        how = "matches" if pattern else "begins with"
        raise FileError(f"{path} has no column whose name {how} {key!r}, but {listed}; correct {option}.")
    if not pattern and _numbers(chosen) is None and not _are_alike(chosen, key):
        raise FileError(
            f"{path} has columns that are not named alike, {quoted(chosen)}, so the columns of the classes are "
            f"unknown; {_advice(chosen)}."
        )
    return _ordered(chosen)


def _ordered(chosen: Sequence[str]) -> tuple[str, ...]:
    """Columns in the order of the numbers in their names, if they have numbers."""
    numbers = _numbers(chosen)
    return tuple(chosen if numbers is None else [name for _, name in sorted(zip(numbers, chosen, strict=True))])


def common_affixes(columns: Sequence[str], classes: Sequence[str]) -> tuple[str, str] | None:
    """The prefix and the suffix of the class in the columns' names; None if they are not named after classes."""
    if not classes:
        return None
    first = classes[0]
    found = [("", "")]
    found += [(name[: -len(first)], "") for name in columns if name.endswith(first)]
    found += [("", name[len(first) :]) for name in columns if name.startswith(first)]
    for before, after in found:
        if {f"{before}{one}{after}" for one in classes} <= set(columns):
            return before, after
    return None


def _columns_of_classes(path: Path, wanted: Wanted, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that are named after the classes.

    Raises:
        FileError: if another column may be that of a class without rows.
    """
    found = common_affixes(names, wanted.classes)
    if found is None:
        return ()
    before, after = found
    chosen = tuple(f"{before}{one}{after}" for one in wanted.classes)
    if wanted.all_classes:
        return chosen
    alike = [name for name in names if name.startswith(before) and name.endswith(after)]
    rest = [name for name in alike if name not in chosen and not _BOOKKEEPING.fullmatch(name)]
    if before or after:
        return _ordered([name for name in alike if name in chosen or name in rest])
    if rest:
        likely = shlex.quote(",".join(name for name in names if name in chosen or name in rest))
        raise FileError(
            f"{path} has columns without a label of their name, {quoted(rest)}, which may be classes without rows; "
            f"list the classes' columns in order, --logits-key {likely}."
        )
    return tuple(name for name in names if name in chosen)


def class_names(columns: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns without their common prefix and suffix."""
    numbers = _numbers(columns)
    if numbers is not None:
        return tuple(map(str, numbers))
    if len(columns) < 2:
        return tuple(columns)
    before = re.match(r"(.*[^0-9A-Za-z])?", _common_prefix(columns))
    after = re.match(r"(.*[^0-9A-Za-z])?", _common_prefix([name[::-1] for name in columns]))
    lengths = [len(match[0]) if match else 0 for match in (before, after)]
    names = tuple(name[lengths[0] : len(name) - lengths[1]] for name in columns)
    return names if all(names) else tuple(columns)


def _numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers in names that differ only in one number, such as ``p0`` and ``p1``."""
    parts = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", name) for name in names]
    if not all(parts):
        return None
    numbers = [int(part[2]) for part in parts if part]
    same = len({(part[1], part[3]) for part in parts if part}) == 1
    return numbers if same and len(set(numbers)) == len(numbers) else None


def _are_alike(names: Sequence[str], prefix: str) -> bool:
    """Whether names without such numbers are of one kind: ``p_cat`` and ``p_dog``, or ``a`` and ``b``.

    They have a common prefix that was given or ends in a separator, and no rest is a number.
    """
    if all(len(name) == 1 and name.isalpha() for name in names):
        return True
    common = prefix or _common_prefix(names)
    rests = [name.removeprefix(common) for name in names]
    separated = bool(prefix) or bool(common and not common[-1].isalnum())
    return separated and not any(rest.strip("_-. ").isdigit() for rest in rests)


def _common_prefix(names: Sequence[str]) -> str:
    """The common prefix of names."""
    first, last = min(names), max(names)
    return next((first[:k] for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), first)


def quoted(names: Sequence[str]) -> str:
    """Quoted names between commas, at most twelve."""
    return ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")


def row_shape(wanted: Wanted, columns: Sequence[str]) -> tuple[int, ...]:
    """The shape of a row of these columns."""
    return () if len(columns) == 1 and wanted.role != "logits" else (len(columns),)


def shaped(rows: np.ndarray, wanted: Wanted, columns: Sequence[str]) -> np.ndarray:
    """Rows of shape (rows, columns) in the shape of `row_shape`."""
    return rows.reshape(len(rows), *row_shape(wanted, columns))
