"""Facts about GroupTemperatureScaling: each group's temperature is that of TemperatureScaling on its rows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from conftest import assert_close
from likelihood import drawn

from lsmooth.backends import Backend
from lsmooth.calibration import ConvergenceWarning, GroupTemperatureScaling, TemperatureScaling

FACTORS = {-7: 2.042, 0: 20.42, 3: 0.05105, 10**6: 204.2}
DIAGNOSTICS = ("temperature_", "nll_before_", "nll_after_")


def grouped(rows: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are too large by another factor in each group, labels, and groups."""
    logits, labels = drawn(rows=rows)
    ids = np.random.default_rng(1).choice(list(FACTORS), rows)
    return logits * np.array([FACTORS[i] for i in ids])[:, None], labels, ids


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_group_has_the_temperature_of_its_rows(backend: Backend, memory, dtype):
    logits, labels, ids = grouped()
    logits = logits.astype(dtype)
    weight = np.random.default_rng(2).random(len(ids)).astype(dtype)
    given = [backend.asarray(x) for x in (logits, labels, weight)]
    scaler = GroupTemperatureScaling().fit(*given, groups=backend.asarray(ids))
    np.testing.assert_array_equal(scaler.groups_, sorted(FACTORS))
    assert scaler.status_ == "converged"
    total = 0.0
    for i, group in enumerate(scaler.groups_):
        own = ids == group
        alone = TemperatureScaling().fit(logits[own], labels[own], weight[own])
        np.testing.assert_allclose(scaler.temperatures_[i], alone.temperature_, rtol=1e-6)
        np.testing.assert_allclose(scaler.temperature_stderrs_[i], alone.temperature_stderr_, rtol=1e-4)
        assert scaler.statuses_[i] == "converged"
        total += alone.nll_after_ * weight[own].sum()
    np.testing.assert_allclose(scaler.nll_after_, total / weight.sum(), rtol=1e-6)
    pooled = TemperatureScaling().fit(logits, labels, weight)
    np.testing.assert_allclose(scaler.temperature_, pooled.temperature_, rtol=1e-6)
    np.testing.assert_allclose(scaler.nll_before_, pooled.nll_before_, rtol=1e-6)
    assert scaler.n_iter_ <= 24


def test_many_groups_need_no_more_passes_than_one(backend: Backend):
    rng = np.random.default_rng(0)
    logits, labels = drawn(rows=5000)
    ids = rng.integers(0, 100, 5000)
    scaler = GroupTemperatureScaling().fit(
        backend.asarray((1 + ids[:, None] / 50) * logits), backend.asarray(labels), groups=backend.asarray(ids)
    )
    assert scaler.n_iter_ <= 11
    assert len(scaler.temperatures_) == 100


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_transform_divides_each_row_by_its_groups_temperature(backend: Backend, dtype):
    logits, labels, ids = grouped()
    scaler = GroupTemperatureScaling().fit(logits, labels, groups=ids)
    new = ids.copy()
    new[:3] = [5, -(10**5), 10**7]  # not seen: the temperature of all rows
    known = dict(zip(scaler.groups_, scaler.temperatures_, strict=True))
    temperature = np.array([known.get(i, scaler.temperature_) for i in new])
    given, groups = backend.cast(backend.asarray(logits), dtype), backend.asarray(new)
    expected = logits / temperature[:, None]
    got = scaler.transform(given, groups=groups)
    assert backend.dtype(got) == dtype
    assert_close(backend, got, expected, dtype, factor=4)
    e = np.exp(expected - expected.max(axis=1, keepdims=True))
    p = scaler.predict_proba(given, groups=groups)
    assert_close(backend, p, e / e.sum(axis=1, keepdims=True), dtype, factor=20)


def test_predicted_classes_can_be_groups(backend: Backend, memory):
    logits, labels = drawn(rows=800)
    logits = np.moveaxis((2.0 * logits[:, :4]).reshape(20, 40, 4), -1, 1)
    labels = (labels % 4).reshape(20, 40)
    scaler = GroupTemperatureScaling(by="prediction", axis=1)
    scaler.fit(backend.asarray(logits), backend.asarray(labels))
    predicted = logits.argmax(axis=1)
    explicit = GroupTemperatureScaling(axis=1).fit(logits, labels, groups=predicted)
    np.testing.assert_allclose(scaler.temperatures_, explicit.temperatures_, rtol=1e-9)
    scaled = backend.to_numpy(scaler.transform(backend.asarray(logits)))
    np.testing.assert_allclose(scaled, explicit.transform(logits, groups=predicted), rtol=1e-12)
    np.testing.assert_array_equal(scaled.argmax(axis=1), predicted)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("from_logits", [True, False])
