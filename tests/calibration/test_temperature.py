"""Facts about TemperatureScaling, held to a golden-section search over the plain likelihood."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.calibration import ConvergenceWarning, TemperatureScaling, apply_temperature

TEMPERATURES = (2.042, 20.42, 0.05105, 204.2)


def mean_nll(logits: np.ndarray, labels: np.ndarray, temperature: float, weight: np.ndarray | None = None) -> float:
    z = logits.astype(np.float64) / temperature
    z = z - z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]
    return float(np.average(losses, weights=weight))


def best_temperature(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Bisection of the likelihood's slope in log T: the root to 1e-13."""

    def slope(log_temperature: float) -> float:
        z = logits.astype(np.float64) / math.exp(log_temperature)
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        p[z == -np.inf], z[z == -np.inf] = 0.0, 0.0
        return float(np.average((p * z).sum(axis=1) - z[np.arange(len(z)), labels], weights=weight))

    low, high = math.log(1e-8), math.log(1e8)
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp(low)


def drawn(rows: int = 400, classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.standard_normal((rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


@pytest.fixture(params=["host", "device"])
def memory(request, monkeypatch, backend):
    """Both ways through the rows: NumPy in place on the host's memory, and the backend's operations."""
    if request.param == "device":
        monkeypatch.setattr(type(backend), "host_view", lambda self, x: None)
    return request.param


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("true", TEMPERATURES)
def test_the_optimum_is_found_to_a_millionth(backend: Backend, memory, dtype, true):
    logits, labels = drawn()
    logits = (logits * true).astype(dtype)
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    expected = best_temperature(logits, labels)
    assert scaler.status_ == "converged"
    assert type(scaler.temperature_) is float
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)
    assert scaler.n_iter_ <= 12
    np.testing.assert_allclose(scaler.nll_before_, mean_nll(logits, labels, 1.0), rtol=1e-6)
    np.testing.assert_allclose(scaler.nll_after_, mean_nll(logits, labels, expected), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_separable_labels_are_called_so(backend: Backend, memory, dtype):
    logits = drawn()[0].astype(dtype)
    with pytest.warns(ConvergenceWarning, match=r"separable"):
        scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(logits.argmax(axis=1)))
    assert scaler.status_ == "separable"
    assert 0 < scaler.temperature_ < 1
    assert scaler.n_iter_ <= 12
    # One standard error from the supremum, 0, of the total log-likelihood.
    assert 0.2 < len(logits) * scaler.nll_after_ < 1.0
    assert math.isnan(scaler.temperature_stderr_)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_labels_against_the_logits_are_called_uninformative(backend: Backend, memory, dtype):
    logits = drawn()[0].astype(dtype)
    with pytest.warns(ConvergenceWarning, match=r"uninformative"):
        scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(logits.argmin(axis=1)))
    assert scaler.status_ == "uninformative"
    assert 1 < scaler.temperature_ < math.inf
    np.testing.assert_allclose(len(logits) * (scaler.nll_after_ - math.log(10)), 0.5, atol=0.06)


def test_constant_logits_leave_the_temperature_at_one():
    with pytest.warns(ConvergenceWarning, match="uninformative"):
        scaler = TemperatureScaling().fit(np.ones((5, 3)), np.array([0, 1, 2, 0, 1]))
    assert scaler.temperature_ == 1.0


def test_an_optimum_beyond_the_bounds_is_at_the_bound():
    logits, labels = drawn()
    with pytest.warns(ConvergenceWarning, match="at_bound.*bounds 0.5 and 1.5"):
        scaler = TemperatureScaling(bounds=(0.5, 1.5)).fit(3.0 * logits, labels)
    assert scaler.status_ == "at_bound"
    np.testing.assert_allclose(scaler.temperature_, 1.5)
    with pytest.warns(ConvergenceWarning, match="at_bound"):
        scaler = TemperatureScaling(bounds=(0.5, 1.5)).fit(0.1 * logits, labels)
    np.testing.assert_allclose(scaler.temperature_, 0.5)


def test_too_few_passes_are_called_so():
    logits, labels = drawn()
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        assert TemperatureScaling(max_iter=3).fit(100.0 * logits, labels).status_ == "max_iter"


def test_a_constant_added_to_a_row_changes_nothing(backend: Backend):
    logits, labels = drawn()
    logits = (np.round(logits * 4) / 4).astype("float32")  # exact in float32 when 1e6 is added
    shifted = (logits + 1e6).astype("float32")
    fits = [TemperatureScaling().fit(backend.asarray(z), backend.asarray(labels)) for z in (logits, shifted)]
    assert fits[0].temperature_ == fits[1].temperature_


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_temperature_scales_with_the_logits(backend: Backend, dtype):
    logits, labels = drawn()
    small = (1e-4 * logits).astype(dtype)
    scaler = TemperatureScaling().fit(backend.asarray(small), backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(small, labels), rtol=1e-6)


def test_large_data_start_from_a_part_of_it(backend: Backend, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**10)
    logits, labels = drawn(rows=2000)
    order = np.argsort(labels, kind="stable")  # the part is not like the whole
    logits, labels = 4.0 * logits[order], labels[order]
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    assert scaler.n_iter_ <= 6


def test_a_weighted_fit_is_the_fit_on_repeated_rows(backend: Backend, memory):
    logits, labels = drawn(rows=200)
    weight = np.random.default_rng(1).integers(0, 4, 200)
    weighted = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels), backend.asarray(weight))
    repeated = TemperatureScaling().fit(
        backend.asarray(np.repeat(logits, weight, axis=0)), backend.asarray(np.repeat(labels, weight))
    )
    for name in ("temperature_", "nll_before_", "nll_after_", "temperature_stderr_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9)


def test_the_standard_error_is_the_curvature_of_the_likelihood():
    logits, labels = drawn()
    scaler = TemperatureScaling().fit(logits, labels)
    h = 1e-4
    u = math.log(scaler.temperature_)
    at = [len(labels) * mean_nll(logits, labels, math.exp(u + s)) for s in (-h, 0, h)]
    curvature = (at[0] - 2 * at[1] + at[2]) / h**2
    np.testing.assert_allclose(scaler.temperature_stderr_, scaler.temperature_ / math.sqrt(curvature), rtol=1e-4)


def test_masked_classes_have_no_part(backend: Backend, memory):
    logits, labels = drawn()
    masked = np.full((len(logits), 4), -np.inf)
    both = np.concatenate([masked[:, :2], 3.0 * logits, masked[:, 2:]], axis=1)
    scaler = TemperatureScaling().fit(backend.asarray(both), backend.asarray(labels + 2))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(3.0 * logits, labels), rtol=1e-6)


