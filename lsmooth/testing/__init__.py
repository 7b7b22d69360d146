"""For who writes a backend: the conformance suite, and the reference that losses are held to."""

from lsmooth.testing.conformance import check_backend

__all__ = ["check_backend"]
