"""Maps of logits with more than one parameter, fitted by L-BFGS to the norm of an exact gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth.calibration._moments import Rows

_KEPT_BYTES = 2**30
"""Rows up to this size are prepared once for all evaluations; those of larger files anew for each."""
_LEAST = 1e-4
"""The least curvature of a class, against the mean of all."""


class Map(NamedTuple):
    """z -> weight z + bias: weight is a number, (classes,) or (classes, classes)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """The map of (rows, classes)."""
        product = logits @ self.weight.T if self.weight.ndim == 2 else logits * self.weight
        product += self.bias
        return product


class Ridge(NamedTuple):
    """Penalties of a map's squared distance to the identity, each of a sum of squares."""

    diagonal: float = 0.0
    off_diagonal: float = 0.0
    intercept: float = 0.0

    def of(self, shape: tuple[int, ...]) -> Any:
        """Of each entry of a weight of that shape."""
        if len(shape) < 2:
            return self.diagonal
        return np.where(np.eye(shape[0], dtype=bool), self.diagonal, self.off_diagonal)


class Block(NamedTuple):
    """Rows as every evaluation needs them."""

    features: np.ndarray
    """(rows, classes); 0 where a class is masked."""
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
        features: makes of logits (rows, classes) what is mapped; may overwrite them.
        shape: of the weight.
        has_bias: whether the bias is fitted; else it is 0.
        ridge: the penalties.
    """

    def __init__(
        self,
        rows: Rows,
        features: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        has_bias: bool,
        ridge: Ridge,
    ):
        self._rows, self._features = rows, features
        self.shape, self.has_bias, self.ridge = shape, has_bias, ridge
        self.classes = rows.classes
        self.identity = Map(np.eye(rows.classes) if len(shape) == 2 else np.ones(shape), np.zeros(rows.classes))
        self.value = 0.0
        self.separates = False
        size = 8.0 * rows.count * rows.classes
        with np.errstate(all="ignore"):
            self._kept = list(self._blocks()) if size <= _KEPT_BYTES else None

    @np.errstate(all="ignore")
    def __call__(self, mapping: Map) -> tuple[float, Map]:
        """The objective and its gradient."""
        value, separates = 0.0, True
        slope_weight, slope_bias = np.zeros(self.shape), np.zeros(self.classes)
        for x, masked, target, weight in self._kept or self._blocks():
            mapped = mapping(x)
            if masked is not None:
                mapped[masked] = -np.inf
            mapped -= mapped.max(axis=1, keepdims=True)
            at = np.arange(len(x)), target
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
            if len(self.shape) == 2:
                slope_weight += residual.T @ x
            elif self.shape:
                slope_weight += np.einsum("ij,ij->j", residual, x)
            else:
                slope_weight += np.vdot(residual, x)
        count = self._rows.totals.count
        self.value, self.separates = value / count, separates
        strength = self.ridge.of(self.shape)
        moved = mapping.weight - self.identity.weight
        penalty = float((strength * moved**2).sum() + self.ridge.intercept * (mapping.bias**2).sum())
        slopes = Map(
            slope_weight / count + 2.0 * strength * moved,
            slope_bias / count + 2.0 * self.ridge.intercept * mapping.bias,
        )
        return self.value + penalty, slopes

    @np.errstate(all="ignore")
    def coordinates(self) -> Coordinates:
        """Parameters in which the objective curves about as much in every direction.

        The curvature of the map of class k is ``E[v_k x x^T]``, v_k = p_k (1 - p_k); of a matrix, one average over
        the classes stands for that of each.
        """
        variance, first, second = np.zeros(self.classes), np.zeros(self.identity.weight.shape), None
        matrix = len(self.shape) == 2
        for x, masked, _, weight in self._kept or self._blocks():
            p = np.exp(x - x.max(axis=1, keepdims=True))
            p = p if masked is None else np.where(masked, 0.0, p)
            p /= p.sum(axis=1, keepdims=True)
            p *= (1.0 - p) * weight[:, None]
            variance += p.sum(axis=0)
            if matrix:
                first = first + p.T @ x
                part = (x * p.sum(axis=1, keepdims=True)).T @ x
            else:
                first = first + np.einsum("ij,ij->j", p, x)
                part = np.einsum("ij,ij,ij->j", p, x, x)
            second = part if second is None else second + part
        count = self._rows.totals.count
        variance, first, second = variance / count, first / count, second / count
        variance = np.maximum(variance, _LEAST * variance.mean() + 1e-300)
        held = variance + 2.0 * self.ridge.intercept
        center = first / (held[:, None] if matrix else held)
        center = center if self.has_bias else 0.0 * center
        basis, strength = None, 2.0 * self.ridge.of(self.shape)
        if matrix:
            mean = first.sum(axis=0) / variance.sum()
            spread = second / variance.sum() - np.outer(mean, mean) * (variance.sum() / held.sum()) * self.has_bias
            spread_of_each, basis = np.linalg.eigh(spread)
            if 2.0 * self.ridge.off_diagonal > variance.mean() * np.median(spread_of_each):
                spread_of_each, basis = np.diag(spread), None  # the penalty is what curves most
            else:
                strength = 2.0 * self.ridge.off_diagonal
            curvature = variance[:, None] * np.maximum(spread_of_each, 1e-10 * spread_of_each.max()) + strength
        else:
            curvature = np.maximum(second - first * center, 1e-10 * second.max()) + strength
        return Coordinates(self.identity, self.has_bias, curvature**-0.5, held**-0.5, center, basis)

    def _blocks(self) -> Iterator[Block]:
        for logits, labels, weight in self._rows.blocks():
            z = logits.astype(np.float64)
            masked = z == -np.inf
            x = self._features(z)
            x[masked] = 0.0
            if labels.ndim == 2:  # its sum is in the weight
                mass = labels.sum(axis=1)
                weight = mass if weight is None else weight
                labels = labels * np.where(weight == 0, 0.0, weight / np.where(mass == 0, 1.0, mass))[:, None]
            weight = np.ones(len(x)) if weight is None else weight.astype(np.float64)
            yield Block(x, masked if masked.any() else None, labels, weight)


class Coordinates(NamedTuple):
    """The weight is identity + (steps * parameters) basis^T, the bias steps * parameters - (change of weight) center."""

    identity: Map
    has_bias: bool
    steps: np.ndarray
    bias_steps: np.ndarray
    center: np.ndarray | None
    basis: np.ndarray | None

    @classmethod
    def plain(cls, identity: Map) -> Coordinates:
        """Of a weight that is a number: as they are."""
        return cls(identity, True, np.ones(()), np.ones_like(identity.bias), None, None)

    def map(self, parameters: np.ndarray) -> Map:
        """The map that flat parameters stand for."""
        size = self.identity.weight.size
        moved = self.steps * parameters[:size].reshape(self.identity.weight.shape)
        moved = moved if self.basis is None else moved @ self.basis.T
        bias = np.zeros_like(self.identity.bias)
        if self.has_bias:
            bias = self.bias_steps * parameters[size:]
            if self.center is not None:
                along = moved * self.center
                bias = bias - (along.sum(axis=1) if along.ndim == 2 else along)
        return Map(self.identity.weight + moved, bias)

    def slopes(self, slopes: Map) -> np.ndarray:
        """The gradient by the parameters, of that by the map."""
        weight, bias = slopes
        if self.has_bias and self.center is not None:
            weight = weight - (bias[:, None] if weight.ndim == 2 else bias) * self.center
        weight = weight if self.basis is None else weight @ self.basis
        weight = (self.steps * weight).ravel()
        return np.concatenate([weight, self.bias_steps * bias]) if self.has_bias else weight

    @property
    def count(self) -> int:
        """The number of parameters."""
        return self.identity.weight.size + self.has_bias * self.identity.bias.size


def fit_map(objective: Objective, max_iter: int, tol: float) -> Fit:
    """Minimise by SciPy's L-BFGS-B, from the identity, until no entry of the map's gradient is above ``tol``.

    Raises:
        ImportError: if SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError(
            "Calibrators of more than one parameter need SciPy: pip install 'lsmooth[calibrate]'."
        ) from error
    positive = not objective.shape
    coordinates = Coordinates.plain(objective.identity) if positive else objective.coordinates()
    largest = np.inf

    def function(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal largest
        value, slopes = objective(coordinates.map(parameters))
        largest = max(float(np.abs(slope).max()) for slope in (slopes if objective.has_bias else slopes[:1]))
        return value, coordinates.slopes(slopes)

    def callback(_: np.ndarray) -> None:
        if largest <= tol:
            raise StopIteration

    bounds: Any = [(1e-8 - 1.0, None)] + [(None, None)] * objective.classes if positive else None
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter + 20, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
    start = np.zeros(coordinates.count)
    result = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=callback)
    function(result.x)
    # Line searches end where rounding begins; that is convergence too, if it is near enough.
    converged = largest <= (10 * tol if result.nit < max_iter else tol)
    return Fit(coordinates.map(result.x), objective.value, int(result.nit), converged, objective.separates)
