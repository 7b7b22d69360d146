"""The command ``lsmooth``: it needs typer and rich, and says so where they are missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"The lsmooth command needs {error.name}; install it with: pip install 'lsmooth[cli]'")
    from lsmooth._commands import app

    app()


if __name__ == "__main__":
    main()
