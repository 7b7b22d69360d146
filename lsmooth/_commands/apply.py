"""``lsmooth apply``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lsmooth._commands._choices import Decimal
from lsmooth._commands._console import console, errors, fail, stages


def apply(
    calibrator: Annotated[Path, typer.Argument(help="The calibrator.json of lsmooth calibrate.", show_default=False)],
    predictions: Annotated[
        list[str],
        typer.Argument(
            help="New predictions of the same kind: files, quoted patterns or folders.",
            show_default=False,
            metavar="PREDICTIONS...",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="The file to write, or the folder for several; NAME_calibrated beside each by default.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    logits_key: Annotated[
        str | None,
        typer.Option(help="The array's name in the file, or the columns; by default as fitted.", show_default=False),
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Every number has a binary label of its own.")] = False,
    decimal: Annotated[Decimal, typer.Option(help="The decimal separator of .csv and .tsv files.")] = Decimal.POINT,
    n_jobs: Annotated[
        int, typer.Option("--n-jobs", "-j", help="Processes, each with a file at a time; -1 for one on each core.")
    ] = 1,
) -> None:
    """Calibrate new predictions with a saved calibrator.

    For a table, writes a copy with a column of calibrated probabilities for each class; for other files,
    an array of probabilities as .npy. Each file is written completely or not at all.
    """
    if n_jobs < 1 and n_jobs != -1:
        fail(f"--n-jobs must be at least 1, or -1 for one process on each core; got {n_jobs}.")
    how = {"logits_key": logits_key, "binary": binary, "decimal": decimal.value}
    try:
        from lsmooth.calibrate.parts import expanded
        from lsmooth.calibrate.processes import in_order, new_pool

        paths = [path for argument in predictions for path in expanded(argument)]
        written = {_default_target(path) for path in paths}
        paths = [path for path in paths if len(paths) == 1 or path not in written]
        tasks = [(calibrator, path, _target(path, output, len(paths) > 1), how) for path in paths]
        jobs = min((os.cpu_count() or 1) if n_jobs == -1 else n_jobs, len(paths))
        if jobs == 1:
            for task in tasks:
                with stages() as progress:
                    note = _apply(*task, progress)
                _print_result(note, task[2])
        else:
            with new_pool(jobs) as pool:
                for note, task in in_order(pool, _apply, tasks, 2 * jobs):
                    _print_result(note, task[2])
    except (ValueError, TypeError, ImportError, OSError) as error:
        fail(str(error))


def _print_result(note: str, target: Path) -> None:
    if note:
        errors.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    console.print(f"Calibrated probabilities: [bold]{escape(str(target))}[/]", soft_wrap=True)


def _suffix(path: Path) -> str:
    """The suffix of the file to write."""
    from lsmooth.calibrate.files import suffix_of

    suffix = suffix_of(path)
    return suffix if suffix in (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz") else ".npy"


def _default_target(path: Path) -> Path:
    """The default file of the probabilities."""
    from lsmooth.calibrate.files import suffix_of

    return path.with_name(f"{path.name[: len(path.name) - len(suffix_of(path))]}_calibrated{_suffix(path)}")


def _target(path: Path, output: Path | None, several: bool) -> Path:
    """The file to write the probabilities to.

    Raises:
        ValueError: if it cannot be written there.
    """
    from lsmooth.calibrate.files import suffix_of

    ending = _suffix(path)
    target = output or _default_target(path)
    if output is not None and several:
        if not output.is_dir():
            raise ValueError(f"--output must be an existing folder, for several files; got {output}.")
        target = output / _default_target(path).name
    if suffix_of(path) and suffix_of(target) != ending:
        raise ValueError(f"--output must be a file that ends in {ending}, like {path.name}; got {target}.")
    if target.absolute() == path.absolute():
        raise ValueError(f"--output must be another file than the predictions, {path}.")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"--output must be in an existing folder; {target.parent} does not exist.")
    return target


def _apply(
    calibrator: Path, path: Path, target: Path, how: dict[str, Any], progress: Callable[..., None] | None = None
) -> str:
    """Write the probabilities of one file atomically; return a note on them."""
    from lsmooth.calibrate.apply import apply as run
    from lsmooth.calibrate.parts import no_progress

    with tempfile.TemporaryDirectory(prefix=".lsmooth-", dir=target.absolute().parent) as folder:
        content, scratch = Path(folder) / f"content{_suffix(path)}", Path(folder) / "scratch"
        scratch.mkdir()
        note = run(calibrator, path, content, scratch, progress or no_progress, **how)
        os.replace(content, target)
    return note
