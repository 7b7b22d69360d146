"""How time and memory of the smoothed cross-entropy grow with the classes and with the rows: lsmooth alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites.loss import CROSS_ENTROPY, cross_entropy_rows

CLASSES = (10, 32, 100, 316, 1000, 3162, 10_000, 32_000, 100_000, 262_144)
ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536)
# Modes that compile longer than they run at every size.
LEFT_OUT = ("torch, compiled", "tensorflow, unknown batch")


def rows(plan: Plan) -> Iterator[Row]:
    """256 rows of 10 to 262144 classes; 1 to 65536 rows of 1000 classes."""
    for classes in CLASSES[:3] if plan.quick else CLASSES:
        yield from _rows(plan, (256, classes), "over classes")
    for count in ROWS[:3] if plan.quick else ROWS:
        yield from _rows(plan, (count, 1000), "over rows")


def _rows(plan: Plan, size: tuple[int, int], over: str) -> Iterator[Row]:
    for row in cross_entropy_rows(plan, size, work=f"{over}, {CROSS_ENTROPY}"):
        if row.backend not in LEFT_OUT:
            unit = 4 * size[0] * size[1]
            yield replace(row, contenders={"lsmooth": row.contenders["lsmooth"]}, unit_bytes=unit)
