"""The commands behind `lsmooth.cli`, one module each."""

import typer

from lsmooth._commands import bench, calibrate, info, study

app = typer.Typer(
    help="Label smoothing, calibration and distillation: try them, and look at what they do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Label smoothing, calibration and distillation: try them, and look at what they do."""


app.command()(study.study)
app.command()(calibrate.calibrate)
app.command()(bench.bench)
app.command()(info.info)
