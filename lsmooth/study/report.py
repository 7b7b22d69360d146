"""The files of the study: ``report.html``, ``report.json``, PNGs, and the fitted calibrator."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lsmooth
from lsmooth._report import render, staged
from lsmooth.study import paper
from lsmooth.study import translation as translators
from lsmooth.study.figures import PICTURES, figures
from lsmooth.study.findings import AGREES, DISAGREES, Finding, findings
from lsmooth.study.run import Results
from lsmooth.study.statistics import mean, stderr, text

CALIBRATOR = "temperature_scaling.json"
COLUMNS = (
    ("error", "error, %", 2, True),
    ("nll", "NLL", 3, False),
    ("ece", "ECE", 3, False),
    ("temperature", "T", 2, False),
    ("ece_scaled", "ECE at T", 3, False),
    ("nll_scaled", "NLL at T", 3, False),
)
"""The columns of the table of networks: measure, heading, digits, whether in percent."""
STUDENT_NUMBERS = ("gamma", "error", "nll", "validation_error")


def write_report(results: Results, folder: Path, translation: translators.Translation | None = None) -> Path:
    """Write all files into the folder, which need not exist; files of the same names are replaced.

    A ``translation`` adds a part to the report.

    Returns:
        The path of ``report.html``.
    """
    found = findings(results)
    if translation is not None:
        found += translators.translation_findings(translation)
    pictures = figures(results)
    contents = {f"{name}.png": picture for name, picture in pictures.items()}
    data = to_json(results, found)
    if translation is not None:
        data["translation"] = translators.to_json(translation)
    contents["report.json"] = (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()
    contents["report.html"] = to_html(results, found, pictures, translation).encode()
    with staged(folder, [f"{name}.png" for name in PICTURES]) as temporary:
        results.measured[results.plan.alphas[0]][0].scaler.save(temporary / CALIBRATOR)
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
    return folder / "report.html"


def table(results: Results) -> list[list[str]]:
    """A row for each amount of smoothing: `COLUMNS` as mean and standard error over seeds."""
    return [
        [f"{alpha:g}", *(text(results.numbers(alpha, name), digits, percent) for name, _, digits, percent in COLUMNS)]
        for alpha in results.plan.alphas
    ]


def to_json(results: Results, found: Sequence[Finding]) -> dict[str, Any]:
    """The report as plain data."""
    plan, training = results.plan, results.plan.training
    return {
        "lsmooth": lsmooth.__version__,
        "backend": results.backend,
        "versions": results.versions,
        "dataset": {
            "name": results.data.name,
            "classes": list(results.data.classes),
            "rows": {part: len(labels) for part, labels in results.data.labels.items()},
        },
        "plan": {
            "alphas": list(plan.alphas),
            "seeds": list(plan.seeds),
            "n_bins": plan.n_bins,
            "hidden": list(training.hidden),
            "steps": training.steps,
            "batch_size": training.batch_size,
            "learning_rate": training.learning_rate,
            "student_hidden": list(plan.student.hidden),
            "draws": plan.draws,
            "noise": plan.noise,
        },
        "networks": [
            {"alpha": alpha, **{name: estimate(results.numbers(alpha, name)) for name in _names(results)}}
            for alpha in plan.alphas
        ],
        "information": {
            "examples": results.examples,
            "rounds": [
                {"alpha": alpha, "nats": [estimate(values) for values in history.T]}
                for alpha, history in results.information.items()
            ],
        },
        "students": [
            {
                "teacher_alpha": students.teacher,
                ("alpha" if students.teacher is None else "temperature"): students.setting,
                **{name: estimate(getattr(students, name)) for name in STUDENT_NUMBERS},
            }
            for students in results.students
        ],
        "calibrator": {"file": CALIBRATOR, "alpha": plan.alphas[0], "seed": plan.seeds[0]},
        "findings": [vars(finding) for finding in found],
        "seconds": {part: round(seconds, 2) for part, seconds in results.seconds.items()},
    }


def estimate(values: Any) -> dict[str, Any]:
    """Mean, standard error (None for one seed) and the seeds' values."""
    error = stderr(values)
    return {"mean": mean(values), "stderr": None if math.isnan(error) else error, "values": [float(v) for v in values]}


def _names(results: Results) -> Iterable[str]:
    return results.measured[results.plan.alphas[0]][0].numbers


def to_html(
    results: Results,
    found: Sequence[Finding],
    pictures: dict[str, bytes],
    translation: translators.Translation | None = None,
) -> str:
    """The report as one HTML file with its pictures."""
    return render(
        "study.html",
        pictures,
        results=results,
        plan=results.plan,
        training=results.plan.training,
        data=results.data,
        rows={part: len(labels) for part, labels in results.data.labels.items()},
        findings=[(finding, _KINDS.get(finding.verdict, "noise")) for finding in found],
        networks=(["smoothing", *(heading for _, heading, _, _ in COLUMNS)], table(results)),
        tightness=_tightness(results) if "projection" in pictures else (),
        students=_students(results),
        translation=translation,
        translated=() if translation is None else translators.table(translation),
        translated_head=["smoothing", *(heading for _, heading, _ in translators.COLUMNS)],
        versions=", ".join(f"{name} {version}" for name, version in results.versions.items()),
        paper=paper,
        calibrator=CALIBRATOR,
        lsmooth=lsmooth.__version__,
    )


_KINDS = {AGREES: "agrees", DISAGREES: "disagrees"}


def _tightness(results: Results) -> list[list[str]]:
    return [
        [f"{alpha:g}", *(text(results.numbers(alpha, f"tightness_{part}")) for part in ("train", "validation"))]
        for alpha in results.plan.alphas
    ]


def _students(results: Results) -> list[list[str]]:
    rows = []
    for students in results.students:
        setting = f"{'smoothing' if students.teacher is None else 'T ='} {students.setting:g}"
        teacher = "none" if students.teacher is None else f"smoothing {students.teacher:g}"
        rows.append(
            [
                "hard labels" if students.teacher == 0 else teacher,
                setting,
                f"{mean(students.gamma):.3f}",
                text(students.error, 2, percent=True),
                text(students.nll),
            ]
        )
    return rows
