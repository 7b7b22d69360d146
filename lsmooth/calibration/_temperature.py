"""One number for all logits: the temperature."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from lsmooth._row_shards import total_of_members
from lsmooth.backends import Array, backend_of
from lsmooth.calibration._base import warn
from lsmooth.calibration._moments import Rows
from lsmooth.calibration._newton import Source, solve, warm_start
from lsmooth.calibration._scaling import STATUSES, TemperatureCalibrator
from lsmooth.calibration._streams import Batches, Table

ADVICE = {
    "separable": "every label has the largest logit of its row, so the likelihood grows as T goes to 0",
    "uninformative": "the labels do not follow the logits, so the likelihood grows as T goes to infinity",
    "at_bound": "the optimum lies outside the bounds {low:.6g} and {high:.6g}",
    "max_iter": "max_iter={max_iter} passes were not enough",
}


@dataclass(kw_only=True, repr=False, eq=False)
class TemperatureScaling(TemperatureCalibrator):
    """The temperature of greatest likelihood, with its standard error.

    ``T = argmin_T sum_i w_i (-log softmax(z_i / T)[y_i])``

    With ``binary`` it is the temperature of ``sigmoid(z / T)`` over all elements: two classes, or several
    labels that may all be true (`GroupTemperatureScaling` finds a temperature for each).

    Newton's method on log(1 / T) within a bracket finds T to 1e-6 of its value, in a few passes over the logits, in
    blocks, on their device. If there is no optimum, T is the value nearest to 1 whose total log-likelihood is within
    1/2 (one standard error) of the supremum, and a `ConvergenceWarning` is given.

    Args:
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities: the logits are ``log p``, and `transform` returns probabilities.
        binary: every element is the logit (or probability) of a label of its own, 0, 1 or between; there is no
            class axis.
        bounds: the smallest and the largest T.
        max_iter: the most passes over the data.
        clip: with ``from_logits=False``, smaller probabilities are raised to this one, so that a label of
            probability 0 can be fitted.

    Attributes:
        temperature_: T, above 0.
        status_: ``"converged"``; ``"separable"``, if every label has the largest logit (T goes to 0);
            ``"uninformative"``, if the labels do not follow the logits (T goes to infinity); ``"at_bound"``, if the
            optimum is outside ``bounds``; ``"max_iter"``, if the passes were not enough.
        n_iter_: passes over the data.
        nll_before_: mean negative log-likelihood at T = 1.
        nll_after_: the same at ``temperature_``.
        temperature_stderr_: the standard error of T, from the curvature; NaN unless converged.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import TemperatureScaling
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> scaler = TemperatureScaling().fit(logits, [0, 0, 1, 1])
        >>> round(scaler.temperature_, 4)  # 3 of 4 are right: softmax gives 0.75 at 4 / log(3)
        3.641
        >>> scaler.predict_proba(logits[:1]).round(4)
        array([[0.75, 0.25]])
    """

    temperature_: float = field(init=False)
    status_: str = field(init=False)
    n_iter_: int = field(init=False)
    nll_before_: float = field(init=False)
    nll_after_: float = field(init=False)
    temperature_stderr_: float = field(init=False)

    def _fit(self, logits: Array, labels: Array, sample_weight: Array | None) -> None:
        rows = self._rows(logits, labels, sample_weight)
        self._solve(rows, warm_start(rows, *self._range()), *self._range())

    def fit_batches(self, batches: Iterable[tuple[Array, ...]], *, once: bool = False) -> Self:
        """Find the temperature of batches that are read one at a time: three or four times, or once.

        The optimum is that of `fit` on all of them.

        Args:
            batches: ``(logits, labels)`` or ``(logits, labels, sample_weight)``, as in `fit`; an iterable that can
                be read again, such as a list or a DataLoader, in any order.
            once: whether each batch is read only once, as by `partial_fit`: for a generator, or a model that
                computes the logits.

        Returns:
            This calibrator.

        Raises:
            TypeError: if ``batches`` is an iterator and not ``once``, or as `fit`.
            ValueError: as `fit`.
        """
        self._check_parameters()
        if once:
            self._table = Table()
            for batch in batches:
                self._table.add(self._rows_of_batch(batch))
            return self._solve_table()
        source = Batches(batches, self._rows_of_batch, *self._range())
        return self._solve(source, source.start or 0.0, *self._range())

    def partial_fit(self, logits: Array, labels: Array, sample_weight: Array | None = None) -> Self:
        """Add a batch, which is read once, and find the temperature of all batches so far.

        Only sums at 25 temperatures from 1/64 to 64 are kept, at the cost of 25 passes. The temperature is that of
        `fit` to 1e-6, and ``"at_bound"`` outside this range. `merge_state` adds up the sums of shards.

        Args:
            logits: as in `fit`.
            labels: as in `fit`.
            sample_weight: as in `fit`.

        Returns:
            This calibrator.

        Raises:
            TypeError: as `fit`.
            ValueError: as `fit`, if no row so far counts.
        """
        self._check_parameters()
        table = getattr(self, "_table", None) or Table()
        table.add(self._rows(logits, labels, sample_weight))
        self._table = table
        return self._solve_table()

    def merge_state(self, *others: TemperatureScaling | dict[str, Any], row_shards: Any = None) -> Self:
        """Add the batches of other calibrators, given to them by `partial_fit`.

        Args:
            *others: calibrators of the same parameters, or their states from `get_state`.
            row_shards: a group whose members each have a calibrator with batches of their own, or none: a
                ``torch.distributed.ProcessGroup``, a ``DeviceMesh`` dimension, or ``tf.distribute``'s replica
                context. Afterwards every member has the temperature of all batches, so call it once.

        Returns:
            This calibrator, with the temperature of all batches.

        Raises:
            TypeError: if ``row_shards`` is no such group.
            ValueError: if a calibrator has no batch, or the parameters differ.
        """
        self._check_parameters()
        for other in others:
            if not isinstance(other, dict) and self.get_params() != other.get_params():
                raise ValueError(f"merge_state needs calibrators of the same parameters, got {self!r} and {other!r}.")
        if not all(isinstance(each, dict) or hasattr(each, "_table") for each in others):
            raise ValueError("merge_state needs calibrators that have taken in batches by partial_fit.")
        table = getattr(self, "_table", None) or Table()
        for other in others:
            table.merge(Table.of(other["totals"], other["sums"]) if isinstance(other, dict) else other._table)
        if row_shards is not None:
            total = total_of_members(row_shards, table.arrays, lambda _: Table().arrays, repr(self))
            table = Table.of(*total) if total else table
        self._table = table
        return self._solve_table()

    def get_state(self) -> dict[str, Any]:
        """The sums of `partial_fit` as lists of numbers, for JSON and for `merge_state`.

        Examples:
            >>> import json
            >>> from lsmooth.calibration import TemperatureScaling
            >>> logits = [[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]]
            >>> text = json.dumps(TemperatureScaling().partial_fit(logits, [0, 0, 1, 1]).get_state())
            >>> round(TemperatureScaling().merge_state(json.loads(text)).temperature_, 4)
            3.641
        """
        totals, sums = (getattr(self, "_table", None) or Table()).arrays
        return {"totals": totals.tolist(), "sums": sums.tolist()}

    def _solve_table(self) -> Self:
        low, high = self._range()
        return self._solve(self._table, 0.0, max(low, Table.LOW), min(high, Table.HIGH))

    def _solve(self, source: Source, start: float, low: float, high: float) -> Self:
        beta, after, status = solve(source, start, low, high, self.max_iter)
        count = source.totals.count
        self.temperature_ = 1.0 / beta
        self.status_ = status
        self.n_iter_ = source.passes
        self.nll_before_ = source.sums(1.0).value / count
        self.nll_after_ = after.value / count
        known = status == "converged" and after.curvature > 0
        self.temperature_stderr_ = self.temperature_ / math.sqrt(after.curvature) if known else math.nan
        if status != "converged":
            advice = ADVICE[status].format(low=math.exp(-high), high=math.exp(-low), max_iter=self.max_iter)
            warn(
                f"No temperature maximises the likelihood ({status}): {advice}. T = {self.temperature_:.6g} was taken."
            )
        return self

    def _transform(self, logits: Array) -> Array:
        return self._scaled(logits, self.temperature_)

    def _predict(self, logits: Array) -> Array:
        return self._probabilities(backend_of(logits=logits), self._scaled(logits, self.temperature_, centered=True))

    def _rows_of_batch(self, batch: Any) -> Rows:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(
                "A batch must be (logits, labels) or (logits, labels, sample_weight), got "
                f"{f'{len(batch)} parts' if isinstance(batch, (tuple, list)) else type(batch).__name__}."
            )
        return self._rows(*batch, *(None,) * (3 - len(batch)))

    def _check_values(self) -> None:
        if not self.temperature_ > 0:
            raise ValueError(f"temperature_ must be above 0, got {self.temperature_}.")
        if self.status_ not in STATUSES:
            raise ValueError(f"status_ must be one of {', '.join(STATUSES)}; got {self.status_!r:.80}.")
