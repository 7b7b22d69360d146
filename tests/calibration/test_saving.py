"""Facts about calibrators on disk, and about their parameters."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from kinds import KINDS
from likelihood import drawn

from lsmooth.calibration import (
    BiasCorrectedTemperatureScaling,
    HistogramBinning,
    QuadraticScaling,
    TemperatureScaling,
    VectorScaling,
    load,
)
from lsmooth.calibration._loading import CLASSES


def test_methods_raise_before_fit(tmp_path):
    for call in (lambda s: s.transform([[0.0]]), lambda s: s.predict_proba([[0.0]]), lambda s: s.save(tmp_path / "a")):
        with pytest.raises(ValueError, match="not fitted yet"):
            call(TemperatureScaling())


def test_parameters_match_scikit_learn():
    scaler = TemperatureScaling(axis=1)
    assert scaler.set_params(max_iter=7) is scaler
    assert scaler.get_params() == {
        "axis": 1,
        "ignore_index": None,
        "from_logits": True,
        "binary": False,
        "bounds": (1e-8, 1e8),
        "max_iter": 7,
        "clip": None,
    }
    assert repr(scaler) == "TemperatureScaling(axis=1, max_iter=7)"
    with pytest.raises(ValueError, match="no parameter 'steps'"):
        scaler.set_params(steps=3)


def test_saved_calibrators_load_unchanged(tmp_path):
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


SCALERS = [
    *(kind() for kind in KINDS.values()),
    QuadraticScaling(),
    BiasCorrectedTemperatureScaling(axis=1, ignore_index=-1),
    HistogramBinning(n_bins=4, from_logits=False),
    TemperatureScaling(bounds=(0.5, 20.0)),
    VectorScaling(use_bias=False),
]


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
@pytest.mark.parametrize("scaler", SCALERS, ids=repr)
def test_one_function_loads_every_kind(tmp_path, scaler):
    if hasattr(scaler, "tol"):
        pytest.importorskip("scipy", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    classes = 2 if isinstance(scaler, QuadraticScaling) else 3
    predictions = rng.dirichlet(np.ones(classes), 300)
    scaler.fit(predictions, rng.integers(0, classes, 300))
    scaler.save(tmp_path / "c.json")
    loaded = load(tmp_path / "c.json")
    assert type(loaded) is type(scaler)
    assert repr(loaded) == repr(scaler)
    assert set(vars(loaded)) == set(vars(scaler))
    for name, value in vars(scaler).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    np.testing.assert_array_equal(loaded.predict_proba(predictions), scaler.predict_proba(predictions))
    assert {kind.__name__ for kind in map(type, SCALERS)} == set(CLASSES)


@pytest.mark.parametrize("name", ["Calibrator", "os.system", "", "TemperatureScaling\n"])
def test_only_lsmooth_classes_are_loaded(tmp_path, name):
    TemperatureScaling().fit(*drawn(rows=50)).save(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps({**content, "class": name}))
    with pytest.raises(ValueError, match=r"lsmooth has BiasCorrectedTemperatureScaling, Dir"):
        load(tmp_path / "t.json")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"[1, 2", b"[" * 100_000, b'{"format": NaN}', b"null"])
def test_invalid_json_is_an_error(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    for reader in (load, TemperatureScaling.load):
        with pytest.raises(ValueError, match=r"not JSON that lsmooth can read|not a calibrator saved by lsmooth"):
            reader(path)


def test_a_file_without_an_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._base._LARGEST_FILE", 100)
    TemperatureScaling().fit(*drawn(rows=50)).save(tmp_path / "t.json")
    for path in (tmp_path / "t.json", "/dev/zero"):
        with pytest.raises(ValueError, match="larger than any calibrator's file"):
            load(path)
