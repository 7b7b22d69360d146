"""``lsmooth apply``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lsmooth._commands._choices import Decimal
from lsmooth._commands._console import console, errors, fail, stages


def apply(
    calibrator: Annotated[
        Path, typer.Argument(help="calibrator.json, in the folder that lsmooth calibrate left.", show_default=False)
    ],
    predictions: Annotated[
        Path, typer.Argument(help="New predictions, of the kind that it was fitted to.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="The file to write; NAME_calibrated by default.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    logits_key: Annotated[
        str | None,
        typer.Option(help="The array's name in the file, or the columns; by default as fitted.", show_default=False),
    ] = None,
    binary: Annotated[
        bool, typer.Option("--binary", help="Every number is that of a yes-or-no label of its own.")
    ] = False,
    decimal: Annotated[Decimal, typer.Option(help="The decimal separator of .csv and .tsv files.")] = Decimal.POINT,
) -> None:
    """Calibrate new predictions with a saved calibrator.

    Of a table, writes its columns and, beside them, a column of calibrated probabilities for each class;
    of other files, an array of probabilities as .npy.
    """
    try:
        from lsmooth.calibrate.apply import apply as run
        from lsmooth.calibrate.files import suffix_of

        suffix = suffix_of(predictions)
        written = suffix if suffix in (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz") else ".npy"
        stem = predictions.name[: len(predictions.name) - len(suffix)]
        target = output or predictions.with_name(f"{stem}_calibrated{written}")
        if suffix and suffix_of(target) != written:
            fail(f"--output must be a file that ends in {written}, as {predictions.name} asks for; got {target}.")
        if target.absolute() == predictions.absolute():
            fail(f"--output must be another file than the predictions, {predictions}.")
        if not target.absolute().parent.is_dir():
            fail(f"--output must be in a folder that is there; {target.parent} is not.")
        with (
            tempfile.TemporaryDirectory(prefix=".lsmooth-", dir=target.absolute().parent) as folder,
            stages() as progress,
        ):
            content, scratch = Path(folder) / f"content{written}", Path(folder) / "scratch"
            scratch.mkdir()
            note = run(
                calibrator,
                predictions,
                content,
                scratch,
                progress,
                logits_key=logits_key,
                binary=binary,
                decimal=decimal.value,
            )
            os.replace(content, target)
    except (ValueError, TypeError, ImportError, OSError) as error:
        fail(str(error))
    if note:
        errors.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    console.print(f"Calibrated probabilities: [bold]{escape(str(target))}[/]", soft_wrap=True)
