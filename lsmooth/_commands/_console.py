"""Output of the commands: a console, one-line errors, progress."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)

Output = Annotated[Path, typer.Option("--output", "--out", "-o", help="The folder for the results.", metavar="DIR")]


def fail(message: str) -> NoReturn:
    """Print an error in one line on stderr, and exit with code 2."""
    errors.print(f"[bold red]Error:[/] {escape(' '.join(message.split()))}", soft_wrap=True)
    raise typer.Exit(2)


def interruptible(command: Callable[..., None], left: str) -> Callable[..., None]:
    """Wrap a command: on Ctrl-C print what remains, and exit with code 130."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            errors.print(f"[bold red]Interrupted.[/] {left}", soft_wrap=True)
            raise typer.Exit(130) from None

    return wrapper


@contextmanager
def steps(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; yields a function that advances it by one step and describes the next."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=errors, transient=True) as progress:
        task = progress.add_task("importing", total=total)
        yield lambda description: progress.update(task, advance=1, description=description)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for successive stages; yields a function of the stage's name, the rows done, and their total."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    if not errors.is_terminal:  # a bar would leave an empty line
        yield lambda stage, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("opening", total=None)
        yield lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total or None)
