"""The commands behind `lsmooth.cli`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsmooth import __version__
from lsmooth.backends import installed_backends
from lsmooth.study.config import BACKENDS, FULL, QUICK
from lsmooth.study.data import DATASETS

app = typer.Typer(
    help="Label smoothing, calibration and distillation: try them, and look at what they do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

# Of each framework, the packages that a user will be asked for.
_PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "tensorflow": ("tensorflow", "keras")}


@app.callback()
def root() -> None:
    """Label smoothing, calibration and distillation: try them, and look at what they do."""


@app.command()
def study(
    backend: Annotated[
        str | None,
        typer.Option(
            help="The framework to train with; by default the first of these that is installed.",
            metavar="|".join(BACKENDS),
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help="A data set of scikit-learn's.", metavar="|".join(DATASETS))] = DATASETS[
        0
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Your own data instead: an .npz file of x (rows, features) and y (rows,).", metavar="FILE"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer amounts of smoothing and seeds.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            help=f"Networks for each amount of smoothing; by default {len(FULL.seeds)}, quick {len(QUICK.seeds)}.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder for the report.", metavar="DIR")] = Path("report"),
) -> None:
    """Repeat the experiments of "When Does Label Smoothing Help?" and write a report.

    Trains small networks with and without label smoothing, measures how well they generalise, how
    calibrated they are before and after temperature scaling, how their last layer looks, what they
    teach to students, and leaves report.html, the same as report.json, the pictures as PNGs, and
    the fitted temperature as JSON.
    """
    from lsmooth.study.trainers import default_backend, load_trainer

    plan = QUICK if quick else FULL
    if seeds is not None:
        if seeds < 1:
            fail(f"--seeds must be at least 1, got {seeds}.")
        plan = dataclasses.replace(plan, seeds=tuple(range(seeds)))
    _check_folder(output)
    try:
        from lsmooth.study import load_data, run_study, write_report
        from lsmooth.study.run import total_rounds

        _check_packages()
        name = default_backend() if backend is None else backend
        load_trainer(name)
        rows = load_data(dataset, data)
        with _progress(total_rounds(plan)) as advance:
            results = run_study(rows, plan, name, advance)
            path = write_report(results, output)
    except (ValueError, ImportError) as error:
        fail(str(error))
    _print_study(results, path)


@app.command()
def info() -> None:
    """Print versions, devices, and which backends are installed."""
    table = Table(title=f"lsmooth {__version__}, Python {platform.python_version()}", title_justify="left")
    for heading in ("backend", "installed", "devices", "lsmooth study"):
        table.add_column(heading)
    installed = installed_backends()
    for name in dict.fromkeys(("numpy", *BACKENDS, *installed)):
        if name not in installed:
            table.add_row(name, f"no: pip install 'lsmooth\\[{name}]'", "", "")
            continue
        packages = _PACKAGES.get(name, (name,))
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        trains = f"needs {', '.join(missing)}" if missing else "yes" if name in BACKENDS else ""
        table.add_row(
            name,
            ", ".join(f"{package} {version}" for package, version in versions.items() if version),
            _devices(name),
            trains,
        )
    console.print(table)


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    errors.print(f"[bold red]Error:[/] {escape(' '.join(message.split()))}", soft_wrap=True)
    raise typer.Exit(2)


def _check_folder(folder: Path) -> None:
    """A report must have somewhere to go before an hour is spent on it."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        fail(f"--output must be a folder, and {existing} is a file; choose another, e.g. --output {folder}-2.")
    if not os.access(existing, os.W_OK):
        fail(f"--output must be a folder that can be written, and {existing} cannot; choose another.")


def _check_packages() -> None:
    missing = [
        package
        for module, package in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn"))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ImportError(f"The study needs {' and '.join(missing)}; install them with pip install 'lsmooth[study]'.")


def _progress(total: int):
    from contextlib import contextmanager

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    @contextmanager
    def running():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=errors, transient=True) as progress:
            task = progress.add_task("importing", total=total)

            def advance(description: str) -> None:
                progress.update(task, advance=1, description=description)

            yield advance

    return running()


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
    console.print(numbers)
    colors = {AGREES: "green", DISAGREES: "red"}
    words = Table(title="Against the paper", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings(results):
        words.add_row(f"[{colors.get(finding.verdict, 'dim')}]{finding.verdict}[/]", f"{finding.claim}")
    console.print(words)
    console.print(f"{sum(results.seconds.values()):.0f} s. Report: [bold]{escape(str(path))}[/]", soft_wrap=True)


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    for distribution in importlib.metadata.packages_distributions().get(package, [package]):
        return importlib.metadata.version(distribution)
    return None


def _devices(name: str) -> str:
    """What the framework sees; imports it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if name == "torch":
        import torch

        cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return ", ".join(["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])])
    if name == "jax":
        import jax

        return ", ".join(str(device) for device in jax.devices())
    if name == "tensorflow":
        import tensorflow as tf

        return ", ".join(device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices())
    return "cpu" if name == "numpy" else ""
