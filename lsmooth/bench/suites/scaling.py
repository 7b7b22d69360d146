"""How the smoothed cross-entropy grows with the classes and with the rows."""

from __future__ import annotations

from collections.abc import Iterator

from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites.loss import CROSS_ENTROPY, cross_entropy_rows

CLASSES = (10, 32, 100, 316, 1000, 3162, 10_000, 32_000, 100_000, 262_144)
ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536)


def rows(plan: Plan) -> Iterator[Row]:
    """256 rows of ever more classes; ever more rows of 1000 classes."""
    for classes in CLASSES[:3] if plan.quick else CLASSES:
        yield from cross_entropy_rows(plan, (256, classes), {}, f"over classes, {CROSS_ENTROPY}")
    for count in ROWS[:3] if plan.quick else ROWS:
        yield from cross_entropy_rows(plan, (count, 1000), {}, f"over rows, {CROSS_ENTROPY}")
