"""A scikit-learn classifier whose probabilities are those of another, calibrated; needs scikit-learn 1.6."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import check_cv
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import _safe_indexing, assert_all_finite, column_or_1d, get_tags, indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, has_fit_parameter

from lsmooth.calibration import Calibrator, TemperatureScaling

__all__ = ["CalibratedLogitClassifier"]


class Calibrated(NamedTuple):
    """An estimator that has been fitted, and the calibrator of its logits."""

    estimator: Any
    calibrator: Any


class CalibratedLogitClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier and a calibrator of its logits, fitted on rows that the classifier has not seen.

    Logits are the classifier's ``decision_function``, (0, d) where it has one column d; else its
    ``predict_log_proba``, a probability of 0 taken as that of rounding. Which of them is a matter of
    what the classifier has, never of the values.

    Args:
        estimator: a classifier; ``LogisticRegression()`` if None. One that is fitted already, in a
            ``sklearn.frozen.FrozenEstimator``, is left as it is, and all rows calibrate it.
        calibrator: one of `lsmooth.calibration` that takes logits, copied for each fit;
            ``TemperatureScaling()`` if None.
        cv: what ``sklearn.model_selection.check_cv`` takes; if None, 5 stratified folds, or as many as
            the rarest class has rows.
        ensemble: True: a pair of classifier and calibrator for each fold, whose probabilities are
            averaged; False: one classifier, fitted on all rows, with a calibrator of the logits that
            classifiers fitted on the other folds give to each; ``"auto"``: True.

    Attributes:
        classes_: the class labels.
        calibrated_classifiers_: a list of (estimator, calibrator).

    Source: ``sklearn.calibration.CalibratedClassifierCV`` of scikit-learn 1.9.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from lsmooth.integrations.sklearn import CalibratedLogitClassifier
        >>> classifier = CalibratedLogitClassifier(GaussianNB(), ensemble=False).fit(*load_iris(return_X_y=True))
        >>> round(classifier.calibrated_classifiers_[0].calibrator.temperature_, 1)  # sure of itself
        1.7
    """

    classes_: Any
    calibrated_classifiers_: list[Calibrated]

    def __init__(
        self,
        estimator: Any = None,
        *,
        calibrator: Calibrator | None = None,
        cv: Any = None,
        ensemble: bool | str = "auto",
    ):
        self.estimator = estimator
        self.calibrator = calibrator
        self.cv = cv
        self.ensemble = ensemble

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit classifiers and the calibrators of their logits.

        Args:
            X: the inputs, (rows, features), as the estimator takes them.
            y: the class of each row.
            sample_weight: at least 0, (rows,); for the estimator too, if it takes them.

        Returns:
            This classifier.

        Raises:
            ValueError: if an option is unknown, the calibrator does not take logits, or a class has
                fewer rows than there are folds.
        """
        calibrator = self._checked_calibrator()
        inputs, y = indexable(X, y)
        y = column_or_1d(y, warn=True)
        if not len(y):
            raise ValueError("y must have a class for each row, got 0 samples.")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        index = encoder.transform(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, inputs)
        estimator = self._estimator()
        if isinstance(estimator, FrozenEstimator):
            pairs = [(estimator, _logits(estimator, inputs, self.classes_), index, weight)]
        else:
            pairs = self._cross_fitted(estimator, inputs, y, index, weight)
        self.calibrated_classifiers_ = [
            Calibrated(fitted, _fresh(calibrator).fit(logits, ids, w)) for fitted, logits, ids, w in pairs
        ]
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(pairs[0][0], name):
                setattr(self, name, getattr(pairs[0][0], name))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities.

        Args:
            X: the inputs, (rows, features).

        Returns:
            (rows, classes), in the order of ``classes_``.
        """
        check_is_fitted(self)
        return np.mean([c.predict_proba(_logits(e, X, self.classes_)) for e, c in self.calibrated_classifiers_], axis=0)

    def predict_log_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Their logarithms.

        Args:
            X: the inputs, (rows, features).

        Returns:
            (rows, classes).
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The likeliest class of each row.

        Args:
            X: the inputs, (rows, features).

        Returns:
            (rows,), of ``classes_``.
        """
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self._estimator()).input_tags.sparse
        return tags

    def _estimator(self) -> Any:
        return LogisticRegression() if self.estimator is None else self.estimator

    def _checked_calibrator(self) -> Calibrator:
        if self.ensemble not in (True, False, "auto"):
            raise ValueError(f"ensemble must be True, False or 'auto', got {self.ensemble!r}.")
        calibrator = TemperatureScaling() if self.calibrator is None else self.calibrator
        options = calibrator.get_params()
        if not options["from_logits"] or options.get("binary") or options["axis"] not in (-1, 1):
            raise ValueError(f"calibrator must take logits with the classes last, got {calibrator!r}.")
        return calibrator

    def _cross_fitted(self, estimator: Any, X: Any, y: Any, index: np.ndarray, weight: Any) -> list[tuple]:  # noqa: N803
        """Estimators, each with logits, class ids and weights of rows that it has not seen."""
        weighted = has_fit_parameter(estimator, "sample_weight")
        if weight is not None and not weighted:
            name = type(estimator).__name__
            warnings.warn(f"{name} takes no sample_weight: it weighs rows in the calibration alone.", stacklevel=3)

        def fitted(rows: Any = None) -> Any:
            inputs, targets = (X, y) if rows is None else (_safe_indexing(X, rows), y[rows])
            if weight is None or not weighted:
                return _fresh(estimator).fit(inputs, targets)
            return _fresh(estimator).fit(inputs, targets, sample_weight=weight if rows is None else weight[rows])

        pairs = []
        for train, test in self._folds(X, y, index):
            one = fitted(train)
            logits = _logits(one, _safe_indexing(X, test), self.classes_)
            pairs.append((one, logits, index[test], None if weight is None else weight[test]))
        if self.ensemble:
            return pairs
        _, *parts = zip(*pairs, strict=True)
        together = [None if part[0] is None else np.concatenate(part) for part in parts]
        return [(fitted(), *together)]

    def _folds(self, X: Any, y: Any, index: np.ndarray) -> Any:  # noqa: N803
        fewest = int(np.bincount(index).min())
        cv: Any = check_cv(max(2, min(5, fewest)) if self.cv is None else self.cv, y, classifier=True)
        folds = getattr(cv, "n_splits", 0)
        if isinstance(folds, int) and fewest < folds:
            raise ValueError(
                f"cv={folds} folds need {folds} rows of each class, and at least one class has {fewest}; give a "
                "smaller cv, or a fitted estimator as FrozenEstimator(estimator)."
            )
        return cv.split(X, y)


def _fresh(estimator: Any) -> Any:
    return clone(estimator)


def _logits(estimator: Any, X: Any, classes: np.ndarray) -> np.ndarray:  # noqa: N803
    """What the estimator says before the softmax, (rows, classes)."""
    if hasattr(estimator, "decision_function"):
        logits = np.asarray(estimator.decision_function(X))
        logits = logits.astype(np.result_type(logits, np.float32), copy=False)
        if logits.ndim == 1 or logits.shape[1] == 1:
            logits = np.stack([np.zeros(len(logits), logits.dtype), logits.reshape(-1)], axis=1)
    else:
        with np.errstate(divide="ignore"):
            if hasattr(estimator, "predict_log_proba"):
                logits = np.asarray(estimator.predict_log_proba(X))
            else:
                logits = np.log(np.asarray(estimator.predict_proba(X)))
    rounding = np.log(np.finfo(logits.dtype).eps)
    finite = np.where(np.isneginf(logits), 0.0, logits)
    lowest = np.minimum(finite.min(axis=1, keepdims=True), rounding)
    logits = np.where(np.isneginf(logits), lowest, logits)
    if len(estimator.classes_) == len(classes):
        return logits
    whole = np.repeat(logits.min(axis=1, keepdims=True) + rounding, len(classes), axis=1)  # classes it has not seen
    whole[:, np.searchsorted(classes, estimator.classes_)] = logits
    return whole
