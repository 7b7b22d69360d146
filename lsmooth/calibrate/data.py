"""Logits and labels in step: checked row by row, split in two, and read in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsmooth._probabilities import ROUNDING, sums_to_one
from lsmooth.calibrate.files import Progress, StoredArray, open_array
from lsmooth.calibrate.tables import FileError

BLOCK_ELEMENTS = 2**21
"""Of the logits of a block: 8 MiB in float32. Rows are split within blocks, so the split depends on it."""
FLOATS = ("float64", "float32", "bfloat16", "float16")


class Block(NamedTuple):
    """Rows as they lie in the files."""

    start: int
    logits: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Data:
    """Logits and labels of the same rows, in files.

    Attributes:
        logits: rows first, classes along ``axis``.
        labels: class ids, the logits' shape without ``axis``.
        axis: the class axis, counted from the front, above 0.
        ignore_index: rows with this label have no part.
        from_logits: False where they are probabilities.
    """

    logits: StoredArray
    labels: StoredArray
    axis: int
    ignore_index: int | None
    from_logits: bool

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[self.axis]

    @property
    def name(self) -> str:
        """What the values are called in messages."""
        return "logits" if self.from_logits else "probabilities"

    def __len__(self) -> int:
        return self.logits.shape[0]

    def blocks(self) -> Iterator[Block]:
        """All rows in order; logits of float32 or float64, labels of int64."""
        per_row = max(1, math.prod(self.logits.shape[1:]))
        step = max(1, BLOCK_ELEMENTS // per_row)
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            logits, labels = self.logits.read(start, stop), self.labels.read(start, stop)
            logits = logits.astype(np.float32) if logits.dtype == np.float16 else logits
            yield Block(start, logits, labels.astype(np.int64))


@dataclass(frozen=True)
class Counts:
    """What the check has counted."""

    rows: int
    """Rows with a label: of dense data, positions."""
    ignored: int
    per_class: np.ndarray
    impossible: int = 0
    """Rows whose label has the probability 0."""
    first_impossible: str = ""
    """The first of them, in words."""


def open_data(
    logits: Path,
    labels: Path | None,
    scratch: Path,
    progress: Progress,
    *,
    logits_key: str | None = None,
    labels_key: str | None = None,
    axis: int = -1,
    ignore_index: int | None = None,
    from_logits: bool = True,
) -> Data:
    """Open both arrays and check that their shapes and dtypes fit; values are checked by `check`.

    Args:
        logits: the file of logits.
        labels: that of labels; None for the same one.
        scratch: an empty folder for what has to be unpacked.
        progress: told of the unpacking.
        logits_key: the array's name in the file, ``logits`` if None.
        labels_key: the labels', ``labels`` if None.
        axis: the class axis.
        ignore_index: rows with this label have no part.
        from_logits: False for probabilities.

    Raises:
        FileError: if a file does not hold such an array, or the two do not fit.
        ImportError: if a package is missing that reads one.
    """
    if labels is None and logits.suffix.lower() == ".npy":
        raise FileError(f"{logits} holds one array; give the labels' file after it.")
    other = labels_key or "labels"
    z = open_array(logits, "logits", logits_key or "logits", scratch, progress, other, logits_key is not None)
    y = open_array(labels or logits, "labels", other, scratch, progress, named=labels_key is not None)
    axis = _check_shapes(z, y, axis)
    if y.dtype in FLOATS:
        _check_whole(y)
    elif not y.dtype.startswith(("int", "uint", "bool")):
        raise FileError(f"{y.name} must be integers, got {y.dtype}; save class ids, e.g. with astype(numpy.int64).")
    return Data(z, y, axis, ignore_index, from_logits)


def _check_shapes(z: StoredArray, y: StoredArray, axis: int) -> int:
    """The class axis counted from the front, if logits and labels fit each other."""
    if z.dtype not in FLOATS:
        raise FileError(f"{z.name} must be floating point, got {z.dtype}; save them as float32.")
    if len(z.shape) < 2:
        raise FileError(
            f"{z.name} must have shape (rows, classes), got {z.shape}; of a yes-or-no model save two columns, "
            "e.g. numpy.stack([0 * z, z], axis=1)."
        )
    if not -len(z.shape) < axis < len(z.shape) or axis % len(z.shape) == 0:
        raise FileError(
            f"--axis must be the class axis, 1 to {len(z.shape) - 1} or negative, of logits of shape {z.shape}, whose "
            f"first axis is the rows; got {axis}."
        )
    axis %= len(z.shape)
    if z.shape[axis] < 2:
        raise FileError(
            f"{z.name} must have at least two classes, got shape {z.shape} with --axis {axis}; of a yes-or-no model "
            "save two columns, e.g. numpy.concatenate([0 * z, z], axis=1)."
        )
    if not math.prod(z.shape):
        raise FileError(f"{z.name} hold no rows: shape {z.shape}.")
    rows = z.shape[:axis] + z.shape[axis + 1 :]
    if y.shape != rows:
        hint = " Of distributions take the argmax." if y.shape == z.shape else ""
        raise FileError(f"{y.name} must have shape {rows}, one for each row of logits {z.shape}; got {y.shape}.{hint}")
    return axis


def check(data: Data, progress: Progress, stage: str = "checking") -> Counts:
    """Read every row once, and count the labels.

    Raises:
        FileError: at the first row that cannot be used, with its number and what to do.
    """
    per_class, ignored, rows, impossible, first = np.zeros(data.classes, np.int64), 0, 0, 0, ""
    with np.errstate(invalid="ignore", over="ignore"):
        for block in data.blocks():
            counted = _check_block(data, block)
            lost = counted & _impossible(data, block, counted)
            if lost.any() and not first:
                first = _row(block, tuple(np.argwhere(lost)[0]))
            impossible += int(lost.sum())
            labels = block.labels[counted]
            per_class += np.bincount(labels, minlength=data.classes)
            rows += labels.size
            ignored += counted.size - labels.size
            progress(stage, block.start + len(block.labels), len(data))
    if not rows:
        raise FileError(f"{data.labels.name} are all {data.ignore_index}, the --ignore-index: there is nothing to fit.")
    return Counts(rows, ignored, per_class, impossible, first)


def fit_rows(seed: int, fraction: float, block: Block) -> np.ndarray:
    """Which of a block's rows are fitted on: that fraction of each class, drawn at random.

    Rows are sorted by class, at random within one, and every 1/fraction-th is taken, from a random
    offset on; where a row has many labels, at random alone.
    """
    rows = len(block.labels)
    rng = np.random.default_rng([seed, block.start])
    draw, offset = rng.random(rows), rng.random()
    order = np.lexsort((draw, block.labels)) if block.labels.ndim == 1 else np.argsort(draw)
    steps = np.floor(np.arange(rows + 1) * fraction + offset)
    chosen = np.empty(rows, bool)
    chosen[order] = np.diff(steps) > 0
    return chosen


def _check_block(data: Data, block: Block) -> np.ndarray:
    """Which labels count."""
    z, y = block.logits, block.labels
    counted = np.ones(y.shape, bool) if data.ignore_index is None else y != data.ignore_index
    bad = counted & ((y < 0) | (y >= data.classes))
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        value = y[where]
        hint = " Are they counted from 1? Subtract 1." if value == data.classes else ""
        raise FileError(
            f"{data.labels.name} must be class ids in 0..{data.classes - 1}, got {value} in {_row(block, where)}.{hint}"
            f" Rows to leave out: --ignore-index {value}."
        )
    top = np.maximum.reduce(z, axis=data.axis)  # NaN where there is one
    bad = counted & ~np.isfinite(top)
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        kind = "NaN" if np.isnan(top[where]) else "an infinity" if top[where] > 0 else "no class that is not masked"
        raise FileError(
            f"{data.logits.name} have {kind} in {_row(block, where)}; look at what the model made of that row, and "
            "correct it, remove it, or give it the label of --ignore-index."
        )
    if not data.from_logits:
        _check_probabilities(data, block, counted)
    return counted


def _impossible(data: Data, block: Block, counted: np.ndarray) -> np.ndarray:
    """Whether the label of each row has the probability 0."""
    ids = np.expand_dims(np.where(counted, block.labels, 0), data.axis)
    picked = np.take_along_axis(block.logits, ids, data.axis).squeeze(data.axis)
    return picked == -np.inf if data.from_logits else picked <= 0


def _check_probabilities(data: Data, block: Block, counted: np.ndarray) -> None:
    p = np.moveaxis(block.logits, data.axis, -1)
    low, high = p.min(axis=-1), p.max(axis=-1)
    inside = (low >= -ROUNDING) & (high <= 1.0 + ROUNDING)
    bad = counted & ~(inside & sums_to_one(p))
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        outside = low[where] if low[where] < -ROUNDING else high[where]
        said = f"a sum of {p[where].sum(dtype=np.float64):g}" if inside[where] else f"a value of {outside:g}"
        raise FileError(
            f"{data.logits.name} are no probabilities: {_row(block, where)} has {said}; say --from-logits if they are "
            "logits."
        )


def _check_whole(labels: StoredArray) -> None:
    """Labels that are stored as floats must be whole numbers."""
    step = max(1, BLOCK_ELEMENTS // max(1, math.prod(labels.shape[1:])))
    for start in range(0, labels.shape[0], step):
        block = labels.read(start, min(start + step, labels.shape[0]))
        bad = ~np.isfinite(block) | (block != np.round(block))
        if bad.any():
            where = tuple(np.argwhere(bad)[0])
            raise FileError(
                f"{labels.name} must be integers, got {block[where]:g} in {_row(Block(start, block, block), where)}; "
                "save class ids."
            )


def _row(block: Block, where: tuple[int, ...]) -> str:
    """A position as a user would index it."""
    row = f"row {block.start + where[0]}"
    inner = ", ".join(str(i) for i in where[1:])
    return f"{row}, position ({inner})" if inner else row
