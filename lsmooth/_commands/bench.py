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
        list[str] | None, typer.Argument(help="The suites to run; by default all.", metavar="[SUITE]...")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="A backend to measure; may be repeated. By default all that are installed.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, or another name of a device in JAX.", show_default="the accelerator if there is one"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to check that everything runs.")] = False,
    memory: Annotated[bool, typer.Option(help="Also measure peak memory, each in a process of its own.")] = True,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Measure nothing; write the table and the pictures from NAME.json.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="The name of the machine in the file names.", show_default="cpu-CORES-core, or the accelerator's name"
        ),
    ] = None,
    output: Output = Path("benchmarks/results"),
) -> None:
    """Measure lsmooth beside each framework's own functions, on this machine.

    Writes NAME.json, the table NAME.md, and the pictures as PNG files. Results of suites that are not
    run again are kept. The text of NAME.notes.md, if it exists, is added to the table. Suites: loss,
    distillation, linear, calibration, metrics, overhead, import, scaling, streams. Close other programs
    first: each result is a ratio of two times measured in turns, but a busy machine does not slow both alike.
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
            fail(f"--report-only: there is no {path}; choose the results with --name and --output.")
    else:
        plan = Plan(chosen.backends, quick, chosen.kind)
        with stages() as progress:
            for suite in suites or SUITES:  # saved one by one, in case a run is interrupted
                results = run_suites([suite], plan, with_memory=memory, progress=lambda text: progress(text, 0, 0))
                save(results, machine, path)
    machine, results = load(path)
    report = output / f"{name}.md"
    text = notes.read_text(encoding="utf-8") if notes.exists() else ""
    report.write_text(markdown(machine, results, text), encoding="utf-8")
    for file in (path, report, *draw(results, output, name)):
        console.print(str(file), soft_wrap=True)
