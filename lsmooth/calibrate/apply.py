"""``lsmooth apply``: calibrated probabilities of new predictions, beside the columns of their file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lsmooth.calibrate.checks import check_block, looks_like, possible_kinds
from lsmooth.calibrate.classes import Naming
from lsmooth.calibrate.columns import LABELS, Wanted, class_names
from lsmooth.calibrate.data import Data
from lsmooth.calibrate.files import Progress, StoredArray, open_array, suffix_of
from lsmooth.calibrate.parquet import write_parquet
from lsmooth.calibrate.text import FileError, open_text, write_text
from lsmooth.calibration import GroupTemperatureScaling, load


class Fitted(NamedTuple):
    """The predictions that a calibrator was fitted to, from the report in its folder."""

    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    binary: bool = False
    classes: int = 0
    """The number of classes; 0 if it is unknown or the labels are binary."""


def apply(
    calibrator: Path,
    predictions: Path,
    target: Path,
    scratch: Path,
    progress: Progress,
    *,
    logits_key: str | None = None,
    binary: bool = False,
    decimal: str = ".",
) -> str:
    """Write calibrated probabilities.

    Args:
        calibrator: the file of `lsmooth calibrate`; the report beside it names the columns.
        predictions: new predictions of the same kind.
        target: the file to write: for a table, a copy with a column for each class; for other files, an array of
            probabilities, ``.npy``.
        scratch: an empty folder for unpacked files.
        progress: called with the progress of each stage.
        logits_key: the name of the array or the columns; by default those of the report.
        binary: whether every number is the logit or the probability of a label of its own.
        decimal: the decimal separator of text tables.

    Returns:
        Advice if the predictions look like another kind than the calibrator takes, else an empty text.

    Raises:
        FileError: if a file has wrong contents, or a row cannot be calibrated.
        ImportError: if a package for the format is missing.
        ValueError: if the calibrator was fitted to another number of classes, or is not a calibrator.
    """
    scaler: Any = load(calibrator)
    if isinstance(scaler, GroupTemperatureScaling):
        raise FileError(f"{calibrator} has a temperature for each group; load it and call predict_proba with groups=.")
    fitted = _fitted(calibrator, scaler.axis)
    z = _open(predictions, fitted, logits_key, scratch, progress, decimal)
    data = _data(z, scaler, fitted, fitted.binary or binary)
    kinds = possible_kinds(data)

    def calibrated() -> Iterator[np.ndarray]:
        for block in data.blocks():
            check_block(data, block, kinds)
            p = np.asarray(scaler.predict_proba(block.logits.astype(np.float64)))
            yield p[..., 1].reshape(len(p), *z.shape[1:]) if data.binary else p
            progress("calibrating", block.start + len(p), len(data))

    suffix = suffix_of(predictions)
    if suffix == ".parquet":
        write_parquet(predictions, target, _column_names(z, fitted), calibrated(), len(z.columns) == 1 < z.shape[-1])
    elif z.is_table:
        write_text(open_text(predictions, "logits", decimal), target, _column_names(z, fitted), calibrated())
    else:
        written: Any = None
        start = 0
        for p in calibrated():
            if written is None:
                written = np.lib.format.open_memmap(target, "w+", p.dtype, z.shape)
            written[start : start + len(p)] = p
            start += len(p)
        del written
    return looks_like(data, kinds)


def _fitted(calibrator: Path, axis: int) -> Fitted:
    """Read the report in the calibrator's folder, if it belongs to the calibrator."""
    try:
        report = json.loads((calibrator.parent / "report.json").read_text(encoding="utf-8"))
        if report["calibrator"]["file"] != calibrator.name:
            return Fitted()
        array = next(array for role, array in report["files"][0].items() if role != "labels")
        binary = bool(report["binary"])
        return Fitted(
            tuple(array.get("columns", ())),
            tuple(report["classes"]),
            binary,
            0 if binary else array["shape"][axis],
        )
    except (OSError, ValueError, LookupError, TypeError):
        return Fitted()


def _open(path: Path, fitted: Fitted, key: str | None, scratch: Path, progress: Progress, decimal: str) -> StoredArray:
    columns = fitted.columns if key is None else ()
    if len(columns) == 1:
        key = columns[0]
    wanted = Wanted("logits", key, frozenset(LABELS), columns, all_classes=bool(columns), decimal=decimal)
    z = open_array(path, wanted, scratch, progress)
    if columns and z.columns and z.columns != columns:
        raise FileError(
            f"{path} must have the columns that the calibrator was fitted to, {', '.join(columns)}; name its own, "
            "in that order, with --logits-key."
        )
    return z


def _data(z: StoredArray, scaler: Any, fitted: Fitted, binary: bool) -> Data:
    """The predictions with labels of 0, since new predictions have no labels."""
    binary = binary or len(z.shape) == 1 or (len(z.shape) == 2 and z.shape[1] == 1)
    rank = len(z.shape) + binary
    axis = scaler.axis % rank if -rank < scaler.axis < rank else 0
    if not axis:
        raise FileError(f"{z.name} have shape {z.shape}, which has no axis {scaler.axis} for classes beside rows.")
    if fitted.classes and (binary or z.shape[axis] != fitted.classes):
        raise FileError(f"{z.name} have shape {z.shape}, and the calibrator was fitted to {fitted.classes} classes.")
    shape = z.shape if binary else z.shape[:axis] + z.shape[axis + 1 :]

    def zeros(start: int, stop: int) -> np.ndarray:
        return np.zeros((stop - start, *shape[1:]), np.int64)

    labels = StoredArray(z.path, "labels", shape, "int64", (), zeros)
    return Data(z, labels, axis, None, scaler.from_logits, binary, Naming())


def _column_names(z: StoredArray, fitted: Fitted) -> tuple[str, ...]:
    """The names of the added columns."""
    width = z.shape[1]
    if len(z.columns) == 1:
        return (f"calibrated_{z.columns[0]}",)
    names = fitted.names or (class_names(z.columns) if z.columns else tuple(map(str, range(width))))
    return tuple(f"calibrated_{name}" for name in names)
