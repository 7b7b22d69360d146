"""``lsmooth calibrate``: what it prints, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
pytest.importorskip("scipy", reason="most methods need it")
from typer.testing import CliRunner

from lsmooth import calibration, metrics
from lsmooth._commands import app
from lsmooth._commands import calibrate as command
from lsmooth.calibrate import METHODS, data, open_data, run
from lsmooth.metrics._bins import CONVENTIONS

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (600, 4))
Y = (HONEST + RNG.gumbel(size=HONEST.shape)).argmax(-1)
Z = (3 * HONEST).astype(np.float32)
FILES = {"report.html", "report.json", "calibrator.json", "reliability.png", "confidence.png", "risk_coverage.png"}


def calibrate(*arguments, resamples=20):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments), "--resamples", str(resamples)])


@pytest.fixture
def saved(tmp_path, monkeypatch) -> Path:
    """A folder of good files, which is where the command runs."""
    np.save(tmp_path / "z.npy", Z)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "both.npz", logits=Z, labels=Y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "BLOCK_ELEMENTS", 400)
    return tmp_path


def split(folder: Path) -> np.ndarray:
    """Which rows have been fitted on."""
    opened = open_data(folder / "z.npy", folder / "y.npy", folder, lambda *_: None)
    return np.concatenate([data.fit_rows(0, 0.5, block) for block in opened.blocks()])


def test_the_report_is_of_the_rows_that_were_not_fitted_on(saved):
    result = calibrate("z.npy", "y.npy", "--out", "new/report")
    assert result.exit_code == 0, result.output
    folder = saved / "new" / "report"
    assert {path.name for path in folder.iterdir()} == {*FILES, "temperature.png"}
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")

    fitted = split(saved)
    scaler = calibration.TemperatureScaling().fit(Z[fitted], Y[fitted])
    loaded = calibration.TemperatureScaling.load(folder / "calibrator.json")
    assert loaded.temperature_ == pytest.approx(scaler.temperature_, rel=1e-6)
    assert loaded.get_params() == scaler.get_params()

    report = json.loads((folder / "report.json").read_text())
    assert report["calibrator"]["temperature"] == loaded.temperature_
    assert (report["rows"]["fit"], report["rows"]["evaluation"]) == (fitted.sum(), (~fitted).sum())
    assert report["files"][0]["logits"] == {"path": "z.npy", "shape": [600, 4], "dtype": "float32"}
    for state, logits in (("before", Z[~fitted]), ("after", loaded.transform(Z[~fitted]))):
        for name, metric in (
            ("ece", metrics.expected_calibration_error),
            ("classwise_ece", metrics.classwise_calibration_error),
            ("nll", metrics.negative_log_likelihood),
            ("brier", metrics.brier_score),
            ("aurc", metrics.area_under_risk_coverage),
            ("smooth_ece", metrics.smooth_calibration_error),
        ):
            expected = float(metric(Y[~fitted], logits, from_logits=True))
            assert report["measures"][name][state]["value"] == pytest.approx(expected, rel=1e-5), (name, state)
    assert report["measures"]["ece"]["change"]["high"] < 0
    assert report["conventions"]["before"]["errors"]["guo"] == report["measures"]["ece"]["before"]["value"]
    assert re.search(r"ECE +0\.\d+ +0\.\d+ +-0\.\d+ \[-0\.\d+, -0\.\d+\] +better", result.output)
    assert f"T = {loaded.temperature_:.4g}" in result.output
    assert "Report: new/report/report.html" in result.output


def test_the_html_report_is_one_file(saved):
    assert calibrate("both.npz", "--out", "report").exit_code == 0
    html = (saved / "report" / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 4
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "Calibration of both.npz" in html
    assert "torchmetrics" in html


@pytest.mark.filterwarnings("ignore:.*will overfit:UserWarning")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_and_loads(saved, method):
    result = calibrate("both.npz", "--out", "report", "--method", method)
    assert result.exit_code == 0, result.output
    report = json.loads((saved / "report" / "report.json").read_text())
    scaler = METHODS[method].load(saved / "report" / "calibrator.json")
    assert report["calibrator"]["class"] == type(scaler).__name__
    fitted = split(saved)
    expected = METHODS[method]().fit(Z[fitted], Y[fitted])
    np.testing.assert_allclose(scaler.predict_proba(Z), expected.predict_proba(Z), rtol=1e-5, atol=1e-7)
    after = float(metrics.brier_score(Y[~fitted], scaler.predict_proba(Z[~fitted])))
    assert report["measures"]["brier"]["after"]["value"] == pytest.approx(after, rel=1e-5)
    assert (saved / "report" / "temperature.png").exists() == (method == "temperature")


def test_penalties_reach_the_calibrator(saved):
    result = calibrate("both.npz", "--method", "matrix", "--off-diagonal", 0.5, "--intercept", 2, "--out", "report")
    assert result.exit_code == 0, result.output
    scaler = calibration.MatrixScaling.load(saved / "report" / "calibrator.json")
    assert (scaler.off_diagonal, scaler.intercept) == (0.5, 2.0)


def test_an_evaluation_file_is_measured_and_all_of_the_first_is_fitted_on(saved):
    np.savez(saved / "other.npz", logits=Z[:100], labels=Y[:100])
    result = calibrate("both.npz", "--eval-logits", "other.npz", "--out", "report")
    assert result.exit_code == 0, result.output
    report = json.loads((saved / "report" / "report.json").read_text())
    assert (report["rows"]["fit"], report["rows"]["evaluation"]) == (600, 100)
    assert report["calibrator"]["temperature"] == pytest.approx(
        calibration.TemperatureScaling().fit(Z, Y).temperature_, rel=1e-6
    )
    expected = float(metrics.expected_calibration_error(Y[:100], Z[:100], from_logits=True))
    assert report["measures"]["ece"]["before"]["value"] == pytest.approx(expected, rel=1e-5)


def test_dense_predictions_keep_their_axis(saved):
    logits, labels = np.moveaxis(Z.reshape(60, 5, 2, 4), -1, 1), Y.reshape(60, 5, 2).copy()
    labels[:, 0] = 255
    np.savez(saved / "dense.npz", logits=logits, labels=labels)
    result = calibrate("dense.npz", "--axis", 1, "--ignore-index", 255, "--out", "report")
    assert result.exit_code == 0, result.output
    scaler = calibration.TemperatureScaling.load(saved / "report" / "calibrator.json")
    assert (scaler.axis, scaler.ignore_index) == (-3, 255)
    report = json.loads((saved / "report" / "report.json").read_text())
    assert (report["rows"]["fit"] + report["rows"]["evaluation"], report["rows"]["ignored"]) == (480, 120)


def test_probabilities_are_taken_for_what_they_are(saved):
    p = calibration.TemperatureScaling().fit(Z, Y).predict_proba(0 * Z + Z)
    np.savez(saved / "p.npz", logits=p, labels=Y)
    result = calibrate("p.npz", "--from-probabilities", "--out", "report")
    assert result.exit_code == 0, result.output
    scaler = calibration.TemperatureScaling.load(saved / "report" / "calibrator.json")
    assert scaler.from_logits is False
    assert scaler.temperature_ == pytest.approx(1.0, abs=0.1)


def test_half_precision_is_measured_in_full(saved):
    np.savez(saved / "half.npz", logits=Z.astype(np.float16), labels=Y)
    result = calibrate("half.npz", "--out", "report")
    assert result.exit_code == 0, result.output


def test_what_the_fit_warns_of_is_passed_on(saved):
    np.savez(saved / "sure.npz", logits=Z, labels=Z.argmax(-1))
    result = calibrate("sure.npz", "--out", "report")
    assert result.exit_code == 0, result.output
    assert "separable" in result.output
    assert "separable" in (saved / "report" / "report.html").read_text(encoding="utf-8")


def test_rows_beyond_the_sample_are_counted_in_the_sums(saved, monkeypatch):
    whole = calibrate("both.npz", "--out", "whole", resamples=300)
    monkeypatch.setattr(run, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(run, "CLASSWISE_ELEMENTS", 400)
    part = calibrate("both.npz", "--out", "part", resamples=300)
    assert (whole.exit_code, part.exit_code) == (0, 0)
    reports = [json.loads((saved / name / "report.json").read_text()) for name in ("whole", "part")]
    for name in ("ece", "nll", "brier", "accuracy"):
        values = [report["measures"][name]["after"]["value"] for report in reports]
        assert values[0] == pytest.approx(values[1], rel=1e-12)
    widths = [report["measures"]["nll"]["before"] for report in reports]
    widths = [width["high"] - width["low"] for width in widths]
    assert widths[0] == pytest.approx(widths[1], rel=0.25)
    assert 60 < reports[1]["rows"]["sample"] < 140
    assert "drawn at random" in (saved / "part" / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_is_there_keeps_its_other_files(saved):
    (saved / "report").mkdir()
    (saved / "report" / "mine.txt").write_text("kept")
    (saved / "report" / "report.html").write_text("old")
    assert calibrate("both.npz", "--out", "report").exit_code == 0
    assert (saved / "report" / "mine.txt").read_text() == "kept"
    assert "<!doctype html>" in (saved / "report" / "report.html").read_text(encoding="utf-8")


BAD = {
    "nan.npz": {"logits": np.where(np.arange(600)[:, None] == 421, np.nan, Z), "labels": Y},
    "range.npz": {"logits": Z, "labels": np.where(np.arange(600) == 13, 4, Y)},
    "short.npz": {"logits": Z, "labels": Y[:-1]},
    "keys.npz": {"z": Z, "labels": Y},
    "object.npz": {"logits": np.array([[None]]), "labels": Y},
    "half.npz": {"logits": Z, "labels": Y + 0.5},
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nan.npz"], "have NaN in row 421"),
        (["range.npz"], "got 4 in row 13. Are they counted from 1?"),
        (["short.npz"], "must have shape (600,)"),
        (["keys.npz"], "name the logits with --logits-key"),
        (["object.npz"], "pickled Python objects"),
        (["half.npz"], "must be integers, got "),
        (["absent.npz"], "is not there"),
        (["both.npz", "--eval-logits", "nan.npz"], "have NaN in row 421"),
        (["both.npz", "--eval-labels", "y.npy"], "--eval-labels needs --eval-logits"),
        (["both.npz", "--method", "platt"], "--method must be one of temperature, "),
        (["both.npz", "--convention", "mine"], "--convention must be one of guo, "),
        (["both.npz", "--fit-fraction", 1], "--fit-fraction must be between 0 and 1"),
        (["both.npz", "--n-bins", 0], "--n-bins must be at least 1"),
        (["both.npz", "--seed", -1], "--seed must be at least 0"),
        (["both.npz", "--off-diagonal", 1], "is a penalty of --method matrix"),
        (["both.npz", "--method", "matrix", "--intercept", -1], "--intercept must be a finite number"),
        (["both.npz", "--out", "both.npz"], "--output must be a folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(saved, arguments, message):
    for name, arrays in BAD.items():
        np.savez(saved / name, **arrays)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    result = calibrate(*arguments, *([] if "--out" in arguments else ["--out", "report"]))
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_report_that_fails_leaves_nothing(saved, monkeypatch):
    def broken(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("lsmooth.calibrate.report.figures", broken)
    before = set(saved.iterdir())
    assert (calibrate("both.npz", "--out", "report").exit_code, set(saved.iterdir())) == (2, before)


def test_the_choices_are_those_of_the_library():
    assert tuple(METHODS) == command.METHODS
    assert tuple(CONVENTIONS) == command.CONVENTIONS


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_the_command_runs_as_a_program_in_bounded_memory(saved):
    np.save(saved / "big.npy", np.tile(Z, (100, 250)))
    np.save(saved / "many.npy", np.tile(Y, 100))
    size = (saved / "big.npy").stat().st_size
    code = (
        "import sys, matplotlib.figure, scipy.optimize, lsmooth.plots\n"
        "from lsmooth._commands import app\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "base = peak()\n"
        "try: app()\n"
        "except SystemExit as error: code = error.code\n"
        "print('peak', peak() - base); sys.exit(code)"
    )
    arguments = ["calibrate", "big.npy", "many.npy", "--out", "report", "--resamples", "2"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = 1024 * int(done.stdout.split("peak ")[1])
    assert peak < size, f"{peak} bytes beside {size} of the logits"
