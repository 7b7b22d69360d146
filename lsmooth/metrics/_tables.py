"""The table of sums per bin of a metric's rows, and the error of a table."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from lsmooth import _validation as check
from lsmooth._sums import long_sum, quiet
from lsmooth.backends import Array, Backend
from lsmooth.metrics._bins import (
    CONVENTIONS,
    BinSums,
    bin_index,
    bin_sums,
    equal_mass_index,
    exact_edges,
    number_of_bins,
)
from lsmooth.metrics._inputs import Inputs, probabilities, top_label

NORMS = ("l1", "l2", "max")
BINNINGS = ("equal_width", "equal_mass")


@dataclass(frozen=True)
class Scheme:
    """The options of a binned calibration error.

    Raises:
        ValueError: if an option is unknown, or conflicts with another.
    """

    n_bins: int = 15
    binning: str = "equal_width"
    norm: str = "l1"
    debias: bool = False
    convention: str = "guo"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_bins", check.check_count("n_bins", self.n_bins))
        object.__setattr__(self, "debias", check.check_flag("debias", self.debias))
        for name, value, known in (
            ("binning", self.binning, BINNINGS),
            ("norm", self.norm, NORMS),
            ("convention", self.convention, CONVENTIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        if self.debias and self.norm != "l2":
            raise ValueError(f"debias=True is for norm='l2', got norm={self.norm!r}.")
        if self.binning == "equal_mass" and self.convention != "guo":
            raise ValueError(f"convention={self.convention!r} is one of equal widths, got binning='equal_mass'.")

    @property
    def length(self) -> int:
        """The number of bins in the table."""
        return number_of_bins(self.n_bins, self.convention)

    def index(self, xp: Backend, values: Array, weight: Array) -> Array:
        """The bin of each value."""
        if self.binning == "equal_mass":
            return equal_mass_index(xp, values, weight, self.n_bins)
        return bin_index(xp, values, self.n_bins, self.convention)

    def edges(self, xp: Backend, values: Array, weight: Array) -> Array:
        """(n_bins + 1,), from 0 to 1: bin b holds values in (edges[b], edges[b + 1]], the first one 0 too."""
        bound = list(range(self.n_bins + 1))
        if self.binning == "equal_width" or xp.shape(values)[0] == 0:
            return xp.asarray(exact_edges(self.n_bins, xp.dtype(values)), xp.dtype(values), like=values)
        values = xp.where(xp.equal(weight, 0), 0.0, values)
        order = xp.argsort(values)
        index = xp.take(self.index(xp, values, weight), order)
        bound = xp.asarray(bound, xp.dtype(index), like=values)
        below = xp.searchsorted(index, bound, "left")
        highest = xp.take(xp.take(values, order), xp.where(below > 0, below - 1, 0))
        return xp.where(xp.equal(bound, self.n_bins), 1.0, xp.where(below > 0, highest, 0.0))

    def index_of(self, inputs: Inputs, name: Hashable, values: Array, weight: Array) -> Array:
        """`index`; bins that do not depend on the weights are computed once for the rows."""
        if self.binning == "equal_mass":
            return self.index(inputs.xp, values, weight)
        return inputs.once((self.n_bins, self.convention, name), lambda: self.index(inputs.xp, values, weight))


def top_label_table(inputs: Inputs, scheme: Scheme, binary: bool = False) -> BinSums:
    """(1, bins): by the confidence in the likeliest class, or P(class 1) if the convention uses it."""
    xp = inputs.xp
    confidence, correct = confidence_and_outcome(inputs, scheme.convention, binary)
    index = scheme.index_of(inputs, ("top_label", binary), confidence, inputs.weight)
    return bin_sums(xp, index, inputs.weight, confidence, correct, scheme.length)


def confidence_and_outcome(inputs: Inputs, convention: str, binary: bool = False) -> tuple[Array, Array]:
    """The confidence to be binned, and whether that class is the label."""
    xp = inputs.xp
    if by_class_one(inputs, convention, binary):
        return probabilities(inputs)[:, 1], xp.cast(xp.equal(inputs.labels, 1), inputs.dtype)
    confidence, correct = top_label(inputs)
    # torchmetrics casts the probability of the likeliest class, and no other, to float32.
    return xp.cast(confidence, "float32") if convention == "torchmetrics" else confidence, correct


def check_concrete(name: str, inputs: Inputs) -> None:
    """Raise if a metric that reads values is traced."""
    if not inputs.xp.is_concrete(inputs.predictions):
        raise TypeError(f"{name} reads values on the host; call it outside tracing.")


def rows_on_host(name: str, inputs: Inputs, binary: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, correctness and weight of each row in float64: of class 1 if ``binary``, else of the likeliest."""
    check_concrete(name, inputs)
    rows = confidence_and_outcome(inputs, "relplot", binary) if binary else top_label(inputs)
    confidence, correct, weight = (inputs.xp.to_numpy(x).astype(np.float64) for x in (*rows, inputs.weight))
    return confidence, correct, weight


