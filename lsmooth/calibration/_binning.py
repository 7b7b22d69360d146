"""Calibrators of probabilities one class at a time: histogram binning and isotonic regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth._isotonic import isotonic
from lsmooth.backends import Array, Backend, load_backend
from lsmooth.backends.formulas.rows import accumulate, log_softmax
from lsmooth.backends.formulas.sigmoid import sigmoid
from lsmooth.calibration._base import Calibrator, check_option, eager, predictions_of, rows_of

BINNINGS = ("equal_width", "equal_mass")
STRATEGIES = ("one_vs_rest", "top_versus_all")
_NUMPY = load_backend("numpy")
_COLUMNS = 16
Column = tuple[np.ndarray, np.ndarray]
"""A class's probabilities, and the share of that class in each row's label."""


@dataclass(kw_only=True, repr=False, eq=False)
class ClasswiseCalibrator(Calibrator):
    """Base: a function for each class's probability; the mapped rows are scaled to sum to one.

    With ``strategy="top_versus_all"`` one function maps the probability of the likeliest class, and the other classes
    are scaled to the rest. If ``binary``, one function maps the probability of class 1.

    The functions are piecewise constant or linear, without a useful gradient, so they run in NumPy; results are in the
    predictions' framework, on their device.
    """

    strategy: str = "one_vs_rest"

    @np.errstate(all="ignore")
    def _fit(self, logits: Array, labels: Array, sample_weight: Array | None) -> None:
        rows = rows_of(self, logits, labels, sample_weight, any_label=True)
        if not rows.totals.count > 0:
            raise ValueError("No row to fit on: logits hold none, or all are ignored or of weight 0.")
        parts: list[tuple[np.ndarray, ...]] = []
        for z, y, w in rows.blocks(as_given=True):
            if y.ndim == 2:
                mass = y.sum(axis=1, keepdims=True)
                y = y / np.where(mass == 0, 1.0, mass)
            if self.binary:  # the second of the columns (0, z) or (1 - p, p)
                z, y = z[:, 1:], y[:, 1:] if y.ndim == 2 else y[:, None]
            p = (sigmoid(_NUMPY, z) if self.binary else _softmax(z)) if self.from_logits else z
            parts.append((p, y, np.ones(len(z)) if w is None else w))
        p, y, w = (np.concatenate(x) for x in zip(*parts, strict=True))
        if not (w > 0).all():
            p, y, w = p[w > 0], y[w > 0], w[w > 0]
        if self._is_top:
            top = p.argmax(axis=1)
            right = np.take_along_axis(y, top[:, None], 1)[:, 0] if y.ndim == 2 else y == top
            p, y = np.take_along_axis(p, top[:, None], 1), right.astype(np.float64)[:, None]
        targets = y.T if y.ndim == 2 else (y == k for k in range(rows.classes))
        columns = ((x.astype(np.float64), t.astype(np.float64)) for x, t in zip(p.T, targets, strict=True))
        self._fit_classes(columns, w.astype(np.float64))

    def _transform(self, logits: Array) -> Array:
        return self._predict(logits)

    @np.errstate(all="ignore")
    def _predict(self, logits: Array) -> Array:
        xp = eager("predict_proba", logits=logits)
        array = predictions_of(self, xp, logits)
        if self.binary:
            array = accumulate(xp, array)
            p = xp.to_numpy(sigmoid(xp, array) if self.from_logits else array).astype(np.float64)
            return xp.asarray(self._map_classes(p[..., None])[..., 0], xp.dtype(array), like=array)
        axis = check.check_axis(self.axis, xp.shape(array))
        array = accumulate(xp, xp.moveaxis(array, axis, -1))
        p = xp.to_numpy(self._probabilities(xp, array)).astype(np.float64)
        if self._is_top:
            return xp.moveaxis(xp.asarray(self._map_top(p), xp.dtype(array), like=array), -1, axis)
        if p.shape[-1] != self._classes():
            raise ValueError(f"logits must have {self._classes()} classes, as in fit; got {p.shape[-1]}.")
        mapped = self._map_classes(p)
        total = mapped.sum(axis=-1, keepdims=True)
        mapped /= np.where(total == 0, 1.0, total)
        if not total.all():
            mapped = np.where(total == 0, p, mapped)
        return xp.moveaxis(xp.asarray(mapped, xp.dtype(array), like=array), -1, axis)

    def _probabilities(self, xp: Backend, array: Array) -> Array:
        if not self.from_logits:
            return array
        return xp.exp(log_softmax(xp, array))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {self.strategy!r}.")

    @property
    def _is_top(self) -> bool:
        return self.strategy == "top_versus_all" and not self.binary

    def _map_top(self, p: np.ndarray) -> np.ndarray:
        """Map the probability of the likeliest class, and scale the others to the rest."""
        top = p.argmax(axis=-1)[..., None]
        confidence = np.take_along_axis(p, top, -1)
        calibrated = self._map_classes(confidence)
        rest = 1.0 - confidence
        even = (1.0 - calibrated) / max(1, p.shape[-1] - 1)
        others = np.where(rest > 0, p * ((1.0 - calibrated) / np.where(rest > 0, rest, 1.0)), even)
        np.put_along_axis(others, top, calibrated, -1)
        return others

    def _map_classes(self, p: np.ndarray) -> np.ndarray:
        flat = p.reshape(-1, p.shape[-1])
        mapped, functions = np.empty_like(flat), list(self._functions())
        for first in range(0, len(functions), _COLUMNS):  # so that each cache line is read and written once
            part = slice(first, first + _COLUMNS)
            columns = zip(functions[part], flat[:, part].T.copy(), strict=True)
            mapped[:, part] = np.stack([function(column) for function, column in columns]).T
        return mapped.reshape(p.shape)

    def _fit_classes(self, columns: Iterator[Column], weight: np.ndarray) -> None:
        raise NotImplementedError

    def _functions(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """The function of each class."""
        raise NotImplementedError

    def _classes(self) -> int:
        raise NotImplementedError


@dataclass(kw_only=True, repr=False, eq=False)
class HistogramBinning(ClasswiseCalibrator):
    """A class's probability becomes the frequency of the class in its bin; rows are scaled to sum to one.

    Bins are (lo, hi], the first with 0. An empty bin gives its middle.

    Args:
        n_bins: the number of bins of each class.
        binning: ``"equal_width"``; ``"equal_mass"``: about as many rows in each.
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities.
        binary: every element is the logit (or probability) of a label of its own; one function maps all. For
            one of each label, fit a calibrator to each.
        strategy: ``"one_vs_rest"``: a function for each class; ``"top_versus_all"``: one for the confidence in
            the likeliest class, for many classes of few rows each.

    Attributes:
        edges_: (classes, n_bins + 1), a NumPy array.
        values_: (classes, n_bins), the frequency in each bin.

    Source: Zadrozny and Elkan 2001, "Obtaining calibrated probability estimates from decision
        trees and naive Bayesian classifiers"; one class against the rest as in Guo et al. 2017; top versus all:
        Le Coz, Herbin and Adjed 2024, "Confidence Calibration of Classifiers with Many Classes".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import HistogramBinning
        >>> p = np.array([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4)
        >>> scaler = HistogramBinning(n_bins=2, from_logits=False).fit(p, [0, 0, 0, 1, 1, 1, 1, 1])
        >>> scaler.predict_proba(p[[0, 4]])
        array([[0.75, 0.25],
               [0.  , 1.  ]])
    """

    n_bins: int = 15
    binning: str = "equal_width"
    edges_: np.ndarray = field(init=False)
    values_: np.ndarray = field(init=False)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_option("n_bins", self.n_bins, int)
        if self.n_bins < 1:
            raise ValueError(f"n_bins must be at least 1, got {self.n_bins}.")
        if self.binning not in BINNINGS:
            raise ValueError(f"binning must be one of {', '.join(BINNINGS)}; got {self.binning!r}.")

    def _fit_classes(self, columns: Iterator[Column], weight: np.ndarray) -> None:
        edges, values = [], []
        for p, target in columns:
            edge = self._edges_of(p, weight)
            index = np.searchsorted(edge[1:-1], p, side="left")
            held = np.bincount(index, weight, self.n_bins)
            right = np.bincount(index, weight * target, self.n_bins)
            middle = 0.5 * (edge[1:] + edge[:-1])
            edges.append(edge)
            values.append(np.where(held > 0, right / np.where(held > 0, held, 1.0), middle))
        self.edges_, self.values_ = np.stack(edges), np.stack(values)

    def _edges_of(self, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
        fractions = np.arange(self.n_bins + 1) / self.n_bins
        if self.binning == "equal_width":
            return fractions
        order = np.argsort(p, kind="stable")
        running = np.cumsum(weight[order])
        inner = np.searchsorted(running, fractions[1:-1] * running[-1], side="left")
        return np.concatenate([[0.0], p[order][np.minimum(inner, len(p) - 1)], [1.0]])

    def _functions(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        for edges, values in zip(self.edges_, self.values_, strict=True):
            yield partial(_steps, edges=edges, values=values)

    def _classes(self) -> int:
        return len(self.values_)

    def _check_values(self) -> None:
        shape = self.values_.shape
        if self.values_.ndim != 2 or shape[1] != self.n_bins or self.edges_.shape != (shape[0], self.n_bins + 1):
            raise ValueError(f"edges_ of shape {self.edges_.shape} and values_ of shape {shape} do not fit each other.")
        if (np.diff(self.edges_, axis=1) < 0).any() or (self.values_ < 0).any() or (self.values_ > 1).any():
            raise ValueError("edges_ must not decrease, and values_ must be in [0, 1].")


@dataclass(kw_only=True, repr=False, eq=False)
class IsotonicCalibration(ClasswiseCalibrator):
    """Isotonic regression of each class on its probability; rows are scaled to sum to one.

    The function is linear between its points, those of SciPy's ``isotonic_regression``, and constant beyond them.

    Args:
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities.
        binary: as in `HistogramBinning`.
        strategy: as there.

    Attributes:
        points_: (points, 3), a NumPy array: the class, a probability, and its calibrated value.

    Source: Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass
        probability estimates"; scikit-learn's ``IsotonicRegression``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import IsotonicCalibration
        >>> p = np.array([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4)
        >>> scaler = IsotonicCalibration(from_logits=False).fit(p, [0, 0, 0, 1, 1, 1, 1, 1])
        >>> scaler.predict_proba(p[[0, 4]])
        array([[0.75, 0.25],
               [0.  , 1.  ]])
    """

    points_: np.ndarray = field(init=False)

    def _fit_classes(self, columns: Iterator[Column], weight: np.ndarray) -> None:
        parts = []
        for k, (p, target) in enumerate(columns):
            x, y = isotonic(p, target, weight)
            parts.append(np.stack([np.full(len(x), float(k)), x, y], axis=1))
        self.points_ = np.concatenate(parts)

    def _functions(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        classes, x, y = self.points_.T
        starts = np.flatnonzero(np.diff(classes)) + 1
        for of_class in zip(np.split(x, starts), np.split(y, starts), strict=True):
            yield partial(interpolated, x=of_class[0], y=of_class[1])

    def _classes(self) -> int:
        return int(self.points_[-1, 0]) + 1

    def _check_values(self) -> None:
        points: Any = self.points_
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"points_ must have shape (points, 3), got {points.shape}.")
        steps = np.diff(points, axis=0)
        if points[0, 0] != 0 or not np.isin(steps[:, 0], (0, 1)).all():
            raise ValueError("points_ must name the classes 0, 1, ... in order.")
        if (steps[steps[:, 0] == 0, 1:] < 0).any():
            raise ValueError("points_ must not decrease within a class.")
        if (points[:, 1:] < 0).any() or (points[:, 1:] > 1).any():
            raise ValueError("points_ must map [0, 1] to [0, 1].")


def interpolated(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear interpolation between points (x, y), constant beyond them, never outside the two neighbours.

    It computes the share of the way from one point to the next, since the slope between them may overflow.
    """
    width, following = np.append(np.diff(x), 1.0), np.append(y[1:], y[-1])
    left = np.searchsorted(x[1:], at, side="left")
    with np.errstate(over="ignore"):
        share = np.clip((at - x[left]) / np.where(width > 0, width, 1.0)[left], 0.0, 1.0)
    return np.minimum(y[left] + share * (following - y)[left], following[left])


def _steps(at: np.ndarray, edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(at), at, values[np.searchsorted(edges[1:-1], at, side="left")])


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