def test_ignored_rows_may_hold_anything(backend: Backend, memory):
    logits, labels = drawn()
    junk = np.concatenate([logits, np.full((3, 10), np.nan)])
    scaler = TemperatureScaling(ignore_index=-100).fit(
        backend.asarray(junk), backend.asarray(np.concatenate([labels, [-100, -100, -100]]))
    )
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    weight = np.concatenate([np.ones(400), np.zeros(3)])
    weighted = TemperatureScaling().fit(
        backend.asarray(junk), backend.asarray(np.concatenate([labels, [0, 99, -1]])), backend.asarray(weight)
    )
    assert weighted.temperature_ == scaler.temperature_


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_classes_may_be_on_any_axis(backend: Backend, memory, axis, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**11)
    logits, labels = drawn()
    maps = np.moveaxis(logits.reshape(20, 20, 10), -1, axis)
    scaler = TemperatureScaling(axis=axis).fit(backend.asarray(maps), backend.asarray(labels.reshape(20, 20)))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)


def test_one_hot_labels_are_class_ids(backend: Backend, memory):
    logits, labels = drawn()
    hard = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    soft = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(np.eye(10)[labels]))
    np.testing.assert_allclose(soft.temperature_, hard.temperature_, rtol=1e-9)


def test_soft_labels_are_rows_weighted_by_their_parts(backend: Backend):
    logits, labels = drawn()
    other = (labels + 1) % 10
    soft = 0.75 * np.eye(10)[labels] + 0.25 * np.eye(10)[other]
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(soft))
    weight = np.repeat([0.75, 0.25], len(logits))
    expected = best_temperature(np.concatenate([logits, logits]), np.concatenate([labels, other]), weight)
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)


