"""Check, fit on one part, measure on the other; each a pass or a few over the files."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth import calibration
from lsmooth.backends import use_backend
from lsmooth.calibrate.data import Block, Counts, Data, check, fit_rows
from lsmooth.calibrate.files import Progress
from lsmooth.calibrate.measures import CLASSWISE_ELEMENTS, SAMPLE_ROWS, Measures, Sample, bootstrap
from lsmooth.calibrate.tables import FileError
from lsmooth.metrics import Explanation, Interval, explain_difference

METHODS: dict[str, Any] = {
    "temperature": calibration.TemperatureScaling,
    "bias-corrected": calibration.BiasCorrectedTemperatureScaling,
    "vector": calibration.VectorScaling,
    "matrix": calibration.MatrixScaling,
    "dirichlet": calibration.DirichletCalibration,
    "histogram": calibration.HistogramBinning,
    "isotonic": calibration.IsotonicCalibration,
}
PENALISED = ("matrix", "dirichlet")
_PROBABILITIES = ("histogram", "isotonic")
_CURVE_ELEMENTS = 2**21
"""Of the logits that the picture of the fit is drawn from."""


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        method: one of `METHODS`.
        fit_fraction: of the rows, to fit on; all are fitted on where there is an evaluation file.
        n_bins: of the calibration errors.
        convention: of the calibration error.
        resamples: of the bootstrap.
        seed: of the split, the samples and the bootstrap.
        off_diagonal: a penalty of `PENALISED` methods.
        intercept: the other one.
    """

    method: str = "temperature"
    fit_fraction: float = 0.5
    n_bins: int = 15
    convention: str = "guo"
    resamples: int = 200
    seed: int = 0
    off_diagonal: float = 0.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Results:
    """What there is to report."""

    options: Options
    data: Data
    evaluation: Data | None
    """Where it is a file of its own."""
    scaler: Any
    notes: tuple[str, ...]
    rows: dict[str, int]
    """Fitted on, evaluated on, ignored, and looked at for what needs single rows."""
    before: dict[str, float | None]
    after: dict[str, float | None]
    intervals: dict[str, tuple[Interval, Interval, Interval]]
    """Before, after, and of the change."""
    samples: tuple[Sample, Sample]
    diagrams: tuple[Any, Any]
    explanations: tuple[Explanation, Explanation]
    curve: tuple[np.ndarray, np.ndarray] | None
    """Logits and labels for the picture of the fit; None where it has no temperature alone."""
    seconds: float


def calibrate(data: Data, evaluation: Data | None, options: Options, scratch: Path, progress: Progress) -> Results:
    """Fit a calibrator on a part of the data and measure what it does on the rest.

    Args:
        data: logits and labels.
        evaluation: those to measure on; None to split ``data``.
        options: how.
        scratch: a folder for a copy of the rows that are fitted on, where a method needs them more
            often than the files can be read.
        progress: told of each stage.

    Raises:
        FileError: if a row cannot be used, or a part has none.
        ImportError: if a package is missing that a method needs.
        ValueError: if the rows and the method do not go together.
    """
    begin = time.perf_counter()
    counts = check(data, progress)
    judged, judged_counts = data, counts
    if evaluation is not None:
        if (evaluation.classes, len(evaluation.logits.shape)) != (data.classes, len(data.logits.shape)):
            raise FileError(
                f"{evaluation.logits.name} must have {data.classes} classes and {len(data.logits.shape)} axes, as "
                f"those of {data.logits.path}; got shape {evaluation.logits.shape}."
            )
        judged, judged_counts = evaluation, check(evaluation, progress, "checking the evaluation part")

    def fitted(block: Block) -> np.ndarray:
        if evaluation is not None:
            return np.ones(len(block.labels), bool)
        return fit_rows(options.seed, options.fit_fraction, block)

    share = 1.0 if evaluation is not None else options.fit_fraction
    with use_backend("numpy"):
        rows = FitRows(data, fitted, progress, share * counts.rows, options.seed)
        scaler, notes = _fit(rows, options, scratch)
        before, after = (Measures(options.n_bins, options.convention) for _ in range(2))
        chosen = (lambda block: ~fitted(block)) if evaluation is None else fitted
        expected = judged_counts.rows * (1 - options.fit_fraction if evaluation is None else 1)
        _evaluate(judged, chosen, scaler, options, expected, (before, after), progress)
        values = before.results(), after.results()
        samples = before.sample(), after.sample()
        examples = len(np.unique(samples[0].example)) if before.rows == len(samples[0].labels) else len(judged)
        intervals = bootstrap(*samples, values, examples, options.resamples, options.seed, progress)
        explanations = tuple(explain_difference(s.labels, s.predictions, n_bins=options.n_bins) for s in samples)
    return Results(
        options,
        data,
        evaluation,
        scaler,
        (*notes, *_notes(counts, values, intervals)),
        {
            "fit": rows.count,
            "evaluation": before.rows,
            "ignored": counts.ignored + (judged_counts.ignored if evaluation is not None else 0),
            "sample": len(samples[0].labels),
            "classwise": before.classwise_rows,
        },
        *values,
        intervals,
        samples,
        (before.diagram(), after.diagram()),
        explanations,  # type: ignore[arg-type]
        rows.sample() if options.method == "temperature" else None,
        time.perf_counter() - begin,
    )


