"""The run of the command: check, fit on one part, measure on the other."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth._validation import validate
from lsmooth.backends import use_backend
from lsmooth.calibrate.checks import Counts, check
from lsmooth.calibrate.classes import shortened
from lsmooth.calibrate.data import Block, Data, fit_groups
from lsmooth.calibrate.files import Progress
from lsmooth.calibrate.fitting import Split, fit, flat
from lsmooth.calibrate.measures import CLASSWISE_ELEMENTS, SAMPLE_ROWS, Measures, Sample, bootstrap
from lsmooth.calibrate.passes import Passes, Sums
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
STATES = "before", "after"


@dataclass(frozen=True)
class Options:
    """The options of the user.

    Attributes:
        method: one of `METHODS`.
        fit_fraction: the fraction of the rows to fit on, if there is no evaluation file.
        n_bins: the number of bins of the calibration errors.
        convention: the convention of the calibration error.
        resamples: the number of draws of the bootstrap.
        seed: the seed of the split, the samples and the bootstrap.
        off_diagonal: a penalty of `PENALISED` methods.
        intercept: their other penalty.
        clip: smaller probabilities are raised to this one in the fit, unless it is None.
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
    """The contents of the report."""

    options: Options
    data: Data
    evaluation: Data | None
    """The evaluation data if they are in their own files."""
    scaler: Any
    notes: tuple[str, ...]
    rows: dict[str, int]
    """The rows of the fit, of the evaluation, ignored, of the sample, and of classwise errors."""
    before: dict[str, float | None]
    after: dict[str, float | None]
    intervals: dict[str, tuple[Interval, Interval, Interval]]
    """The intervals before, after, and of the change."""
    samples: tuple[Sample, Sample]
    diagrams: tuple[Any, Any]
    explanations: tuple[Explanation, Explanation]
    per_class: tuple[BinSums | None, BinSums | None]
    """Bins of each class's probability, before and after."""
    corp: tuple[CorpDecomposition, CorpDecomposition]
    """Decompositions of the Brier score of the confidence, or of P(class 1) if binary, before and after."""
    slopes: tuple[CalibrationSlope, CalibrationSlope] | None
    """The slopes of two classes, before and after."""
    per_group: tuple[tuple[str, int, dict[str, float], dict[str, float]], ...]
    """For each group its name, its rows in the sample, and its measures before and after."""
    curve: tuple[np.ndarray, ...] | None
    """Logits, labels and weights for the picture of a temperature's fit."""
    seconds: float


def calibrate(
    data: Data,
    evaluation: Data | None,
    options: Options,
    scratch: Path,
    progress: Progress,
    *,
    n_jobs: int = 1,
    state: Path | None = None,
) -> Results:
    """Fit a calibrator on a part of the data and measure it on the rest.

    Raises:
        FileError: if a row is wrong, or a part is empty.
        ImportError: if a package is missing.
        ValueError: if the method cannot be fitted to the rows.
    """
    begin = time.perf_counter()
    both = (data,) if evaluation is None else (data, evaluation)
    with Passes(both, state, n_jobs, progress) as passes, use_backend("numpy"):
        counts = evaluated = check(data, passes)
        _check_likelihood(data, counts, options)
        if evaluation is not None:
            _check_alike(evaluation, data)
            evaluated = check(evaluation, passes, "checking the evaluation part")
        split = Split(options.fit_fraction if evaluation is None else None, options.seed)
        if evaluation is None and data.groups is not None:
            split = replace(split, groups=fit_groups(data, options.seed, options.fit_fraction))
        found = fit(_calibrator(data, options), data, split, counts.rows, passes, scratch, progress)
        measures = _evaluate(evaluation or data, split, found.scaler, options, evaluated.rows, passes)
    with use_backend("numpy"):
        findings = _findings(measures, options, progress)
        findings["per_group"] = _per_group((evaluation or data).group_names, findings["samples"])
    before = measures[0]
    return Results(
        options=options,
        data=data,
        evaluation=evaluation,
        scaler=found.scaler,
        notes=(*found.notes, *_notes(data, counts, evaluated, findings)),
        rows={
            "fit": found.rows,
            "evaluation": before.rows,
            "ignored": counts.ignored + (evaluated.ignored if evaluation is not None else 0),
            "sample": len(findings["samples"][0].labels),
            "classwise": before.classwise_rows,
        },
        curve=found.curve,
        **findings,
        seconds=time.perf_counter() - begin,
    )


