"""Metrics over batches: sums of fixed size, which can be merged across shards."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from lsmooth import _validation as check
from lsmooth._row_shards import total_of_members
from lsmooth.backends import Array, Backend, backend_of, load_backend
from lsmooth.backends.formulas.linear import stacked_columns
from lsmooth.metrics._bins import BinSums
from lsmooth.metrics._inputs import Inputs, prepare, weighted_sums
from lsmooth.metrics._reliability import ReliabilityCurve, curve_of
from lsmooth.metrics._scores import in_top_k, likelihood_losses, squared_distances
from lsmooth.metrics._tables import Scheme, calibration_error, classwise_table, top_label_table


class Metric:
    """Sums in float64 on the host; batches may be of any framework and on any device.

    A subclass computes the sums of a batch in `_sums` and the metric of their total in `_value`. The state has a fixed
    size, merges exactly, and can be pickled. `lsmooth.integrations.keras`
    and `lsmooth.integrations.torchmetrics` keep the same sums in their frameworks' metrics.
    """

    def __init__(
        self,
        *,
        from_logits: bool = False,
        axis: int = -1,
        ignore_index: int | None = None,
        binary: bool | None = False,
    ):
        from_logits = check.check_flag("from_logits", from_logits)
        binary = None if binary is None else check.check_flag("binary", binary)
        self._options = (axis, check.check_ignore_index(ignore_index), from_logits, binary)
        self._state: tuple[np.ndarray, ...] | None = None

    def update_state(self, labels: Array, predictions: Array, sample_weight: Array | None = None) -> None:
        """Add a batch.

        Args:
            labels: as in the function of this metric.
            predictions: as in the function.
            sample_weight: of rows.

        Raises:
            TypeError: if tensors of two frameworks meet, a dtype is wrong, or the call is traced.
            ValueError: if shapes do not fit, or the number of classes has changed.
        """
        inputs = prepare(labels, predictions, sample_weight, *self._options)
        xp = inputs.xp
        if not xp.is_concrete(inputs.predictions):
            raise TypeError(
                f"{type(self).__name__}.update_state keeps the values of predictions, which are being traced; call it "
                "outside jit, tf.function and torch.compile, or return batch_state from there."
            )
        self._add(tuple(xp.to_numpy(x).astype(np.float64) for x in self._sums(inputs)))

    def batch_state(
        self, labels: Array, predictions: Array, sample_weight: Array | None = None, *, row_shards: Any = None
    ) -> dict[str, Any]:
        """The state of one batch, for `merge_state`; this metric does not change.

        It can be computed in ``jax.jit``, ``tf.function`` and ``torch.compile``.

        Args:
            labels: as in `update_state`.
            predictions: as in `update_state`.
            sample_weight: of rows.
            row_shards: the group over whose members the rows are spread, as in `softmax_cross_entropy`: the state is
                that of all rows.

        Returns:
            What `get_state` returns, with arrays of the batch's framework, on its device.

        Raises:
            TypeError: as `update_state`.
            ValueError: as `update_state`, or if ``row_shards`` is no group.

        Examples:
            >>> from lsmooth.metrics import BrierScore
            >>> metric = BrierScore()
            >>> metric.merge_state(metric.batch_state([0, 1], [[1.0, 0.0], [0.5, 0.5]])).result()
            0.25
        """
        inputs = prepare(labels, predictions, sample_weight, *self._options)
        sums = self._sums(inputs)
        if row_shards is not None:
            xp = backend_of(labels=labels, predictions=predictions)
            stacked = stacked_columns(inputs.xp, list(sums))
            members = xp.members(row_shards, "row_shards")
            total = members.sum(stacked if xp is inputs.xp else members.placed(xp.asarray(stacked)))
            sums = [total[..., k] for k in range(len(sums))]
        return {"sums": list(sums)}

    def result(self) -> float:
        """The metric of all rows so far; 0 before the first."""
        return 0.0 if self._state is None else float(self._value(load_backend("numpy"), self._state))

    def reset_state(self) -> None:
        """Remove all batches."""
        self._state = None

    def merge_state(self, *others: Self | dict[str, Any], row_shards: Any = None) -> Self:
        """Add the batches of other metrics, of other processes or devices.

        Args:
            *others: metrics of the same class and options, or states of them, from `get_state` or `batch_state`.
            row_shards: a group whose members each have a metric with batches of their own: a
                ``torch.distributed.ProcessGroup``, a ``DeviceMesh`` dimension, or ``tf.distribute``'s replica
                context. Afterwards every member has the metric of all batches, so call it once.

        Returns:
            This metric.

        Raises:
            TypeError: if ``row_shards`` is no such group.
            ValueError: if another's class, options or number of classes differ.
        """
        others = tuple(self._of_state(other) if isinstance(other, dict) else other for other in others)
        for other in others:
            if type(self) is not type(other) or self._settings() != other._settings():
                raise ValueError(
                    f"merge_state needs metrics of the same class and options, got {type(self).__name__}"
                    f"{self._settings()} and {type(other).__name__}{other._settings()}."
                )
        for other in others:
            if other._state is not None:
                self._add(other._state)
        if row_shards is not None:
            signature = f"{type(self).__name__}{self._settings()}"
            self._state = total_of_members(row_shards, self._state, self._empty, signature)
        return self

    def _of_state(self, state: dict[str, Any]) -> Self:
        """A metric like this one, with that state."""
        metric = copy.copy(self)
        metric.set_state(state)
        return metric

    def get_state(self) -> dict[str, Any]:
        """The sums so far as lists of numbers, for JSON."""
        return {"sums": None if self._state is None else [x.tolist() for x in self._state]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state from `get_state`.

        Args:
            state: of a metric of the same class and options.

        Raises:
            ValueError: if it is of another class or of other options.
        """
        sums = None if state["sums"] is None else tuple(_on_host(x) for x in state["sums"])
        if sums is not None:
            expected = [x.shape for x in self._empty(max([2, *(len(x) for x in sums if x.ndim)]))]
            if [x.shape for x in sums] != expected:
                raise ValueError(
                    f"state must be of a {type(self).__name__} with the same options: it holds sums of shapes "
                    f"{[x.shape for x in sums]}, not {expected}."
                )
        self._state = sums

    def _empty(self, num_classes: int = 2) -> tuple[np.ndarray, ...]:
        """The sums before the first batch."""
        _, _, from_logits, binary = self._options
        p = np.zeros((0,) if binary else (0, num_classes))
        inputs = prepare(np.zeros(0, np.int64), p, None, -1, None, from_logits, binary)
        return tuple(np.asarray(x, np.float64) for x in self._sums(inputs))

    def _add(self, sums: tuple[np.ndarray, ...]) -> None:
        if self._state is None:
            self._state = sums
        elif [x.shape for x in sums] != [x.shape for x in self._state]:
            raise ValueError(
                f"predictions must have as many classes as in the batches before: the sums have shape "
                f"{sums[0].shape}, those so far {self._state[0].shape}."
            )
        else:
            self._state = tuple(a + b for a, b in zip(self._state, sums, strict=True))

    def _settings(self) -> tuple[Any, ...]:
        return self._options

    def _sums(self, inputs: Inputs) -> tuple[Array, ...]:
        raise NotImplementedError

    def _value(self, xp: Backend, sums: tuple[Array, ...]) -> Array:
        """The metric of the sums, in their framework."""
        raise NotImplementedError


