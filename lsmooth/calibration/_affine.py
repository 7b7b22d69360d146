"""Maps of logits with more than one parameter, fitted by L-BFGS to the norm of an exact gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth.calibration._moments import Rows

_KEPT_BYTES = 2**30
"""Rows up to this size are prepared once for all evaluations; those of larger files anew for each."""


class Map(NamedTuple):
    """z -> weight z + bias: weight is a number, (classes,) or (classes, classes)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """The map of (rows, classes)."""
        product = logits @ self.weight.T if self.weight.ndim == 2 else logits * self.weight
        product += self.bias
        return product


class Block(NamedTuple):
    """Rows as every evaluation needs them."""

    logits: np.ndarray
    """(rows, classes), scaled; 0 where a class is masked."""
    masked: np.ndarray | None
    """Which classes are; None if none is."""
    target: np.ndarray
    """(rows,) class ids; or (rows, classes), distributions times the weight."""
    weight: np.ndarray
    """(rows,)."""


class Fit(NamedTuple):
    """What a fit of a map has found."""

    map: Map
    value: float
    """The mean negative log-likelihood, without penalties."""
    iterations: int
    converged: bool
    """Whether the gradient's largest entry came below the tolerance."""
    separates: bool
    """Whether every row's label has the largest of its mapped logits."""


class Objective:
    """Mean negative log-likelihood of a map, its penalties, and their gradient, block by block.

    Args:
        rows: logits, labels and weights.
        scale: what logits are multiplied by, so that parameters are of the order of 1.
        shape: of the weight.
        has_bias: whether the bias is fitted; else it is 0.
        normalize: whether log-probabilities take the logits' place.
        off_diagonal: penalty of the mean square of the weights that mix classes.
        intercept: penalty of the mean square of the bias.
    """

    def __init__(
        self,
        rows: Rows,
        scale: float,
        shape: tuple[int, ...],
        has_bias: bool,
        normalize: bool,
        off_diagonal: float = 0.0,
        intercept: float = 0.0,
    ):
        self._rows, self._scale, self._shape, self._has_bias = rows, scale, shape, has_bias
        self._normalize, self._off_diagonal, self._intercept = normalize, off_diagonal, intercept
        self.value = 0.0
        self.separates = False
        size = 8.0 * rows.count * rows.classes
        with np.errstate(all="ignore"):
            self._kept = list(self._blocks()) if size <= _KEPT_BYTES else None

    def unpack(self, parameters: np.ndarray) -> Map:
        """The map of scaled logits that the flat parameters stand for."""
        size = int(np.prod(self._shape))
        bias = parameters[size:] if self._has_bias else np.zeros(self._rows.classes)
        return Map(parameters[:size].reshape(self._shape), bias)

    @np.errstate(all="ignore")
    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient."""
        mapping = self.unpack(parameters)
        value, separates = 0.0, True
        slope_weight, slope_bias = np.zeros(self._shape), np.zeros(self._rows.classes)
        for z, masked, target, weight in self._kept or self._blocks():
            mapped = mapping(z)
            if masked is not None:
                mapped[masked] = -np.inf
            mapped -= mapped.max(axis=1, keepdims=True)
            at = np.arange(len(z)), target
            soft = target.ndim == 2
            fit = (target * np.where(target == 0, 0.0, mapped)).sum(axis=1) if soft else mapped[at] * weight
            residual = np.exp(mapped, out=mapped)
            total = residual.sum(axis=1)
            value += float((weight * np.log(total) - fit).sum())
            separates = separates and not fit.any()
            residual *= (weight / total)[:, None]
            if soft:
                residual -= target
            else:
                residual[at] -= weight
            slope_bias += residual.sum(axis=0)
            if len(self._shape) == 2:
                slope_weight += residual.T @ z
            else:
                slope_weight += (residual * z).sum(axis=0 if self._shape else None)
        count = self._rows.totals.count
        self.value, self.separates = value / count, separates
        slopes = [slope_weight.ravel() / count] + ([slope_bias / count] if self._has_bias else [])
        penalty, slope = self._penalty(mapping)
        return self.value + penalty, np.concatenate(slopes) + slope

    def _blocks(self) -> Iterator[Block]:
        for logits, labels, weight in self._rows.blocks():
            z = logits.astype(np.float64)
            if self._normalize:
                z -= z.max(axis=1, keepdims=True)
                z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
            elif not self._shape:  # a number common to a row changes nothing
                z -= z.max(axis=1, keepdims=True)
            masked = z == -np.inf
            z *= self._scale
            z[masked] = 0.0
            if labels.ndim == 2:  # its sum is in the weight
                mass = labels.sum(axis=1)
                weight = mass if weight is None else weight
                labels = labels * np.where(weight == 0, 0.0, weight / np.where(mass == 0, 1.0, mass))[:, None]
            weight = np.ones(len(z)) if weight is None else weight.astype(np.float64)
            yield Block(z, masked if masked.any() else None, labels, weight)

    def _penalty(self, mapping: Map) -> tuple[float, np.ndarray]:
        """Of the map of unscaled logits."""
        classes = len(mapping.bias)
        parts = []
        value = 0.0
        if len(self._shape) == 2 and self._off_diagonal and classes > 1:
            mixing = mapping.weight * (1.0 - np.eye(classes)) * self._scale
            strength = self._off_diagonal / (classes * (classes - 1))
            value += strength * (mixing**2).sum()
            parts.append((2.0 * strength * self._scale * mixing).ravel())
        else:
            parts.append(np.zeros(int(np.prod(self._shape))))
        if self._has_bias:
            value += self._intercept / classes * (mapping.bias**2).sum()
            parts.append(2.0 * self._intercept / classes * mapping.bias)
        return float(value), np.concatenate(parts)


def fit_map(objective: Objective, start: np.ndarray, scale: float, max_iter: int, tol: float, positive: bool) -> Fit:
    """Minimise by SciPy's L-BFGS-B, from ``start``, until no entry of the gradient is above ``tol``.

    Raises:
        ImportError: if SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError(
            "Calibrators of more than one parameter need SciPy: pip install 'lsmooth[calibrate]'."
        ) from error
    bounds: Any = [(1e-8, None)] + [(None, None)] * (len(start) - 1) if positive else None
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter + 20, "gtol": tol, "ftol": 0.0, "maxcor": 20}
    result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    _, slope = objective(result.x)
    found = objective.unpack(result.x)
    # Line searches end where rounding begins; that is convergence too, if it is near enough.
    converged = bool(np.abs(slope).max() <= (10 * tol if result.nit < max_iter else tol))
    weight = found.weight * scale
    return Fit(Map(weight, found.bias), objective.value, int(result.nit), converged, objective.separates)