def test_half_precision_is_fitted_in_float32(backend: Backend):
    logits, labels = drawn()
    half = backend.cast(backend.asarray(logits.astype("float32")), "float16")
    scaler = TemperatureScaling().fit(half, backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits.astype("float16"), labels), rtol=1e-6)


def test_probabilities_are_their_logarithms(backend: Backend, memory):
    logits, labels = drawn()
    p = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    scaler = TemperatureScaling(from_logits=False).fit(backend.asarray(p), backend.asarray(labels))
    expected = best_temperature(2 * logits, labels)
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)
    calibrated = np.exp(2 * logits / scaler.temperature_)
    calibrated /= calibrated.sum(axis=1, keepdims=True)
    assert_close(backend, scaler.transform(backend.asarray(p)), calibrated, "float64", factor=10)


def test_transform_and_predict_proba_stay_in_the_framework(backend: Backend):
    logits, labels = drawn()
    scaler = TemperatureScaling(axis=0).fit(backend.asarray(logits.T), backend.asarray(labels))
    scaled = scaler.transform(backend.asarray(logits.T))
    assert backend.is_array(scaled)
    assert_close(backend, scaled, logits.T / scaler.temperature_, "float64")
    p = np.exp(logits / scaler.temperature_)
    p /= p.sum(axis=1, keepdims=True)
    assert_close(backend, scaler.predict_proba(backend.asarray(logits.T)), p.T, "float64")


def test_apply_temperature_is_differentiable_in_the_temperature(differentiable_backend: Backend):
    xp = differentiable_backend
    logits = xp.asarray(np.array([[1.0, 2.0], [3.0, 5.0]]))
    temperature = xp.asarray(np.array([2.0, 4.0]))
    value, gradient = xp.value_and_grad(lambda t: xp.sum(apply_temperature(logits, t)), temperature)
    assert_close(xp, value, 3.5, "float64")
    assert_close(xp, gradient, [-3 / 4, -8 / 16], "float64")


def test_a_temperature_may_differ_between_rows_around_the_class_axis(backend: Backend):
    logits = np.arange(2 * 5 * 3, dtype=np.float64).reshape(2, 5, 3)
    temperature = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    for t, expected in ((temperature, temperature[:, None, :]), (temperature[0], temperature[0])):
        got = apply_temperature(backend.asarray(logits), backend.asarray(t), axis=1)
        assert_close(backend, got, logits / expected, "float64")


