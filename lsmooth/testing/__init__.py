"""Tools for authors of backends: the conformance suite, and reference implementations of the losses."""

from lsmooth.testing.conformance import check_backend

__all__ = ["check_backend"]
