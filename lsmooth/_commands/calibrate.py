"""``lsmooth calibrate``."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lsmooth._commands._choices import Convention, Decimal, Method
from lsmooth._commands._console import Output, console, errors, fail, stages
from lsmooth._report import nearest_folder, staged

PICTURES = tuple(
    f"{name}.png" for name in ("reliability", "corp", "confidence", "risk_coverage", "temperature", "classes")
)
"""The pictures of an earlier run, which are replaced or removed."""


def calibrate(
    logits: Annotated[
        list[str],
        typer.Argument(
            help="Logits or probabilities: .npy, .npz, .safetensors, .parquet, .csv or .tsv (.gz too); rows first. "
            "The rows of several files, quoted patterns or folders are concatenated.",
            show_default=False,
            metavar="LOGITS...",
        ),
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Files of labels, class ids from 0 or names of classes, in the order of the files of logits. "
            "The second of two arguments is the same.",
            show_default=False,
            metavar="FILES",
        ),
    ] = None,
    output: Output = Path("calibration"),
    method: Annotated[Method, typer.Option(help="The calibrator to fit.")] = Method.TEMPERATURE,
    fit_fraction: Annotated[
        float, typer.Option(help="The fraction of the rows to fit on; the others are measured.")
    ] = 0.5,
    eval_logits: Annotated[
        list[str] | None,
        typer.Option(help="Measure on these files instead, and fit on all of the first.", metavar="FILES"),
    ] = None,
    eval_labels: Annotated[
        list[str] | None, typer.Option(help="Their labels, if they are in other files.", metavar="FILES")
    ] = None,
    logits_key: Annotated[
        str | None,
        typer.Option(
            help="The logits' name in the file (logits); of a table, the columns of the classes: a,b,c or a pattern "
            "such as 'p_*', or how their names begin.",
            show_default=False,
        ),
    ] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="The labels' name in the file (labels).", show_default=False)
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(help="The rows' weights' name in the file of the labels or the logits.", show_default=False),
    ] = None,
    group_key: Annotated[
        str | None,
        typer.Option(
            help="The rows' groups, such as patients: never split between fit and measure, reported one by one.",
            show_default=False,
        ),
    ] = None,
    from_logits: Annotated[
        bool,
        typer.Option("--from-logits/--from-probabilities", help="The kind of the numbers, which is never guessed."),
    ] = True,
    binary: Annotated[
        bool,
        typer.Option(
            "--binary",
            help="Every number has a binary label of its own, in labels of the same shape: multi-label.",
        ),
    ] = False,
    positive_label: Annotated[
        str | None,
        typer.Option(help="The label of the probability, if there is one number in each row.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="The names of the classes, a,b,c, in the order of the columns.", show_default=False),
    ] = None,
    decimal: Annotated[Decimal, typer.Option(help="The decimal separator of .csv and .tsv files.")] = Decimal.POINT,
    axis: Annotated[
        int | None,
        typer.Option(
            help="The class axis, if the shapes do not determine it; the first axis is the rows.", show_default=False
        ),
    ] = None,
    ignore_index: Annotated[
        str | None, typer.Option(help="Rows with this label are left out.", show_default=False)
    ] = None,
    n_bins: Annotated[int, typer.Option(help="Bins of the calibration errors.")] = 15,
    convention: Annotated[Convention, typer.Option(help="The convention of the calibration error.")] = Convention.GUO,
    off_diagonal: Annotated[
        float, typer.Option(help="matrix, dirichlet: the penalty of weights that mix classes.")
    ] = 0.0,
    intercept: Annotated[float, typer.Option(help="matrix, dirichlet: the penalty of the bias.")] = 0.0,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Smaller probabilities are raised to it in the fit, so that labels of probability 0 can be fitted.",
            show_default=False,
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals.")] = 200,
    seed: Annotated[int, typer.Option(help="The seed of the split and the bootstrap.")] = 0,
    n_jobs: Annotated[
        int, typer.Option("--n-jobs", "-j", help="Processes; -1 for one on each core. The results do not depend on it.")
    ] = 1,
) -> None:
    """Calibrate the logits of a file, and report the effect.

    Fits a calibrator on one part of the rows and measures it on the other. Writes calibrator.json,
    report.html, the same as report.json, and the pictures as PNG files. The logits are never all in
    memory: .npy and .safetensors files are mapped, others are unpacked once to the output's disk. A run
    that was killed continues when the same command is run again on the same files. If a file cannot be
    used, a message names the row and the remedy, and nothing is written.
    """
    _check_options(method, fit_fraction, n_bins, resamples, seed, off_diagonal, intercept)
    _check_clip(clip, method, from_logits)
    if n_jobs < 1 and n_jobs != -1:
        fail(f"--n-jobs must be at least 1, or -1 for one process on each core; got {n_jobs}.")
    if eval_labels and not eval_logits:
        fail("--eval-labels needs --eval-logits, the logits of the same rows.")
    try:
        nearest_folder(output)
        _check_packages()
        from lsmooth.calibrate import Options, open_data, write_report
        from lsmooth.calibrate import calibrate as run
        from lsmooth.calibrate.parts import find_files
        from lsmooth.calibrate.passes import work_folders

        options = Options(
            method.value, fit_fraction, n_bins, convention.value, resamples, seed, off_diagonal, intercept, clip
        )
        jobs = (os.cpu_count() or 1) if n_jobs == -1 else n_jobs
        with staged(output, PICTURES, lasting=True) as content, stages() as progress:
            how = {
                "logits_key": logits_key,
                "labels_key": labels_key,
                "weights_key": weights_key,
                "group_key": group_key,
                "axis": axis,
                "ignore_index": ignore_index,
                "from_logits": from_logits,
                "binary": binary,
                "classes": tuple(name.strip() for name in classes.split(",")) if classes else (),
                "positive_label": positive_label,
                "decimal": decimal.value,
            }
            files = find_files(logits, labels or ())
            eval_files = find_files(eval_logits, eval_labels or ()) if eval_logits else None
            scratch, state = work_folders(content.parent, [*files, *(eval_files or ())], [how, asdict(options)])
            data = open_data(*files, scratch, progress, **how, n_jobs=jobs)
            evaluation = None
            if eval_files is not None:
                evaluation = open_data(*eval_files, scratch, progress, **how, n_jobs=jobs, like=data)
            results = run(data, evaluation, options, scratch, progress, n_jobs=jobs, state=state)
            progress("writing", 0, 0)
            write_report(results, content)
    except (ValueError, TypeError, ImportError, OSError) as error:
        fail(str(error))
    _print(results, output / "report.html")


def _check_options(
    method: str,
    fit_fraction: float,
    n_bins: int,
    resamples: int,
    seed: int,
    off_diagonal: float,
    intercept: float,
) -> None:
    if not 0 < fit_fraction < 1:
        fail(f"--fit-fraction must be between 0 and 1, got {fit_fraction:g}; to fit on all rows, give --eval-logits.")
    for name, number, least in (("--n-bins", n_bins, 1), ("--resamples", resamples, 1), ("--seed", seed, 0)):
        if number < least:
            fail(f"{name} must be at least {least}, got {number}.")
    for name, penalty in (("--off-diagonal", off_diagonal), ("--intercept", intercept)):
        if not 0 <= penalty < float("inf"):
            fail(f"{name} must be a finite number of at least 0, got {penalty:g}.")
        if penalty and method not in ("matrix", "dirichlet"):
            fail(f"{name} is a penalty of --method matrix and dirichlet, got --method {method}.")


def _check_clip(clip: float | None, method: str, from_logits: bool) -> None:
    if clip is None:
        return
    if not 0 < clip < 0.5:
        fail(f"--clip must be between 0 and 0.5, got {clip:g}.")
    if from_logits:
        fail(f"--clip is for probabilities, got --clip {clip:g}; say --from-probabilities if the file holds them.")
    if method in ("histogram", "isotonic"):
        fail(f"--clip is for a fit by likelihood; --method {method} takes probabilities of 0 as they are.")


def _check_packages() -> None:
    missing = [name for name in ("matplotlib", "scipy", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"lsmooth calibrate needs {' and '.join(missing)}; install with pip install 'lsmooth[calibrate]'."
        )


def _print(results, path: Path) -> None:
    from lsmooth.calibrate.report import BETTER, WORSE, columns, fitted, summary

    rows = results.rows
    used = f"fitted on {rows['fit']:,} rows, measured on {rows['evaluation']:,} others"
    console.print(
        f"[bold]{escape(fitted(results))}[/], {used}",
        highlight=False,
        soft_wrap=True,
    )
    if columns(results):
        console.print(escape(columns(results)), highlight=False, soft_wrap=True)
    _print_measures(summary(results), {BETTER: "green", WORSE: "red"})
    for note in results.notes:
        errors.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    console.print(f"{results.seconds:.1f} s. Report: [bold]{escape(str(path))}[/]", soft_wrap=True)


def _print_measures(rows: list[tuple[str, str, str, str, str]], colors: dict[str, str]) -> None:
    """Print a table of the measures; in a narrow terminal intervals have their own lines."""

    def table(separator: str) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("", "before", "after", "change", ""):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for name, before, after, change, word in rows:
            numbers = (before.partition(" [")[0], after.partition(" [")[0], change.replace(" [", f"{separator}["))
            table.add_row(name, *map(escape, numbers), f"[{colors.get(word, 'dim')}]{word}")
        return table

    unlimited = console.options.update(max_width=1000)
    chosen = table(" ")
    if console.measure(chosen, options=unlimited).maximum > console.width:
        chosen = table("\n")
        chosen.width = console.measure(chosen, options=unlimited).maximum
    console.print(chosen, crop=False)
