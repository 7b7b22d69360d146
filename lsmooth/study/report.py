"""What the study leaves: ``report.html``, ``report.json``, PNGs, and the fitted calibrator."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import lsmooth
from lsmooth._report import html_figure, html_table, page, staged
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
"""Of the table of networks: the measure, its heading, digits, whether in percent."""


STUDENT_NUMBERS = ("gamma", "error", "nll", "validation_error")


def write_report(results: Results, folder: Path, translation: translators.Translation | None = None) -> Path:
    """Write everything into the folder, which need not exist; files of the same names are replaced.

    Nothing is written before all has been made. With a ``translation``, the report has its part too.

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
    """One file, with its style and pictures inside."""
    plan, data, training = results.plan, results.data, results.plan.training
    rows = {part: len(labels) for part, labels in data.labels.items()}
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    body = f"""
<h1>When does label smoothing help?</h1>
<p class="lead">The experiments of Müller, Kornblith and Hinton (2019), repeated on {escape(data.name)} with
{results.backend}: {len(plan.seeds)} networks for each amount of smoothing, {rows["train"]} rows to train on,
{rows["test"]} to test on. Numbers are means over seeds ± their standard error.</p>

<h2>In short</h2>
{_findings(found)}
<p class="note">A difference is called when 0 lies outside Student's 95% interval of the seeds' paired differences,
and is inside the noise otherwise. All networks share one split and one test part: the intervals cover the
randomness of training, not that of the choice of rows.</p>

<h2>1 &nbsp;Generalisation and calibration, in numbers</h2>
{html_table(["smoothing", *(heading for _, heading, _, _ in COLUMNS)], table(results))}
<p class="note">ECE: expected calibration error, {plan.n_bins} bins. T: the temperature of greatest
likelihood on the {rows["validation"]} validation rows. NLL in nats. All but T on the test part.</p>

<h2>2 &nbsp;Generalisation</h2>
{html_figure(pictures, "generalisation", "Test error and negative log-likelihood over the amount of smoothing.")}
<h3>The paper's accuracies, in percent</h3>
{html_table(["network, data", "hard labels", "smoothing 0.1"], paper.ACCURACY)}

<h2>3 &nbsp;Calibration</h2>
{html_figure(pictures, "reliability", "Accuracy against confidence on the test part, all seeds together.")}
{html_figure(pictures, "calibration", "Calibration error as trained and after one temperature, and that temperature.")}
<h3>The paper's calibration errors</h3>
{html_table(["network, data", "hard labels", "with temperature (T)", "with smoothing (amount)"], paper.ECE)}

<h2>4 &nbsp;The penultimate layer</h2>
{_geometry(results, pictures)}

<h2>5 &nbsp;Distillation</h2>
<p>Students of one hidden layer of {plan.student.hidden[0]} units, taught on the training rows by the logits of the
networks above: the divergence of their predictions at a temperature T, times T². Gamma is the mass that the targets
give to wrong classes, scaled so that the uniform distribution has 1; for label smoothing it is the amount.</p>
{html_figure(pictures, "distillation", "The students' error over the mass on wrong classes, by what they were taught.")}
{html_table(["teacher", "setting", "gamma", "student's error, %", "student's NLL"], _students(results))}
<h3>The paper's distillation on MNIST, errors in percent</h3>
{html_table(["teacher trained with", "teacher", "student"], paper.DISTILLATION)}

<h2>6 &nbsp;What the logits tell about the example</h2>
<p>Mutual information between which of {results.examples} training examples of the classes
{escape(data.classes[0])} and {escape(data.classes[1])} was shown, under Gaussian noise of standard deviation
{plan.noise:g} ({plan.draws} draws each), and the difference of the two logits.</p>
{html_figure(pictures, "information", "Information kept over training, without and with smoothing.")}

{_translation(translation)}
<h2>What was run</h2>
<p>A network of {len(training.hidden)} hidden layers ({", ".join(map(str, training.hidden))} units, ReLU), trained by
Adam at a rate of {training.learning_rate:g} for {training.steps} batches of {training.batch_size}, with
<code>lsmooth.losses.softmax_cross_entropy(labels, logits, label_smoothing=...)</code>. Training, validation and test
part: {rows["train"]}, {rows["validation"]} and {rows["test"]} rows. Seeds: {", ".join(map(str, plan.seeds))}.
lsmooth {lsmooth.__version__}, {versions}; {sum(results.seconds.values()):.0f} seconds. The temperature of the first
hard-label network is in <code>{CALIBRATOR}</code>, all numbers in <code>report.json</code>.</p>
<p class="note">{escape(paper.CITATION)}</p>
"""
    return page(f"When does label smoothing help? {data.name}, {results.backend}", body)


def _translation(translation: translators.Translation | None) -> str:
    if translation is None:
        return ""
    headings = ["smoothing", *(heading for _, heading, _ in translators.COLUMNS)]
    return f"""<h2>7 &nbsp;Translation</h2>
<p>Small Transformers, trained in {escape(translation.framework)} by <code>examples/translation.py</code>, put dates in
words into ISO form. T: the temperature of greatest likelihood on the validation tokens.</p>
{html_table(headings, translators.table(translation))}
"""


def _geometry(results: Results, pictures: dict[str, bytes]) -> str:
    if "projection" not in pictures:
        return "<p>Two classes span no plane: this part needs three.</p>"
    rows = [
        [f"{alpha:g}", *(text(results.numbers(alpha, f"tightness_{part}")) for part in ("train", "validation"))]
        for alpha in results.plan.alphas
    ]
    caption = "Activations of three classes on the plane through their templates (crosses), first seed."
    return f"""{html_figure(pictures, "projection", caption)}
<h3>Scatter within classes over the distance between them</h3>
{html_table(["smoothing", "training rows", "validation rows"], rows)}"""


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


def _findings(found: Sequence[Finding]) -> str:
    kinds = {AGREES: "agrees", DISAGREES: "disagrees"}
    rows = [
        f"<tr><td>{escape(finding.claim)}</td><td>{escape(finding.found)}</td>"
        f'<td class="verdict {kinds.get(finding.verdict, "noise")}">{finding.verdict}</td></tr>'
        for finding in found
    ]
    head = "<tr><th>The paper's claim</th><th>Here</th><th></th></tr>"
    return f'<table class="words">{head}{"".join(rows)}</table>'
