"""A parabola of the logit of two classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from lsmooth import _validation as check
from lsmooth._logistic import fit_logistic
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import accumulate
from lsmooth.backends.formulas.sigmoid import sigmoid
from lsmooth.calibration._base import Calibrator, check_clip, log_of, predictions_of, rows_of, warn

_LARGEST = -math.log(float(np.finfo(np.float32).tiny))
"""The largest logit of a fit, in which the square of an infinite one would be the only term."""
STATUSES = ("converged", "separable")


@dataclass(kw_only=True, repr=False, eq=False)
class QuadraticScaling(Calibrator):
    """A parabola of the logit of two classes: ``sigmoid(a + b z + c z^2)``, of greatest likelihood.

    z is the logit of class 1, or its difference from that of class 0. With c = 0 it is Platt scaling
    (`BiasCorrectedTemperatureScaling` with ``binary=True``). The parabola may turn, so the order of rows by
    probability can change. Logits beyond +-87.3 are clipped.

    Args:
        axis: the class axis, of two classes.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities; `transform` then gives probabilities.
        binary: every element is the logit z (or probability) of a label of its own, and a row of its own.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        coefficients_: (a, b, c), a NumPy array.
        status_: ``"converged"``; ``"separable"``, if the likelihood grows without end.
        n_iter_: steps of Newton's method.

    Source: Berta et al. 2026, "Structured Matrix Scaling for Multi-Class Calibration"; probmetrics'
        ``quadratic-scaling``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import QuadraticScaling
        >>> z = np.tile([-2.0, 0.0, 2.0], 4)
        >>> labels = np.repeat([0, 1, 0, 1], 3) * (z > -1) + (np.arange(12) == 0)
        >>> QuadraticScaling(binary=True).fit(z, labels).predict_proba(np.array([-2.0, 0.0, 2.0])).round(4)
        array([0.25, 0.5 , 0.5 ])
    """

    clip: float | None = None
    coefficients_: np.ndarray = field(init=False)
    status_: str = field(init=False)
    n_iter_: int = field(init=False)

    def _fit(self, logits: Array, labels: Array, sample_weight: Array | None) -> None:
        rows = rows_of(self, logits, labels, sample_weight)
        if rows.classes != 2:
            raise ValueError(f"QuadraticScaling is for two classes, got logits of {rows.classes}.")
        if not rows.totals.count > 0:
            raise ValueError("No row to fit on: logits hold none, or all are ignored or of weight 0.")
        parts = []
        with np.errstate(all="ignore"):
            for z, y, w in rows.blocks():
                mass = y.sum(axis=1) if y.ndim == 2 else np.ones(len(y))
                target = y[:, 1] / np.where(mass == 0, 1.0, mass) if y.ndim == 2 else y
                weight = mass if w is None else w
                parts.append((np.diff(z.astype(np.float64), axis=1)[:, 0], target, weight))
        z, target, weight = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
        z = np.clip(z, -_LARGEST, _LARGEST)
        fit = fit_logistic(np.stack([np.ones_like(z), z, z * z], axis=1), target, weight)
        self.coefficients_, self.n_iter_ = fit.coefficients, fit.iterations
        self.status_ = "converged" if fit.converged else "separable"
        if not fit.converged:
            warn("The fit has no optimum to stop at (separable): a parabola of the logit tells the classes apart.")

    def _transform(self, logits: Array) -> Array:
        return self._mapped(logits, False)

    def _predict(self, logits: Array) -> Array:
        return self._mapped(logits, True)

    def _mapped(self, logits: Array, as_probabilities: bool) -> Array:
        """(0, a + b z + c z^2) or its softmax; if ``binary``, of class 1 alone."""
        xp = backend_of(logits=logits)
        array = accumulate(xp, predictions_of(self, xp, logits))
        if self.binary:
            z = array if self.from_logits else log_of(xp, array, self.clip) - log_of(xp, 1.0 - array, self.clip)
        else:
            two = xp.moveaxis(array, check.check_axis(self.axis, xp.shape(array)), -1)
            if xp.shape(two)[-1] != 2:
                raise ValueError(f"logits must have 2 classes, as in fit; got {xp.shape(two)[-1]}.")
            two = two if self.from_logits else log_of(xp, two, self.clip)
            z = two[..., 1] - two[..., 0]
        z = xp.where(z > _LARGEST, _LARGEST, xp.where(z < -_LARGEST, -_LARGEST, z))
        a, b, c = (float(x) for x in self.coefficients_)
        mapped = a + b * z + c * (z * z)
        if self.binary:
            return sigmoid(xp, mapped) if as_probabilities else mapped
        both = (-mapped, mapped) if as_probabilities else (mapped * 0.0, mapped)
        first = xp.one_hot(0 * xp.ones_like(mapped, "int32"), 2, xp.dtype(mapped)) > 0
        stacked = xp.where(first, both[0][..., None], both[1][..., None])
        return xp.moveaxis(sigmoid(xp, stacked) if as_probabilities else stacked, -1, self.axis)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_clip(self)

    def _check_values(self) -> None:
        if self.coefficients_.shape != (3,):
            raise ValueError(f"coefficients_ must have shape (3,), got {self.coefficients_.shape}.")
        if self.status_ not in STATUSES:
            raise ValueError(f"status_ must be one of {', '.join(STATUSES)}; got {self.status_!r:.80}.")
