"""Logits and labels of the same rows: their shapes, their split, and blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsmooth.calibrate.classes import Naming, distinct, name_classes, text_of
from lsmooth.calibrate.columns import Wanted
from lsmooth.calibrate.files import Progress, StoredArray, is_stored_alone
from lsmooth.calibrate.parts import check_pairs, open_arrays
from lsmooth.calibrate.text import FileError

BLOCK_ELEMENTS = 2**21
"""The logits of a block, 8 MiB in float32. Rows are split within blocks, so the split depends on it."""
FLOATS = ("float64", "float32", "bfloat16", "float16")


class Block(NamedTuple):
    """Rows of the files; labels are class ids, and binary logits have two classes."""

    start: int
    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    """(rows, 1, ...), of the labels' rank; None: all 1."""
    groups: np.ndarray | None = None
    """(rows,) indices into the groups' names."""


@dataclass(frozen=True)
class Data:
    """Logits and labels of the same rows, in files.

    Attributes:
        logits: rows first, classes along ``axis``; if ``binary``, a number for each label.
        labels: the logits' shape without ``axis``; if ``binary``, the logits' shape.
        axis: the class axis, counted from the front, above 0; if ``binary``, the last one, of the blocks' two
            classes.
        ignore_index: rows with this label do not count.
        from_logits: False for probabilities.
        binary: whether every element is the logit or the probability of a label of its own.
        naming: the names of the classes and the ids of the labels.
        weights: the rows' weights, or None.
        groups: the rows' groups, which are never split, or None.
        group_names: the names of the groups.
    """

    logits: StoredArray
    labels: StoredArray
    axis: int
    ignore_index: int | None
    from_logits: bool
    binary: bool = False
    naming: Naming = field(default_factory=Naming)
    weights: StoredArray | None = None
    groups: StoredArray | None = None
    group_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the logits of all blocks."""
        return (*self.logits.shape, 2) if self.binary else self.logits.shape

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.shape[self.axis]

    @property
    def questions(self) -> int:
        """The number of binary labels in a row; 0 if it has classes."""
        return math.prod(self.logits.shape[1:]) if self.binary else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, or of the labels if a row has several."""
        count = self.questions if self.questions > 1 else self.classes
        return self.naming.names or tuple(map(str, range(count)))

    @property
    def name(self) -> str:
        """The name of the values in messages."""
        return "logits" if self.from_logits else "probabilities"

    def __len__(self) -> int:
        return self.logits.shape[0]

    def blocks(self) -> Iterator[Block]:
        """All rows in order."""
        return (self.rows(*span) for span in self.spans())

    def spans(self) -> Iterator[tuple[int, int]]:
        """The start and the end of each block."""
        step = max(1, BLOCK_ELEMENTS // max(1, math.prod(self.shape[1:])))
        return ((start, min(start + step, len(self))) for start in range(0, len(self), step))

    def rows(self, start: int, stop: int) -> Block:
        """Some rows; logits of float32 or float64, labels of int64."""
        logits, labels = self.logits.read(start, stop), self.labels.read(start, stop)
        logits = logits.astype(np.float32) if logits.dtype == np.float16 else logits
        labels = self.naming.ids(labels, self.labels.values)
        if self.binary:
            logits = np.stack([np.zeros_like(logits) if self.from_logits else 1 - logits, logits], -1)
        weights = groups = None
        if self.weights is not None:
            weights = self.weights.read(start, stop).astype(np.float64)
            weights = weights.reshape(len(weights), *(1,) * (labels.ndim - 1))
        if self.groups is not None:
            groups = self._group_ids.ids(self.groups.read(start, stop), self.groups.values)
        return Block(start, logits, labels.astype(np.int64), weights, groups)

    @property
    def _group_ids(self) -> Naming:
        return Naming(self.group_names, {name: k for k, name in enumerate(self.group_names)})

    def label_text(self, row: int, inner: tuple[int, ...]) -> str:
        """A label in the form of the file."""
        stored = self.labels.read(row, row + 1)[(0, *inner)]
        text = text_of(stored.item()) if self.labels.values is None else self.labels.values[stored]
        return repr(text) if text else "no label"

    def place(self, start: int, where: tuple[int, ...]) -> str:
        """The name of a position in messages."""
        row = self.logits.place(start + int(where[0]))
        if self.questions > 1 and self.logits.columns:
            return f"{row}, column {self.logits.columns[where[1]]!r}"
        inner = ", ".join(str(int(i)) for i in where[1:])
        return f"{row}, position ({inner})" if inner else row


def open_data(
    logits: Path | Sequence[Path],
    labels: Path | Sequence[Path] | None,
    scratch: Path,
    progress: Progress,
    *,
    logits_key: str | None = None,
    labels_key: str | None = None,
    weights_key: str | None = None,
    group_key: str | None = None,
    axis: int | None = None,
    ignore_index: int | str | None = None,
    from_logits: bool = True,
    binary: bool = False,
    classes: tuple[str, ...] = (),
    positive_label: str | None = None,
    decimal: str = ".",
    like: Data | None = None,
    n_jobs: int = 1,
) -> Data:
    """Open the arrays and check their shapes and dtypes; `check` checks the values.

    Args:
        logits: the file of logits, or several files, whose rows are concatenated.
        labels: the file or files of labels; None for those of the logits.
        scratch: an empty folder for unpacked files.
        progress: called with the progress of unpacking.
        logits_key: the name of the array or the columns of logits.
        labels_key: the name of the labels.
        weights_key: the name of the weights, in the file of the labels or of the logits.
        group_key: the name of the groups, in the same files.
        axis: the class axis; None for the last, or the only one that fits the labels.
        ignore_index: rows with this label do not count.
        from_logits: False for probabilities.
        binary: every element is the logit or the probability of a label of its own.
        classes: the names of the classes, in order.
        positive_label: the label of class 1.
        decimal: the decimal separator of text tables.
        like: other data with the same classes.
        n_jobs: the number of processes that unpack files.

    Raises:
        FileError: if a file does not contain such an array, or logits and labels do not fit.
        ImportError: if a package for a format is missing.
    """
    logits = [logits] if isinstance(logits, Path) else logits
    labels = [labels] if isinstance(labels, Path) else labels
    if labels is None and is_stored_alone(logits[0]):
        after = "after it" if len(logits) == 1 else "with --labels, in the same order"
        raise FileError(f"{logits[0]} holds one array; give the labels' file {after}.")
    wanted = Wanted("labels", labels_key, decimal=decimal, alone=labels is not None)
    y = open_arrays(labels or logits, wanted, scratch, progress, n_jobs)
    ignored = None if ignore_index is None else str(ignore_index)
    values = [text for text in distinct(y) if text != ignored]
    wanted = Wanted(
        "logits",
        logits_key,
        taken=frozenset((*(y.columns if labels is None else ("labels",)), weights_key or "", group_key or "")),
        classes=classes or (() if y.values is None else tuple(filter(None, values))),
        all_classes=bool(classes),
        decimal=decimal,
    )
    try:
        z = open_arrays(logits, wanted, scratch, progress, n_jobs)
    except FileError as error:
        raise _swapped(logits[0], y) if labels is not None and not _is_whole(y) else error from error
    check_pairs(z, y)
    z, y, axis, binary = _check_shapes(z, y, axis, binary)
    _check_dtypes(z, y)
    naming = like.naming if like else name_classes(z, y, values, axis, binary, classes, positive_label)
    naming = naming.ignoring(ignored)
    if ignored is not None and naming.lookup is None and not ignored.removeprefix("-").isdigit():
        raise FileError(f"--ignore-index must be a label of {y.path}, and those are integers; got {ignored}.")
    index = None if ignored is None else -1 if naming.lookup is not None else int(ignored)
    found = Data(z, y, axis, index, from_logits, binary, naming)
    sources = (logits,) if labels is None else (labels, logits)
    if weights_key is not None:
        weights = _of_rows(
            sources, Wanted("weights", weights_key, decimal=decimal), scratch, progress, n_jobs, len(found)
        )
        found = replace(found, weights=_checked_weights(weights))
    if group_key is not None:
        wanted = Wanted("group", group_key, decimal=decimal)
        groups = _of_rows(sources, wanted, scratch, progress, n_jobs, len(found))
        names = tuple(distinct(groups))
        if len(names) < 2:
            raise FileError(f"{groups.name} must name at least two groups, of at most 100,000; got {len(names)}.")
        found = replace(found, groups=groups, group_names=names)
    return found


def _of_rows(
    sources: Sequence[Sequence[Path]], wanted: Wanted, scratch: Path, progress: Progress, n_jobs: int, rows: int
) -> StoredArray:
    """An array with one value for each row, from the first file that contains it."""
    kept = [paths for paths in sources if not is_stored_alone(paths[0])]
    if not kept:
        raise FileError(
            f"{wanted.option} {wanted.key} names an array or a column beside the labels or the logits, and "
            f"{sources[0][0]} holds one array alone; save them together as .npz."
        )
    try:
        array = open_arrays(kept[0], wanted, scratch, progress, n_jobs)
    except FileError:
        if len(kept) == 1:
            raise
        array = open_arrays(kept[1], wanted, scratch, progress, n_jobs)
    name = f"{wanted.option} {wanted.key} of {array.source if array.parts else array.path}"
    array = replace(_flat(array), name=name) if len(array.shape) < 3 else array
    if array.shape != (rows,):
        raise FileError(f"{array.name} must have one value for each of {rows} rows; got shape {array.shape}.")
    return array


def _checked_weights(weights: StoredArray) -> StoredArray:
    """Check that weights are finite numbers of at least 0, and not all 0."""
    if weights.dtype not in FLOATS and not weights.dtype.startswith(("int", "uint", "bool")):
        raise FileError(f"{weights.name} must be numbers, got {weights.dtype}.")
    total = 0.0
    for start in range(0, weights.shape[0], BLOCK_ELEMENTS):
        block = weights.read(start, min(start + BLOCK_ELEMENTS, weights.shape[0])).astype(np.float64)
        bad = np.flatnonzero(~(block >= 0) | np.isinf(block))
        if len(bad):
            raise FileError(
                f"{weights.name} must be finite numbers of at least 0, got {block[bad[0]]:g} in "
                f"{weights.place(start + int(bad[0]))}; correct it, or give that row the weight 0."
            )
        total += float(block.sum())
    if not total:
        raise FileError(f"{weights.name} are all 0: there is nothing to fit.")
    return weights


def _check_shapes(
    z: StoredArray, y: StoredArray, axis: int | None, binary: bool
) -> tuple[StoredArray, StoredArray, int, bool]:
    """Both arrays with checked shapes, the class axis from the front, and whether the data are binary."""
    if z.dtype not in FLOATS and y.dtype in FLOATS and len(y.shape) >= len(z.shape):
        raise _swapped(z.path, y)
    if not math.prod(z.shape):
        raise FileError(f"{z.name} hold no rows: shape {z.shape}.")
    single = len(z.shape) == 1 or (len(z.shape) == 2 and z.shape[1] == 1)
    if single and len(y.shape) <= 2 and math.prod(y.shape[1:]) == 1:
        z, y, binary = _flat(z), _flat(y), True
    if binary and z.shape != (*y.shape, 2):
        if z.shape != y.shape:
            raise FileError(
                f"{y.name} must have the shape of the predictions, {z.shape}, where --binary says that every one has a "
                f"label of its own; got {y.shape}. Without --binary, columns are classes."
            )
        return z, y, len(z.shape), True
    if len(z.shape) < 2:
        raise FileError(f"{z.name} must have shape (rows, classes), or (rows,) as the labels; got {z.shape}.")
    axis = _class_axis(z.shape, y.shape, axis)
    if z.shape[axis] < 2:
        raise FileError(
            f"{z.name} must have at least two classes, got shape {z.shape} with --axis {axis}; where every number has "
            "a label of its own, add --binary and give labels of the same shape."
        )
    rows = z.shape[:axis] + z.shape[axis + 1 :]
    if y.shape != rows:
        raise FileError(
            f"{y.name} must have shape {rows}, one for each row of logits {z.shape}; got {y.shape}.{_shape_hint(z, y)}"
        )
    return z, y, axis, False


def _class_axis(shape: tuple[int, ...], labels: tuple[int, ...], axis: int | None) -> int:
    """The class axis from the front; if None, the only axis that the labels' shape leaves, or the last."""
    if axis is None:
        fitting = [k for k in range(1, len(shape)) if shape[:k] + shape[k + 1 :] == labels]
        return fitting[0] if len(fitting) == 1 else len(shape) - 1
    if not -len(shape) < axis < len(shape) or axis % len(shape) == 0:
        raise FileError(
            f"--axis must be the class axis, 1 to {len(shape) - 1} or negative, of logits of shape {shape}, whose "
            f"first axis is the rows; got {axis}."
        )
    return axis % len(shape)


def _shape_hint(z: StoredArray, y: StoredArray) -> str:
    if y.shape == z.shape:
        return " Of distributions take the argmax; where each column is a yes-or-no question, add --binary."
    if y.columns and len(y.shape) == 1 and y.shape[0] == z.shape[0] - 1:
        return f" If {y.columns[0]!r}, the first line of {y.path}, is a label, write a header above it."
    return ""


def _swapped(first: Path, y: StoredArray) -> FileError:
    return FileError(
        f"{y.path} holds {y.dtype} numbers, as if labels and predictions were swapped; predictions come first: "
        f"lsmooth calibrate {y.path} {first}."
    )


def _is_whole(array: StoredArray) -> bool:
    """Whether the first rows are whole numbers."""
    rows = array.read(0, min(array.shape[0], 1000))
    return bool((rows == np.round(rows)).all())


def _flat(array: StoredArray) -> StoredArray:
    """(rows, 1) as (rows,)."""
    if len(array.shape) == 1 or array.shape[1] != 1:
        return array
    return replace(array, shape=array.shape[:1], _read=partial(_read_flat, array))


def _read_flat(array: StoredArray, start: int, stop: int) -> np.ndarray:
    return array.read(start, stop).reshape(-1)


def _check_dtypes(z: StoredArray, y: StoredArray) -> None:
    if z.dtype not in FLOATS:
        raise FileError(f"{z.name} must be floating point, got {z.dtype}; save them as float32.")
    if y.values is not None:
        return
    if y.dtype in FLOATS:
        _check_whole(y, z)
    elif not y.dtype.startswith(("int", "uint", "bool")):
        raise FileError(f"{y.name} must be integers, got {y.dtype}; save class ids, e.g. with astype(numpy.int64).")


def fit_rows(seed: int, fraction: float, block: Block) -> np.ndarray:
    """Whether each row of a block is in the fit part: a random fraction of each class.

    Rows are sorted by class, in random order within a class, and every 1/fraction-th is taken from a random offset on;
    rows with several labels are only drawn at random.
    """
    rows = len(block.labels)
    rng = np.random.default_rng([seed, block.start])
    draw, offset = rng.random(rows), rng.random()
    order = np.lexsort((draw, block.labels)) if block.labels.ndim == 1 else np.argsort(draw)
    steps = np.floor(np.arange(rows + 1) * fraction + offset)
    chosen = np.empty(rows, bool)
    chosen[order] = np.diff(steps) > 0
    return chosen


def _check_whole(labels: StoredArray, predictions: StoredArray) -> None:
    """Check that labels stored as floats are whole numbers."""
    step = max(1, BLOCK_ELEMENTS // max(1, math.prod(labels.shape[1:])))
    for start in range(0, labels.shape[0], step):
        block = labels.read(start, min(start + step, labels.shape[0]))
        bad = ~np.isfinite(block) | (block != np.round(block))
        if bad.any():
            where = tuple(np.argwhere(bad)[0])
            if _is_whole(predictions):
                raise _swapped(predictions.path, labels)
            raise FileError(
                f"{labels.name} must be integers, got {block[where]:g} in {labels.place(start + int(where[0]))}; save "
                "class ids, or correct that row."
            )


def fit_groups(data: Data, seed: int, fraction: float) -> np.ndarray:
    """Whether each group is in the fit part: drawn at random up to about that fraction of the rows.

    Raises:
        FileError: if a part would be empty.
    """
    rows = np.zeros(len(data.group_names), np.int64)
    for block in data.blocks():
        rows += np.bincount(block.groups, minlength=len(rows))  # type: ignore[arg-type]
    order = np.random.default_rng([seed, 3]).permutation(len(rows))
    middle = np.cumsum(rows[order]) - 0.5 * rows[order]
    chosen = np.zeros(len(rows), bool)
    chosen[order] = middle < fraction * rows.sum()
    if chosen.all() or not chosen.any():
        raise FileError(
            f"The groups cannot be split at --fit-fraction {fraction:g}: the largest of {len(rows)} holds "
            f"{rows.max():,} of {rows.sum():,} rows; choose another, or give --eval-logits."
        )
    return chosen
