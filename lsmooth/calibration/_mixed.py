"""A temperature, and a small share of the uniform distribution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.calibration._newton import Source
from lsmooth.calibration._temperature import TemperatureScaling


@dataclass(kw_only=True, repr=False, eq=False)
class MixedTemperatureScaling(TemperatureScaling):
    """A temperature, then a mixture with the uniform distribution: ``(1 - u) softmax(z / T) + u / K``.

    The share u is 1 / (n + 1) after a fit on n rows, as in Laplace's rule: no class has the probability 0, so no new
    row has an infinite likelihood. The arguments, T, the diagnostics and the methods are those of
    `TemperatureScaling`; ``nll_after_`` is that of T alone. `transform` returns the logarithm of the probabilities,
    or their logit if ``binary``.

    Attributes:
        mixture_: u.

    Source: Berta et al. 2025, "Rethinking Early Stopping: Refine, Then Calibrate"; probmetrics'
        ``ts-mix``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import MixedTemperatureScaling
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> scaler = MixedTemperatureScaling().fit(logits, [0, 0, 1, 1])
        >>> scaler.mixture_, scaler.predict_proba(logits[:1]).round(4)  # 0.8 * 0.75 + 0.2 / 2
        (0.2, array([[0.7, 0.3]]))
    """

    mixture_: float = field(init=False)

    def _solve(self, source: Source, start: float, low: float, high: float) -> Self:
        self.mixture_ = 1.0 / (float(source.totals.count) + 1.0)
        return super()._solve(source, start, low, high)

    def _transform(self, logits: Array) -> Array:
        p = self._predict(logits)
        xp = backend_of(logits=p)
        return xp.log(p) - xp.log(1.0 - p) if self.binary else xp.log(p)

    def _probabilities(self, xp: Backend, scaled: Array) -> Array:
        p: Any = super()._probabilities(xp, scaled)
        shape = xp.shape(p)
        classes = 2 if self.binary else shape[check.check_axis(self.axis, shape)]
        return (1.0 - self.mixture_) * p + self.mixture_ / classes

    def _check_values(self) -> None:
        super()._check_values()
        if not 0 < self.mixture_ <= 1:
            raise ValueError(f"mixture_ must be in (0, 1], got {self.mixture_}.")
