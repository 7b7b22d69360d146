"""One file per framework, the protocol they share, and the registry that dispatches."""

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.registry import (
    backend_of,
    get_backend,
    installed_backends,
    load_backend,
    register_backend,
    set_backend,
    use_backend,
)

__all__ = [
    "Array",
    "Backend",
    "backend_of",
    "get_backend",
    "installed_backends",
    "load_backend",
    "register_backend",
    "set_backend",
    "use_backend",
]
