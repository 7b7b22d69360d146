"""A temperature for each group of rows: a domain's, a predicted class's, or a label's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.calibration._base import NanArray, eager, warn
from lsmooth.calibration._moments import Rows, Sums
from lsmooth.calibration._newton import Found, Source, solve, solve_groups
from lsmooth.calibration._scaling import STATUSES, TemperatureCalibrator
from lsmooth.calibration._streams import Table, add_groups

BY = ("group", "prediction", "label")


@dataclass(kw_only=True, repr=False, eq=False)
class GroupTemperatureScaling(TemperatureCalibrator):
    """The temperature of greatest likelihood of each group: ``softmax(z / T_g)``.

    Each is the temperature that `TemperatureScaling` finds on the group's rows; all are found in the same few passes
    over the logits. A group that was not in the fit gets the temperature of all rows.

    Args:
        by: the groups: ``"group"``, given with the logits, such as domains; ``"prediction"``, the predicted classes,
            so accuracy does not change; ``"label"``, with ``binary``, the labels along ``axis``.
        axis: the class axis, or that of the labels.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities, as in `TemperatureScaling`.
        binary: every element is the logit (or probability) of a label of its own: ``sigmoid(z / T_g)``.
        bounds: the smallest and the largest T.
        max_iter: the most passes over the data, for the temperature of all rows and again for the groups.
        clip: with ``from_logits=False``, smaller probabilities are raised to this one.

    Attributes:
        groups_: the ids of the groups of the fit, ascending, (groups,), a NumPy array.
        temperatures_: T of each, above 0.
        temperature_stderrs_: its standard error; NaN unless converged.
        statuses_: its status, as in `TemperatureScaling`; a list.
        temperature_: the temperature of all rows.
        status_: ``"converged"`` if every group converged, else the first other status.
        n_iter_: passes over the data.
        nll_before_: mean negative log-likelihood at T = 1.
        nll_after_: the same at each group's temperature.

    Source: Frenkel and Goldberger 2021, "Network Calibration by Class-based Temperature Scaling".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.calibration import GroupTemperatureScaling
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> both, domains = np.concatenate([logits, 2.0 * logits]), [0, 0, 0, 0, 7, 7, 7, 7]
        >>> scaler = GroupTemperatureScaling().fit(both, [0, 0, 1, 1] * 2, groups=domains)
        >>> scaler.temperatures_.round(3)  # 4 / log(3), and twice that
        array([3.641, 7.282])
    """

    by: str = "group"
    groups_: np.ndarray = field(init=False)
    temperatures_: np.ndarray = field(init=False)
    temperature_stderrs_: NanArray = field(init=False)
    statuses_: list[str] = field(init=False)
    temperature_: float = field(init=False)
    status_: str = field(init=False)
    n_iter_: int = field(init=False)
    nll_before_: float = field(init=False)
    nll_after_: float = field(init=False)

    def fit(
        self, logits: Array, labels: Array, sample_weight: Array | None = None, *, groups: Array | None = None
    ) -> Self:
        """Find each group's temperature; see `Calibrator.fit`.

        Args:
            logits: as in `Calibrator.fit`, and so are labels and weights.
            labels: class ids or distributions; if ``binary``, 0, 1 or between, in the logits' shape.
            sample_weight: at least 0, a scalar, or of the rows' rank, each dimension equal or 1.
            groups: the group of each row, integers, of the rows' rank, each dimension equal or 1; only
                for ``by="group"``.

        Returns:
            This calibrator.

        Raises:
            TypeError: as `Calibrator.fit`.
            ValueError: as `Calibrator.fit`; or if groups are missing, are not used, or do not fit the rows.
        """
        known, rows = self._rows_in_groups(logits, labels, sample_weight, groups)
        counts = np.zeros(len(known)) + rows.totals.count
        pooled = _Pooled(rows)
        low, high = self._range()
        beta, _, _ = solve(pooled, 0.0, low, high, self.max_iter)
        found = solve_groups(rows, counts > 0, math.log(beta), low, high, rows.passes + self.max_iter)
        return self._keep(known[counts > 0], found, beta, pooled)

    def partial_fit(
        self, logits: Array, labels: Array, sample_weight: Array | None = None, *, groups: Array | None = None
    ) -> Self:
        """Add a batch, which is read once, and find each group's temperature of all batches so far.

        As `TemperatureScaling.partial_fit`, with sums for each group. `merge_state` adds up the sums of shards.

        Args:
            logits: as in `fit`.
            labels: as in `fit`.
            sample_weight: as in `fit`.
            groups: as in `fit`; a batch need not contain all of them.

        Returns:
            This calibrator.

        Raises:
            TypeError: as `fit`.
            ValueError: as `fit`, if no row so far counts.
        """
        known, rows = self._rows_in_groups(logits, labels, sample_weight, groups)
        self._tables = getattr(self, "_tables", {})
        add_groups(self._tables, rows, known.tolist())
        return self._keep(*self._solved_tables())

    def merge_state(self, *others: GroupTemperatureScaling) -> Self:
        """Add the batches of other calibrators, given to them by `partial_fit`.

        Args:
            *others: calibrators of the same parameters; their groups may differ.

        Returns:
            This calibrator, with the temperatures of all batches.

        Raises:
            ValueError: if a calibrator has no batch, or the parameters differ.
        """
        for other in others:
            if self.get_params() != other.get_params():
                raise ValueError(f"merge_state needs calibrators of the same parameters, got {self!r} and {other!r}.")
        if not all(hasattr(each, "_tables") for each in (self, *others)):
            raise ValueError("merge_state needs calibrators that have taken in batches by partial_fit.")
        for group, table in (pair for other in others for pair in other._tables.items()):
            self._tables.setdefault(group, Table()).merge(table)
        return self._keep(*self._solved_tables())

    def _rows_in_groups(
        self, logits: Array, labels: Array, sample_weight: Array | None, groups: Array | None
    ) -> tuple[np.ndarray, Rows]:
        """The ids of the groups, ascending, and the rows in them."""
        self._check_parameters()
        xp = eager("fit", logits=logits, labels=labels, groups=groups)
        like = labels if xp.is_array(labels) else None
        ids = xp.to_numpy(self._groups_of(check.float_array(xp, "logits", logits, like=like), groups))
        known, index = np.unique(ids, return_inverse=True)
        return known, self._rows(logits, labels, sample_weight, index.reshape(ids.shape), len(known))

    def _solved_tables(self) -> tuple[np.ndarray, list[Found], float, Source]:
        """The arguments of `_keep` for all batches so far."""
        tables = {group: table for group, table in sorted(self._tables.items()) if table.totals.count > 0}
        pooled = Table()
        for table in tables.values():
            pooled.merge(table)
        low, high = self._range()
        low, high = max(low, Table.LOW), min(high, Table.HIGH)
        beta, _, _ = solve(pooled, 0.0, low, high, self.max_iter)
        found = [solve(table, math.log(beta), low, high, self.max_iter) for table in tables.values()]
        return np.array(list(tables)), found, beta, pooled

    def _keep(self, groups: np.ndarray, found: list[Found], beta: float, pooled: Source) -> Self:
        """Set the fitted values from the fits of the groups and the beta of all rows."""
        self.temperature_ = 1.0 / beta
        self.groups_ = groups.astype(np.int64)
        self.temperatures_ = np.array([1.0 / beta for beta, _, _ in found])
        self.statuses_ = [status for _, _, status in found]
        curvature = np.array([s.curvature if status == "converged" else 0.0 for _, s, status in found])
        with np.errstate(divide="ignore"):
            stderrs: Any = np.where(curvature > 0, self.temperatures_ / np.sqrt(curvature), math.nan)
        self.temperature_stderrs_ = stderrs
        self.n_iter_ = pooled.passes
        self.nll_before_ = pooled.sums(1.0).value / pooled.totals.count
        self.nll_after_ = sum(sums.value for _, sums, _ in found) / pooled.totals.count
        self._warn()
        return self

    def transform(self, logits: Array, *, groups: Array | None = None) -> Array:
        """Logits divided by their groups' temperatures, differentiable.

        Args:
            logits: floating point, classes along ``axis``.
            groups: the group of each row, as in `fit`; only for ``by="group"``.

        Returns:
            ``z / T_g``, in the logits' shape and dtype; probabilities if ``from_logits`` is False.

        Raises:
            ValueError: if nothing has been fitted; for groups as `fit`.
        """
        self._check_fitted()
        if not self.from_logits:
            return self.predict_proba(logits, groups=groups)
        return self._scaled(logits, self._temperatures_of(logits, groups))

    def predict_proba(self, logits: Array, *, groups: Array | None = None) -> Array:
        """Calibrated probabilities, ``softmax(z / T_g)``; ``sigmoid(z / T_g)`` if ``binary``.

        Args:
            logits: floating point, classes along ``axis``.
            groups: the group of each row, as in `fit`; only for ``by="group"``.

        Returns:
            Probabilities in the logits' shape.

        Raises:
            ValueError: if nothing has been fitted; for groups as `fit`.
        """
        self._check_fitted()
        scaled = self._scaled(logits, self._temperatures_of(logits, groups), centered=True)
        return self._probabilities(backend_of(scaled=scaled), scaled)

    def _groups_of(self, logits: Array, groups: Array | None) -> Array:
        """The group of each row, in the rows' shape."""
        if (groups is None) == (self.by == "group"):
            wanted = "needs groups, the group of each row" if groups is None else "takes no groups"
            raise ValueError(f"GroupTemperatureScaling with by={self.by!r} {wanted}.")
        xp = backend_of(logits=logits, groups=groups)
        front = check.check_axis(self.axis, xp.shape(logits))
        if self.by == "prediction":
            return xp.argmax(logits, axis=front)
        if self.by == "label":
            shape = [1] * len(xp.shape(logits))
            shape[front] = -1
            ids = xp.asarray(np.arange(xp.shape(logits)[front]).reshape(shape), like=logits)
            return ids * xp.cast(xp.ones_like(logits, "float32"), xp.dtype(ids))
        ids = check.to_array(xp, "groups", groups, like=logits)
        if not check.is_integer(xp, ids):
            raise TypeError(f"groups must be integers, got {xp.dtype(ids)}; number them, e.g. by np.unique.")
        row = logits if self.binary else xp.max(logits, axis=front)
        check.check_weight_shape("groups", xp.shape(ids), xp.shape(row))
        return ids * xp.cast(xp.ones_like(row, "float32"), xp.dtype(ids))

    def _temperatures_of(self, logits: Array, groups: Array | None) -> Array:
        """The temperature of each row."""
        xp = backend_of(logits=logits, groups=groups)
        logits = check.float_array(xp, "logits", logits, like=groups if xp.is_array(groups) else None)
        ids = self._groups_of(logits, groups)
        shape = tuple(-1 if n is None else n for n in xp.shape(ids))
        known = xp.asarray(self.groups_, xp.dtype(ids), like=ids)
        table = xp.asarray(self.temperatures_, xp.dtype(logits), like=logits)
        index = xp.searchsorted(known, xp.reshape(ids, (-1,)), side="left")
        index = xp.reshape(xp.where(index < len(self.groups_), index, 0), shape)
        return xp.where(xp.equal(xp.take(known, index), ids), xp.take(table, index), self.temperature_)

    def _warn(self) -> None:
        failed = [(int(g), s) for g, s in zip(self.groups_, self.statuses_, strict=True) if s != "converged"]
        self.status_ = failed[0][1] if failed else "converged"
        if failed:
            named = ", ".join(f"{group} ({status})" for group, status in failed[:5])
            warn(
                f"No temperature maximises the likelihood of {len(failed)} of {len(self.groups_)} groups: "
                f"{named}{', ...' if len(failed) > 5 else ''}. statuses_ has all; see TemperatureScaling for their "
                "meaning."
            )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}; got {self.by!r}.")
        if self.by != "group" and self.binary != (self.by == "label"):
            raise ValueError(f"by={self.by!r} needs binary={self.by == 'label'}.")

    def _check_values(self) -> None:
        shape = self.groups_.shape
        if len(shape) != 1 or {self.temperatures_.shape, self.temperature_stderrs_.shape, (len(self.statuses_),)} != {
            shape
        }:
            raise ValueError("groups_, temperatures_, temperature_stderrs_ and statuses_ must be lists of one length.")
        if (self.groups_ != self.groups_.astype(np.int64)).any() or (np.diff(self.groups_) <= 0).any():
            raise ValueError("groups_ must be integers that ascend.")
        self.groups_ = self.groups_.astype(np.int64)
        if not (self.temperatures_ > 0).all() or not self.temperature_ > 0:
            raise ValueError("temperatures_ and temperature_ must be above 0.")
        for status in (*self.statuses_, self.status_):
            if status not in STATUSES:
                raise ValueError(f"statuses_ must be of {', '.join(STATUSES)}; got {status!r:.80}.")


class _Pooled:
    """Rows in groups, summed over the groups."""

    def __init__(self, rows: Rows):
        self._rows = rows
        self.totals = _pool(rows.totals)

    @property
    def passes(self) -> int:
        """Passes so far."""
        return self._rows.passes

    def sums(self, beta: float) -> Sums:
        """The sums over all groups."""
        return _pool(self._rows.sums(beta))


def _pool(sums: Any) -> Any:
    return type(sums)(*(float(np.sum(value)) for value in vars(sums).values()))