def _on_host(x: Any) -> np.ndarray:
    """A number, lists of them, or an array of any framework."""
    xp = None if isinstance(x, (int, float, list)) else backend_of(sums=x)
    return np.asarray(x if xp is None else xp.to_numpy(x), np.float64)


class CalibrationError(Metric):
    """`expected_calibration_error` over batches; or its classwise, l2, debiased and maximum relatives.

    Args:
        n_bins: the number of bins, of equal width.
        norm: ``"l1"``, ``"l2"`` or ``"max"``.
        debias: for ``"l2"``: subtract the variance of each bin's accuracy.
        convention: the library whose bins are used; see `expected_calibration_error`.
        classwise: whether it is the error of every class, as in `classwise_calibration_error`.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        from_logits: whether predictions are logits.
        axis: the class axis.
        ignore_index: rows with this label do not count.

    Examples:
        >>> from lsmooth.metrics import CalibrationError
        >>> metric = CalibrationError(n_bins=2)
        >>> metric.update_state([0, 1], [[0.5, 0.5], [0.5, 0.5]])
        >>> metric.update_state([0, 1], [[0.7, 0.3], [0.2, 0.8]])
        >>> round(metric.result(), 6)
        0.125
    """

    def __init__(
        self,
        *,
        n_bins: int = 15,
        norm: str = "l1",
        debias: bool = False,
        convention: str = "guo",
        classwise: bool = False,
        binary: bool = False,
        from_logits: bool = False,
        axis: int = -1,
        ignore_index: int | None = None,
    ):
        super().__init__(from_logits=from_logits, axis=axis, ignore_index=ignore_index, binary=binary)
        self._scheme = Scheme(n_bins, "equal_width", norm, debias, convention)
        self._classwise = check.check_flag("classwise", classwise)
        self._binary = bool(binary)

    def curve(self) -> ReliabilityCurve:
        """The `reliability_curve` of all rows so far.

        Raises:
            ValueError: if the metric is classwise, of another convention, or no batch has come.
        """
        if self._classwise or self._scheme.convention != "guo" or self._state is None:
            raise ValueError("curve needs batches, and a metric of convention='guo' that is not classwise.")
        return curve_of(load_backend("numpy"), BinSums(*self._state), "float64")

    def _settings(self) -> tuple[Any, ...]:
        return (*self._options, self._scheme, self._classwise)

    def _sums(self, inputs: Inputs) -> tuple[Array, ...]:
        if self._classwise:
            return classwise_table(inputs, self._scheme)
        return top_label_table(inputs, self._scheme, self._binary)

    def _value(self, xp: Backend, sums: tuple[Array, ...]) -> Array:
        return calibration_error(xp, BinSums(*sums), self._scheme.norm, self._scheme.debias)


