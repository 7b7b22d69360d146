"""What the commands' reports share: a page with its style and pictures inside, a folder that is whole or absent."""

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
    """A whole HTML file by a template of `lsmooth/templates`; text is escaped.

    Args:
        template: its name.
        pictures: PNG files, by name.
        **values: what the template shows.

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
    """A figure of that size in inches, with room made for labels; pyplot does not know of it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes for the same picture."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def nearest_folder(folder: Path) -> Path:
    """The folder itself or the nearest one above it that is there.

    Raises:
        ValueError: if that is no folder, or nothing can be written there.
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
    """A new folder to write into, which becomes ``folder`` if the block ends well, and is gone if not.

    Where ``folder`` is there already, files of the same names are replaced. Others stay, but for those
    named in ``owned``, which an earlier run has written and this one has not. What
    is written beside the new folder, into its parent, is gone in either case; but if ``lasting``, it is
    there for the next call where this one was interrupted.

    Raises:
        ValueError: if ``folder`` cannot be made.
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
    """A folder that is gone afterwards; if ``lasting``, after an end or an error of the user's, not after others."""
    temporary = parent / f".{name}-unfinished"
    with (parent / f".{name}-unfinished.lock").open("w") if lasting else nullcontext() as lock:
        own = lock is not None and _locked(lock)
        if not own:  # another run is at work there, or nothing is to last
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
    """Whether the file could be locked, for as long as it is open."""
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
