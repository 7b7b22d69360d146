"""The fit: from sums over the rows for a temperature, from a copy of the rows for other methods."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth.calibrate.data import Block, Data, fit_rows
from lsmooth.calibrate.files import Progress
from lsmooth.calibrate.passes import Passes, Sums
from lsmooth.calibrate.text import FileError
from lsmooth.calibration import TemperatureScaling, load
from lsmooth.calibration._moments import Sums as Moments
from lsmooth.calibration._moments import Totals
from lsmooth.calibration._newton import find_root, run

_CURVE_ELEMENTS = 2**21
"""The most logits for the picture of the fit."""


@dataclass(frozen=True)
class Split:
    """The split of rows into a fit part and an evaluation part; without a split all rows are in both.

    Attributes:
        fraction: the fraction of rows in the fit part; None for an evaluation file.
        seed: the seed of the draw.
    """

    fraction: float | None
    seed: int
    groups: np.ndarray | None = None
    """Whether each group is in the fit part; None if rows are drawn one by one."""

    def fitted(self, block: Block) -> np.ndarray:
        """Whether each row of the block is in the fit part."""
        if self.fraction is None:
            return np.ones(len(block.labels), bool)
        if self.groups is not None and block.groups is not None:
            return self.groups[block.groups]
        return fit_rows(self.seed, self.fraction, block)

    def measured(self, block: Block) -> np.ndarray:
        """Whether each row of the block is in the evaluation part."""
        return self.fitted(block) if self.fraction is None else ~self.fitted(block)

    def rows_to_fit(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Logits, labels and weights of the fit part."""
        rows = self.fitted(block)
        return block.logits[rows], block.labels[rows], None if block.weights is None else block.weights[rows]


