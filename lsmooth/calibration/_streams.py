"""Rows in batches: batches that are read in every pass, and tables of sums that can be merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple
from typing import Any

import numpy as np

from lsmooth.calibration._moments import Rows, Sums, Totals
from lsmooth.calibration._newton import entry, find_root, run


class Batches:
    """A source that reads its batches in each pass and keeps only sums.

    The constructor makes the first pass: it finds the optimum of the first batch, and the sums of all batches there and
    at beta = 1, so that few passes remain.

    Raises:
        TypeError: if ``batches`` is an iterator, which can be read only once.
        ValueError: if there are no batches.
    """

    def __init__(self, batches: Iterable[Any], rows_of: Callable[[Any], Rows], low: float, high: float):
        if isinstance(batches, Iterator):
            raise TypeError(
                f"batches must be readable more than once, got a {type(batches).__name__}, which can be read "
                "only once; give a list, a DataLoader or another object whose __iter__ starts from the beginning."
            )
        self._batches, self._rows_of = batches, rows_of
        self.passes = 1
        self.totals = Totals()
        self.start: float | None = None
        self._known = {1.0: Sums()}
        for batch in batches:
            rows = rows_of(batch)
            self.totals += rows.totals
            if self.start is None and rows.totals.count > 0:
                start: float = run(rows, find_root(rows, 0.0, low, high, 20, exact=1e-2))[0]
                self.start = start
                self._known.setdefault(math.exp(start), Sums())
            for beta in self._known:
                self._known[beta] += rows.sums(beta)

    def sums(self, beta: float) -> Sums:
        """The sums at ``beta``, by a pass over the batches unless they are known."""
        if beta not in self._known:
            self.passes += 1
            total = Sums()
            for batch in self._batches:
                total += self._rows_of(batch).sums(beta)
            self._known[beta] = total
        return self._known[beta]


class Table:
    """Sums of rows at fixed betas, interpolated between them; the tables of shards can be added.

    The betas are the powers of sqrt(2) from 1/64 to 64. A polynomial of degree 11 interpolates the value and its first
    two derivatives by log beta at the four nearest betas; its error is below 1e-8 of the value.
    """

    NODES = np.arange(-12, 13) * (0.5 * math.log(2.0))
    LOW, HIGH = float(NODES[0]), float(NODES[-1])

    def __init__(self) -> None:
        self.passes = 1
        self.totals = Totals()
        self.rows = np.zeros((len(self.NODES), 3))
        """Value, and its first and second derivative by log beta, at each node."""

    def add(self, rows: Rows) -> None:
        """Add a batch."""
        self.totals += rows.totals
        for i, node in enumerate(self.NODES):
            sums = rows.sums(math.exp(node))
            self.rows[i] += (sums.value, sums.slope, sums.curvature + sums.slope)

    def merge(self, other: Table) -> None:
        """Add the rows of another table."""
        self.totals += other.totals
        self.rows += other.rows

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The totals, and the sums at each node."""
        return np.array(astuple(self.totals)), self.rows

    @classmethod
    def of(cls, totals: Any, rows: Any) -> Table:
        """The table of `arrays`, or of lists of their numbers.

        Raises:
            ValueError: if the shapes differ.
        """
        table = cls()
        totals, rows = np.asarray(totals, np.float64), np.asarray(rows, np.float64)
        if totals.shape != (4,) or rows.shape != table.rows.shape:
            raise ValueError(f"state must be that of a TemperatureScaling, got shapes {totals.shape} and {rows.shape}.")
        table.totals, table.rows = Totals(*totals.tolist()), rows
        return table

    def sums(self, beta: float) -> Sums:
        """The sums at ``beta``, interpolated."""
        x = math.log(beta)
        step = self.NODES[1] - self.NODES[0]
        first = min(max(int((x - self.LOW) // step) - 1, 0), len(self.NODES) - 4)
        near = (self.NODES[first : first + 4] - self.NODES[first]) / step - 1.5
        powers = np.arange(12)
        system = np.concatenate([_derivative(near, powers, order) for order in range(3)])
        known = self.rows[first : first + 4] * step ** np.arange(3)
        coefficients = np.linalg.solve(system, known.T.reshape(-1))
        at = np.array([(x - self.NODES[first]) / step - 1.5])
        value, slope, bend = (float((_derivative(at, powers, k) @ coefficients)[0]) / step**k for k in range(3))
        return Sums(value, slope, max(bend - slope, 0.0))


def add_groups(tables: dict[int, Table], rows: Rows, groups: Iterable[int]) -> None:
    """Add a batch of rows in groups to the groups' tables, by their ids."""
    sums = [rows.sums(math.exp(node)) for node in Table.NODES]
    for index, group in enumerate(groups):
        table = tables.setdefault(group, Table())
        table.totals += entry(rows.totals, index)
        for row, of_node in zip(table.rows, (entry(x, index) for x in sums), strict=True):
            row += (of_node.value, of_node.slope, of_node.curvature + of_node.slope)


def _derivative(x: np.ndarray, powers: np.ndarray, order: int) -> np.ndarray:
    """The ``order``-th derivative of x ** powers, (x, powers)."""
    factor = np.ones(len(powers))
    for k in range(order):
        factor = factor * (powers - k)
    return factor * x[:, None] ** np.maximum(powers - order, 0)
