"""Check, fit on one part, measure on the other; each a pass or a few over the files."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth._validation import validate
from lsmooth.backends import use_backend
from lsmooth.calibrate.checks import Counts, check
from lsmooth.calibrate.classes import shortened
from lsmooth.calibrate.data import Block, Data, fit_groups, fit_rows
from lsmooth.calibrate.files import Progress
from lsmooth.calibrate.measures import CLASSWISE_ELEMENTS, SAMPLE_ROWS, Measures, Sample, bootstrap
from lsmooth.calibrate.text import FileError
from lsmooth.calibration._loading import CALIBRATORS
from lsmooth.metrics import (
    CalibrationSlope,
    CorpDecomposition,
    Explanation,
    Interval,
    calibration_slope,
    corp_decomposition,
    explain_difference,
)
from lsmooth.metrics._bins import BinSums

METHODS: dict[str, Any] = {
    name.removesuffix("_temperature").replace("_", "-"): kind for name, kind in CALIBRATORS.items()
}
PENALISED = ("matrix", "dirichlet")
_PROBABILITIES = ("histogram", "isotonic")
_MOST_GROUPS = 50
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
        clip: smaller probabilities count as this one in the fit; None: none do.
    """

    method: str = "temperature"
    fit_fraction: float = 0.5
    n_bins: int = 15
    convention: str = "guo"
    resamples: int = 200
    seed: int = 0
    off_diagonal: float = 0.0
    intercept: float = 0.0
    clip: float | None = None


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
    per_class: tuple[BinSums | None, BinSums | None]
    """Bins of each class's probability, before and after."""
    corp: tuple[CorpDecomposition, CorpDecomposition]
    """Of the Brier score of the confidence, of P(class 1) where that is what is stated, before and after."""
    slopes: tuple[CalibrationSlope, CalibrationSlope] | None
    """Before and after, of two classes."""
    per_group: tuple[tuple[str, int, dict[str, float], dict[str, float]], ...]
    """Of each group its name, its rows that were looked at, and its measures before and after."""
    curve: tuple[np.ndarray, ...] | None
    """Logits, labels and weights for the picture of the fit; None where it has no temperature alone."""
    seconds: float


def calibrate(data: Data, evaluation: Data | None, options: Options, scratch: Path, progress: Progress) -> Results:
    """Fit a calibrator on a part of the data and measure what it does on the rest.

    Args:
        data: logits and labels.
        evaluation: those to measure on; None to split ``data``.
        options: how.
        scratch: a folder for a copy of the rows that are fitted on, where a method needs them more
            often than the files can be read.
        progress: called with the state of each stage.

    Raises:
        FileError: if a row cannot be used, or a part has none.
        ImportError: if a package is missing that a method needs.
        ValueError: if the rows and the method do not go together.
    """
    begin = time.perf_counter()
    counts = evaluated = check(data, progress)
    _check_likelihood(data, counts, options)
    if evaluation is not None:
        _check_alike(evaluation, data)
        evaluated = check(evaluation, progress, "checking the evaluation part")
    split = Split(options.fit_fraction if evaluation is None else None, options.seed)
    if evaluation is None and data.groups is not None:
        split = replace(split, groups=fit_groups(data, options.seed, options.fit_fraction))
    with use_backend("numpy"):
        rows = FitRows(data, split, progress, counts.rows)
        scaler, notes = _fit(rows, options, scratch)
        measures = _evaluate(evaluation or data, split, scaler, options, evaluated.rows, progress)
        findings = _findings(measures, options, progress)
        findings["per_group"] = _per_group((evaluation or data).group_names, findings["samples"])
    before = measures[0]
    return Results(
        options=options,
        data=data,
        evaluation=evaluation,
        scaler=scaler,
        notes=(*notes, *_notes(data, counts, evaluated, findings)),
        rows={
            "fit": rows.count,
            "evaluation": before.rows,
            "ignored": counts.ignored + (evaluated.ignored if evaluation is not None else 0),
            "sample": len(findings["samples"][0].labels),
            "classwise": before.classwise_rows,
        },
        curve=rows.sample() if options.method == "temperature" else None,
        **findings,
        seconds=time.perf_counter() - begin,
    )


