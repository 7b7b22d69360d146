"""One number for all logits: the temperature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from lsmooth._row_shards import total_of_members
from lsmooth.backends import Array, backend_of
from lsmooth.calibration._base import ConvergenceWarning
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
    """The temperature of greatest likelihood, and a word on how sure it is.

    ``T = argmin_T sum_i w_i (-log softmax(z_i / T)[y_i])``

    and with ``binary`` the one of ``sigmoid(z / T)`` over all elements: of two classes, or of labels
    of which each may be true (`GroupTemperatureScaling` finds one for each of them).

    Found to 1e-6 of its value by Newton's method on log(1 / T) within a bracket, in a few passes
    over the logits, in blocks, on the device they are on. Where no optimum exists, T is the
    value nearest to 1 whose total log-likelihood is within 1/2 (one standard error) of the
    supremum, and a `ConvergenceWarning` says so.

    Args:
        axis: the class axis.
        ignore_index: rows with this label have no part in the fit.
        from_logits: False for probabilities: ``log p`` takes the logits' place, and `transform`
            gives probabilities. Never guessed from the values.
        binary: every element is the logit (or probability) of a label of its own, which is 0 or 1 or
            between; the labels have the logits' shape, and there is no class axis.
        bounds: the smallest and the largest T.
        max_iter: the most passes over the data.
        clip: for ``from_logits=False``: smaller probabilities count as this one, so that a label of
            probability 0 can be fitted.

    Attributes:
        temperature_: T, above 0.
        status_: ``"converged"``; ``"separable"``, if every label has the largest logit, so that T
            would go to 0; ``"uninformative"``, if the labels do not follow the logits, so that T
            would go to infinity; ``"at_bound"``, if the optimum is outside ``bounds``;
            ``"max_iter"``, if the passes were not enough.
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

    def fit(self, logits: Array, labels: Array, sample_weight: Array | None = None) -> Self:
        """Find the temperature.

        Args:
            logits: floating point, any shape, classes along ``axis``; -inf masks a class.
            labels: class ids, integers in the shape of the logits without ``axis``; or
                distributions, in the shape of the logits; if ``binary``, 0, 1 or between, in the
                shape of the logits.
            sample_weight: at least 0, a scalar, or of the rows' rank, each dimension equal or 1; a
                weight of n counts as n rows.

        Returns:
            This calibrator.

        Raises:
            TypeError: if a dtype is wrong, tensors of two frameworks meet, or the call is traced.
            ValueError: if shapes do not fit, an option is out of range, a label is no class, logits
                are not finite, or no row counts.
        """
        self._check_parameters()
        rows = self._rows(logits, labels, sample_weight)
        return self._solve(rows, warm_start(rows, *self._range()), *self._range())

    def fit_batches(self, batches: Iterable[tuple[Array, ...]], *, once: bool = False) -> Self:
        """Find the temperature of data that are never in memory together.

        The optimum is that of `fit` on all of them. They are read three or four times, or once.

        Args:
            batches: ``(logits, labels)`` or ``(logits, labels, sample_weight)``, as `fit` takes them;
                an iterable that can be read again, such as a list or a DataLoader, in any order.
            once: whether each batch is to be seen only once, as by `partial_fit`: for a generator, or
                where logits cost a model's run.

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
        """Take in one more batch, seen only once, and find the temperature of all so far.

        What is kept is a table of sums at 25 temperatures from 1/64 to 64, so that the work is
        that of 25 passes; the temperature is that of `fit` to 1e-6, and ``"at_bound"`` beyond the
        table. `merge_state` adds up the tables of shards.

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
        """Take in the batches that other calibrators have taken in by `partial_fit`.

        Args:
            *others: of the same parameters, or states of them, from `get_state`.
            row_shards: a group of whose members each has a calibrator that has taken in other batches, or none: a
                ``torch.distributed.ProcessGroup``, a ``DeviceMesh`` dimension, or ``tf.distribute``'s replica
                context. Afterwards every member has the temperature of the batches of all: call it once.

        Returns:
            This calibrator, with the temperature of the batches of all.

        Raises:
            TypeError: if ``row_shards`` is no such group.
            ValueError: if one has seen no batch, or the parameters differ.
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
        """What `partial_fit` has kept of all batches, in lists of numbers: ready for JSON, and for `merge_state`.

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
            warnings.warn(
                f"No temperature maximises the likelihood ({status}): {advice}. T = {self.temperature_:.6g} was taken.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def transform(self, logits: Array) -> Array:
        """Logits divided by the temperature, differentiable.

        Args:
            logits: floating point, classes along ``axis``.

        Returns:
            ``z / T``, in the logits' shape and dtype; probabilities if ``from_logits`` is False.

        Raises:
            ValueError: if nothing has been fitted.
        """
        self._check_fitted()
        if not self.from_logits:
            return self.predict_proba(logits)
        return self._scaled(logits, self.temperature_)

    def predict_proba(self, logits: Array) -> Array:
        """Calibrated probabilities, ``softmax(z / T)``; ``sigmoid(z / T)`` if ``binary``.

        Args:
            logits: floating point, classes along ``axis``.

        Returns:
            Probabilities in the logits' shape.

        Raises:
            ValueError: if nothing has been fitted.
        """
        self._check_fitted()
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