def _calibrator(data: Data, options: Options) -> Any:
    """The calibrator of the options."""
    given: dict[str, float] = {}
    if options.method in PENALISED:
        given = {"off_diagonal": options.off_diagonal, "intercept": options.intercept}
    if options.clip is not None:
        given["clip"] = options.clip
    return METHODS[options.method](
        axis=data.axis - len(data.shape),
        ignore_index=data.ignore_index,
        from_logits=data.from_logits,
        **given,
    )


def _evaluate(
    data: Data, split: Split, scaler: Any, options: Options, rows: int, passes: Passes
) -> tuple[Measures, Measures]:
    """Measures of the evaluation part before and after calibration."""
    expected = rows * (1.0 - (split.fraction or 0.0))
    shares = SAMPLE_ROWS / expected, CLASSWISE_ELEMENTS / (expected * data.classes)
    found = passes.total(
        "measuring", data, partial(_measured, split=split, scaler=scaler, options=options, shares=shares)
    )
    if not found.added.get("before.rows"):
        raise FileError(
            f"No row of {data.labels.path} is left to measure on; choose a smaller --fit-fraction, or give "
            "--eval-logits."
        )
    before, after = (_new_measures(data, options) for _ in STATES)
    for state, measures in zip(STATES, (before, after), strict=True):
        measures.set_state(found, f"{state}.")
    return before, after


def _new_measures(data: Data, options: Options) -> Measures:
    return Measures(options.n_bins, options.convention, data.binary, n_groups=len(data.group_names))


def _measured(
    data: Data, block: Block, *, split: Split, scaler: Any, options: Options, shares: tuple[float, float]
) -> Sums:
    """The measures of a block, before and after calibration."""
    chosen = np.flatnonzero(split.measured(block))
    if not len(chosen):
        return Sums()
    logits, labels = block.logits[chosen], block.labels[chosen]
    weights = None if block.weights is None else block.weights[chosen]
    transform, logits_after = _exact(scaler, data, options)
    z, y, example, weight = flat(data, logits, labels, weights)
    z, calibrated = z.astype(np.float64), flat(data, transform(logits.astype(np.float64)), labels)[0]
    rng = np.random.default_rng([options.seed, 2, block.start])
    kept, classwise = (rng.random(len(y)) < share for share in shares)
    example = block.start + chosen[example] if block.groups is None else block.groups[chosen][example]
    how: dict[str, Any] = {"kept": kept, "classwise": classwise, "example": example, "dtype": logits.dtype}
    how["weight"] = None if weights is None else weight
    sums = Sums()
    given = (z, data.from_logits), (calibrated, logits_after)
    for state, (predictions, from_logits) in zip(STATES, given, strict=True):
        measures = _new_measures(data, options)
        measures.update(y, predictions, from_logits=from_logits, **how)
        sums.add(measures.get_state(f"{state}."))
    return sums


def _exact(scaler: Any, data: Data, options: Options) -> tuple[Any, bool]:
    """A function that calibrates, and whether it returns logits, which keep small likelihoods."""
    if data.from_logits or options.method in _PROBABILITIES:
        return scaler.transform, options.method not in _PROBABILITIES
    of_logits = copy.copy(scaler).set_params(from_logits=True, clip=None)

    def transform(p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return of_logits.transform(np.log(np.maximum(p, options.clip or 0.0)))

    return transform, True


def _findings(measures: tuple[Measures, Measures], options: Options, progress: Progress) -> dict[str, Any]:
    """The attributes of `Results` that follow from the measures."""
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
    """Raise if a fit by likelihood meets labels of probability 0."""
    if not counts.impossible or options.clip is not None or options.method in _PROBABILITIES:
        return
    clip = "" if data.from_logits else ", or with --clip 1e-6, which raises smaller probabilities to it"
    raise FileError(
        f"{data.logits.name} give the label the probability 0 in {counts.impossible:,} of {counts.rows:,} rows, the "
        f"first {counts.first_impossible}, which a fit of the likelihood cannot use; run it with --method isotonic or "
        f"histogram{clip}, or give those rows the label of --ignore-index."
    )


def _notes(data: Data, counts: Counts, evaluated: Counts, findings: dict[str, Any]) -> list[str]:
    """Notes for the reader of the report."""
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
    """The names of the classes without rows."""
    if not data.naming.names or data.questions > 1:
        return ""
    names = [name for name, rows in zip(data.names, counts.per_class, strict=True) if not rows]
    return f": {shortened(names)}"
