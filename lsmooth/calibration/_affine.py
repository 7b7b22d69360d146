"""Maps of logits with more than one parameter, fitted by L-BFGS to the norm of an exact gradient."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth.calibration._moments import Rows

_MOST_KEPT_BYTES = 2**30
"""Rows up to this size are prepared once for all evaluations, larger ones for each evaluation."""
_MATRIX_ELEMENTS = 2**20
"""The elements of a block that is multiplied by a matrix."""
_SAMPLED_ELEMENTS = 2**20
"""The most elements that curvatures are estimated from."""
_LEAST_CURVATURE = 1e-4
"""The least curvature of a class, relative to the mean."""


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
    """Penalties of the squared distance of a map from the identity."""

    diagonal: float = 0.0
    off_diagonal: float = 0.0
    intercept: float = 0.0

    def of(self, shape: tuple[int, ...]) -> Any:
        """The penalty of each entry of a weight of that shape."""
        if len(shape) < 2:
            return self.diagonal
        return np.where(np.eye(shape[0], dtype=bool), self.diagonal, self.off_diagonal)


class Block(NamedTuple):
    """A block of prepared rows."""

    features: np.ndarray
    """(rows, classes); 0 where a class is masked."""
    masked: np.ndarray | None
    """The masked classes; None if there are none."""
    target: np.ndarray
    """(rows,) class ids; or (rows, classes), distributions times the weight."""
    weight: np.ndarray
    """(rows,)."""
    narrow: np.ndarray | None = None
    """The features in float32, if products with them are in float32."""


class Fit(NamedTuple):
    """The result of a fit."""

    map: Map
    value: float
    """The mean negative log-likelihood, without penalties."""
    iterations: int
    converged: bool
    """Whether the largest entry of the gradient is below the tolerance."""
    separates: bool
    """Whether every label has the largest mapped logit of its row."""


class Objective:
    """Mean negative log-likelihood of a map, its penalties, and their gradient, block by block.

    ``features`` maps logits (rows, classes), which it may overwrite, to the features of the map.
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
        # float32 suffices for products with weights that mix classes if penalties keep them small.
        self._narrow = len(shape) == 2 and ridge.off_diagonal >= 1.0 and ridge.diagonal > 0 and rows.dtype == "float32"
        self.shape, self.has_bias, self.ridge = shape, has_bias, ridge
        self.classes = rows.classes
        self.identity = Map(np.eye(rows.classes) if len(shape) == 2 else np.ones(shape), np.zeros(rows.classes))
        self.value = 0.0
        self.separates = False
        size = (12.0 if self._narrow else 8.0) * rows.count * rows.classes
        with np.errstate(all="ignore"):
            self._kept = list(self._blocks()) if size <= _MOST_KEPT_BYTES else None

    @np.errstate(all="ignore")
    def __call__(self, mapping: Map) -> tuple[float, Map]:
        """The objective and its gradient."""
        value, separates = 0.0, True
        moved = mapping.weight - self.identity.weight
        mixing = moved - np.diag(np.diag(moved)) if self._narrow else None
        mixing = mixing.T.astype(np.float32) if mixing is not None and mixing.any() else None
        slope_weight, slope_bias, diagonal = np.zeros(self.shape), np.zeros(self.classes), np.zeros(self.classes)
        for x, masked, target, weight, x32 in self._kept or self._blocks():
            if self._narrow:
                mapped = x * np.diag(mapping.weight) + mapping.bias
                mapped += 0.0 if mixing is None or x32 is None else x32 @ mixing
            else:
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
                slope_weight += residual.T.astype(np.float32) @ x32 if self._narrow else residual.T @ x
                if self._narrow:
                    diagonal += np.einsum("ij,ij->j", residual, x)
            elif self.shape:
                slope_weight += np.einsum("ij,ij->j", residual, x)
            else:
                slope_weight += np.vdot(residual, x)
        if self._narrow:
            np.fill_diagonal(slope_weight, diagonal)
        count = self._rows.totals.count
        self.value, self.separates = value / count, separates
        strength = self.ridge.of(self.shape)
        penalty = float((strength * moved**2).sum() + self.ridge.intercept * (mapping.bias**2).sum())
        slopes = Map(
            slope_weight / count + 2.0 * strength * moved,
            slope_bias / count + 2.0 * self.ridge.intercept * mapping.bias,
        )
        return self.value + penalty, slopes

    def of_diagonal(self) -> Objective:
        """The objective of the same rows and a factor for each class."""
        other = copy.copy(self)
        other.shape, other.identity, other._narrow = (
            (self.classes,),
            Map(np.ones(self.classes), self.identity.bias),
            False,
        )
        return other

    @np.errstate(all="ignore")
    def coordinates(self) -> Coordinates:
        """Coordinates in which the curvature is about the same in every direction.

        The curvature of the map of class k is ``E[v_k x x^T]``, v_k = p_k (1 - p_k); for a matrix, the average over
        the classes is used for all of them.
        """
        matrix, ridge = len(self.shape) == 2, self.ridge
        variance, first, second = self._curvature(False)
        floor = _LEAST_CURVATURE * variance.mean() + 1e-300
        held = np.maximum(variance, floor) + 2.0 * ridge.intercept
        strength, basis, center = 2.0 * ridge.of(self.shape), None, first / held * self.has_bias
        spread = np.maximum(second - first * center, 1e-10 * second.max())
        if not matrix:
            return Coordinates(self.identity, self.has_bias, (spread + strength) ** -0.5, held**-0.5, center, None)
        spread = spread / np.maximum(variance, floor)
        if 2.0 * ridge.off_diagonal <= variance.mean() * spread.mean():  # else the penalties dominate the curvature
            _, first, second = self._curvature(True)
            mean = first.sum(axis=0) / variance.sum()
            shared = second / variance.sum() - np.outer(mean, mean) * (variance.sum() / held.sum()) * self.has_bias
            spread, basis = np.linalg.eigh(shared)
            spread = np.maximum(spread, 1e-10 * spread.max())
            center, strength = first / held[:, None] * self.has_bias, 2.0 * ridge.off_diagonal
        else:
            center = np.diag(center)
        curvature = np.maximum(variance, floor)[:, None] * spread + strength
        return Coordinates(self.identity, self.has_bias, curvature**-0.5, held**-0.5, center, basis)

    def _curvature(self, matrix: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means over rows of v, v x and v x^2 of each class; if ``matrix``, of the outer products."""
        count, sums = 0.0, [np.zeros(()) for _ in range(3)]
        for block in self._sample():
            x, masked, weight = block.features, block.masked, block.weight
            p = np.exp(x - x.max(axis=1, keepdims=True))
            p = p if masked is None else np.where(masked, 0.0, p)
            p /= p.sum(axis=1, keepdims=True)
            v = p * (1.0 - p) * weight[:, None]
            if matrix:
                parts = v.sum(axis=0), v.T @ x, (x * v.sum(axis=1, keepdims=True)).T @ x
            else:
                parts = v.sum(axis=0), (v * x).sum(axis=0), np.einsum("ij,ij,ij->j", v, x, x)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
            count += float(weight.sum())
        variance, first, second = (total / count for total in sums)
        return variance, first, second

    def _sample(self) -> Iterator[Block]:
        """Blocks spread over all rows."""
        every = max(1, self._rows.count * self.classes // _SAMPLED_ELEMENTS)
        blocks = self._kept[::every] if self._kept is not None else itertools.islice(self._blocks(), 0, None, every)
        return iter(blocks)

    def _blocks(self) -> Iterator[Block]:
        """The rows in small blocks, which fit the cache, or in large ones for products with a matrix."""
        held: list[Block] = []
        for block in self._small_blocks():
            if len(self.shape) < 2:
                yield block
                continue
            held.append(block)
            if sum(one.features.size for one in held) >= _MATRIX_ELEMENTS:
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)

    def _small_blocks(self) -> Iterator[Block]:
        for logits, labels, weight in self._rows.blocks():
            z = logits.astype(np.float64)
            masked = z == -np.inf
            x = self._features(z)
            x[masked] = 0.0
            if labels.ndim == 2:  # the weight contains its sum
                mass = labels.sum(axis=1)
                weight = mass if weight is None else weight
                labels = labels * np.where(weight == 0, 0.0, weight / np.where(mass == 0, 1.0, mass))[:, None]
            weight = np.ones(len(x)) if weight is None else weight.astype(np.float64)
            yield Block(
                x, masked if masked.any() else None, labels, weight, x.astype(np.float32) if self._narrow else None
            )


def _joined(blocks: list[Block]) -> Block:
    """The concatenation of blocks."""
    if len(blocks) == 1:
        return blocks[0]
    features, target, weight = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("features", "target", "weight")
    )
    masked = [np.zeros(block.features.shape, bool) if block.masked is None else block.masked for block in blocks]
    some = any(block.masked is not None for block in blocks)
    narrow = None if blocks[0].narrow is None else features.astype(np.float32)
    return Block(features, np.concatenate(masked) if some else None, target, weight, narrow)


class Coordinates(NamedTuple):
    """The origin's weight + (steps * parameters) basis^T, the bias + bias_steps * parameters - change center."""

    origin: Map
    has_bias: bool
    steps: np.ndarray
    bias_steps: np.ndarray
    center: np.ndarray | None
    basis: np.ndarray | None

    @classmethod
    def plain(cls, origin: Map, has_bias: bool) -> Coordinates:
        """Coordinates without a change of scale."""
        return cls(origin, has_bias, np.ones_like(origin.weight), np.ones_like(origin.bias), None, None)

    def map(self, parameters: np.ndarray) -> Map:
        """The map of flat parameters."""
        size = self.origin.weight.size
        moved = self.steps * parameters[:size].reshape(self.origin.weight.shape)
        moved = moved if self.basis is None else moved @ self.basis.T
        bias = self.origin.bias
        if self.has_bias:
            bias = bias + self.bias_steps * parameters[size:]
            if self.center is not None:
                along = moved * self.center
                bias = bias - (along.sum(axis=1) if along.ndim == 2 else along)
        return Map(self.origin.weight + moved, bias)

    def slopes(self, slopes: Map) -> np.ndarray:
        """The gradient by the parameters, from the gradient by the map."""
        weight, bias = slopes
        if self.has_bias and self.center is not None:
            weight = weight - (bias[:, None] if weight.ndim == 2 else bias) * self.center
        weight = weight if self.basis is None else weight @ self.basis
        weight = (self.steps * weight).ravel()
        return np.concatenate([weight, self.bias_steps * bias]) if self.has_bias else weight


def fit_map(objective: Objective, max_iter: int, tol: float, start: Map | None = None) -> Fit:
    """Minimise by SciPy's L-BFGS-B, from the identity or ``start``, until no entry of the gradient is above ``tol``.

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
    origin = objective.identity if start is None else start
    parameters = np.zeros(origin.weight.size + objective.has_bias * origin.bias.size)
    known: list[Any] = [parameters, *objective(origin)]  # the last parameters, their value and slopes
    # Few parameters need no scaling; separable labels have no optimum with a curvature.
    plain = not any(objective.ridge) and (len(objective.shape) < 2 or objective.separates)
    coordinates = Coordinates.plain(origin, objective.has_bias) if plain else objective.coordinates()
    coordinates = coordinates._replace(origin=origin)

    def function(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        if not np.array_equal(known[0], parameters):
            known[:] = parameters.copy(), *objective(coordinates.map(parameters))
        return known[1], coordinates.slopes(known[2])

    def largest() -> float:
        return max(float(np.abs(slope).max()) for slope in (known[2] if objective.has_bias else known[2][:1]))

    def callback(_: np.ndarray) -> None:
        # If the likelihood is flat, the scaled gradient tells how far the optimum may be.
        if largest() <= tol and float(np.abs(coordinates.slopes(known[2])).max()) <= tol * unit:
            raise StopIteration

    iterations = 0
    length, unit = float(np.linalg.norm(function(parameters)[1])), 1.0
    if not plain and 0 < length < np.inf:  # scale the first step of L-BFGS-B, of length 1, to Newton's
        coordinates = coordinates._replace(steps=length * coordinates.steps, bias_steps=length * coordinates.bias_steps)
        unit = length
    bounds: Any = [(1e-8 - 1.0, None)] + [(None, None)] * objective.classes if positive else None
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter + 20, "gtol": 0.0, "ftol": 0.0}
    options["maxcor"] = 20 if len(parameters) < _MATRIX_ELEMENTS // 4 else 4
    if largest() > tol and iterations < max_iter:
        result = minimize(
            function, parameters, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=callback
        )
        parameters, iterations = result.x, iterations + int(result.nit)
        function(parameters)
    # A line search that ends by rounding has converged too, if the gradient is small enough.
    converged = largest() <= (10 * tol if iterations < max_iter else tol)
    return Fit(coordinates.map(parameters), objective.value, iterations, converged, objective.separates)