def test_each_label_has_its_own_temperature(backend: Backend, memory, axis, from_logits):
    rng = np.random.default_rng(0)
    honest = 2.0 * rng.standard_normal((20, 30, 3))
    labels = (rng.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(np.int64)
    logits = honest * np.array([0.5, 2.0, 4.0])
    given = np.moveaxis(logits if from_logits else 1 / (1 + np.exp(-logits)), -1, axis)
    scaler = GroupTemperatureScaling(by="label", binary=True, axis=axis, from_logits=from_logits)
    scaler.fit(backend.asarray(given), backend.asarray(np.moveaxis(labels, -1, axis)))
    np.testing.assert_array_equal(scaler.groups_, [0, 1, 2])
    for k in range(3):
        alone = TemperatureScaling(binary=True).fit(logits[..., k], labels[..., k])
        np.testing.assert_allclose(scaler.temperatures_[k], alone.temperature_, rtol=1e-6)
    p = 1 / (1 + np.exp(-logits / scaler.temperatures_))
    assert_close(
        backend, scaler.predict_proba(backend.asarray(given)), np.moveaxis(p, -1, axis), "float64", factor=1000
    )


def test_binary_rows_may_be_in_given_groups_that_repeat(backend: Backend):
    rng = np.random.default_rng(0)
    honest = 2.0 * rng.standard_normal((100, 3))
    labels = (rng.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(np.int64)
    ids = np.arange(100)[:, None] % 2
    scaler = GroupTemperatureScaling(binary=True)
    scaler.fit(backend.asarray(honest), backend.asarray(labels), groups=backend.asarray(ids))
    for k in range(2):
        alone = TemperatureScaling(binary=True).fit(honest[k::2], labels[k::2])
        np.testing.assert_allclose(scaler.temperatures_[k], alone.temperature_, rtol=1e-6)


def test_groups_of_ignored_rows_are_not_fitted(backend: Backend, memory):
    logits, labels, ids = grouped()
    padded = np.concatenate([logits, np.full((4, 10), np.nan)])
    scaler = GroupTemperatureScaling(ignore_index=-1)
    scaler.fit(
        backend.asarray(padded),
        backend.asarray(np.concatenate([labels, [-1] * 4])),
        groups=backend.asarray(np.concatenate([ids, [0, 1, 2, 3]])),
    )
    whole = GroupTemperatureScaling().fit(logits, labels, groups=ids)
    np.testing.assert_array_equal(scaler.groups_, whole.groups_)
    np.testing.assert_allclose(scaler.temperatures_, whole.temperatures_, rtol=1e-9)


def test_groups_without_an_optimum_are_named():
    logits, labels = drawn(rows=300)
    ids = np.arange(300) % 3
    labels = np.where(ids == 1, logits.argmax(axis=1), np.where(ids == 2, logits.argmin(axis=1), labels))
    with pytest.warns(ConvergenceWarning, match=r"2 of 3 groups: 1 \(separable\), 2 \(uninformative\)"):
        scaler = GroupTemperatureScaling().fit(logits, labels, groups=ids)
    assert scaler.statuses_ == ["converged", "separable", "uninformative"]
    assert scaler.status_ == "separable"
    assert [math.isnan(x) for x in scaler.temperature_stderrs_] == [False, True, True]
    assert (scaler.temperatures_ > 0).all()


def test_temperatures_get_a_gradient(differentiable_backend: Backend):
    xp = differentiable_backend
    logits, labels, ids = grouped()
    scaler = GroupTemperatureScaling().fit(logits, labels, groups=ids)
    _, gradient = xp.value_and_grad(lambda z: xp.sum(scaler.transform(z, groups=ids)), xp.asarray(logits))
    temperature = scaler.temperatures_[np.searchsorted(scaler.groups_, ids)]
    assert_close(xp, gradient, np.repeat(1 / temperature[:, None], 10, axis=1), "float64")


@pytest.mark.parametrize(
    ("options", "groups", "error", "message"),
    [
        ({}, None, ValueError, "needs groups"),
        ({"by": "prediction"}, [0, 1], ValueError, "takes no groups"),
        ({}, [0.0, 1.0], TypeError, "groups must be integers, got float64"),
        ({}, [0, 1, 2], ValueError, r"groups must be a scalar or have shape \(2,\)"),
        ({"by": "domain"}, None, ValueError, "by must be one of group, prediction, label"),
        ({"by": "label"}, None, ValueError, "by='label' needs binary=True"),
        ({"by": "prediction", "binary": True}, None, ValueError, "by='prediction' needs binary=False"),
    ],
)
def test_groups_that_do_not_fit_are_an_error(options, groups, error, message):
    groups = None if groups is None else np.array(groups)
    with pytest.raises(error, match=message):
        GroupTemperatureScaling(**options).fit(np.eye(2), [0, 1], groups=groups)


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_saved_calibrators_load_and_unsavable_ones_are_refused(tmp_path):
    logits, labels = drawn(rows=30)
    scaler = GroupTemperatureScaling().fit(logits, labels, groups=np.arange(30) % 20)
    scaler.save(tmp_path / "g.json")
    loaded = GroupTemperatureScaling.load(tmp_path / "g.json")
    assert loaded.groups_.dtype == scaler.groups_.dtype
    for name, value in vars(scaler).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    text = (tmp_path / "g.json").read_text()
    for name, value, message in (
        ("groups_", [0.5] * 20, "groups_ must be integers that ascend"),
        ("groups_", list(range(20))[::-1], "groups_ must be integers that ascend"),
        ("groups_", [0], "lists of one length"),
        ("temperatures_", [-1.0] * 20, "must be above 0"),
        ("temperatures_", [None] * 20, "rectangular list of finite numbers"),
        ("temperature_stderrs_", ["x"] * 20, "rectangular list of finite numbers"),
        ("statuses_", ["fine"] * 20, "statuses_ must be of"),
        ("statuses_", [1] * 20, "must be a list of strings"),
        ("statuses_", "converged", "must be of type list"),
    ):
        content = json.loads(text)
        content["fitted"][name] = value
        (tmp_path / "g.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            GroupTemperatureScaling.load(tmp_path / "g.json")


@pytest.mark.parametrize("by", ["group", "prediction"])
def test_shards_seen_once_merge_into_the_fit_on_all(backend: Backend, by):
    logits, labels, ids = grouped()
    logits = logits / np.array([FACTORS[i] for i in ids])[:, None] * np.where(ids > 0, 4.0, 0.5)[:, None]
    weight = np.random.default_rng(2).integers(0, 3, len(ids)).astype(np.float64)
    weight[ids == 3] = 0.0  # a group of which no row counts
    shards = [GroupTemperatureScaling(by=by), GroupTemperatureScaling(by=by)]
    for k, batch in enumerate(np.array_split(np.argsort(ids, kind="stable"), 5)):  # few groups in each
        arrays = (backend.asarray(x[batch]) for x in (logits, labels, weight))
        shards[k % 2].partial_fit(*arrays, groups=ids[batch] if by == "group" else None)
    scaler = shards[0].merge_state(shards[1])
    expected = GroupTemperatureScaling(by=by).fit(logits, labels, weight, groups=ids if by == "group" else None)
    np.testing.assert_array_equal(scaler.groups_, expected.groups_)
    assert scaler.statuses_ == expected.statuses_ == ["converged"] * len(expected.groups_)
    for name in ("temperatures_", "temperature_stderrs_", *DIAGNOSTICS):
        np.testing.assert_allclose(getattr(scaler, name), getattr(expected, name), rtol=1e-6, err_msg=name)


def test_only_partial_fits_of_the_same_parameters_merge():
    logits, labels = drawn(rows=60)
    ids = np.zeros(60, int)
    one = GroupTemperatureScaling().partial_fit(logits, labels, groups=ids)
    with pytest.raises(ValueError, match="merge_state needs calibrators of the same parameters"):
        one.merge_state(GroupTemperatureScaling(max_iter=20).partial_fit(logits, labels, groups=ids))
    with pytest.raises(ValueError, match="have taken in batches by partial_fit"):
        one.merge_state(GroupTemperatureScaling().fit(logits, labels, groups=ids))
    with pytest.raises(ValueError, match="No row to fit on"):
        GroupTemperatureScaling().partial_fit(logits, labels, np.zeros(60), groups=ids)


def test_a_warning_points_at_the_call():
    logits = np.eye(3)
    for call in (
        lambda: GroupTemperatureScaling().fit(logits, [0, 1, 2], groups=[0, 0, 0]),
        lambda: GroupTemperatureScaling().partial_fit(logits, [0, 1, 2], groups=[0, 0, 0]),
    ):
        with pytest.warns(ConvergenceWarning, match="separable") as caught:
            call()
        assert caught[0].filename == __file__


def test_tables_end_at_their_last_temperature():
    logits, labels = drawn(rows=60)
    scaler = GroupTemperatureScaling()
    with pytest.warns(ConvergenceWarning, match="at_bound"):
        scaler.partial_fit(2000.0 * logits, labels, groups=np.zeros(60, int))
    assert scaler.statuses_ == ["at_bound"]
    np.testing.assert_allclose([scaler.temperature_, *scaler.temperatures_], 64.0)
