"""The time of ``import lsmooth`` after ``import numpy``, in a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from lsmooth.bench.rows import Call, Plan, Row

BAR = 20e-3


def rows(plan: Plan) -> Iterator[Row]:
    """Each call starts Python, which times the import alone."""
    for module in ("lsmooth", "lsmooth.losses"):
        bars = {"seconds": BAR} if module == "lsmooth" else {}
        contenders = {"lsmooth": lambda module=module: _importer(module)}
        yield Row(f"import {module}, after numpy", "numpy", {}, contenders, bars=bars, self_timed=True)


def _importer(module: str) -> Call:
    code = f"import numpy, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"

    def run() -> float:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return run
