"""The files of the command: ``report.html``, ``report.json``, PNGs, and the calibrator."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import lsmooth
from lsmooth._report import render
from lsmooth.calibrate.classes import shortened
from lsmooth.calibrate.data import Data
from lsmooth.calibrate.figures import figures
from lsmooth.calibrate.files import StoredArray
from lsmooth.calibrate.measures import NAMES
from lsmooth.calibrate.run import Results
from lsmooth.metrics import Explanation, Interval
from lsmooth.metrics._explain import DEFAULT_BINS

CALIBRATOR = "calibrator.json"
DIAGNOSTICS = ("temperature_", "temperature_stderr_", "status_", "n_iter_", "nll_before_", "nll_after_")
_SIGNS = {"accuracy": 1}
"""Measures that are better if they are larger."""
_MOST_CLASSES = 20
_HALF_DIGIT = 5e-5
"""Half of the last digit shown."""
BETTER, WORSE, SAME = "better", "worse", "within chance"


def write_report(results: Results, folder: Path) -> Path:
    """Write all files into an existing folder.

    Returns:
        The path of ``report.html``.
    """
    pictures = figures(results)
    results.scaler.save(folder / CALIBRATOR)
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture)
    text = json.dumps(to_json(results), indent=2, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(to_html(results, pictures), encoding="utf-8")
    return folder / "report.html"


def to_json(results: Results) -> dict[str, Any]:
    """The report as plain data; null for numbers that are not finite or not computed."""
    return {
        "lsmooth": lsmooth.__version__,
        "options": asdict(results.options),
        "files": [_file_json(data) for data in (results.data, results.evaluation) if data is not None],
        "classes": list(results.data.naming.names),
        "binary": results.data.binary,
        "rows": results.rows,
        "calibrator": {"file": CALIBRATOR, "class": type(results.scaler).__name__, **_diagnostics(results)},
        "per_class": [dict(zip(("name", "rows", "before", "after"), row, strict=True)) for row in per_class(results)],
        "corp": _states([part._asdict() for part in results.corp]),
        "slope": None if results.slopes is None else _states([part._asdict() for part in results.slopes]),
        "per_group": [
            {"name": name, "rows": rows, "before": _finite(before), "after": _finite(after)}
            for name, rows, before, after in results.per_group
        ],
        "measures": {name: _measure_json(results, name) for name in NAMES},
        "conventions": {
            state: {"errors": explanation.errors, "errors_by_default": explanation.errors_by_default}
            for state, explanation in zip(("before", "after"), results.explanations, strict=True)
        },
        "notes": list(results.notes),
        "seconds": round(results.seconds, 2),
    }


def summary(results: Results) -> list[tuple[str, str, str, str, str]]:
    """For each measure its name, its values before and after, the change, and the verdict."""
    rows = []
    for name, heading in NAMES.items():
        before, after = results.before[name], results.after[name]
        if before is None or after is None:
            continue
        intervals = results.intervals.get(name)
        if intervals is None:
            rows.append((heading, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}", ""))
        else:
            texts = [_with_interval(interval, sign) for interval, sign in zip(intervals, ("", "", "+"), strict=True)]
            rows.append((heading, *texts, verdict(name, intervals[2])))
    return rows


def per_class(results: Results) -> list[tuple[str, int, float, float]]:
    """For each class its name, its rows, and its calibration error before and after.

    The mean of these errors is the classwise ECE. There are none if a row has several labels.
    """
    before, after = results.per_class
    if before is None or after is None or results.data.questions > 1:
        return []
    errors = [np.abs(table.gap).sum(axis=1) / table.weight[0].sum() for table in (before, after)]
    rows = before.correct.sum(axis=1).round().astype(int).tolist()
    return list(zip(results.data.names, rows, *(part.tolist() for part in errors), strict=True))


def verdict(name: str, change: Interval) -> str:
    """Whether a change is better, worse, or within chance; empty if no digit changes.

    A change to an infinite value is always worse, and a change from it always better.
    """
    if abs(change.value) < _HALF_DIGIT or math.isnan(change.value):
        return ""
    if change.low <= 0 <= change.high and math.isfinite(change.value):
        return SAME
    return BETTER if (change.value > 0) == (_SIGNS.get(name, -1) > 0) else WORSE


def fitted(results: Results) -> str:
    """The fitted calibrator, as text."""
    scaler, name = results.scaler, type(results.scaler).__name__
    if not hasattr(scaler, "temperature_"):
        return name
    error = getattr(scaler, "temperature_stderr_", math.nan)
    return f"{name}, T = {scaler.temperature_:.4g}" + ("" if math.isnan(error) else f" ± {error:.2g}")


def columns(results: Results) -> str:
    """The columns of a table that were used, as text; empty for other files."""
    logits, labels = results.data.logits.columns, results.data.labels.columns
    parts = [f"{results.data.name} are the columns {shortened(logits)}"] if len(logits) > 1 else []
    parts += [f"labels the column {labels[0]}"] if labels else []
    for what, array in (("weights", results.data.weights), ("groups", results.data.groups)):
        parts += [f"{what} the column {array.columns[0]}"] if array is not None and array.columns else []
    if len(logits) == 1:
        parts.insert(0, f"the column {logits[0]} is that of the positive class")
    known = results.data.naming.names
    texts = [f"Classes in order: {', '.join(parts)}." if len(parts) > 1 else "".join(f"{part}." for part in parts)]
    texts += [f"Classes: {shortened(known)}."] if known and known != tuple(logits) else []
    return " ".join(filter(None, texts))


def to_html(results: Results, pictures: dict[str, bytes]) -> str:
    """The report as one HTML file with its pictures."""
    rows, of_classes = results.rows, per_class(results)
    often = sorted(of_classes, key=lambda row: -row[1])[:_MOST_CLASSES]
    return render(
        "calibrate.html",
        pictures,
        results=results,
        data=results.data,
        options=results.options,
        rows=rows,
        source=results.data.logits.source,
        fitted=fitted(results),
        class_names=shortened(results.data.names) if results.data.naming.names else "",
        summary=[(*row[:-1], row[-1], _KINDS.get(row[-1], "noise")) for row in summary(results)],
        sampled_note=_sampled_note(results),
        diagram_caption=_diagram_caption(results),
        classes=[row for row in of_classes if row in often] if "classes" in pictures else (),
        decompositions=_decompositions(results),
        groups=[
            (name, count, [(before[measure], after[measure]) for measure in ("accuracy", "ece", "nll")])
            for name, count, before, after in results.per_group
        ],
        classes_left_out=len(of_classes) > len(often),
        temperature_caption=_temperature_caption(results) if "temperature" in pictures else "",
        conventions=_conventions(results.explanations),
        files=list(_file_rows(results)),
        run=_run(results),
        usage=_usage(results),
        calibrator=CALIBRATOR,
        lsmooth=lsmooth.__version__,
    )


_KINDS = {BETTER: "agrees", WORSE: "disagrees", SAME: "noise"}


def _with_interval(interval: Interval, sign: str) -> str:
    if not math.isfinite(interval.high - interval.low):
        return f"{interval.value:{sign}.4f}"
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _sampled_note(results: Results) -> str:
    rows = results.rows
    notes = []
    if rows["sample"] < rows["evaluation"]:
        notes.append(f" Smooth ECE, AURC and intervals are of {rows['sample']:,} rows drawn at random.")
    if not rows["classwise"]:
        notes.append(" Classwise ECE was left out.")
    elif rows["classwise"] < rows["evaluation"]:
        notes.append(f" Classwise ECE is of {rows['classwise']:,} rows drawn at random.")
    return "".join(notes)


def _diagram_caption(results: Results) -> str:
    caption = "Accuracy against confidence, of all rows of the evaluation part."
    if results.data.binary:
        caption = "Frequency of class 1 against its probability. The errors in the corners are of that probability."
    if results.data.binary or results.rows["sample"] == results.rows["evaluation"]:
        caption += " Bars that end within the brackets are where chance puts 95% of those of a calibrated model."
    if results.options.convention != "guo":
        caption += " The errors in the corners are by bins (lo, hi], convention guo."
    return caption


def _decompositions(results: Results) -> list[tuple[str, str, str]]:
    """For each part of a decomposition its name and its values before and after."""
    names = {"miscalibration": "miscalibration (MCB)", "discrimination": "discrimination (DSC)"}
    names |= {"uncertainty": "uncertainty (UNC)"}
    rows = [(heading, *(float(getattr(part, name)) for part in results.corp)) for name, heading in names.items()]
    if results.slopes is not None:
        names = {"slope": "calibration slope", "intercept": "calibration intercept"}
        names |= {"in_the_large": "calibration in the large"}
        rows += [(heading, *(float(getattr(part, name)) for part in results.slopes)) for name, heading in names.items()]
    return [(name, *("-" if math.isnan(x) else f"{x:.4f}" for x in values)) for name, *values in rows]  # type: ignore[misc]


def _temperature_caption(results: Results) -> str:
    if results.curve is None:
        return ""
    rows = len(results.curve[1])
    part = "the rows fitted on" if rows == results.rows["fit"] else f"{rows:,} random rows of those fitted on"
    return f"Negative log-likelihood of {part} at each temperature; shaded, the 95% interval of the best."


def _conventions(explanations: tuple[Explanation, Explanation]) -> list[list[str]]:
    before, after = explanations
    return [
        [
            name,
            f"{before.errors[name]:.4f}",
            f"{after.errors[name]:.4f}",
            f"{before.errors_by_default[name]:.4f} ({DEFAULT_BINS[name]})",
            f"{after.errors_by_default[name]:.4f} ({DEFAULT_BINS[name]})",
        ]
        for name in before.errors
    ]


def _file_rows(results: Results) -> Iterable[list[str]]:
    for data, use in ((results.data, ""), (results.evaluation, "evaluation ")):
        if data is not None:
            for role, array in _arrays(data):
                shape = " x ".join(f"{n:,}" for n in array.shape)
                more = f" and {len(array.parts) - 1:,} more" if array.parts else ""
                yield [f"{array.path}{more}", f"{use}{role}", shape, array.dtype, shortened(array.columns)]


def _run(results: Results) -> str:
    diagnostics = _diagnostics(results)
    status = f" Status {diagnostics['status']}, {diagnostics['n_iter']} passes or iterations." if diagnostics else ""
    ignored = results.rows["ignored"]
    within = "by whole groups" if results.data.groups is not None else "within classes"
    left_out = f" {ignored:,} rows of label {results.data.naming.ignored} left out." if ignored else ""
    split = (
        f"Split at random {within}, {results.options.fit_fraction:g} to fit on."
        if results.evaluation is None
        else "Fitted on all rows of the first file, measured on the second."
    )
    return f"{split} Seed {results.options.seed}.{status}{left_out}"


def _usage(results: Results) -> str:
    name = results.data.name
    two = f"numpy.stack([{'0 * z' if results.data.from_logits else '1 - p'}, {name[0] if name[0] == 'p' else 'z'}], -1)"
    given = two if results.data.binary else name
    numpy = "import numpy\n" if results.data.binary else ""
    return (
        f"lsmooth apply {CALIBRATOR} new_predictions\n\n"
        f"{numpy}from lsmooth.calibration import load\n\n"
        f'scaler = load("{CALIBRATOR}")\ncalibrated = scaler.predict_proba({given})'
    )


def _diagnostics(results: Results) -> dict[str, Any]:
    found = {name: getattr(results.scaler, name) for name in DIAGNOSTICS if hasattr(results.scaler, name)}
    return {
        name.removesuffix("_"): _number(value) if isinstance(value, float) else value for name, value in found.items()
    }


def _file_json(data: Data) -> dict[str, Any]:
    return {
        name: {
            "path": str(array.path),
            **({"paths": list(map(str, array.paths))} if array.parts else {}),
            "shape": list(array.shape),
            "dtype": array.dtype,
            **({"columns": list(array.columns)} if array.columns else {}),
        }
        for name, array in _arrays(data)
    }


def _arrays(data: Data) -> list[tuple[str, StoredArray]]:
    """The arrays by their role."""
    found = [(data.name, data.logits), ("labels", data.labels), ("weights", data.weights), ("groups", data.groups)]
    return [(name, array) for name, array in found if array is not None]


def _measure_json(results: Results, name: str) -> dict[str, Any] | None:
    before, after = results.before[name], results.after[name]
    if before is None or after is None:
        return None
    if name not in results.intervals:
        pairs: Any = zip(("before", "after", "change"), (before, after, after - before), strict=True)
        return {state: {"value": _number(value), "low": None, "high": None} for state, value in pairs}
    pairs = zip(("before", "after", "change"), results.intervals[name], strict=True)
    return {state: {key: _number(x) for key, x in interval._asdict().items()} for state, interval in pairs}


def _states(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers for JSON, before and after."""
    numbers = [{name: _number(float(value)) for name, value in part.items()} for part in parts]
    return dict(zip(("before", "after"), numbers, strict=True))


def _finite(measures: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in measures.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
