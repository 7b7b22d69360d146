"""Affine calibrators: bias-corrected temperature, vector, matrix and Dirichlet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lsmooth.calibration._affine import Map
from lsmooth.calibration._affine_base import AffineCalibrator, WeightCalibrator
from lsmooth.calibration._base import warn
from lsmooth.calibration._moments import Rows


@dataclass(kw_only=True, repr=False, eq=False)
class BiasCorrectedTemperatureScaling(AffineCalibrator):
    """A temperature, and one number for each class: ``softmax(z / T + b)``.

    For classes that are as frequent in the test data as in the rows of the fit, but not as in the model's
    predictions.

    Args:
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities, as in `TemperatureScaling`.
        binary: every element is a row of two classes, of logits (0, z) or probabilities (1 - p, p): Platt
            scaling, ``sigmoid(z / T + b_1 - b_0)``.
        max_iter: the most iterations of L-BFGS.
        tol: the fit ends when no entry of the gradient of the mean likelihood is larger.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        temperature_: T, above 0.
        bias_: b, (classes,), a NumPy array.
        status_: ``"converged"``; ``"separable"``, without an optimum, if every label gets the largest logit;
            ``"max_iter"``.
        n_iter_: iterations.
        nll_before_: mean negative log-likelihood of the given logits.
        nll_after_: the same after the map.

    Source: Alexandari et al. 2020, "Maximum Likelihood with Bias-Corrected Calibration".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import BiasCorrectedTemperatureScaling
        >>> logits = np.zeros((4, 2))
        >>> logits[::2, 0] = 1.0
        >>> scaler = BiasCorrectedTemperatureScaling().fit(np.tile(logits, (2, 1)), [0, 0, 1, 0, 0, 1, 0, 1])
        >>> scaler.predict_proba(np.zeros((1, 2))).round(4)  # as often as at such logits
        array([[0.5, 0.5]])
    """

    temperature_: float = field(init=False)

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        return ()

    def _keep(self, mapping: Map) -> None:
        self.temperature_, self.bias_ = 1.0 / float(mapping.weight), mapping.bias

    def _map(self) -> Map:
        return Map(np.asarray(1.0 / self.temperature_), self.bias_)

    def _check_values(self) -> None:
        if not self.temperature_ > 0:
            raise ValueError(f"temperature_ must be above 0, got {self.temperature_}.")
        super()._check_values()


@dataclass(kw_only=True, repr=False, eq=False)
class VectorScaling(WeightCalibrator):
    """A factor and a bias for each class: ``softmax(w z + b)``.

    Args:
        use_bias: False for factors alone: one temperature 1 / w_k for each class.
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities, as in `TemperatureScaling`.
        binary: every element is a row of two classes, of logits (0, z) or probabilities (1 - p, p).
        max_iter: the most iterations of L-BFGS.
        tol: the fit ends when no entry of the gradient of the mean likelihood is larger.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        weight_: w, (classes,), a NumPy array.
        bias_: b, (classes,).
        status_: as in `BiasCorrectedTemperatureScaling`, and so are the diagnostics.
        n_iter_: iterations.
        nll_before_: mean negative log-likelihood of the given logits.
        nll_after_: the same after the map.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import VectorScaling
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> scaler = VectorScaling(use_bias=False).fit(np.tile(logits, (2, 1)), [0, 0, 1, 1, 0, 0, 0, 1])
        >>> scaler.predict_proba(logits[[0, 2]]).round(4)
        array([[0.6667, 0.3333],
               [0.5   , 0.5   ]])
    """

    use_bias: bool = True

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        return (classes,)

    def _has_bias(self) -> bool:
        return self.use_bias


@dataclass(kw_only=True, repr=False, eq=False)
class MatrixScaling(WeightCalibrator):
    """A full linear map of the logits: ``softmax(W z + b)``.

    Without penalties it overfits unless there are many rows for each of its classes^2 parameters: it warns below 20.
    The penalties add

    ``off_diagonal mean_{i != j} W_ij^2 + intercept mean_k b_k^2`` (ODIR).

    Args:
        off_diagonal: the penalty of weights that mix classes.
        intercept: the penalty of the bias.
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities, as in `TemperatureScaling`.
        binary: every element is a row of two classes, of logits (0, z) or probabilities (1 - p, p).
        max_iter: the most iterations of L-BFGS.
        tol: the fit ends when no entry of the gradient of the mean likelihood is larger.
        clip: for ``from_logits=False``: smaller probabilities count as this one.

    Attributes:
        weight_: W, (classes, classes), a NumPy array.
        bias_: b, (classes,).
        status_: as in `BiasCorrectedTemperatureScaling`, and so are the diagnostics.
        n_iter_: iterations.
        nll_before_: mean negative log-likelihood of the given logits.
        nll_after_: the same after the map.

    Source: Guo et al. 2017; ODIR: Kull et al. 2019, "Beyond temperature scaling".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import MatrixScaling
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
        >>> scaler = MatrixScaling(off_diagonal=0.1).fit(np.tile(logits, (25, 1)), [0, 1, 1, 1, 0] * 20)
        >>> scaler.weight_.shape, scaler.status_
        ((2, 2), 'converged')
    """

    off_diagonal: float = 0.0
    intercept: float = 0.0

    def _warn_of_few_rows(self, rows: Rows) -> None:
        needed = 20 * rows.classes**2
        if not self.off_diagonal and rows.totals.count < needed:
            warn(
                f"{type(self).__name__} has {rows.classes**2} weights and {rows.totals.count:g} rows to fit them on: "
                f"it will overfit below {needed} rows; set off_diagonal, or use TemperatureScaling.",
                UserWarning,
            )

    def _weight_shape(self, classes: int) -> tuple[int, ...]:
        return (classes, classes)

    def _penalties(self) -> dict[str, float]:
        return {"off_diagonal": self.off_diagonal, "intercept": self.intercept}


class DirichletCalibration(MatrixScaling):
    """`MatrixScaling` of log-probabilities: ``softmax(W log p + b)``.

    It is exact if the probabilities of each class are Dirichlet-distributed. The arguments and attributes are those of
    `MatrixScaling`; logits are normalised first. If ``binary``, it is beta
    calibration, ``sigmoid(a log p - b log(1 - p) + c)``, with a and b of any sign.

    Source: Kull et al. 2019, "Beyond temperature scaling: Obtaining well-calibrated multiclass
        probabilities with Dirichlet calibration".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import DirichletCalibration
        >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
        >>> scaler = DirichletCalibration(off_diagonal=0.1, from_logits=False)
        >>> scaler = scaler.fit(np.tile(p, (25, 1)), [0, 1, 1, 1, 0] * 20)
        >>> scaler.transform(p).shape, scaler.status_
        ((4, 2), 'converged')
    """

    _normalize: ClassVar[bool] = True
