"""``lsmooth bench``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from lsmooth._commands._console import Output, console, fail, stages
from lsmooth._report import nearest_folder


def bench(
    suites: Annotated[
        list[str] | None, typer.Argument(help="What to run; everything if none is named.", metavar="[SUITE]...")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="A backend to measure, once for each; by default those installed.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, or what else JAX calls its devices.", show_default="the accelerator if there is one"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that everything runs.")] = False,
    memory: Annotated[bool, typer.Option(help="Whether to measure peak memory too, in a process each.")] = True,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Measure nothing; table and pictures anew from NAME.json.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call the machine in the file names.", show_default="cpu-CORES-core, or the accelerator's name"
        ),
    ] = None,
    output: Output = Path("benchmarks/results"),
) -> None:
    """Measure lsmooth beside each framework's own functions, on this machine.

    Writes NAME.json, which keeps what it holds of suites that are not run again, NAME.md, a table
    that ends with the text of NAME.notes.md if that is there, and the pictures as PNGs. Suites: loss,
    distillation, linear, calibration, metrics, overhead, import, scaling. Close other programs first:
    every figure is a ratio of two times taken side by side, but a busy machine does not slow all of
    them alike.
    """
    from lsmooth.backends import installed_backends
    from lsmooth.bench.device import resolve
    from lsmooth.bench.figures import draw
    from lsmooth.bench.report import markdown
    from lsmooth.bench.rows import Plan
    from lsmooth.bench.run import describe_machine, load, run_suites, save
    from lsmooth.bench.suites import SUITES

    unknown = [suite for suite in suites or () if suite not in SUITES]
    if unknown:
        fail(f"SUITE must be one of {', '.join(SUITES)}; got {unknown[0]}.")
    installed = installed_backends()
    missing = [each for each in backend or () if each not in installed]
    if missing:
        fail(f"--backend {missing[0]} is not installed; installed are {', '.join(installed)}.")
    if not report_only:
        try:
            nearest_folder(output)
        except ValueError as error:
            fail(str(error))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        chosen = resolve("cpu" if report_only and device is None else device, backend or installed)
    except ValueError as error:
        fail(f"--device: {error}")
    machine = describe_machine(chosen.kind, chosen.name)
    name = name or re.sub("[^a-z0-9]+", "-", (chosen.name or f"cpu {machine['cores']} core").lower())
    path, notes = output / f"{name}.json", output / f"{name}.notes.md"
    if report_only:
        if not path.exists():
            fail(f"--report-only: there is no {path}; --name and --output say which results are meant.")
    else:
        plan = Plan(chosen.backends, quick, chosen.kind)
        with stages() as progress:
            for suite in suites or SUITES:  # each is kept when it is done, should the next be interrupted
                results = run_suites([suite], plan, with_memory=memory, progress=lambda text: progress(text, 0, 0))
                save(results, machine, path)
    machine, results = load(path)
    report = output / f"{name}.md"
    text = notes.read_text(encoding="utf-8") if notes.exists() else ""
    report.write_text(markdown(machine, results, text), encoding="utf-8")
    for file in (path, report, *draw(results, output, name)):
        console.print(str(file), soft_wrap=True)