@pytest.mark.parametrize(
    ("logits", "labels", "weight", "message"),
    [
        ([[0.0, 1.0]], [2], None, r"labels must be class ids in 0\.\.1, got 2 at row 0.*ignore_index"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, -100], None, r"got -100 at row 1"),
        ([[0.0, 1.0], [np.nan, 1.0]], [0, 0], None, r"logits must hold no NaN.*row 1"),
        ([[0.0, np.inf]], [0], None, r"logits must hold no NaN, no infinity"),
        ([[-np.inf, -np.inf]], [0], None, r"a class that is not masked"),
        ([[0.0, -np.inf]], [1], None, r"class 1 of probability 0 at row 0"),
        ([[0.0, 1.0]], [0], [-1.0], r"sample_weight must be finite numbers of at least 0, got -1"),
        ([[0.0, 1.0]], [0], [0.0], r"No row to fit on"),
        (np.zeros((0, 3)), np.zeros(0, np.int64), None, r"No row to fit on"),
        ([[0.0, 1.0]], [[0]], None, r"labels must have shape"),
        ([[0.0, 1.0]], [0], [1.0, 1.0], r"sample_weight must be a scalar or have shape"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(backend: Backend, memory, logits, labels, weight, message):
    arrays = [None if x is None else backend.asarray(np.asarray(x)) for x in (logits, labels, weight)]
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(*arrays)


def test_the_row_at_fault_is_named_by_its_position_in_a_map():
    labels = np.zeros((2, 3, 4), np.int64)
    labels[1, 2, 3] = 7
    with pytest.raises(ValueError, match=r"got 7 at row \(1, 2, 3\)"):
        TemperatureScaling(axis=1).fit(np.zeros((2, 5, 3, 4)), labels)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axis": "last"}, TypeError, "axis must be of type int"),
        ({"from_logits": 1}, TypeError, "from_logits must be of type bool"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be None or of type int"),
        ({"max_iter": 2}, ValueError, "max_iter must be at least 3"),
        ({"bounds": (2.0, 1.0)}, ValueError, "bounds must be two temperatures"),
        ({"bounds": 1.0}, ValueError, "bounds must be two temperatures"),
    ],
)
def test_options_are_checked_in_fit(options, error, message):
    scaler = TemperatureScaling(**options)
    with pytest.raises(error, match=message):
        scaler.fit(*drawn(rows=10))


def test_a_traced_fit_is_refused():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with pytest.raises(TypeError, match="reads the values of logits"):
        jax.jit(lambda z: TemperatureScaling().fit(z, [0]).temperature_)(np.zeros((1, 2)))


@pytest.mark.parametrize("true", TEMPERATURES)
def test_batches_give_the_fit_on_all_of_them(backend: Backend, true):
    logits, labels = drawn(rows=500)
    weight = np.random.default_rng(2).random(500)
    whole = TemperatureScaling().fit(true * logits, labels, weight)
    parts = [slice(0, 200), slice(200, 201), slice(201, 500)]
    batches = [tuple(backend.asarray(x[part]) for x in (true * logits, labels, weight)) for part in parts]
    scaler = TemperatureScaling().fit_batches(batches)
    assert scaler.status_ == "converged"
    assert scaler.n_iter_ <= 6
    for name in ("temperature_", "nll_before_", "nll_after_"):
        np.testing.assert_allclose(getattr(scaler, name), getattr(whole, name), rtol=1e-6)
    np.testing.assert_allclose(scaler.temperature_stderr_, whole.temperature_stderr_, rtol=1e-4)


def test_batches_that_can_be_read_once_are_refused():
    with pytest.raises(TypeError, match="must be readable more than once, got a generator"):
        TemperatureScaling().fit_batches(batch for batch in [drawn()])
    with pytest.raises(ValueError, match="No row to fit on"):
        TemperatureScaling().fit_batches([])
    with pytest.raises(ValueError, match=r"A batch must be \(logits, labels\).*got 1 parts"):
        TemperatureScaling().fit_batches([(np.zeros((1, 2)),)])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("true", [1.0, 2.042, 20.42, 0.05105])
def test_shards_seen_once_merge_into_the_fit_on_all(backend: Backend, dtype, true):
    logits, labels = drawn()
    logits = (true * logits).astype(dtype)
    shards = []
    for part in (slice(0, 100), slice(100, 400)):
        shard = TemperatureScaling()
        for batch in np.array_split(np.arange(400)[part], 2):
            shard.partial_fit(backend.asarray(logits[batch]), backend.asarray(labels[batch]))
        shards.append(shard)
    scaler = shards[0].merge(shards[1])
    whole = TemperatureScaling().fit(logits, labels)
    assert scaler.status_ == "converged"
    for name in ("temperature_", "nll_before_", "nll_after_"):
        np.testing.assert_allclose(getattr(scaler, name), getattr(whole, name), rtol=1e-6)
    np.testing.assert_allclose(scaler.temperature_stderr_, whole.temperature_stderr_, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_partial_fits_say_what_fits_say():
    logits, labels = drawn()
    assert TemperatureScaling().partial_fit(logits, logits.argmax(axis=1)).status_ == "separable"
    assert TemperatureScaling().partial_fit(logits, logits.argmin(axis=1)).status_ == "uninformative"
    assert TemperatureScaling().partial_fit(200 * logits, labels).status_ == "at_bound"


def test_only_partial_fits_of_the_same_parameters_merge():
    one = TemperatureScaling().partial_fit(*drawn())
    with pytest.raises(ValueError, match="merge needs calibrators of the same parameters"):
        one.merge(TemperatureScaling(ignore_index=0))
    with pytest.raises(ValueError, match="taken in batches by partial_fit"):
        one.merge(TemperatureScaling().fit(*drawn()))


def test_a_mapped_file_is_fitted_as_an_array(tmp_path, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**12)
    monkeypatch.setattr("lsmooth.calibration._moments._MAPPED_BYTES", 2**13)
    logits, labels = drawn(rows=2000)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    scaler = TemperatureScaling().fit(mapped, labels)
    assert scaler.temperature_ == TemperatureScaling().fit(logits, labels).temperature_


def test_parameters_are_scikit_learns():
    scaler = TemperatureScaling(axis=1)
    assert scaler.set_params(max_iter=7) is scaler
    assert scaler.get_params() == {
        "axis": 1,
        "ignore_index": None,
        "from_logits": True,
        "bounds": (1e-8, 1e8),
        "max_iter": 7,
    }
    assert repr(scaler) == "TemperatureScaling(axis=1, max_iter=7)"
    with pytest.raises(ValueError, match="no parameter 'steps'"):
        scaler.set_params(steps=3)


def test_nothing_works_before_fit(tmp_path):
    for call in (lambda s: s.transform([[0.0]]), lambda s: s.predict_proba([[0.0]]), lambda s: s.save(tmp_path / "a")):
        with pytest.raises(ValueError, match="not fitted yet"):
            call(TemperatureScaling())


def test_what_is_saved_is_loaded(tmp_path):
    scaler = TemperatureScaling(ignore_index=-1).fit(*drawn())
    scaler.save(tmp_path / "t.json")
    loaded = TemperatureScaling.load(tmp_path / "t.json")
    assert vars(loaded) == vars(scaler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unsure = TemperatureScaling().fit([[1.0, 0.0]], [0])
    unsure.save(tmp_path / "u.json")
    assert math.isnan(TemperatureScaling.load(tmp_path / "u.json").temperature_stderr_)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.update(format="pickle"), "not a calibrator saved by lsmooth"),
        (lambda c: c.update(version=99), "has version 99"),
        (lambda c: c.update({"class": "VectorScaling"}), "holds a 'VectorScaling', not a TemperatureScaling"),
        (lambda c: c.update({"class": ["TemperatureScaling"]}), "class must be a string"),
        (lambda c: c.update(extra=1), "unknown"),
        (lambda c: c.update(fitted=[1]), "fitted must be an object"),
        (lambda c: c["fitted"].pop("temperature_"), r"lacks \['temperature_'\]"),
        (lambda c: c["fitted"].update(temperature_="1.0"), "must be a finite number or null"),
        (lambda c: c["fitted"].update(temperature_=-1.0), "temperature_ must be above 0"),
        (lambda c: c["fitted"].update(temperature_=None), "temperature_ must be above 0"),
        (lambda c: c["fitted"].update(temperature_=10**400), "must be a finite number"),
        (lambda c: c["fitted"].update(temperature_=True), "must be a finite number"),
        (lambda c: c["fitted"].update(n_iter_=1.5), "must be of type int"),
        (lambda c: c["fitted"].update(status_="fine"), "status_ must be one of"),
        (lambda c: c["parameters"].update(axis={"__reduce__": 1}), "must be a plain value"),
        (lambda c: c["parameters"].update(axis="x"), "axis must be of type int"),
        (lambda c: c["parameters"].update(bounds=[1.0]), "bounds must be two temperatures"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what(tmp_path, damage, message):
    path = tmp_path / "t.json"
    TemperatureScaling().fit(*drawn(rows=50)).save(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        TemperatureScaling.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"[1, 2", b"[" * 100_000, b'{"format": NaN}', b"null"])
def test_what_is_no_json_is_an_error(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not JSON that lsmooth can read|not a calibrator saved by lsmooth"):
        TemperatureScaling.load(path)