class FitRows:
    """The rows that are fitted on, as batches that can be read again; the first time a few are kept.

    Args:
        data: where they are.
        chosen: which of a block they are.
        progress: told of each pass.
        expected: about how many there are.
        seed: for those that are kept.
    """

    def __init__(
        self, data: Data, chosen: Callable[[Block], np.ndarray], progress: Progress, expected: float, seed: int
    ):
        self.data, self._chosen, self._progress = data, chosen, progress
        self._share = _CURVE_ELEMENTS / max(1.0, expected * data.classes)
        self._rng = np.random.default_rng([seed, 1])
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._passes = 0
        self.count = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Logits and labels of each block's rows."""
        self._passes += 1
        for block in self.data.blocks():
            rows = self._chosen(block)
            logits, labels = block.logits[rows], block.labels[rows]
            if self._passes == 1:
                self._keep(logits, labels)
            if len(labels):
                yield logits, labels
            self._progress(f"fitting, pass {self._passes}", block.start + len(rows), len(self.data))

    def stored(self, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
        """All of them, in files that are mapped."""
        rows = 0
        paths = scratch / "fit_logits.bin", scratch / "fit_labels.bin"
        dtype: Any = np.float32
        with paths[0].open("wb") as logits_file, paths[1].open("wb") as labels_file:
            for logits, labels in self:
                dtype = logits.dtype
                logits_file.write(np.ascontiguousarray(logits).data)
                labels_file.write(np.ascontiguousarray(labels).data)
                rows += len(labels)
        if not rows:
            raise FileError("No row to fit on; choose a larger --fit-fraction.")
        shapes = (rows, *self.data.logits.shape[1:]), (rows, *self.data.labels.shape[1:])
        logits = np.memmap(paths[0], dtype, "r", shape=shapes[0])
        return logits, np.memmap(paths[1], np.int64, "r", shape=shapes[1])

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, classes) and (rows,) of those that were kept."""
        logits, labels = zip(*self._kept, strict=True)
        return np.concatenate(logits), np.concatenate(labels)

    def _keep(self, logits: np.ndarray, labels: np.ndarray) -> None:
        logits, labels, _ = flat(self.data, logits, labels)
        self.count += len(labels)
        kept = self._rng.random(len(labels)) < self._share
        self._kept.append((logits[kept], labels[kept]))


def flat(data: Data, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, classes) and (rows,) of what counts, and which example each row is of."""
    example = np.repeat(np.arange(len(labels)), math.prod(labels.shape[1:]))
    logits = np.moveaxis(logits, data.axis, -1).reshape(-1, data.classes)
    labels = labels.reshape(-1)
    if data.ignore_index is None:
        return logits, labels, example
    counted = labels != data.ignore_index
    return logits[counted], labels[counted], example[counted]


def _fit(rows: FitRows, options: Options, scratch: Path) -> tuple[Any, tuple[str, ...]]:
    """The calibrator, and what it has warned of."""
    data = rows.data
    penalties: dict[str, float] = {}
    if options.method in PENALISED:
        penalties = {"off_diagonal": options.off_diagonal, "intercept": options.intercept}
    scaler: Any = METHODS[options.method](
        axis=data.axis - len(data.logits.shape),
        ignore_index=data.ignore_index,
        from_logits=data.from_logits,
        **penalties,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if options.method == "temperature":
            scaler.fit_batches(rows)
        else:
            scaler.fit(*rows.stored(scratch))
    return scaler, tuple(dict.fromkeys(str(warning.message) for warning in caught))


def _evaluate(
    data: Data,
    chosen: Callable[[Block], np.ndarray],
    scaler: Any,
    options: Options,
    expected: float,
    measures: tuple[Measures, Measures],
    progress: Progress,
) -> None:
    """Measure what is chosen of the data, as it is and calibrated."""
    rng = np.random.default_rng([options.seed, 2])
    kept_share = SAMPLE_ROWS / max(1.0, expected)
    classwise_share = CLASSWISE_ELEMENTS / max(1.0, expected * data.classes)
    logits_after = data.from_logits and options.method not in _PROBABILITIES
    for block in data.blocks():
        rows = np.flatnonzero(chosen(block))
        logits, labels = block.logits[rows], block.labels[rows]
        if len(rows):
            z, y, example = flat(data, logits, labels)
            after, *_ = flat(data, scaler.transform(logits), labels)
            kept, classwise = (rng.random(len(y)) < share for share in (kept_share, classwise_share))
            example = block.start + rows[example]
            measures[0].update(y, z, kept, classwise, example, from_logits=data.from_logits)
            measures[1].update(y, after, kept, classwise, example, from_logits=logits_after)
        progress("measuring", block.start + len(block.labels), len(data))
    if not measures[0].rows:
        raise FileError(
            f"No row of {data.labels.path} is left to measure on; choose a smaller --fit-fraction, or give "
            "--eval-logits."
        )


def _notes(counts: Counts, values: Any, intervals: dict[str, tuple[Interval, Interval, Interval]]) -> list[str]:
    """What a reader of the numbers should know."""
    notes = []
    absent = int((counts.per_class == 0).sum())
    if absent:
        notes.append(f"{absent} of {len(counts.per_class)} classes have no row.")
    if intervals["nll"][2].low > 0:
        notes.append("On the evaluation part the likelihood has become worse: do not use this calibrator.")
    return notes
