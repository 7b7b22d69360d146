"""The suites by name; each module has a function ``rows(plan)``, which yields `lsmooth.bench.rows.Row`s."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace

from lsmooth.bench.device import CPU
from lsmooth.bench.rows import Plan, Row

SUITES = ("loss", "distillation", "linear", "calibration", "metrics", "overhead", "import", "scaling", "streams")


def suite_rows(suite: str, plan: Plan) -> Iterator[Row]:
    """The rows of a suite; bars are for the CPU.

    Raises:
        ValueError: if there is no such suite.
    """
    if suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(SUITES)}; got {suite!r}.")
    module = importlib.import_module(f"lsmooth.bench.suites.{'imports' if suite == 'import' else suite}")
    for row in module.rows(plan):
        yield row if plan.device == CPU else replace(row, bars={})
