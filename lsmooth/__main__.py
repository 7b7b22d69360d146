"""``python -m lsmooth``."""

from lsmooth.cli import main

main()
