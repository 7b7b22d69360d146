"""What the frameworks' streaming metrics share: the sums of a metric of `lsmooth.metrics`, in variables of theirs."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import numpy as np

from lsmooth import metrics
from lsmooth.backends import Array
from lsmooth.metrics._inputs import prepare


class KeptSums:
    """A framework's metric whose variables are the sums of ``_kind``.

    A subclass reads and writes its variables, in `_read` and `_write`.
    """

    _kind: ClassVar[type[metrics.Metric]]
    _own: metrics.Metric

    @classmethod
    def _options_of_kind(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Those of the options that are the metric's, and not the framework's."""
        known = inspect.signature(cls._kind).parameters
        return {name: value for name, value in options.items() if name in known}

    def _batch(self, labels: Array, predictions: Array, sample_weight: Array | None) -> tuple[Array, ...]:
        return self._own._sums(prepare(labels, predictions, sample_weight, *self._own._options))

    def get_state(self) -> dict[str, Any]:
        """The sums so far, in lists of numbers: also for `set_state` of the metric of `lsmooth.metrics`."""
        return {"sums": [x.tolist() for x in self._read()]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave, here or of the metric of `lsmooth.metrics`.

        Args:
            state: of a metric of the same class and options.

        Raises:
            ValueError: if it is of another class or of other options.
        """
        self._own.set_state(state)
        sums = self._own._state
        self._own.reset_state()
        self._write([np.zeros_like(x) for x in self._read()] if sums is None else list(sums))

    def _add(self, others: tuple[Self, ...]) -> None:
        """Take in the sums of other metrics, which must be of the same class and options."""
        for other in others:
            self._own.merge_state(other._own)
        self._write([np.sum(parts, axis=0) for parts in zip(*(each._read() for each in (self, *others)), strict=True)])

    def _read(self) -> list[np.ndarray]:
        raise NotImplementedError

    def _write(self, sums: list[np.ndarray]) -> None:
        raise NotImplementedError