class _Mean(Metric):
    """A mean over rows: the sums of weighted values and of weights."""

    def _sums(self, inputs: Inputs) -> tuple[Array, ...]:
        return weighted_sums(inputs.xp, self._values(inputs), inputs.weight)

    def _value(self, xp: Backend, sums: tuple[Array, ...]) -> Array:
        total, weight = sums
        return total / xp.where(xp.equal(weight, 0), 1.0, weight)

    def _values(self, inputs: Inputs) -> Array:
        raise NotImplementedError


class NegativeLogLikelihood(_Mean):
    """`negative_log_likelihood` over batches.

    Args:
        from_logits: whether predictions are logits.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        binary: whether predictions are the probability of 1, in the shape of the labels.

    Examples:
        >>> from lsmooth.metrics import NegativeLogLikelihood
        >>> metric = NegativeLogLikelihood()
        >>> metric.update_state([0], [[0.5, 0.5]])
        >>> metric.update_state([1], [[0.75, 0.25]])
        >>> round(metric.result(), 6)
        1.039721
    """

    def _values(self, inputs: Inputs) -> Array:
        return likelihood_losses(inputs)


class BrierScore(_Mean):
    """`brier_score` over batches.

    Args:
        from_logits: whether predictions are logits.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        binary: whether predictions are the probability of 1, in the shape of the labels.

    Examples:
        >>> from lsmooth.metrics import BrierScore
        >>> metric = BrierScore()
        >>> metric.update_state([0, 1], [[1.0, 0.0], [0.5, 0.5]])
        >>> metric.result()
        0.25
    """

    def _values(self, inputs: Inputs) -> Array:
        return squared_distances(inputs)


class TopKAccuracy(_Mean):
    """`top_k_accuracy` over batches.

    Args:
        k: at least 1.
        axis: the class axis.
        ignore_index: rows with this label do not count.

    Examples:
        >>> from lsmooth.metrics import TopKAccuracy
        >>> metric = TopKAccuracy()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.8, 0.2]])
        >>> metric.result()
        0.5
    """

    def __init__(self, *, k: int = 1, axis: int = -1, ignore_index: int | None = None):
        super().__init__(from_logits=True, axis=axis, ignore_index=ignore_index, binary=None)
        self._k = check.check_count("k", k)

    def _settings(self) -> tuple[Any, ...]:
        return (*self._options, self._k)

    def _values(self, inputs: Inputs) -> Array:
        return in_top_k(inputs, self._k)
