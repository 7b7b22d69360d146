"""The base of the affine calibrators: the map z -> W z + b of greatest likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of, load_backend
from lsmooth.backends.formulas.rows import MINUS_INFINITY, accumulate, log_softmax, match_rank
from lsmooth.calibration._affine import Map, Objective, Ridge, fit_map
from lsmooth.calibration._base import (
    Calibrator,
    check_clip,
    check_option,
    log_of,
    predictions_of,
    rows_of,
    warn,
)
from lsmooth.calibration._moments import Rows, two_columns
from lsmooth.calibration._newton import solve, warm_start

STATUSES = ("converged", "separable", "max_iter")
_RANGE = (-math.log(1e8), math.log(1e8))


_NUMPY = load_backend("numpy")


class Problem(NamedTuple):
    """The problem that `AffineCalibrator.fit` solves."""

    features: Callable[[np.ndarray], np.ndarray]
    """Maps logits (rows, classes) to features."""
    scale: float
    """The factor of the features, which the fitted weight is multiplied by."""
    ridge: Ridge


@dataclass(kw_only=True, repr=False, eq=False)
class AffineCalibrator(Calibrator):
    """Base of the affine calibrators, maps z -> W z + b of greatest likelihood; fits start at a temperature."""

    status_: str = field(init=False)
    n_iter_: int = field(init=False)
    nll_before_: float = field(init=False)
    nll_after_: float = field(init=False)
    bias_: np.ndarray = field(init=False)

    max_iter: int = 1000
    tol: float = 1e-7
    clip: float | None = None

    _normalize: ClassVar[bool] = False

    def _fit(self, logits: Array, labels: Array, sample_weight: Array | None) -> None:
        rows = rows_of(self, logits, labels, sample_weight)
        scale, _, _ = solve(rows, warm_start(rows, *_RANGE), *_RANGE, 12)
        self._warn_of_few_rows(rows)
        problem = self._problem(rows, scale)
        objective = Objective(rows, problem.features, self._weight_shape(rows.classes), self._has_bias(), problem.ridge)
        start, before = None, 0
        if problem.ridge.off_diagonal and problem.ridge.diagonal:  # start at the fit of the diagonal
            of_diagonal = fit_map(objective.of_diagonal(), self.max_iter, self.tol)
            start, before = Map(np.diag(of_diagonal.map.weight), of_diagonal.map.bias), of_diagonal.iterations
        fit = fit_map(objective, self.max_iter, self.tol, start)
        penalised = any(problem.ridge)
        self.status_ = "separable" if fit.separates and not penalised else "converged" if fit.converged else "max_iter"
        self.n_iter_ = before + fit.iterations
        self.nll_before_ = rows.sums(1.0).value / rows.totals.count
        self.nll_after_ = fit.value
        self._keep(fit.map._replace(weight=fit.map.weight * problem.scale))
        if self.status_ != "converged":
            reason = {
                "separable": "every label gets the largest logit, so the likelihood grows with the weights without end",
                "max_iter": f"max_iter={self.max_iter} iterations were not enough for tol={self.tol}",
            }[self.status_]
            warn(f"The fit has no optimum to stop at ({self.status_}): {reason}.")

    def _transform(self, logits: Array) -> Array:
        xp = backend_of(logits=logits)
        mapped = self._mapped(xp, logits)
        return mapped[..., 1] - mapped[..., 0] if self.binary else xp.moveaxis(mapped, -1, self.axis)

    def _predict(self, logits: Array) -> Array:
        xp = backend_of(logits=logits)
        p = xp.exp(log_softmax(xp, self._mapped(xp, logits, centered=True)))
        return p[..., 1] if self.binary else xp.moveaxis(p, -1, self.axis)

    def _mapped(self, xp: Backend, logits: Any, centered: bool = False) -> Array:
        """The mapped logits, classes last; if ``centered``, up to a common offset of each row.

        The maximum m of a row, which may be large, is subtracted before the product: ``W z = W (z - m) + m W 1``.
        """
        logits = predictions_of(self, xp, logits)
        if self.binary:
            z = two_columns(xp, accumulate(xp, logits), self.from_logits)
        else:
            z = accumulate(xp, xp.moveaxis(logits, check.check_axis(self.axis, xp.shape(logits)), -1))
        weight, bias = self._map()
        if not check.same_shape(xp.shape(z)[-1:], bias.shape):
            raise ValueError(f"logits must have {bias.shape[0]} classes, as in fit; got {xp.shape(z)[-1]}.")
        z = z if self.from_logits else log_of(xp, z, self.clip)
        masked = z <= MINUS_INFINITY
        top = xp.stop_gradient(xp.max(z, axis=-1))[..., None]
        z = xp.where(masked, 0.0, self._features(xp, z - top))
        matrix, vector = (xp.asarray(x, xp.dtype(z), like=z) for x in (weight, bias))
        mapped = _product(xp, z, matrix) + match_rank(xp, vector, z)
        if not self._normalize:
            share = weight.sum(axis=1) if weight.ndim == 2 else weight + np.zeros(len(bias))
            share = share - share.mean() if centered else share
            if share.any():
                mapped = mapped + top * match_rank(xp, xp.asarray(share, xp.dtype(z), like=z), z)
            if weight.ndim == 2:
                mapped = mapped - top * _product(xp, xp.cast(masked, xp.dtype(z)), matrix)
        return xp.where(masked, MINUS_INFINITY, mapped)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_option("max_iter", self.max_iter, int)
        check_clip(self)
        if self.max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}.")
        if not check.is_real_number(self.tol) or not 0 < self.tol < math.inf:
            raise ValueError(f"tol must be a finite number above 0, got {self.tol!r}.")
        for name, penalty in self._penalties().items():
            if not check.is_real_number(penalty) or not 0 <= penalty < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {penalty!r}.")

    def _check_values(self) -> None:
        if self.status_ not in STATUSES:
            raise ValueError(f"status_ must be one of {', '.join(STATUSES)}; got {self.status_!r:.80}.")
        weight, bias = self._map()
        if bias.ndim != 1 or weight.shape != self._weight_shape(len(bias)):
            raise ValueError(f"weights of shape {weight.shape} and a bias of shape {bias.shape} do not fit each other.")

    def _warn_of_few_rows(self, rows: Rows) -> None:
        """Warn if there are too few rows for the number of parameters."""

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        raise NotImplementedError

    def _has_bias(self) -> bool:
        return True

    def _penalties(self) -> dict[str, float]:
        return {}

    def _problem(self, rows: Rows, scale: float) -> Problem:
        """Features for which the map is close to the identity, logits times ``scale``; and the penalties."""
        classes, given = rows.classes, self._penalties()
        mixing = given.get("off_diagonal", 0.0) / max(1, classes * (classes - 1)) * scale**2
        ridge = Ridge(0.0, mixing, given.get("intercept", 0.0) / classes)

        def features(z: np.ndarray) -> np.ndarray:
            if self._normalize or not self._weight_shape(classes):  # a common offset of a row changes nothing
                z -= z.max(axis=1, keepdims=True)
            z = self._features(_NUMPY, z)
            z *= scale
            return z

        return Problem(features, scale, ridge)

    def _features(self, xp: Backend, z: Array) -> Array:
        """The features of logits minus the maximum of their row, classes last."""
        return log_softmax(xp, z) if self._normalize else z

    def _keep(self, mapping: Map) -> None:
        raise NotImplementedError

    def _map(self) -> Map:
        raise NotImplementedError


@dataclass(kw_only=True, repr=False, eq=False)
class WeightCalibrator(AffineCalibrator):
    """Base of the affine calibrators whose fitted value is W or its diagonal."""

    weight_: np.ndarray = field(init=False)

    def _keep(self, mapping: Map) -> None:
        self.weight_, self.bias_ = mapping

    def _map(self) -> Map:
        return Map(self.weight_, self.bias_)


def _product(xp: Backend, z: Array, weight: Array) -> Array:
    """(..., classes) times a number, (classes,) or a matrix (classes, classes)."""
    if len(xp.shape(weight)) < 2:
        return z * match_rank(xp, weight, z)
    flat = xp.reshape(z, (-1, xp.shape(weight)[1])) @ xp.moveaxis(weight, 0, 1)
    return xp.reshape(flat, tuple(-1 if n is None else n for n in xp.shape(z)))
