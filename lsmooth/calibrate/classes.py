"""The names of the classes, and the ids of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from lsmooth.calibrate.columns import class_names, common_affixes, quoted
from lsmooth.calibrate.files import StoredArray
from lsmooth.calibrate.text import FileError

_MOST_VALUES = 100_000
"""The most distinct labels that can be names of classes."""
_BLOCK = 2**21
_FALSE, _TRUE = ("False", "false", "FALSE"), ("True", "true", "TRUE")
UNKNOWN = -(2**62)
"""The id of a label that is not a class."""


class Naming(NamedTuple):
    """The names of the classes, and the id of each label.

    Attributes:
        names: one for each class, or for each label if a row has several; empty if unknown.
        lookup: the id of each label's text; None if labels are ids.
        ignored: the label whose rows are left out, as text.
    """

    names: tuple[str, ...] = ()
    lookup: dict[str, int] | None = None
    ignored: str | None = None

    def ignoring(self, label: str | None) -> Self:
        """A copy with a label whose rows are left out; its id is -1 if labels are texts."""
        named = self.lookup is not None and label is not None
        return self._replace(lookup={**self.lookup, label: -1} if named else self.lookup, ignored=label)  # type: ignore[dict-item]

    def ids(self, labels: np.ndarray, values: tuple[str, ...] | None) -> np.ndarray:
        """Class ids of labels, which are indices into ``values`` unless that is None; `UNKNOWN` for other labels."""
        if values is None and self.lookup is None:
            return labels
        if values is None:
            found, codes = np.unique(labels, return_inverse=True)
            values, labels = tuple(map(text_of, found.tolist())), codes.reshape(labels.shape)
        index = self.lookup or {}
        return np.array([index.get(text, UNKNOWN) for text in values], np.int64)[labels]


def text_of(value: object) -> str:
    """A label as text; 2.0 becomes ``2``."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def distinct(labels: StoredArray) -> list[str]:
    """The texts of all labels, sorted; none if there are too many for classes."""
    if labels.values is not None:
        return sorted(labels.values)
    found = np.empty(0, labels.read(0, 0).dtype)
    step = max(1, _BLOCK // max(1, int(np.prod(labels.shape[1:]))))
    for start in range(0, labels.shape[0], step):
        found = np.union1d(found, _values(labels.read(start, min(start + step, labels.shape[0]))))
        if len(found) > _MOST_VALUES:
            return []
    return [text_of(value) for value in found.tolist()]


def _values(block: np.ndarray) -> np.ndarray:
    """The distinct values of a block; integers in a small range are counted, which is faster than sorting."""
    if block.dtype.kind in "iu" and block.size:
        low, high = int(block.min()), int(block.max())
        if high - low < 2**16:
            return (np.flatnonzero(np.bincount((block.astype(np.int64) - low).reshape(-1))) + low).astype(block.dtype)
    return np.unique(block)


def name_classes(
    z: StoredArray,
    y: StoredArray,
    values: Sequence[str],
    axis: int,
    binary: bool,
    classes: tuple[str, ...],
    positive_label: str | None,
) -> Naming:
    """The classes of predictions whose labels have these values.

    Raises:
        FileError: if the class of a label is unknown.
    """
    rank = len(z.shape)
    several = binary and rank > 1
    count = z.shape[-1] if several else 2 if binary else z.shape[axis]
    values = [text for text in values if text]
    if classes and len(classes) != count:
        what = "labels" if several else "classes"
        raise FileError(f"--classes must name the {count} {what} of {z.name}; got {len(classes)}.")
    if len(set(classes)) < len(classes):
        raise FileError(f"--classes must name each class once, got {','.join(classes)}.")
    if several:
        return Naming(classes or (class_names(z.columns) if z.columns else ()))
    columns = z.columns[: count * (len(z.columns) == count)]
    found = common_affixes(columns, values) if columns else None
    if found is not None:
        before, after = found
        columns = tuple(name[len(before) : len(name) - len(after)] for name in columns)
    else:
        columns = class_names(columns) if columns else columns
    if positive_label is not None:
        if count != 2:
            raise FileError(f"--positive-label is for one probability a row, got {z.name} of shape {z.shape}.")
        if found is not None and columns[1] != positive_label:
            raise FileError(
                f"--positive-label {positive_label} must be the second of the columns {', '.join(z.columns)}; give "
                f"them in the other order, --logits-key {','.join(reversed(z.columns))}."
            )
        return _positive(y, values, positive_label)
    if classes:
        if set(columns) == set(classes) and columns != classes:
            raise FileError(
                f"--classes {','.join(classes)} must be in the order of the columns, {','.join(z.columns)}."
            )
        return _of_names(y, values, classes, count)
    if found is not None:
        return _of_named_columns(z, y, values, columns)
    if set(values) <= set(map(str, range(count))):
        return Naming(() if all(name.isdigit() for name in columns) else columns, _ids(count) if y.values else None)
    if count == 2 and set(values) <= {*_FALSE, *_TRUE}:
        return Naming(("False", "True"), {**dict.fromkeys(_FALSE, 0), **dict.fromkeys(_TRUE, 1)})
    if binary:
        return _of_one_column(z, y, values)
    if y.values is None and len(values) != count:
        return Naming()  # `check` reports labels that are not ids, with their rows
    named = f" and the columns {quoted(columns)}" if columns else ""
    raise FileError(
        f"{y.name} are {quoted(values)}{named}: add --classes {','.join(values[:20])} with the names in the order of "
        f"the {count} {'columns' if z.columns else 'classes'} of {z.name}."
    )


def _of_named_columns(z: StoredArray, y: StoredArray, values: Sequence[str], names: tuple[str, ...]) -> Naming:
    """The classes that columns are named after, unless the labels may also be ids."""
    ids = _ids(len(names))
    index = {name: k for k, name in enumerate(names)}
    if index == ids:
        return Naming((), ids if y.values else None)
    if values and all(text in ids for text in values):
        raise FileError(
            f"{y.name} are {quoted(values)}, which may be the names of the columns {', '.join(z.columns)} or "
            f"counted from 0; choose with --classes {','.join(names)} or --classes {','.join(ids)}."
        )
    return Naming(names, index)


def _of_one_column(z: StoredArray, y: StoredArray, values: Sequence[str]) -> Naming:
    """The two classes of a column that is named after one of them, such as ``p_spam``."""
    column = z.columns[0] if z.columns else ""
    named = [text for text in values if re.fullmatch(rf"(.*[^0-9A-Za-z])?{re.escape(text)}", column)]
    if len(named) == 1 and not named[0].lstrip("-").isdigit():
        return _positive(y, values, named[0])
    what = f"column {column}" if column else "number of each row"
    raise FileError(
        f"{y.name} are {quoted(values)}; name the label whose probability or logit the {what} is, e.g. "
        f"--positive-label {values[-1] if values else 1}."
    )


def _positive(y: StoredArray, values: Sequence[str], positive_label: str) -> Naming:
    if positive_label not in values:
        raise FileError(f"--positive-label must be one of the labels, {quoted(values)}; got {positive_label!r}.")
    others = [text for text in values if text != positive_label]
    negative = others[0] if len(others) == 1 else f"not {positive_label}"
    return Naming((negative, positive_label), {text: int(text == positive_label) for text in values})


def _of_names(y: StoredArray, values: Sequence[str], classes: tuple[str, ...], count: int) -> Naming:
    """The names that the user gave, for labels that are names or ids."""
    unknown = [text for text in values if text not in classes]
    if unknown and set(values) <= set(_ids(count)):
        return Naming(classes, _ids(count) if y.values else None)
    if unknown:
        raise FileError(
            f"{y.name} are {quoted(values)}, and --classes {','.join(classes)} lacks {quoted(unknown)}; correct it, or "
            "leave such rows out with --ignore-index."
        )
    return Naming(classes, {name: k for k, name in enumerate(classes)})


def _ids(count: int) -> dict[str, int]:
    return {str(k): k for k in range(count)}


def shortened(names: Sequence[str], most: int = 20) -> str:
    """Names between commas, with a gap before the last if there are many."""
    shown = names if len(names) <= most else (*names[: most - 1], "...", names[-1])
    return ", ".join(shown)
