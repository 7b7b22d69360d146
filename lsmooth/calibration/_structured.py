"""Vector and matrix scaling whose penalties grow with the parameters and fall with the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.rows import log_softmax
from lsmooth.calibration._affine import Ridge
from lsmooth.calibration._affine_base import Problem, WeightCalibrator
from lsmooth.calibration._moments import Rows


@dataclass(kw_only=True, repr=False, eq=False)
class StructuredVectorScaling(WeightCalibrator):
    """A temperature, then a factor and a bias for each class, penalised towards 1 and 0 (SVS).

    ``softmax(w log q + b)``, q being the probabilities after a temperature of greatest likelihood,
    mixed with 1 / (n + 1) of the uniform distribution. w and b minimise the mean negative
    log-likelihood plus

    ``K^rho / n^tau (diagonal sum_k (w_k - 1)^2 + intercept sum_k b_k^2)``,

    with n rows and K classes: with few rows little but the temperature remains.

    Args:
        diagonal: the penalty of factors.
        intercept: the penalty of the bias.
        rho: the power of the number of classes.
        tau: the power of the number of rows, or the sum of their weights.
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities, as in `TemperatureScaling`.
        binary: every element is a row of two classes, of logits (0, z) or probabilities (1 - p, p).
        max_iter: the most iterations of L-BFGS.
        tol: the fit ends when no entry of the gradient is larger.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        temperature_: T, above 0.
        mixture_: the share of the uniform distribution in q.
        weight_: w, (classes,), a NumPy array.
        bias_: b, (classes,).
        status_: ``"converged"`` or ``"max_iter"``.
        n_iter_: iterations.
        nll_before_: mean negative log-likelihood of the logits as they came.
        nll_after_: the same after the map.

    Source: Berta, Holzmüller, Jordan and Bach 2026, "Structured Matrix Scaling for Multi-Class
        Calibration"; the ridge penalties of probmetrics 1.3.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import StructuredVectorScaling
        >>> rng = np.random.default_rng(0)
        >>> honest = rng.normal(size=(500, 3))
        >>> labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
        >>> scaler = StructuredVectorScaling().fit(3.0 * honest, labels)
        >>> scaler.status_, bool(abs(scaler.temperature_ - 3.0) < 0.5), bool(abs(scaler.weight_ - 1.0).max() < 0.2)
        ('converged', True, True)
    """

    diagonal: float = 1.0
    intercept: float = 1.0
    rho: float = 1.0
    tau: float = 1.0
    tol: float = 1e-5
    temperature_: float = field(init=False)
    mixture_: float = field(init=False)
    _normalize: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("rho", "tau"):
            check.check_number(name, getattr(self, name))

    def _check_values(self) -> None:
        if not self.temperature_ > 0 or not 0 <= self.mixture_ < 1:
            raise ValueError(
                f"temperature_ must be above 0 and mixture_ in [0, 1), got {self.temperature_} and {self.mixture_}."
            )
        super()._check_values()

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        return (classes,)

    def _penalties(self) -> dict[str, float]:
        return {"diagonal": self.diagonal, "intercept": self.intercept}

    def _problem(self, rows: Rows, scale: float) -> Problem:
        self.temperature_, self.mixture_ = 1.0 / scale, 1.0 / (rows.totals.count + 1.0)
        return Problem(self._numpy_features, 1.0, self._ridge(rows.classes, rows.totals.count))

    def _ridge(self, classes: int, count: float) -> Ridge:
        of_class = classes**self.rho / count**self.tau
        return Ridge(of_class * self.diagonal, 0.0, of_class * self.intercept)

    def _features(self, xp: Backend, z: Array) -> Array:
        return mixed(xp, log_softmax(xp, z / self.temperature_), self.mixture_)

    def _numpy_features(self, z: np.ndarray) -> np.ndarray:
        """`_features`, in place."""
        z -= z.max(axis=1, keepdims=True)
        z /= self.temperature_
        np.exp(z, out=z)
        z *= (1.0 - self.mixture_) / z.sum(axis=1, keepdims=True)
        z += self.mixture_ / z.shape[1]
        return np.log(z, out=z)


@dataclass(kw_only=True, repr=False, eq=False)
class StructuredMatrixScaling(StructuredVectorScaling):
    """A temperature, then a full linear map of log-probabilities, penalised towards the identity (SMS).

    ``softmax(W log q + b)``, q as in `StructuredVectorScaling`. The penalty is

    ``K^rho / n^tau (diagonal sum_k (W_kk - 1)^2 + intercept sum_k b_k^2)
    + (K (K - 1))^rho / n^tau off_diagonal sum_{i != j} W_ij^2``.

    Args:
        diagonal: the penalty of the diagonal.
        off_diagonal: the penalty of weights that mix classes.
        intercept: the penalty of the bias.
        rho: as in `StructuredVectorScaling`, and so are the arguments that follow.
        tau: the power of the number of rows.
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities.
        binary: every element is the logit z (or probability) of a label of its own.
        max_iter: the most iterations of L-BFGS.
        tol: the fit ends when no entry of the gradient is larger.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        temperature_: as in `StructuredVectorScaling`, and so are the diagnostics.
        mixture_: the share of the uniform distribution in q.
        weight_: W, (classes, classes), a NumPy array.
        bias_: b, (classes,).
        status_: ``"converged"`` or ``"max_iter"``.
        n_iter_: iterations.
        nll_before_: mean negative log-likelihood of the logits as they came.
        nll_after_: the same after the map.

    Source: Berta, Holzmüller, Jordan and Bach 2026; the ridge penalties of probmetrics 1.3.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import StructuredMatrixScaling
        >>> rng = np.random.default_rng(0)
        >>> honest = rng.normal(size=(500, 3))
        >>> labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
        >>> scaler = StructuredMatrixScaling().fit(3.0 * honest, labels)
        >>> scaler.weight_.shape, scaler.status_
        ((3, 3), 'converged')
    """

    off_diagonal: float = 1.0

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        return (classes, classes)

    def _penalties(self) -> dict[str, float]:
        return {**super()._penalties(), "off_diagonal": self.off_diagonal}

    def _ridge(self, classes: int, count: float) -> Ridge:
        mixing = (classes * (classes - 1)) ** self.rho / count**self.tau
        return super()._ridge(classes, count)._replace(off_diagonal=mixing * self.off_diagonal)


def mixed(xp: Backend, log_p: Array, share: float) -> Array:
    """log((1 - share) p + share / classes), classes last."""
    return xp.log((1.0 - share) * xp.exp(log_p) + share / xp.shape(log_p)[-1])
