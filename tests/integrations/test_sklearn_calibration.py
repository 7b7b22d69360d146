# ruff: noqa: E402
"""lsmooth.integrations.sklearn: a calibrated classifier that passes the estimator checks of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn 1.6 is not installed")

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.fixes import parse_version

from lsmooth.calibration import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    GroupTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    load,
)
from lsmooth.integrations.sklearn import CALIBRATORS, CalibratedLogitClassifier


@parametrize_with_checks(
    [
        CalibratedLogitClassifier(),
        CalibratedLogitClassifier(GaussianNB(), ensemble=False, cv=3),
        *(CalibratedLogitClassifier(calibrator=name, cv=2) for name in CALIBRATORS if name != "quadratic"),
        CalibratedLogitClassifier(calibrator=GroupTemperatureScaling(by="prediction"), cv=2),
        CalibratedLogitClassifier(SVC(), calibrator=MatrixScaling(off_diagonal=0.1), ensemble=False, cv=2),
        CalibratedLogitClassifier(GaussianNB(), calibrator=VectorScaling(use_bias=False), cv=2),
    ]
)
@pytest.mark.filterwarnings("ignore:.*will overfit:UserWarning")
@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_the_estimator_checks_of_scikit_learn_pass(estimator, check):
    check(estimator)


GRIDS = [
    (TemperatureScaling(), {"max_iter": np.arange(6, 9), "axis": np.array([-1, 1])}),
    (TemperatureScaling(), {"bounds": [tuple(np.float32([1e-3, 1e3])), tuple(np.array([0.5, 4.0]))]}),
    (TemperatureScaling(), {"ignore_index": np.array([-1, 7], np.int32), "from_logits": np.array([True])}),
    (GroupTemperatureScaling(by="prediction"), {"max_iter": np.array([8, 12], np.uint8)}),
    (BiasCorrectedTemperatureScaling(), {"max_iter": np.int64([100, 200]), "tol": np.float32([1e-6, 1e-4])}),
    (VectorScaling(), {"use_bias": np.array([True, False]), "tol": np.geomspace(1e-7, 1e-5, 2)}),
    (MatrixScaling(), {"off_diagonal": np.linspace(0.1, 1, 3), "intercept": np.float32([0, 1])}),
    (DirichletCalibration(), {"off_diagonal": np.float32([0.1, 1]), "max_iter": np.int16([50, 100])}),
    (HistogramBinning(), {"n_bins": np.arange(3, 6), "ignore_index": np.int8([-1])}),
    (IsotonicCalibration(), {"axis": np.int64([-1, 1])}),
]


@pytest.mark.parametrize(("calibrator", "grid"), GRIDS)
@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_grid_search_tunes_the_parameters_of_the_calibrator(tmp_path, calibrator, grid):
    x, y = make_classification(120, flip_y=0.3, random_state=0)
    grid = {f"calibrator__{name}": values for name, values in grid.items()} | {"cv": np.arange(2, 4)}
    base = CalibratedLogitClassifier(LogisticRegression(), calibrator=calibrator)
    search = GridSearchCV(base, grid, scoring="neg_brier_score", cv=2, error_score="raise").fit(x, y)
    fitted = search.best_estimator_.calibrated_classifiers_[0].calibrator
    fitted.save(tmp_path / "calibrator.json")
    loaded = load(tmp_path / "calibrator.json")
    z = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_array_equal(loaded.predict_proba(z), fitted.predict_proba(z))


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def log_loss(classifier, x, y):
    p = classifier.predict_proba(x)
    return -np.log(p[np.arange(len(y)), np.searchsorted(classifier.classes_, y)]).mean()


@pytest.mark.skipif(parse_version(sklearn.__version__) < parse_version("1.8"), reason="scikit-learn 1.8 has it first")
@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("classes", [2, 10])
def test_probabilities_match_the_temperature_scaling_of_scikit_learn(digits, ensemble, classes):
    x, y = digits
    x, y = x[y < classes], y[y < classes]
    x = (x + np.random.default_rng(0).normal(0, 30 if classes == 2 else 8, x.shape)) / 16
    options = {"ensemble": ensemble, "cv": StratifiedKFold(3)}
    base = LogisticRegression(C=0.1)
    ours = CalibratedLogitClassifier(base, **options).fit(x, y)
    theirs = CalibratedClassifierCV(base, method="temperature", **options).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-5, atol=1e-8)
    for (_, calibrator), other in zip(ours.calibrated_classifiers_, theirs.calibrated_classifiers_, strict=True):
        # Two classes are the logits (0, d) here and (-d, d) there.
        beta = (2 if classes == 2 else 1) * float(other.calibrators[0].beta_)
        np.testing.assert_allclose(1 / calibrator.temperature_, beta, rtol=1e-5)


def test_calibration_lowers_the_loss_of_an_overconfident_classifier(digits):
    x, y = digits
    plain = GaussianNB(var_smoothing=1e-3).fit(x[:1000], y[:1000])
    calibrated = CalibratedLogitClassifier(GaussianNB(var_smoothing=1e-3)).fit(x[:1000], y[:1000])
    assert log_loss(calibrated, x[1000:], y[1000:]) < 0.5 * log_loss(plain, x[1000:], y[1000:])
    assert (calibrated.predict(x[1000:]) == y[1000:]).mean() > 0.8


def test_a_frozen_estimator_stays_as_it_is_and_all_rows_calibrate_it(digits):
    x, y = digits
    fitted = LogisticRegression(C=0.01).fit(x[:800], y[:800])
    calibrated = CalibratedLogitClassifier(FrozenEstimator(fitted)).fit(x[800:], y[800:])
    ((estimator, calibrator),) = calibrated.calibrated_classifiers_
    assert estimator.estimator is fitted
    expected = TemperatureScaling().fit(fitted.decision_function(x[800:]), y[800:])
    assert calibrator.temperature_ == expected.temperature_
    np.testing.assert_array_equal(calibrated.predict(x), fitted.predict(x))


@pytest.mark.parametrize("base", [RandomForestClassifier(5, random_state=0), KNeighborsClassifier(), GaussianNB()])
def test_classifiers_without_a_decision_function_give_log_probabilities(digits, base):
    x, y = digits
    calibrated = CalibratedLogitClassifier(base, cv=3).fit(x, y)
    for _, calibrator in calibrated.calibrated_classifiers_:
        assert calibrator.status_ == "converged"
    assert np.isfinite(log_loss(calibrated, x, y))


@pytest.mark.parametrize("ensemble", [True, False])
def test_weights_reach_the_classifier_and_the_calibrator(ensemble):
    x, y = make_classification(200, flip_y=0.3, random_state=0)
    weight = np.random.default_rng(0).integers(1, 4, 200)
    groups = np.arange(200) % 4
    folds = list(GroupKFold(4).split(x, y, groups))
    many = np.repeat(np.arange(200), weight)
    repeated_folds = [tuple(np.flatnonzero(np.isin(many, part)) for part in fold) for fold in folds]
    base = LogisticRegression(tol=1e-10, max_iter=1000)
    weighted = CalibratedLogitClassifier(base, cv=folds, ensemble=ensemble).fit(x, y, weight)
    repeated = CalibratedLogitClassifier(base, cv=repeated_folds, ensemble=ensemble).fit(x[many], y[many])
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-5)


def test_a_classifier_without_sample_weights_gives_a_warning(digits):
    x, y = digits
    with pytest.warns(UserWarning, match="KNeighborsClassifier does not support sample_weight"):
        CalibratedLogitClassifier(KNeighborsClassifier(), cv=2).fit(x[:300], y[:300], np.ones(300))


@pytest.mark.parametrize(
    "calibrator", [VectorScaling(), HistogramBinning(n_bins=5), GroupTemperatureScaling(by="prediction")]
)
def test_other_calibrators_can_be_chosen(digits, calibrator):
    x, y = digits
    calibrated = CalibratedLogitClassifier(LogisticRegression(C=0.01), calibrator=calibrator, cv=2).fit(x, y)
    assert {type(c) for _, c in calibrated.calibrated_classifiers_} == {type(calibrator)}
    assert not hasattr(calibrator, "status_")
    np.testing.assert_allclose(calibrated.predict_proba(x).sum(axis=1), 1.0)
    np.testing.assert_allclose(np.exp(calibrated.predict_log_proba(x)), calibrated.predict_proba(x))


@pytest.mark.parametrize("labels", [np.arange(10), np.array(list("jihgfedcba")), np.arange(10.0) - 4])
@pytest.mark.parametrize("absent", [[0], [9], [3, 4], [1, 2, 3, 4, 5, 6, 7, 8]])
@pytest.mark.parametrize("name", ["temperature", "vector", "isotonic"])
@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_a_frozen_estimators_columns_stay_in_place_where_calibration_rows_lack_a_class(digits, labels, absent, name):
    x, y = digits
    fitted = LogisticRegression(C=0.01).fit(x[:800], labels[y[:800]])
    held = np.flatnonzero(~np.isin(y, absent) & (np.arange(len(y)) >= 800))
    calibrated = CalibratedLogitClassifier(FrozenEstimator(fitted), calibrator=name).fit(x[held], labels[y[held]])
    np.testing.assert_array_equal(calibrated.classes_, fitted.classes_)
    logits, held_logits = (np.ascontiguousarray(fitted.decision_function(rows)) for rows in (x, x[held]))
    ids = np.searchsorted(fitted.classes_, labels[y[held]])
    expected = CALIBRATORS[name]().fit(held_logits, ids).predict_proba(logits)
    np.testing.assert_array_equal(calibrated.predict_proba(x), expected)
    if name == "temperature":
        np.testing.assert_array_equal(calibrated.predict(x), fitted.predict(x))


@pytest.mark.parametrize("base", [LogisticRegression(C=0.01), GaussianNB()])
def test_rows_of_a_class_that_a_frozen_estimator_has_not_seen_do_not_contribute(digits, base):
    x, y = digits
    known = y[:800] != 7
    fitted = clone(base).fit(x[:800][known], y[:800][known])
    with pytest.warns(UserWarning, match=f"{(y[800:] == 7).sum()} of {len(y) - 800} rows are excluded"):
        calibrated = CalibratedLogitClassifier(FrozenEstimator(fitted)).fit(x[800:], y[800:])
    rest = y[800:] != 7
    expected = CalibratedLogitClassifier(FrozenEstimator(fitted)).fit(x[800:][rest], y[800:][rest])
    np.testing.assert_array_equal(calibrated.classes_, fitted.classes_)
    np.testing.assert_array_equal(calibrated.predict_proba(x), expected.predict_proba(x))


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("classes", [3, 10])
def test_rows_of_a_class_that_a_folds_classifier_has_not_seen_do_not_contribute(digits, ensemble, weighted, classes):
    x, y = digits
    x, y = x[y < classes], y[y < classes]
    rng = np.random.default_rng(0)
    x = x + rng.normal(0, 8, x.shape)
    weight = rng.uniform(0.5, 2.0, len(y)) if weighted else np.ones(len(y))
    first, second = np.arange(0, len(y), 2), np.arange(1, len(y), 2)
    folds = [(first[y[first] != 1], second), (second[y[second] != 2], first)]
    base = LogisticRegression(C=1e-3)
    with pytest.warns(UserWarning, match="are excluded from the calibration"):
        calibrated = CalibratedLogitClassifier(base, cv=folds, ensemble=ensemble).fit(x, y, weight)
    logits, labels, weights = [], [], []
    for train, test in folds:
        fitted = clone(base).fit(x[train], y[train], weight[train])
        rows = test[np.isin(y[test], fitted.classes_)]
        scores = fitted.decision_function(x[rows])
        if scores.ndim == 1:
            scores = np.stack([0 * scores, scores], axis=1)
        whole = np.full((len(rows), classes), -np.inf)
        whole[:, fitted.classes_] = scores
        logits.append(whole), labels.append(y[rows]), weights.append(weight[rows])
    if not ensemble:
        logits, labels, weights = ([np.concatenate(parts)] for parts in (logits, labels, weights))
    for pair, *rows in zip(calibrated.calibrated_classifiers_, logits, labels, weights, strict=True):
        np.testing.assert_allclose(pair.calibrator.temperature_, TemperatureScaling().fit(*rows).temperature_, 1e-9)
        assert pair.calibrator.status_ == "converged"


def test_rows_that_cannot_be_calibrated_are_refused(digits):
    x, y = digits
    fitted = LogisticRegression(C=0.01).fit(x[y < 4], y[y < 4])
    with pytest.raises(ValueError, match="y must hold calibration rows for each classifier"):
        CalibratedLogitClassifier(FrozenEstimator(fitted)).fit(x[y > 6], y[y > 6])


@pytest.mark.filterwarnings("ignore:6 of 24 rows are left out")
def test_classes_missing_from_a_fold_get_a_small_probability():
    x, y = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]] * 8), np.array(list("abc") * 8)
    y[:9] = list("acacbacac")
    folds = [(np.flatnonzero(y != "b"), np.arange(24))]
    calibrated = CalibratedLogitClassifier(cv=folds).fit(x, y)
    p = calibrated.predict_proba(x)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (p > 0).all()
    assert (p.argmin(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 30}, "cv=30 folds need 30 rows of each class, and at least one class has 25"),
        ({"ensemble": "sometimes"}, "ensemble must be True, False or 'auto'"),
        ({"calibrator": TemperatureScaling(from_logits=False)}, "calibrator must take logits with the classes last"),
        ({"calibrator": TemperatureScaling(binary=True)}, "calibrator must take logits with the classes last"),
        ({"calibrator": VectorScaling(axis=0)}, "calibrator must take logits with the classes last"),
        (
            {"calibrator": "platt"},
            "calibrator must be one of 'temperature', 'mixed_temperature', 'bias_corrected_temperature', 'vector'",
        ),
        ({"calibrator": VectorScaling}, "or a calibrator of lsmooth.calibration"),
        ({"calibrator": 1.5}, "or a calibrator of lsmooth.calibration"),
        ({"calibrator": GroupTemperatureScaling()}, "calibrator must need no groups"),
    ],
)
def test_options_are_checked_in_fit(options, message):
    x, y = np.random.default_rng(0).random((50, 2)), np.arange(50) % 2
    with pytest.raises(ValueError, match=message):
        CalibratedLogitClassifier(**options).fit(x, y)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.filterwarnings("ignore:.*will overfit:UserWarning")
@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_a_calibrator_may_be_named(digits, name):
    x, y = digits
    kept = y < (2 if name == "quadratic" else 3)
    x, y = x[kept] + np.random.default_rng(0).normal(0, 8, x[kept].shape), y[kept]
    named, given = (
        CalibratedLogitClassifier(LogisticRegression(C=1e-3), calibrator=calibrator, cv=3).fit(x, y)
        for calibrator in (name, CALIBRATORS[name]())
    )
    np.testing.assert_array_equal(named.predict_proba(x), given.predict_proba(x))
    assert clone(named).calibrator == name


PAIRED = SVC(decision_function_shape="ovo")


@pytest.mark.parametrize("classes", [3, 4, 6])
@pytest.mark.parametrize(
    "base", [PAIRED, make_pipeline(StandardScaler(), PAIRED), GridSearchCV(PAIRED, {"C": [1.0]}, cv=2)]
)
@pytest.mark.parametrize("frozen", [True, False])
def test_scores_of_pairs_of_classes_are_refused_in_fit(digits, classes, base, frozen):
    x, y = digits
    x, y = x[y < classes][:200], y[y < classes][:200]
    base = FrozenEstimator(clone(base).fit(x, y)) if frozen else base
    with pytest.raises(ValueError, match="set decision_function_shape='ovr'"):
        CalibratedLogitClassifier(base, cv=2).fit(x, y)


def test_scores_of_the_only_pair_of_classes_are_a_logit(digits):
    x, y = digits
    x, y = x[y < 2] + np.random.default_rng(0).normal(0, 20, x[y < 2].shape), y[y < 2]
    paired, one = (
        CalibratedLogitClassifier(SVC(decision_function_shape=shape), cv=2).fit(x, y) for shape in ("ovo", "ovr")
    )
    np.testing.assert_array_equal(paired.predict_proba(x), one.predict_proba(x))


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("cv", [None, 3, GroupKFold(4)])
def test_rows_of_one_group_are_in_one_fold(ensemble, cv):
    x, y = make_classification(200, flip_y=0.3, random_state=0)
    groups = np.arange(200) % 8
    got = CalibratedLogitClassifier(GaussianNB(), cv=cv, ensemble=ensemble).fit(x, y, groups=groups)
    splitter = cv if isinstance(cv, GroupKFold) else StratifiedGroupKFold(5 if cv is None else cv)
    folds = list(splitter.split(x, y, groups))
    expected = CalibratedLogitClassifier(GaussianNB(), cv=folds, ensemble=ensemble).fit(x, y)
    np.testing.assert_array_equal(got.predict_proba(x), expected.predict_proba(x))


@pytest.mark.parametrize("ensemble", [True, False])
def test_classifiers_may_be_fitted_at_the_same_time(digits, ensemble):
    x, y = digits
    one, two = (
        CalibratedLogitClassifier(GaussianNB(), cv=3, ensemble=ensemble, n_jobs=n).fit(x[:300], y[:300]) for n in (1, 2)
    )
    np.testing.assert_array_equal(one.predict_proba(x), two.predict_proba(x))


class Recorder(GaussianNB):
    """A classifier with additional fit parameters."""

    def fit(self, X, y, sample_weight=None, mark=None, note=None):  # noqa: N803
        self.seen_ = (None if mark is None else np.asarray(mark), note, None if mark is None else np.asarray(X)[:, 0])
        return super().fit(X, y, sample_weight)


def test_per_row_fit_parameters_are_split_among_the_folds():
    x, y = make_classification(60, random_state=0)
    fitted = CalibratedLogitClassifier(Recorder(), cv=3).fit(x, y, mark=x[:, 0], note="all")
    for pair in fitted.calibrated_classifiers_:
        mark, note, column = pair.estimator.seen_
        assert note == "all"
        assert len(mark) == 40
        np.testing.assert_array_equal(mark, column)


def test_metadata_goes_to_where_it_is_requested():
    x, y = make_classification(120, flip_y=0.3, random_state=0)
    groups, weight = np.arange(120) % 6, np.random.default_rng(0).random(120)
    with sklearn.config_context(enable_metadata_routing=True):
        base = Recorder().set_fit_request(mark=True, sample_weight=False)
        classifier = CalibratedLogitClassifier(base, cv=GroupKFold(3))
        fitted = classifier.fit(x, y, sample_weight=weight, mark=x[:, 0], groups=groups)
        with pytest.raises(ValueError, match="note"):
            classifier.fit(x, y, note="unrequested")
    folds = list(GroupKFold(3).split(x, y, groups))
    for pair, (train, test) in zip(fitted.calibrated_classifiers_, folds, strict=True):
        np.testing.assert_array_equal(pair.estimator.seen_[0], x[train, 0])
        plain = GaussianNB().fit(x[train], y[train])
        expected = TemperatureScaling().fit(plain.predict_log_proba(x[test]), y[test], weight[test])
        np.testing.assert_allclose(pair.calibrator.temperature_, expected.temperature_, rtol=1e-6)