def by_class_one(inputs: Inputs, convention: str, binary: bool = False) -> bool:
    """Whether P(class 1) is binned instead of the probability of the likelier class."""
    # torchmetrics' and relplot's functions for yes-or-no questions, and netcal's and scikit-learn's for two classes.
    two = CONVENTIONS[convention].positive and inputs.xp.shape(inputs.predictions)[-1] == 2
    return two or (binary and convention in ("torchmetrics", "relplot"))


def classwise_table(inputs: Inputs, scheme: Scheme) -> BinSums:
    """(classes, bins): every class by its own probability, whatever the likeliest one is."""
    xp, p = inputs.xp, probabilities(inputs)
    classes = xp.shape(p)[-1]
    correct = xp.one_hot(inputs.labels, classes, inputs.dtype)
    offset = xp.asarray(list(range(0, classes * scheme.length, scheme.length)), "int32", like=p)
    weight = inputs.weight[:, None] * xp.ones_like(p, inputs.dtype)
    index = scheme.index_of(inputs, "classwise", xp.moveaxis(p, 0, 1), xp.moveaxis(weight, 0, 1))
    return bin_sums(xp, xp.moveaxis(index, 0, 1) + offset[None, :], weight, p, correct, scheme.length, classes)


def calibration_error(xp: Backend, sums: BinSums, norm: str, debias: bool = False, reduction: str = "mean") -> Array:
    """The error of a table, 0 without rows; the mean, or the maximum, over several groups.

    With p the l1 or l2 of ``norm``: ``(mean over groups of sum_b (n_b / N) |acc_b - conf_b|^p)^(1/p)``;
    if ``reduction="none"``, that of each group, (groups,).
    """
    with quiet(xp):
        return _error(xp, sums, norm, debias, reduction == "none")


def _error(xp: Backend, sums: BinSums, norm: str, debias: bool, each: bool) -> Array:
    total = xp.sum(sums.weight, axis=-1)[:, None]
    total = xp.where(xp.equal(total, 0), 1.0, total)
    filled = xp.where(xp.equal(sums.weight, 0), 1.0, sums.weight)
    gap = xp.where(sums.gap < 0, -sums.gap, sums.gap)
    if norm == "max":
        largest = xp.max(gap / filled, axis=-1)
        return largest if each else xp.max(largest, axis=0)
    if norm == "l2":
        squares = (gap / filled) * (gap / filled)
        if debias:
            # Subtract the variance of the mean of n_b labels, which chance adds; it is unknown for one row.
            accuracy = sums.correct / filled
            several = sums.weight > 1
            spare = xp.where(several, sums.weight - 1.0, 1.0)
            squares = xp.where(several, squares - accuracy * (1.0 - accuracy) / spare, 0.0)
        gap = sums.weight * squares
    error = xp.sum(gap / total, axis=-1)
    error = error if each else long_sum(xp, error) / xp.shape(error)[0]
    return error if norm == "l1" else xp.where(error > 0, error, error * 0.0) ** 0.5
