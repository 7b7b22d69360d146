"""``lsmooth study``."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lsmooth._commands._choices import Dataset, Framework
from lsmooth._commands._console import Output, console, fail, steps
from lsmooth._report import nearest_folder
from lsmooth.study.config import FULL, QUICK


def study(
    backend: Annotated[
        Framework | None,
        typer.Option(
            help="The framework that trains; by default the first of these that is installed.", show_default=False
        ),
    ] = None,
    dataset: Annotated[Dataset, typer.Option(help="A data set of scikit-learn.")] = Dataset.DIGITS,
    data: Annotated[
        Path | None,
        typer.Option(help="Your own data: an .npz file with x (rows, features) and y (rows,).", metavar="FILE"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer amounts of smoothing and seeds.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            help=f"Networks for each amount of smoothing: {len(FULL.seeds)}, with --quick {len(QUICK.seeds)}.",
            show_default=False,
        ),
    ] = None,
    translation: Annotated[
        Path | None,
        typer.Option(
            help="A file written by examples/translation.py --json, for a part on translation.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    output: Output = Path("report"),
) -> None:
    """Repeat the experiments of "When Does Label Smoothing Help?" and write a report.

    Trains small networks with and without label smoothing. Measures their error, their calibration
    before and after temperature scaling, the activations of the last layer, and the students that
    they teach. Writes report.html, report.json, the pictures as PNG files, and the fitted
    temperature as JSON.
    """
    from lsmooth.study.trainers import default_backend, load_trainer

    plan = QUICK if quick else FULL
    if seeds is not None:
        if seeds < 1:
            fail(f"--seeds must be at least 1, got {seeds}.")
        plan = dataclasses.replace(plan, seeds=tuple(range(seeds)))
    try:
        nearest_folder(output)
        from lsmooth.study import load_data, run_study, write_report
        from lsmooth.study.run import total_rounds
        from lsmooth.study.translation import load_translation

        _check_packages()
        name = default_backend() if backend is None else backend.value
        load_trainer(name)
        rows = load_data(dataset.value, data)
        translated = None if translation is None else load_translation(translation)
        with steps(total_rounds(plan)) as advance:
            results = run_study(rows, plan, name, advance)
            path = write_report(results, output, translated)
    except (ValueError, ImportError, OSError) as error:
        fail(str(error))
    _print_study(results, path)


def _check_packages() -> None:
    missing = [
        package
        for module, package in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn"), ("jinja2", "jinja2"))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ImportError(f"The study needs {' and '.join(missing)}; install them with pip install 'lsmooth[study]'.")


def _print_study(results, path: Path) -> None:
    from lsmooth.study.findings import AGREES, DISAGREES, findings
    from lsmooth.study.report import COLUMNS, table

    numbers = Table(
        title=f"{results.data.name} on {results.backend}: mean ± standard error of {len(results.plan.seeds)} seeds",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    shown = COLUMNS[:-1]  # what fits 80 characters
    for heading in ("smoothing", *(heading for _, heading, _, _ in shown)):
        numbers.add_column(heading, justify="right", no_wrap=True)
    for row in table(results):
        numbers.add_row(*(cell.replace(" ", "") for cell in row[: 1 + len(shown)]))
    if console.measure(numbers, options=console.options.update(max_width=1000)).maximum > console.width:
        numbers = _narrow(table(results), shown, numbers.title)
    console.print(numbers, crop=False)
    colors = {AGREES: "green", DISAGREES: "red"}
    words = Table(title="Against the paper", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings(results):
        words.add_row(f"[{colors.get(finding.verdict, 'dim')}]{finding.verdict}[/]", f"{finding.claim}")
    console.print(words)
    console.print(f"{sum(results.seconds.values()):.0f} s. Report: [bold]{escape(str(path))}[/]", soft_wrap=True)


def _narrow(rows: list[list[str]], shown, title) -> Table:
    """The same numbers with measures below each other, a block for each amount of smoothing."""
    numbers = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD, pad_edge=False)
    numbers.add_column()
    numbers.add_column(justify="right", no_wrap=True)
    for row in rows:
        numbers.add_row("[bold]smoothing", f"[bold]{row[0]}")
        for (_, heading, _, _), cell in zip(shown, row[1:], strict=False):
            numbers.add_row(heading, cell, end_section=heading == shown[-1][1])
    return numbers
