"""Weights and groups of rows in the command: in the fit, every measure and the split."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("scipy", reason="the command needs it")
pytest.importorskip("matplotlib", reason="the command needs it")
from typer.testing import CliRunner

from lsmooth import metrics
from lsmooth._commands import app
from lsmooth.calibration import TemperatureScaling, VectorScaling, load

ROWS = 300
RNG = np.random.default_rng(0)
HONEST = 2.0 * RNG.normal(size=(ROWS, 3))
Z, Y = 3.0 * HONEST, (HONEST + RNG.gumbel(size=HONEST.shape)).argmax(axis=1)
WEIGHT, GROUP = RNG.integers(0, 3, ROWS).astype(float), RNG.integers(0, 12, ROWS)
MEASURES = {
    "ece": metrics.expected_calibration_error,
    "classwise_ece": metrics.classwise_calibration_error,
    "smooth_ece": metrics.smooth_calibration_error,
    "nll": metrics.negative_log_likelihood,
    "brier": metrics.brier_score,
    "aurc": metrics.area_under_risk_coverage,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A CSV with weights and groups, and an equal .npz; without pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lsmooth.calibrate.report.figures",
        lambda results: {"reliability": b"", "confidence": b"", "risk_coverage": b""},
    )
    lines = ["patient,weight,label,p_a,p_b,p_c"]
    for row in zip(GROUP, WEIGHT, Y, Z.tolist(), strict=True):
        lines.append(f"P{row[0]},{row[1]},{'abc'[row[2]]}," + ",".join(map(repr, row[3])))
    (tmp_path / "t.csv").write_text("\n".join(lines))
    np.savez(tmp_path / "t.npz", logits=Z, labels=Y, weight=WEIGHT, patient=GROUP)
    np.savez(tmp_path / "all.npz", logits=Z, labels=Y, weight=WEIGHT)
    return tmp_path


def calibrate(*arguments, code=0):
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments), "--out", "report", "--resamples", "20"])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("method", ["temperature", "vector"])
@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_weights_count_in_the_fit_and_in_every_measure(folder, name, method):
    if name == "t.csv":
        pytest.importorskip("pyarrow", reason="tables need it")
    logits = [] if name == "t.npz" else ["--logits-key", "p_*"]
    how = ["--weights-key", "weight", "--method", method, "--eval-logits", name]
    calibrate(name, *how, *logits)
    kind = TemperatureScaling if method == "temperature" else VectorScaling
    expected = kind().fit(Z, Y, WEIGHT)
    scaler = load(folder / "report" / "calibrator.json")
    np.testing.assert_allclose(scaler.predict_proba(Z), expected.predict_proba(Z), rtol=1e-4)
    report = json.loads((folder / "report" / "report.json").read_text())
    for state, z in (("before", Z), ("after", scaler.transform(Z))):
        for measure, function in MEASURES.items():
            value = float(function(Y, z, from_logits=True, sample_weight=WEIGHT))
            assert report["measures"][measure][state]["value"] == pytest.approx(value, rel=1e-5), (measure, state)
        accuracy = np.average(z.argmax(axis=1) == Y, weights=WEIGHT)
        assert report["measures"]["accuracy"][state]["value"] == pytest.approx(accuracy)
        errors = report["conventions"][state]["errors"]
        value = float(metrics.expected_calibration_error(Y, z, from_logits=True, sample_weight=WEIGHT))
        assert errors["guo"] == pytest.approx(value, rel=1e-5)
    assert "weights" in report["files"][0]


@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_groups_are_fitted_on_or_measured_as_a_whole(folder, name):
    if name == "t.csv":
        pytest.importorskip("pyarrow", reason="tables need it")
    logits = [] if name == "t.npz" else ["--logits-key", "p_*"]
    calibrate(name, "--group-key", "patient", *logits)
    report = json.loads((folder / "report" / "report.json").read_text())
    prefix = "" if name == "t.npz" else "P"
    measured = {group["name"].removeprefix(prefix) for group in report["per_group"]}
    held = np.isin(GROUP.astype(str), list(measured))
    assert 0.3 < held.mean() < 0.7
    assert report["rows"]["evaluation"] == held.sum()
    scaler = TemperatureScaling().fit(Z[~held], Y[~held])
    assert report["calibrator"]["temperature"] == pytest.approx(scaler.temperature_, rel=1e-5)
    for group in report["per_group"]:
        rows = GROUP.astype(str) == group["name"].removeprefix(prefix)
        assert group["rows"] == rows.sum()
        value = float(metrics.expected_calibration_error(Y[rows], Z[rows], from_logits=True))
        assert group["before"]["ece"] == pytest.approx(value, rel=1e-5)
        assert group["before"]["nll"] > group["after"]["nll"] or rows.sum() < 50
    html = (folder / "report" / "report.html").read_text()
    assert "The groups" in html
    assert "Split at random by whole groups" in html


def test_the_bootstrap_draws_whole_groups(folder):
    """Rows that are copies of each other say as much as one, and the interval knows it."""
    many = np.repeat(np.arange(40), 50)
    np.savez("copies.npz", logits=Z[many], labels=Y[many], patient=many)
    width = {}
    for options in ([], ["--group-key", "patient"]):
        calibrate("copies.npz", *options, "--eval-logits", "copies.npz")
        accuracy = json.loads((folder / "report" / "report.json").read_text())["measures"]["accuracy"]["before"]
        width[len(options)] = accuracy["high"] - accuracy["low"]
    assert width[2] > 4 * width[0]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-WEIGHT - 1, "--weights-key w of bad.npz must be finite numbers of at least 0, got -"),
        (np.where(np.arange(ROWS) == 7, np.nan, 1.0), "at least 0, got nan in row 7; correct it"),
        (np.zeros(ROWS), "--weights-key w of bad.npz are all 0: there is nothing to fit"),
        (np.ones((ROWS, 2)), r"must have one value for each of 300 rows; got shape (300, 2)"),
        (np.full(ROWS, "x"), "weights in bad.npz must be numbers"),
    ],
)
def test_invalid_weights_are_named(folder, weight, message):
    np.savez("bad.npz", logits=Z, labels=Y, w=weight)
    assert message in calibrate("bad.npz", "--weights-key", "w", code=2)


def test_missing_files_are_named(folder):
    output = calibrate("t.npz", "--weights-key", "wt", code=2)
    assert "holds no array 'wt'" in output
    assert "--weights-key" in output
    np.save("z.npy", Z), np.save("y.npy", Y)
    assert "--group-key g names an array or a column beside" in calibrate("z.npy", "y.npy", "--group-key", "g", code=2)
    np.savez("one.npz", logits=Z, labels=Y, g=np.zeros(ROWS, int))
    assert "must name at least two groups" in calibrate("one.npz", "--group-key", "g", code=2)


def test_two_classes_have_a_slope_and_a_decomposition_of_class_1(folder):
    p = 1 / (1 + np.exp(-Z[:, 0]))
    labels = (Y == 0).astype(int)
    np.savez("binary.npz", logits=p, labels=labels, w=WEIGHT)
    calibrate("binary.npz", "--from-probabilities", "--weights-key", "w", "--eval-logits", "binary.npz")
    report = json.loads((folder / "report" / "report.json").read_text())
    scaler = load(folder / "report" / "calibrator.json")
    for state, q in (("before", p), ("after", scaler.predict_proba(np.stack([1 - p, p], axis=-1))[:, 1])):
        for name, metric in (("slope", metrics.calibration_slope), ("corp", metrics.corp_decomposition)):
            expected = metric(labels, q, binary=True, sample_weight=WEIGHT)._asdict()
            assert report[name][state] == pytest.approx({key: float(x) for key, x in expected.items()}, rel=1e-4)
    html = (folder / "report" / "report.html").read_text()
    assert "calibration slope" in html
    assert "Frequency of class 1 against its probability" in html
