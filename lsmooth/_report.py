"""Reports of the commands: a self-contained HTML page, and a folder that is written as a whole."""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(template: str, pictures: dict[str, bytes], **values: Any) -> str:
    """Render an HTML file from a template of `lsmooth/templates`; text is escaped.

    Raises:
        ImportError: if Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("Reports need jinja2; install it with pip install 'lsmooth[calibrate]'.") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lsmooth"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    encoded = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    return environment.get_template(template).render(pictures=encoded, **values)


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, with constrained layout and outside pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def nearest_folder(folder: Path) -> Path:
    """The folder itself or its nearest existing parent.

    Raises:
        ValueError: if it is not a folder, or cannot be written.
    """
    existing = folder
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise ValueError(
                f"--output must be a folder, and {existing} is a file; choose another, e.g. --output {folder}-2."
            )
        with tempfile.TemporaryDirectory(prefix=".lsmooth-", dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"--output must be a folder that can be written, and {existing} cannot ({error.strerror}); choose another."
        ) from error
    return existing


@contextmanager
def staged(folder: Path, owned: Collection[str] = (), lasting: bool = False) -> Iterator[Path]:
    """A new folder to write into, which becomes ``folder`` if the block succeeds, and is removed otherwise.

    In an existing ``folder``, files of the same names are replaced, and files named in ``owned`` that are not written
    again are removed. Files written into the parent of the new folder are removed; if ``lasting``, an interrupted call
    keeps them for the next one.

    Raises:
        ValueError: if ``folder`` cannot be created.
    """
    folder = folder.absolute()
    above = nearest_folder(folder)
    parent = above.parent if above == folder and os.access(above.parent, os.W_OK) else above
    written: set[str] = set()
    with _working_folder(parent, folder.name, lasting) as temporary:
        content = temporary / "content"
        content.mkdir()
        yield content
        if folder.exists():
            for path in sorted(content.iterdir()):
                shutil.move(path, folder / path.name)
                written.add(path.name)
            for name in set(owned) - written:
                (folder / name).unlink(missing_ok=True)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(content, folder)


@contextmanager
def _working_folder(parent: Path, name: str, lasting: bool) -> Iterator[Path]:
    """A folder that is removed afterwards; if ``lasting``, only after success or an error in the input."""
    temporary = parent / f".{name}-unfinished"
    with (parent / f".{name}-unfinished.lock").open("w") if lasting else nullcontext() as lock:
        own = lock is not None and _locked(lock)
        if not own:  # another run uses it, or nothing is kept
            temporary, lasting = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent)), False
        temporary.mkdir(exist_ok=True)
        shutil.rmtree(temporary / "content", ignore_errors=True)
        try:
            yield temporary
        except (ValueError, TypeError, ImportError):
            lasting = False
            raise
        else:
            lasting = False
        finally:
            if not lasting or not any(path.is_file() for path in temporary.rglob("*")):
                shutil.rmtree(temporary, ignore_errors=True)
            if lock is not None and own:
                Path(lock.name).unlink(missing_ok=True)


def _locked(file: Any) -> bool:
    """Lock the file until it is closed; whether that succeeded."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
