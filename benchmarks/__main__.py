"""``python -m benchmarks SUITE...`` is ``lsmooth bench SUITE...``."""

import sys

from lsmooth.cli import main

sys.argv[1:1] = ["bench"]
main()
