"""Checks of every row of logits and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lsmooth._probabilities import ROUNDING, sums_to_one
from lsmooth.calibrate.classes import UNKNOWN, shortened
from lsmooth.calibrate.data import Block, Data
from lsmooth.calibrate.passes import Passes, Sums
from lsmooth.calibrate.text import FileError


@dataclass(frozen=True)
class Counts:
    """The counts of the check."""

    rows: int
    """Rows, or positions of dense data, that count."""
    ignored: int
    per_class: np.ndarray
    impossible: int = 0
    """Rows whose label has the probability 0."""
    first_impossible: str = ""
    """The name of the first of them."""
    looks_like: str = ""
    """Advice if the numbers look like another kind than the user chose."""


def check(data: Data, passes: Passes, stage: str = "checking") -> Counts:
    """Read every row once, and count the labels.

    Raises:
        FileError: at the first wrong row, with its number and the remedy.
    """
    found = passes.total(stage, data, _counts)
    rows, ignored, impossible = (int(found.added[name]) for name in ("rows", "ignored", "impossible"))
    if not rows:
        label = data.naming.ignored
        raise FileError(f"{data.labels.name} are all {label}, the --ignore-index: there is nothing to fit.")
    first = str(found.concatenated("first")[0]) if impossible else ""
    kinds = {kind for kind in possible_kinds(data) if not found.added[f"no {kind}"]}
    return Counts(rows, ignored, np.asarray(found.added["per_class"]), impossible, first, looks_like(data, kinds))


def _counts(data: Data, block: Block) -> Sums:
    kinds = possible_kinds(data)
    with np.errstate(invalid="ignore", over="ignore"):
        counted = check_block(data, block, kinds)
        lost = counted & _impossible(data, block, counted)
    labels = block.labels[counted]
    found = Sums(
        {
            "per_class": np.bincount(labels, minlength=data.classes),
            "rows": labels.size,
            "ignored": counted.size - labels.size,
            "impossible": int(lost.sum()),
            **{f"no {kind}": int(kind not in kinds) for kind in possible_kinds(data)},
        }
    )
    if lost.any():
        found.joined["first"] = [np.array([data.place(block.start, tuple(np.argwhere(lost)[0]))])]
    return found


def possible_kinds(data: Data) -> set[str]:
    """The other kinds that the numbers may turn out to be."""
    return {"probabilities", "percentages"} if data.from_logits else set()


def looks_like(data: Data, kinds: set[str]) -> str:
    """Advice if all numbers look like another kind; else an empty text."""
    if not kinds:
        return ""
    kind = "probabilities" if "probabilities" in kinds else "percentages"
    cure = "" if kind == "probabilities" else "divide them by 100 and "
    return (
        f"{data.logits.name} look like {kind} and are taken for logits; if they are {kind}, {cure}add "
        "--from-probabilities."
    )


def check_block(data: Data, block: Block, kinds: set[str]) -> np.ndarray:
    """Whether each label counts; kinds that the block does not look like are removed from ``kinds``.

    Raises:
        FileError: at the first wrong row.
    """
    z, y = block.logits, block.labels
    counted = np.ones(y.shape, bool) if data.ignore_index is None else y != data.ignore_index
    bad = counted & ((y < 0) | (y >= data.classes))
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        value = y[where]
        if value == UNKNOWN:
            row = block.start + int(where[0])
            text = data.label_text(row, where[1:])
            raise FileError(
                f"{data.labels.name} have {text} in {data.labels.place(row)}, which is not one of the classes "
                f"{shortened(data.names)}; correct or remove that row, or leave such rows out with --ignore-index."
            )
        hint = " Are they counted from 1? Subtract 1." if value == data.classes else ""
        raise FileError(
            f"{data.labels.name} must be class ids in 0..{data.classes - 1}, got {value} in "
            f"{data.place(block.start, where)}.{hint} Rows to leave out: --ignore-index {value}."
        )
    top = np.maximum.reduce(z, axis=data.axis)  # NaN where there is one
    bad = counted & ~np.isfinite(top)
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        kind = "NaN" if np.isnan(top[where]) else "an infinity" if top[where] > 0 else "no class that is not masked"
        raise FileError(
            f"{data.logits.name} have {kind} in {data.place(block.start, where)}; correct or remove "
            "that row, or give it the label of --ignore-index."
        )
    if not data.from_logits:
        _check_probabilities(data, block, counted)
    if kinds:
        kinds &= _kinds(data, block, counted)
    return counted


def _kinds(data: Data, block: Block, counted: np.ndarray) -> set[str]:
    """The kinds that a block of logits looks like."""
    z = block.logits[..., 1:] if data.binary else np.moveaxis(block.logits, data.axis, -1)
    z = z[counted]
    if not z.size:
        return {"probabilities", "percentages"}
    low, high = z.min(), z.max()
    if low < 0 or high > 100:
        return set()
    if high <= 1:
        return {"probabilities"} if data.binary or sums_to_one(z).all() else set()
    percentages = data.binary or (np.abs(z.sum(-1, dtype=np.float64) - 100) < 1).all()
    return {"percentages"} if percentages else set()


def _impossible(data: Data, block: Block, counted: np.ndarray) -> np.ndarray:
    """Whether the label of each row has the probability 0."""
    ids = np.expand_dims(np.where(counted, block.labels, 0), data.axis)
    picked = np.take_along_axis(block.logits, ids, data.axis).squeeze(data.axis)
    return picked == -np.inf if data.from_logits else picked <= 0


def _check_probabilities(data: Data, block: Block, counted: np.ndarray) -> None:
    p = block.logits[..., 1:] if data.binary else np.moveaxis(block.logits, data.axis, -1)
    low, high = p.min(axis=-1), p.max(axis=-1)
    inside = (low >= -ROUNDING) & (high <= 1.0 + ROUNDING)
    bad = counted & ~(inside if data.binary else inside & sums_to_one(p))
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        outside = low[where] if low[where] < -ROUNDING else high[where]
        said = f"a sum of {p[where].sum(dtype=np.float64):g}" if inside[where] else f"a value of {outside:g}"
        cure = "add --from-logits if they are logits"
        if high[counted].max() <= 0:
            cure = "if they are log-probabilities, add --from-logits: those are logits"
        elif "percentages" in _kinds(data, block, counted):
            cure = f"if they are percentages, divide them by 100; {cure}"
        raise FileError(
            f"{data.logits.name} are not probabilities: {data.place(block.start, where)} has {said}; {cure}."
        )