@dataclass(frozen=True)
class Split:
    """Which rows are fitted on and which are measured; all of them where there are two files.

    Attributes:
        fraction: of the rows, to fit on; None for two files.
        seed: of the draw.
    """

    fraction: float | None
    seed: int
    groups: np.ndarray | None = None
    """Which groups are fitted on, bool; None where rows are drawn one by one."""

    def fitted(self, block: Block) -> np.ndarray:
        """Which rows of the block are fitted on, bool."""
        if self.fraction is None:
            return np.ones(len(block.labels), bool)
        if self.groups is not None and block.groups is not None:
            return self.groups[block.groups]
        return fit_rows(self.seed, self.fraction, block)

    def measured(self, block: Block) -> np.ndarray:
        """Which rows of the block are measured, bool."""
        return self.fitted(block) if self.fraction is None else ~self.fitted(block)


class FitRows:
    """The rows that are fitted on, as batches that can be read again; the first time a few are kept.

    Args:
        data: where they are.
        split: which they are.
        progress: called with the state of each pass.
        rows: how many there are, those that are not fitted on included.
    """

    def __init__(self, data: Data, split: Split, progress: Progress, rows: int):
        self.data, self._split, self._progress = data, split, progress
        self._share = _CURVE_ELEMENTS / ((split.fraction or 1.0) * rows * data.classes)
        self._rng = np.random.default_rng([split.seed, 1])
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._passes = 0
        self.count = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Logits, labels and, where there are any, weights of each block's rows."""
        self._passes += 1
        for block in self.data.blocks():
            rows = self._split.fitted(block)
            logits, labels = block.logits[rows], block.labels[rows]
            weights = None if block.weights is None else block.weights[rows]
            if self._passes == 1:
                self._keep(logits, labels, weights)
            if len(labels):
                yield (logits, labels) if weights is None else (logits, labels, weights)
            self._progress(f"fitting, pass {self._passes}", block.start + len(rows), len(self.data))

    def stored(self, scratch: Path) -> tuple[np.ndarray, ...]:
        """All of them, in files that are mapped."""
        rows = 0
        paths = scratch / "fit_logits.bin", scratch / "fit_labels.bin"
        dtype: Any = np.float32
        with paths[0].open("wb") as logits_file, paths[1].open("wb") as labels_file:
            weights: list[np.ndarray] = []
            for logits, labels, *more in self:
                weights += more
                dtype = logits.dtype
                logits_file.write(np.ascontiguousarray(logits).data)
                labels_file.write(np.ascontiguousarray(labels).data)
                rows += len(labels)
        if not rows:
            raise FileError("No row to fit on; choose a larger --fit-fraction.")
        shapes = (rows, *self.data.shape[1:]), (rows, *self.data.labels.shape[1:])
        logits = np.memmap(paths[0], dtype, "r", shape=shapes[0])
        labels = np.memmap(paths[1], np.int64, "r", shape=shapes[1])
        return (logits, labels, np.concatenate(weights)) if weights else (logits, labels)

    def sample(self) -> tuple[np.ndarray, ...]:
        """(rows, classes), (rows,) and (rows,) of those that were kept: logits, labels and weights."""
        return tuple(map(np.concatenate, zip(*self._kept, strict=True)))

    def _keep(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> None:
        logits, labels, _, weight = flat(self.data, logits, labels, weights)
        self.count += len(labels)
        kept = self._rng.random(len(labels)) < self._share
        self._kept.append((logits[kept], labels[kept], weight[kept]))


def flat(
    data: Data, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(rows, classes) and (rows,) of what counts, which example each row is of, and its weight."""
    weight = np.ones(labels.size) if weights is None else np.broadcast_to(weights, labels.shape).reshape(-1)
    example = np.repeat(np.arange(len(labels)), math.prod(labels.shape[1:]))
    logits = np.moveaxis(logits, data.axis, -1).reshape(-1, data.classes)
    labels = labels.reshape(-1)
    if data.ignore_index is None:
        return logits, labels, example, weight
    counted = labels != data.ignore_index
    return logits[counted], labels[counted], example[counted], weight[counted]


def _fit(rows: FitRows, options: Options, scratch: Path) -> tuple[Any, tuple[str, ...]]:
    """The calibrator, and what it has warned of."""
    data = rows.data
    given: dict[str, float] = {}
    if options.method in PENALISED:
        given = {"off_diagonal": options.off_diagonal, "intercept": options.intercept}
    if options.clip is not None:
        given["clip"] = options.clip
    scaler: Any = METHODS[options.method](
        axis=data.axis - len(data.shape),
        ignore_index=data.ignore_index,
        from_logits=data.from_logits,
        **given,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if options.method == "temperature":
            scaler.fit_batches(rows)
        else:
            scaler.fit(*rows.stored(scratch))
    return scaler, tuple(dict.fromkeys(str(warning.message) for warning in caught))


def _evaluate(
    data: Data, split: Split, scaler: Any, options: Options, rows: int, progress: Progress
) -> tuple[Measures, Measures]:
    """Measures of the rows that were not fitted on, as they are and calibrated."""
    rng = np.random.default_rng([options.seed, 2])
    expected = rows * (1.0 - (split.fraction or 0.0))
    shares = SAMPLE_ROWS / expected, CLASSWISE_ELEMENTS / (expected * data.classes)
    before, after = (Measures(options.n_bins, options.convention, data.binary) for _ in range(2))
    transform, logits_after = _exact(scaler, data, options)
    for block in data.blocks():
        chosen = np.flatnonzero(split.measured(block))
        logits, labels = block.logits[chosen], block.labels[chosen]
        weights = None if block.weights is None else block.weights[chosen]
        if len(chosen):
            z, y, example, weight = flat(data, logits, labels, weights)
            exact = logits.astype(np.float64)
            z, calibrated = z.astype(np.float64), flat(data, transform(exact), labels)[0]
            kept, classwise = (rng.random(len(y)) < share for share in shares)
            example = block.start + chosen[example] if block.groups is None else block.groups[chosen][example]
            how: dict[str, Any] = {"kept": kept, "classwise": classwise, "example": example, "dtype": logits.dtype}
            how["weight"] = None if weights is None else weight
            before.update(y, z, from_logits=data.from_logits, **how)
            after.update(y, calibrated, from_logits=logits_after, **how)
        progress("measuring", block.start + len(block.labels), len(data))
    if not before.rows:
        raise FileError(
            f"No row of {data.labels.path} is left to measure on; choose a smaller --fit-fraction, or give "
            "--eval-logits."
        )
    return before, after


def _exact(scaler: Any, data: Data, options: Options) -> tuple[Any, bool]:
    """A function that calibrates, and whether it gives logits, which keep likelihoods that probabilities lose."""
    if data.from_logits or options.method in _PROBABILITIES:
        return scaler.transform, options.method not in _PROBABILITIES
    of_logits = copy.copy(scaler).set_params(from_logits=True, clip=None)

    def transform(p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return of_logits.transform(np.log(np.maximum(p, options.clip or 0.0)))

    return transform, True


def _findings(measures: tuple[Measures, Measures], options: Options, progress: Progress) -> dict[str, Any]:
    """What `Results` says of the measures, by its attributes."""
    before, after = measures
    values = before.results(), after.results()
    samples = before.sample(), after.sample()
    return {
        "before": values[0],
        "after": values[1],
        "samples": samples,
        "intervals": bootstrap(*samples, values, before.examples, options.resamples, options.seed, progress),
        "diagrams": (before.diagram(), after.diagram()),
        "corp": tuple(_corp(sample) for sample in samples),
        "slopes": tuple(_slope(sample) for sample in samples) if samples[0].two_classes else None,
        "explanations": tuple(_explained(sample, options.n_bins) for sample in samples),
        "per_class": (before.per_class(), after.per_class()),
    }


@validate(False)  # proxies do not sum to one
def _explained(sample: Sample, n_bins: int) -> Explanation:
    return explain_difference(
        sample.labels, sample.stated, n_bins=n_bins, binary=sample.binary, sample_weight=sample.weight
    )


@validate(False)
def _corp(sample: Sample) -> CorpDecomposition:
    return corp_decomposition(sample.labels, sample.stated, binary=sample.binary, sample_weight=sample.weight)


@validate(False)
def _slope(sample: Sample) -> CalibrationSlope:
    return calibration_slope(sample.labels, sample.predictions, sample_weight=sample.weight)


@validate(False)
def _per_group(names: tuple[str, ...], samples: tuple[Sample, Sample]) -> tuple[Any, ...]:
    """The groups with the most rows of the evaluation part, by name, with their measures before and after."""
    if not names:
        return ()
    rows = np.bincount(samples[0].example, minlength=len(names))
    often = sorted(np.argsort(-rows, kind="stable")[:_MOST_GROUPS].tolist())
    found = []
    for k in often:
        of_group = (samples[0].example == k).astype(np.float64)
        if (of_group * samples[0].weight).any():
            found.append((names[k], int(rows[k]), *(sample.measures(of_group) for sample in samples)))
    return tuple(found)


def _check_alike(evaluation: Data, data: Data) -> None:
    if evaluation.logits.columns != data.logits.columns and evaluation.logits.columns and data.logits.columns:
        raise FileError(
            f"{evaluation.logits.name} must have the columns of {data.logits.path}, {', '.join(data.logits.columns)}; "
            f"got {', '.join(evaluation.logits.columns)}. Rename them."
        )
    if (evaluation.classes, len(evaluation.logits.shape)) != (data.classes, len(data.logits.shape)):
        raise FileError(
            f"{evaluation.logits.name} must have {data.classes} classes and {len(data.logits.shape)} axes, as those of "
            f"{data.logits.path}; got shape {evaluation.logits.shape}."
        )


def _check_likelihood(data: Data, counts: Counts, options: Options) -> None:
    """A fit by likelihood needs a label of some probability in each row."""
    if not counts.impossible or options.clip is not None or options.method in _PROBABILITIES:
        return
    clip = "" if data.from_logits else ", or with --clip 1e-6, which takes smaller probabilities for that"
    raise FileError(
        f"{data.logits.name} give the label the probability 0 in {counts.impossible:,} of {counts.rows:,} rows, the "
        f"first {counts.first_impossible}, which a fit of the likelihood cannot use; run it with --method isotonic or "
        f"histogram{clip}, or give those rows the label of --ignore-index."
    )


def _notes(data: Data, counts: Counts, evaluated: Counts, findings: dict[str, Any]) -> list[str]:
    """What a reader of the numbers should know."""
    notes = [counts.looks_like] if counts.looks_like else []
    absent = int((counts.per_class == 0).sum())
    if absent:
        notes.append(f"{absent} of {len(counts.per_class)} classes have no row{_absent_names(data, counts)}.")
    if evaluated.impossible:
        notes.append(
            f"{evaluated.impossible:,} rows give their label the probability 0 before calibration; the NLL of such a "
            "row is infinite."
        )
    before, after = findings["before"]["nll"], findings["after"]["nll"]
    if math.isinf(after) and not math.isinf(before):
        notes.append(
            "On the evaluation part calibrated labels have the probability 0, so the NLL has become infinite: do not "
            "use this calibrator."
        )
    elif math.isinf(after):
        notes.append("The NLL is infinite before and after calibration; compare the other measures.")
    elif findings["intervals"]["nll"][2].low > 0:
        notes.append("On the evaluation part the likelihood has become worse: do not use this calibrator.")
    return notes


def _absent_names(data: Data, counts: Counts) -> str:
    """The classes without rows, where they have names."""
    if not data.naming.names or data.questions > 1:
        return ""
    names = [name for name, rows in zip(data.names, counts.per_class, strict=True) if not rows]
    return f": {shortened(names)}"
