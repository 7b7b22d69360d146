"""The measures of the evaluation part: sums over all rows, and a sample of rows.

Most measures need only the confidence of a row, its correctness and its scores. So each row of the sample has a proxy
for its predictions, with the same confidence and correctness, which the functions of `lsmooth.metrics` and
`lsmooth.plots` on the likeliest class can take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lsmooth._validation import validate
from lsmooth.backends import use_backend
from lsmooth.calibrate.passes import Sums
from lsmooth.metrics import (
    CalibrationError,
    Interval,
    area_under_risk_coverage,
    expected_calibration_error,
    smooth_calibration_error,
)
from lsmooth.metrics._bins import BinSums
from lsmooth.metrics._inputs import prepare, probabilities, top_label
from lsmooth.metrics._intervals import bootstrap_interval
from lsmooth.metrics._scores import likelihood_losses, squared_distances

SAMPLE_ROWS = 200_000
"""The most rows of the sample."""
CLASSWISE_ELEMENTS = 2**25
"""The most probabilities for classwise errors."""
NAMES = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "classwise_ece": "classwise ECE",
    "smooth_ece": "smooth ECE",
    "nll": "NLL",
    "brier": "Brier score",
    "aurc": "AURC",
}
"""The measures, in the order of reports."""
_MEANS = ("accuracy", "nll", "brier")
_COUNTS = ("rows", "classwise_rows", "weight", "seen")
_TABLES = ("error", "table", "classwise")


@dataclass
class Measures:
    """Measures of one set of predictions, block by block.

    Args:
        n_bins: the number of bins of the calibration errors.
        convention: the convention of the calibration error.
        binary: whether predictions are P(class 0) and P(class 1) of binary labels.
        n_groups: the number of groups if examples are groups; else 0.
    """

    n_bins: int
    convention: str
    binary: bool = False
    n_groups: int = 0
    rows: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_MEANS, 0.0))
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        options: dict[str, Any] = {"n_bins": self.n_bins}
        self.error = CalibrationError(convention=self.convention, binary=self.binary, **options)
        self.table = CalibrationError(**options)
        self.classwise = CalibrationError(classwise=True, **options)
        self.classwise_rows = 0
        self.seen: Any = np.zeros(self.n_groups, np.int64) if self.n_groups else 0
        self.weight = 0.0

    @property
    def examples(self) -> int:
        """The number of examples."""
        return int(np.count_nonzero(self.seen)) if self.n_groups else int(self.seen)

    def get_state(self, prefix: str) -> Sums:
        """The state, by names that begin with ``prefix``; states of following rows can be added."""
        added = {name: getattr(self, name) for name in _COUNTS} | {f"sums.{name}": x for name, x in self.sums.items()}
        for metric in _TABLES:
            for k, table in enumerate(getattr(self, metric)._state or ()):
                added[f"{metric}.{k}"] = table
        joined = {name: [part[name] for part in self.parts] for name in self.parts[0]}
        return Sums(
            {prefix + name: value for name, value in added.items()},
            {prefix + name: arrays for name, arrays in joined.items()},
        )

    def set_state(self, state: Sums, prefix: str) -> None:
        """Restore a state from `get_state`."""
        for name in _COUNTS:
            setattr(self, name, np.asarray(state.added[prefix + name])[()])
        self.rows, self.classwise_rows = int(self.rows), int(self.classwise_rows)
        self.sums = {name: float(state.added[f"{prefix}sums.{name}"]) for name in self.sums}
        for metric in _TABLES:
            if f"{prefix}{metric}.0" in state.added:
                tables = tuple(state.added[f"{prefix}{metric}.{k}"] for k in range(len(BinSums._fields)))
                getattr(self, metric)._state = tables
        names = [name.removeprefix(prefix) for name in state.joined if name.startswith(prefix)]
        self.parts = [{name: state.concatenated(prefix + name) for name in names}]

    def update(
        self,
        labels: np.ndarray,
        predictions: np.ndarray,
        kept: np.ndarray,
        classwise: np.ndarray,
        example: np.ndarray,
        *,
        from_logits: bool,
        dtype: Any = np.float64,
        weight: np.ndarray | None = None,
    ) -> None:
        """Add rows.

        Args:
            labels: (rows,) class ids.
            predictions: (rows, classes), float64: a probability that is 0 in float32 need not be.
            kept: (rows,) bool, the rows of the sample.
            classwise: (rows,) bool, the rows for classwise errors.
            example: (rows,) the example of each row; rows of one example stay together.
            from_logits: whether predictions are logits.
            dtype: the dtype of the file, whose rounding determines the bin of a confidence.
            weight: (rows,); 1 if None.
        """
        with use_backend("numpy"), np.errstate(divide="ignore"):
            exact = prepare(labels, predictions, None, -1, None, from_logits)
            inputs = prepare(labels, predictions.astype(dtype, copy=False), None, -1, None, from_logits)
            confidence, correct = top_label(inputs)
            rows = {"accuracy": correct, "nll": likelihood_losses(exact), "brier": squared_distances(inputs)}
            two = predictions.shape[1] == 2
            proxy = probabilities(inputs) if two else _proxy(confidence)
            proxy_labels = labels if two else np.where(correct > 0, 0, 1)
            with validate(False):  # proxies do not sum to one
                self.error.update_state(proxy_labels, _for_calibration_error(proxy, self.binary), sample_weight=weight)
                self.table.update_state(proxy_labels, proxy, sample_weight=weight)
            if classwise.any():
                part = None if weight is None else weight[classwise]
                self.classwise.update_state(labels[classwise], probabilities(inputs)[classwise], sample_weight=part)
                self.classwise_rows += int(classwise.sum())
        self.rows += len(labels)
        if self.n_groups:
            self.seen += np.bincount(example, minlength=self.n_groups)
        else:
            self.seen += len(np.unique(example))
        weight = np.ones(len(labels)) if weight is None else weight
        self.weight += float(weight.sum())
        for name, values in rows.items():
            counted = np.where(weight > 0, values, 0.0)  # other rows may have an infinite likelihood
            self.sums[name] += float(weight @ counted.astype(np.float64))
        kept_rows = {**rows, "weight": weight, "labels": proxy_labels, "predictions": proxy, "example": example}
        self.parts.append({name: np.asarray(values)[kept] for name, values in kept_rows.items()})

    def sample(self) -> Sample:
        """The sample of rows."""
        columns = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        return Sample(self.n_bins, self.convention, self.binary, **columns)

    def results(self) -> dict[str, float | None]:
        """The measures by the names of `NAMES`; None if there were too many probabilities."""
        sample = self.sample()
        with use_backend("numpy"), validate(False):
            return {
                **{name: total / (self.weight or 1.0) for name, total in self.sums.items()},
                "ece": self.error.result(),
                "classwise_ece": self.classwise.result() if self.classwise_rows else None,
                "smooth_ece": float(
                    smooth_calibration_error(
                        sample.labels, sample.stated, binary=self.binary, sample_weight=sample.weight
                    )
                ),
                "aurc": float(area_under_risk_coverage(sample.labels, sample.predictions, sample_weight=sample.weight)),
            }

    def per_class(self) -> BinSums | None:
        """Bins of each class's probability, (classes, bins); None if there were too many."""
        return BinSums(*self.classwise._state) if self.classwise._state is not None else None

    def diagram(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, proxies and weights with the reliability diagram of all rows: two rows for each bin."""
        curve = self.table.curve()
        filled = curve.weight > 0
        confidence, accuracy, weight = curve.confidence[filled], curve.accuracy[filled], curve.weight[filled]
        labels = np.repeat([0, 1], filled.sum())
        return labels, _proxy(np.tile(confidence, 2)), np.concatenate([weight * accuracy, weight * (1 - accuracy)])


@dataclass(frozen=True)
class Sample:
    """A sample of rows; arrays of one length."""

    n_bins: int
    convention: str
    binary: bool
    accuracy: np.ndarray
    nll: np.ndarray
    brier: np.ndarray
    weight: np.ndarray
    labels: np.ndarray
    """The labels of the proxies."""
    predictions: np.ndarray
    """The proxies of the predictions."""
    example: np.ndarray

    @property
    def two_classes(self) -> bool:
        """Whether the predictions are those of two classes instead of proxies."""
        return self.predictions.shape[1] == 2

    @property
    def stated(self) -> np.ndarray:
        """The predictions for calibration errors."""
        return _for_calibration_error(self.predictions, self.binary)

    def measures(self, weight: np.ndarray) -> dict[str, float]:
        """The measures that are fast enough for a bootstrap, with weights multiplied by ``weight``."""
        weight = weight * self.weight
        arguments: Any = (self.labels, self.predictions)
        how: Any = {"n_bins": self.n_bins, "convention": self.convention, "binary": self.binary}
        error = expected_calibration_error(self.labels, self.stated, sample_weight=weight, **how)
        drawn = np.flatnonzero(weight)  # other rows may have an infinite likelihood
        part = weight[drawn] / weight.sum()
        means = {name: float(part @ getattr(self, name)[drawn].astype(np.float64)) for name in _MEANS}
        return {**means, "ece": float(error), "aurc": float(area_under_risk_coverage(*arguments, sample_weight=weight))}


def bootstrap(
    before: Sample,
    after: Sample,
    values: tuple[dict[str, float | None], dict[str, float | None]],
    examples: int,
    resamples: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    confidence_level: float = 0.95,
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """Bootstrap intervals of each measure before, after, and of their difference.

    Examples are drawn with replacement, the same before and after; the positions of an example stay together. The bias
    is corrected as in `lsmooth.metrics.metric_interval`. If the sample is a part of the examples, deviations are
    multiplied by the square root of its share.
    """
    ids, index = np.unique(before.example, return_inverse=True)
    narrowing = (len(ids) / examples) ** 0.5
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, np.ndarray]] = []

    def both(weight: np.ndarray) -> dict[str, np.ndarray]:
        first, second = before.measures(weight), after.measures(weight)
        return {name: np.array([first[name], second[name], _change(first[name], second[name])]) for name in first}

    with use_backend("numpy"), validate(False), np.errstate(invalid="ignore"):
        for i in range(resamples):
            weight = np.bincount(rng.integers(len(ids), size=len(ids)), minlength=len(ids))[index]
            drawn.append(both(weight.astype(np.float64)))
            progress("resampling", i + 1, resamples)
        centers = both(np.ones(len(index)))
    intervals = {}
    for name, center in centers.items():
        pair = np.array([values[0][name], values[1][name]], np.float64)
        each = np.array([one[name] for one in drawn])
        three = zip((*pair, _change(*pair)), each.T, center, (0.0, 0.0, -np.inf), strict=True)
        intervals[name] = tuple(
            bootstrap_interval(
                float(value), draws, confidence_level, least=least, center=float(middle), narrowing=narrowing
            )
            for value, draws, middle, least in three
        )
    return intervals


def _change(before: float, after: float) -> float:
    """The change, 0 between two infinite likelihoods."""
    return 0.0 if before == after else after - before


def _for_calibration_error(predictions: np.ndarray, binary: bool) -> np.ndarray:
    """P(class 1) if ``binary``, else the predictions."""
    return predictions[:, 1] if binary else predictions


def _proxy(confidence: np.ndarray) -> np.ndarray:
    """Predictions whose likeliest class is 0 with that confidence."""
    return np.pad(confidence[:, None], ((0, 0), (0, 2)))
