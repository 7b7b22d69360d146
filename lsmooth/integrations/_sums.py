"""The base of the frameworks' streaming metrics, whose variables hold the sums of a metric of `lsmooth.metrics`."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import numpy as np

from lsmooth import metrics
from lsmooth.backends import Array
from lsmooth.metrics._inputs import prepare


class KeptSums:
    """A framework's metric whose variables hold the sums of ``_kind``; subclasses implement `_read` and `_write`."""

    _kind: ClassVar[type[metrics.Metric]]
    _own: metrics.Metric

    @classmethod
    def _options_of_kind(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The options of the metric, without those of the framework."""
        known = inspect.signature(cls._kind).parameters
        return {name: value for name, value in options.items() if name in known}

    def _batch(self, labels: Array, predictions: Array, sample_weight: Array | None) -> tuple[Array, ...]:
        return self._own._sums(prepare(labels, predictions, sample_weight, *self._own._options))

    def get_state(self) -> dict[str, Any]:
        """The sums as lists of numbers, also for `set_state` of the metric of `lsmooth.metrics`."""
        return {"sums": [x.tolist() for x in self._read()]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `get_state` of a metric with the same class and options, also of `lsmooth.metrics`."""
        self._own.set_state(state)
        sums = self._own._state
        self._own.reset_state()
        self._write([np.zeros_like(x) for x in self._read()] if sums is None else list(sums))

    def _add(self, others: tuple[Self, ...]) -> None:
        """Add the sums of other metrics, which must have the same class and options."""
        for other in others:
            self._own.merge_state(other._own)
        self._write([np.sum(parts, axis=0) for parts in zip(*(each._read() for each in (self, *others)), strict=True)])

    def _read(self) -> list[np.ndarray]:
        raise NotImplementedError

    def _write(self, sums: list[np.ndarray]) -> None:
        raise NotImplementedError
