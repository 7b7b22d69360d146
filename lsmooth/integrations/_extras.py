"""The error of a module whose framework is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, *packages: str) -> Iterator[None]:
    """Raise a ModuleNotFoundError that names the extra if one of ``packages`` is missing in the ``with`` block."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages:
            raise  # the framework's own installation is incomplete
        raise ModuleNotFoundError(
            f"This module needs {error.name}, which is not installed: pip install 'lsmooth[{extra}]'.", name=error.name
        ) from error
