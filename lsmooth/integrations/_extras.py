"""The error where a module's framework is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, *packages: str) -> Iterator[None]:
    """Name the extra to install if a package imported in the ``with`` block is missing.

    Raises:
        ModuleNotFoundError: if one of ``packages`` is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages:
            raise  # the framework's own installation is incomplete
        raise ModuleNotFoundError(
            f"This module needs {error.name}, which is not installed: pip install 'lsmooth[{extra}]'.", name=error.name
        ) from error
