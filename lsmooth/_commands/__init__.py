"""The commands behind `lsmooth.cli`, one module each."""

from typing import Annotated

import typer

from lsmooth import __version__
from lsmooth._commands import apply, bench, calibrate, info, study
from lsmooth._commands._console import console, interruptible

app = typer.Typer(
    help="Label smoothing, calibration and distillation: try them, and look at what they do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"lsmooth {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Label smoothing, calibration and distillation: try them, and look at what they do."""


app.command()(interruptible(study.study, "Nothing was written: the report needs every network."))
app.command()(interruptible(calibrate.calibrate, "Nothing was written; the same command goes on from here."))
app.command()(interruptible(apply.apply, "Nothing was written."))
app.command()(
    interruptible(bench.bench, "Results of the suites that had ended are kept; --report-only writes their table.")
)
app.command()(info.info)