def flat(
    data: Data, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits (rows, classes), labels, examples and weights (rows,) of the rows that count."""
    weight = np.ones(labels.size) if weights is None else np.broadcast_to(weights, labels.shape).reshape(-1)
    example = np.repeat(np.arange(len(labels)), math.prod(labels.shape[1:]))
    logits = np.moveaxis(logits, data.axis, -1).reshape(-1, data.classes)
    labels = labels.reshape(-1)
    if data.ignore_index is None:
        return logits, labels, example, weight
    counted = labels != data.ignore_index
    return logits[counted], labels[counted], example[counted], weight[counted]


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    Attributes:
        scaler: the calibrator.
        notes: its warnings.
        rows: the number of rows.
        curve: logits, labels and weights for the picture of a temperature's fit.
    """

    scaler: Any
    notes: tuple[str, ...]
    rows: int
    curve: tuple[np.ndarray, ...] | None = None


def fit(scaler: Any, data: Data, split: Split, rows: int, passes: Passes, scratch: Path, progress: Progress) -> Fit:
    """Fit a calibrator on the fit part, or load the one that an interrupted run has saved."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if type(scaler) is TemperatureScaling:
            share = _CURVE_ELEMENTS / ((split.fraction or 1.0) * rows * data.classes)
            low, high = scaler._range()
            source = _Source(passes, data, split, scaler, share, low, high)
            scaler._solve(source, source.start, low, high)
            return Fit(scaler, _messages(caught), source.count, source.curve)
        known = passes.folder and Sums.load(passes.folder / "fitted.npz")
        if passes.folder and known and known[1]:
            notes = tuple(map(str, known[0].concatenated("notes")))
            return Fit(load(passes.folder / "fitted.json"), notes, int(known[0].added["rows"]))
        arrays, count = _copied(data, split, scratch, progress)
        scaler.fit(*arrays)
    notes = _messages(caught)
    if passes.folder:
        scaler.save(passes.folder / "fitted.json")
        Sums({"rows": count}, {"notes": [np.array(notes, np.str_)]}).save(passes.folder / "fitted.npz", 1)
    return Fit(scaler, notes, count)


def _messages(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(warning.message) for warning in caught))


class _Source:
    """A `lsmooth.calibration._newton.Source` whose sums take a pass over the files."""

    def __init__(self, passes: Passes, data: Data, split: Split, scaler: Any, share: float, low: float, high: float):
        self._total, self.passes = partial(passes.total, data=data), 1
        self._part = partial(_sums, split=split, scaler=scaler)
        self.start = _start(data, split, scaler, low, high)
        betas = dict.fromkeys((1.0, math.exp(self.start)))
        first = self._total("fitting, pass 1", function=partial(self._part, betas=tuple(betas), share=share))
        self.count = int(first.added["rows"])
        self.totals = Totals(*np.asarray(first.added.get("totals", np.zeros(4))).tolist())
        moments = np.asarray(first.added.get("moments", np.zeros((len(betas), 3))))
        self._known = {beta: Moments(*row) for beta, row in zip(betas, moments.tolist(), strict=True)}
        self.curve = tuple(first.concatenated(name) for name in ("logits", "labels", "weight"))

    def sums(self, beta: float) -> Moments:
        """The sums at ``beta``."""
        if beta not in self._known:
            self.passes += 1
            found = self._total(f"fitting, pass {self.passes}", function=partial(self._part, betas=(beta,)))
            self._known[beta] = Moments(*np.asarray(found.added["moments"])[0].tolist())
        return self._known[beta]


def _start(data: Data, split: Split, scaler: Any, low: float, high: float) -> float:
    """The first log beta, the optimum of the first block."""
    for block in data.blocks():
        logits, labels, weights = split.rows_to_fit(block)
        rows = scaler._rows(logits, labels, weights) if len(labels) else None
        if rows is not None and rows.totals.count > 0:
            return run(rows, find_root(rows, 0.0, low, high, 20, exact=1e-2))[0]
    return 0.0


def _sums(
    data: Data, block: Block, *, split: Split, scaler: Any, betas: tuple[float, ...], share: float | None = None
) -> Sums:
    """The moments of a block at each beta; with ``share`` also the totals, and a sample of that share."""
    logits, labels, weights = split.rows_to_fit(block)
    sums = Sums()
    if len(labels):
        rows = scaler._rows(logits, labels, weights)
        sums.added["moments"] = np.array([astuple(rows.sums(beta)) for beta in betas])
        sums.added["totals"] = np.array(astuple(rows.totals))
    if share is not None:
        logits, labels, _, weight = flat(data, logits, labels, weights)
        kept = np.random.default_rng([split.seed, 1, block.start]).random(len(labels)) < share
        sums.added["rows"] = len(labels)
        sums.joined = {"logits": [logits[kept]], "labels": [labels[kept]], "weight": [weight[kept]]}
    return sums


def _copied(data: Data, split: Split, scratch: Path, progress: Progress) -> tuple[list[np.ndarray], int]:
    """The fit part as mapped files, for methods with many passes over the rows; and the number of rows that count."""

    def blocks() -> Iterator[tuple[np.ndarray, ...]]:
        for block in data.blocks():
            progress("copying", block.start + len(block.labels), len(data))
            yield tuple(x for x in split.rows_to_fit(block) if x is not None)

    paths = [scratch / f"fit-{name}.bin" for name in ("logits", "labels", "weights")]
    count, first = 0, None
    with paths[0].open("wb") as logits, paths[1].open("wb") as labels, paths[2].open("wb") as weights:
        for arrays in blocks():
            for file, array in zip((logits, labels, weights), arrays, strict=False):
                file.write(np.ascontiguousarray(array).data)
            count += len(flat(data, *arrays[:2])[1])
            first = arrays if first is None else first
    rows = paths[1].stat().st_size // (8 * math.prod(data.labels.shape[1:]))
    if first is None or not rows:
        raise FileError("No row to fit on; choose a larger --fit-fraction.")
    return [
        np.memmap(path, x.dtype, "r", shape=(rows, *x.shape[1:])) for path, x in zip(paths, first, strict=False)
    ], count
