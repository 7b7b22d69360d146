"""A scikit-learn classifier with calibrated probabilities; needs scikit-learn 1.6."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Self

import numpy as np

from lsmooth.integrations._extras import needs

with needs("sklearn", "sklearn"):
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, check_cv
    from sklearn.utils import _safe_indexing, assert_all_finite, column_or_1d, get_tags, indexable
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.parallel import Parallel, delayed
    from sklearn.utils.validation import _check_method_params, _check_sample_weight, check_is_fitted, has_fit_parameter

from lsmooth.calibration import Calibrator
from lsmooth.calibration._loading import CALIBRATORS

__all__ = ["CalibratedLogitClassifier"]


class Calibrated(NamedTuple):
    """A fitted estimator and the calibrator of its logits."""

    estimator: Any
    calibrator: Any


class HeldOut(NamedTuple):
    """A fitted estimator and the rows that it was not fitted on."""

    estimator: Any
    logits: np.ndarray
    """(rows, classes)."""
    label_ids: np.ndarray
    """(rows,), the index of each label in ``classes_``."""
    weight: np.ndarray | None


class CalibratedLogitClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier and a calibrator of its logits, fitted on held-out rows.

    Logits are the classifier's ``decision_function``, (0, d) if it has one column d; if the classifier has none, its
    ``predict_log_proba``, with probabilities of 0 replaced by the rounding error.

    A classifier has no logit for classes that its training rows lack. Rows of such a class are excluded from its
    calibration, with a warning, and `predict_proba` gives the class a probability near 0.

    Args:
        estimator: a classifier; ``LogisticRegression()`` if None. A fitted one in a
            ``sklearn.frozen.FrozenEstimator`` is not fitted again, and all rows calibrate it.
        calibrator: a calibrator of `lsmooth.calibration` for logits, copied for each fit; or a name, such as
            ``"temperature"``, ``"structured_matrix"`` or ``"isotonic"``, for default parameters;
            ``TemperatureScaling()`` if None.
        cv: an argument of ``sklearn.model_selection.check_cv``; if None, 5 stratified folds, or as many as the
            rarest class has rows.
        ensemble: True or ``"auto"`` for one classifier and calibrator per fold, whose probabilities are averaged;
            False for one classifier, fitted on all rows, and one calibrator, fitted on cross-validated logits.
        n_jobs: the number of classifiers that are fitted in parallel, as in joblib.

    Attributes:
        classes_: the class labels; those of a frozen estimator in its order, even if the rows lack some of them.
        calibrated_classifiers_: a list of (estimator, calibrator).

    Source: ``sklearn.calibration.CalibratedClassifierCV`` of scikit-learn 1.9.

    Examples:
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
        calibrator: Calibrator | str | None = None,
        cv: Any = None,
        ensemble: bool | str = "auto",
        n_jobs: int | None = None,
    ):
        self.estimator = estimator
        self.calibrator = calibrator
        self.cv = cv
        self.ensemble = ensemble
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> Self:  # noqa: N803
        """Fit classifiers and the calibrators of their logits, and return this classifier.

        Args:
            X: the inputs, (rows, features), in any form that the estimator accepts.
            y: the class of each row.
            sample_weight: at least 0, (rows,); passed to the estimator too, if it supports them.
            **fit_params: ``groups``, (rows,): rows of one group are in one fold, unless ``cv`` is a splitter. Other
                parameters are passed to the estimator's ``fit``; those with one entry per row are split into folds.
                ``sklearn.set_config(enable_metadata_routing=True)`` routes parameters as requested.

        Raises:
            ValueError: if an option is unknown, the calibrator does not accept logits, a class has fewer rows than
                there are folds, an estimator scores pairs of classes, or all calibration rows are of unseen classes.
        """
        calibrator = self._checked_calibrator()
        inputs, y = indexable(X, y)
        y = column_or_1d(y, warn=True)
        if not len(y):
            raise ValueError("y must have a class for each row, got 0 samples.")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, inputs)
        estimator = self._estimator()
        frozen = isinstance(estimator, FrozenEstimator)
        given, split = self._routed(estimator, weight, fit_params)
        if frozen:
            check_is_fitted(estimator)
        self.classes_ = np.asarray(estimator.classes_) if frozen else np.unique(y)
        index = _positions(y, self.classes_)
        if frozen:
            parts = [HeldOut(estimator, _logits(estimator, inputs, self.classes_), index, weight)]
        else:
            folds = self._folds(inputs, y, index, split)
            fit = delayed(_held_out)
            made: Any = Parallel(n_jobs=self.n_jobs)(
                fit(estimator, inputs, y, index, weight, given, *fold, self.classes_) for fold in folds
            )
            parts = list(made)
        if not frozen and not self.ensemble:
            parts = [_pooled(parts, _fitted(estimator, inputs, y, given))]
        parts = _without_unseen(parts)
        fresh: list[Any] = [clone(calibrator) for _ in parts]
        self.calibrated_classifiers_ = [
            Calibrated(part.estimator, one.fit(part.logits, part.label_ids, part.weight))
            for part, one in zip(parts, fresh, strict=True)
        ]
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(parts[0].estimator, name):
                setattr(self, name, getattr(parts[0].estimator, name))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities (rows, classes), in the order of ``classes_``, of inputs (rows, features)."""
        check_is_fitted(self)
        return np.mean([self._calibrated(pair, X) for pair in self.calibrated_classifiers_], axis=0)

    def predict_log_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable class of each row, (rows,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def get_metadata_routing(self) -> Any:
        """The destination of each parameter of `fit`, if scikit-learn's metadata routing is enabled."""
        router = MetadataRouter(owner=self).add_self_request(self)
        router.add(estimator=self._estimator(), method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        return router.add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))

    def _routed(self, estimator: Any, weight: Any, fit_params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters of the estimator's ``fit``, and of the folds' ``split``."""
        if get_config().get("enable_metadata_routing"):
            routed = process_routing(self, "fit", sample_weight=weight, **fit_params)
            return dict(routed.estimator.fit), dict(routed.splitter.split)
        given = {name: value for name, value in fit_params.items() if name != "groups"}
        split = {"groups": fit_params["groups"]} if fit_params.get("groups") is not None else {}
        if weight is not None and has_fit_parameter(estimator, "sample_weight"):
            given["sample_weight"] = weight
        elif weight is not None and not isinstance(estimator, FrozenEstimator):
            name = type(estimator).__name__
            warnings.warn(f"{name} does not support sample_weight: only the calibration is weighted.", stacklevel=3)
        return given, split

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self._estimator()).input_tags.sparse
        return tags

    def _estimator(self) -> Any:
        return LogisticRegression() if self.estimator is None else self.estimator

    def _checked_calibrator(self) -> Calibrator:
        if self.ensemble not in (True, False, "auto"):
            raise ValueError(f"ensemble must be True, False or 'auto', got {self.ensemble!r}.")
        calibrator = "temperature" if self.calibrator is None else self.calibrator
        if isinstance(calibrator, str) and calibrator in CALIBRATORS:
            calibrator = CALIBRATORS[calibrator]()
        if not isinstance(calibrator, Calibrator):
            raise ValueError(
                f"calibrator must be one of {', '.join(map(repr, CALIBRATORS))}, or a calibrator of "
                f"lsmooth.calibration such as TemperatureScaling(); got {calibrator!r}."
            )
        options = calibrator.get_params()
        if not options["from_logits"] or options.get("binary") or options["axis"] not in (-1, 1):
            raise ValueError(f"calibrator must take logits with the classes last, got {calibrator!r}.")
        if options.get("by") == "group":
            raise ValueError(f"calibrator must need no groups, got {calibrator!r}; by='prediction' needs none.")
        return calibrator

    def _calibrated(self, pair: Calibrated, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of one pair; those of unseen classes are far below the others."""
        logits = _logits(pair.estimator, X, self.classes_)
        p = pair.calibrator.predict_proba(logits)
        unseen = np.isneginf(logits)
        least = np.where(unseen, np.inf, p).min(axis=1, keepdims=True)
        return np.where(unseen, np.finfo(p.dtype).eps * least, p)

    def _folds(self, X: Any, y: Any, index: np.ndarray, split: dict[str, Any]) -> Any:  # noqa: N803
        if "groups" in split and (self.cv is None or isinstance(self.cv, (int, np.integer))):
            groups = len(np.unique(split["groups"]))
            return StratifiedGroupKFold(min(5, groups) if self.cv is None else int(self.cv)).split(X, y, **split)
        fewest = int(np.bincount(index).min())
        cv: Any = check_cv(max(2, min(5, fewest)) if self.cv is None else self.cv, y, classifier=True)
        folds = getattr(cv, "n_splits", 0)
        if isinstance(folds, int) and fewest < folds:
            raise ValueError(
                f"cv={folds} folds need {folds} rows of each class, and at least one class has {fewest}; give a "
                "smaller cv, or a fitted estimator as FrozenEstimator(estimator)."
            )
        return cv.split(X, y, **split)


def _held_out(
    estimator: Any,
    X: Any,  # noqa: N803
    y: Any,
    index: np.ndarray,
    weight: Any,
    given: dict[str, Any],
    train: np.ndarray,
    test: np.ndarray,
    classes: np.ndarray,
) -> HeldOut:
    """An estimator fitted on the training rows of a fold, with the test rows."""
    fitted = _fitted(estimator, X, y, given, train)
    logits = _logits(fitted, _safe_indexing(X, test), classes)
    return HeldOut(fitted, logits, index[test], None if weight is None else weight[test])


def _fitted(estimator: Any, X: Any, y: Any, given: dict[str, Any], rows: Any = None) -> Any:  # noqa: N803
    """A copy of the estimator, fitted on ``rows``; on all of them if None."""
    fresh: Any = clone(estimator)
    if rows is None:
        return fresh.fit(X, y, **given)
    return fresh.fit(_safe_indexing(X, rows), y[rows], **_check_method_params(X, given, indices=rows))


def _positions(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The index of each label in the classes; -1 for other labels."""
    position = {label: k for k, label in enumerate(classes.tolist())}
    known, inverse = np.unique(labels, return_inverse=True)
    return np.array([position.get(label, -1) for label in known.tolist()], int)[inverse]


def _pooled(parts: list[HeldOut], estimator: Any) -> HeldOut:
    """The rows of all parts, for one estimator."""
    logits, index = np.concatenate([part.logits for part in parts]), np.concatenate([part.label_ids for part in parts])
    weights = [part.weight for part in parts if part.weight is not None]
    return HeldOut(estimator, logits, index, np.concatenate(weights) if weights else None)


def _without_unseen(parts: list[HeldOut]) -> list[HeldOut]:
    """The parts without rows of unseen classes, which have no logit."""
    kept, lost, rows = [], 0, 0
    for part in parts:
        picked = np.take_along_axis(part.logits, np.maximum(part.label_ids, 0)[:, None], axis=1)[:, 0]
        seen = (part.label_ids >= 0) & ~np.isneginf(picked)
        rows, lost = rows + len(seen), lost + int((~seen).sum())
        if not seen.any():
            raise ValueError(
                f"y must hold calibration rows for each classifier, but all {len(seen)} rows for {part.estimator} are "
                "of classes that it has not seen; give rows of its classes, or a stratified cv."
            )
        weight = None if part.weight is None else part.weight[seen]
        kept.append(HeldOut(part.estimator, part.logits[seen], part.label_ids[seen], weight))
    if lost:
        warnings.warn(
            f"{lost} of {rows} rows are excluded from the calibration: their classifier has not seen their class.",
            stacklevel=3,
        )
    return kept


def _logits(estimator: Any, X: Any, classes: np.ndarray) -> np.ndarray:  # noqa: N803
    """The estimator's logits, (rows, classes); -inf for classes that it has not seen."""
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
    seen = _positions(np.asarray(estimator.classes_), classes)
    if _scores_pairs(estimator) or logits.shape[1] != len(seen):
        raise ValueError(
            f"estimator must give one score per class, but {estimator}.decision_function gives {logits.shape[1]} "
            f"for {len(seen)} classes, probably for pairs of classes; set decision_function_shape='ovr', or wrap it in "
            "OneVsRestClassifier."
        )
    rounding = np.log(np.finfo(logits.dtype).eps)
    finite = np.where(np.isneginf(logits), 0.0, logits)
    lowest = np.minimum(finite.min(axis=1, keepdims=True), rounding)
    logits = np.where(np.isneginf(logits), lowest, logits)
    whole = np.full((len(logits), len(classes)), -np.inf, logits.dtype)
    whole[:, seen] = logits
    return whole


def _scores_pairs(estimator: Any) -> bool:
    """Whether the decision function has one score per pair of more than 2 classes, as that of SVC with "ovo"."""
    if isinstance(estimator, FrozenEstimator):
        return _scores_pairs(estimator.estimator)
    if hasattr(estimator, "best_estimator_"):
        return _scores_pairs(estimator.best_estimator_)
    if hasattr(estimator, "steps"):
        return _scores_pairs(estimator.steps[-1][1])
    return getattr(estimator, "decision_function_shape", None) == "ovo" and len(estimator.classes_) > 2
