"""``lsmooth calibrate``: its output, its files and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
pytest.importorskip("scipy", reason="most methods need it")
from typer.testing import CliRunner

from lsmooth import calibration, metrics
from lsmooth._commands import _choices, app
from lsmooth._commands import calibrate as command
from lsmooth.calibrate import METHODS, data, open_data, run
from lsmooth.calibrate.measures import NAMES
from lsmooth.metrics._bins import CONVENTIONS

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (600, 4))
Y = (HONEST + RNG.gumbel(size=HONEST.shape)).argmax(-1)
Z = (3 * HONEST).astype(np.float32)
FILES = {
    "report.html",
    "report.json",
    "calibrator.json",
    "reliability.png",
    "corp.png",
    "confidence.png",
    "risk_coverage.png",
    "classes.png",
}


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


def test_the_report_covers_held_out_rows(saved):
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
        expected = metrics.corp_decomposition(Y[~fitted], logits, from_logits=True)
        for name, value in expected._asdict().items():
            assert report["corp"][state][name] == pytest.approx(float(value), rel=1e-5), (name, state)
    assert report["slope"] is None  # there are four classes
    assert report["measures"]["ece"]["change"]["high"] < 0
    assert report["conventions"]["before"]["errors"]["guo"] == report["measures"]["ece"]["before"]["value"]
    assert re.search(r"ECE +0\.\d+ +0\.\d+ +-0\.\d+ \[-0\.\d+, -0\.\d+\] +better", result.output)
    assert f"T = {loaded.temperature_:.4g}" in result.output
    assert "Report: new/report/report.html" in result.output


@pytest.mark.parametrize("width", [100, 80, 60, 30])
def test_the_table_of_measures_is_not_truncated(saved, monkeypatch, width):
    monkeypatch.setattr(command.console, "_width", width)  # "width" would stay set when it is put back
    np.savez(saved / "wide.npz", logits=1e4 * Z, labels=Y)  # the likelihoods have five digits before the point
    result = calibrate("wide.npz", "--out", "report")
    assert result.exit_code == 0, result.output
    assert "…" not in result.output
    for name, measure in report_of(saved / "report")["measures"].items():
        assert re.search(rf"^ *{NAMES[name]} +{measure['before']['value']:.4f} ", result.output, re.MULTILINE), name
        if measure["change"]["low"] is not None:
            assert f"[{measure['change']['low']:+.4f}, {measure['change']['high']:+.4f}]" in result.output
    assert width < 80 or max(map(len, result.output.splitlines()[1:-1])) <= width


def test_the_html_report_is_one_file(saved):
    assert calibrate("both.npz", "--out", "report").exit_code == 0
    html = (saved / "report" / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 6
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "Calibration of both.npz" in html
    assert "torchmetrics" in html


def test_pictures_of_an_earlier_run_and_no_other_files_are_removed(saved, monkeypatch):
    pictures = dict.fromkeys(("reliability", "confidence", "risk_coverage"), b"")
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: pictures)
    (saved / "report").mkdir()
    for name in ("classes.png", "temperature.png", "mine.png"):
        (saved / "report" / name).touch()
    assert calibrate("both.npz", "--out", "report").exit_code == 0
    assert {path.stem for path in (saved / "report").glob("*.png")} == {*pictures, "mine"}


def test_the_report_escapes_text_from_files(saved, monkeypatch):
    pictures = dict.fromkeys(("reliability", "confidence", "risk_coverage", "classes"), b"")
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: pictures)
    (saved / "both.npz").rename(saved / "<b>&.npz")
    assert calibrate("<b>&.npz", "--out", "report", "--classes", "<script>,a&b,c,d").exit_code == 0
    html = (saved / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "<b>" not in html
    assert "<td>&lt;script&gt;</td>" in html
    assert "<h1>Calibration of &lt;b&gt;&amp;.npz</h1>" in html


@pytest.mark.filterwarnings("ignore:.*will overfit:UserWarning")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "quadratic"])  # of two classes
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


def test_penalties_are_passed_to_the_calibrator(saved):
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


def test_probabilities_are_recognised(saved):
    p = calibration.TemperatureScaling().fit(Z, Y).predict_proba(0 * Z + Z)
    np.savez(saved / "p.npz", logits=p, labels=Y)
    result = calibrate("p.npz", "--from-probabilities", "--out", "report")
    assert result.exit_code == 0, result.output
    scaler = calibration.TemperatureScaling.load(saved / "report" / "calibrator.json")
    assert scaler.from_logits is False
    assert scaler.temperature_ == pytest.approx(1.0, abs=0.1)
    assert (saved / "report" / "temperature.png").exists()


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def rounded(saved) -> np.ndarray:
    """Probabilities of two digits, as forests give them; some labels have the probability 0."""
    p = np.exp(2 * HONEST - 2 * HONEST.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True)).round(2)
    np.savez(saved / "rounded.npz", logits=p.astype(np.float32), labels=Y)
    assert 0 < (p[np.arange(600), Y] == 0).sum() < 100
    return p


@pytest.mark.parametrize("method", ["isotonic", "histogram"])
def test_labels_of_probability_0_are_calibrated_by_bins(saved, rounded, method):
    result = calibrate("rounded.npz", "--from-probabilities", "--method", method, "--out", "report")
    assert result.exit_code == 0, result.output
    lost = int((rounded[np.arange(600), Y] == 0).sum())
    assert f"{lost} rows give their label the probability 0 before calibration" in result.output
    report, held = report_of(saved / "report"), ~split(saved)
    assert report["measures"]["nll"]["before"]["value"] is None
    brier = float(metrics.brier_score(Y[held], rounded[held].astype(np.float32)))
    assert report["measures"]["brier"]["before"]["value"] == pytest.approx(brier, rel=1e-5)


@pytest.mark.parametrize("method", ["temperature", "vector", "bias-corrected", "dirichlet"])
def test_labels_of_probability_0_need_a_clip_for_a_fit_by_likelihood(saved, rounded, method):
    arguments = ["rounded.npz", "--from-probabilities", "--method", method, "--out", "report"]
    lost = rounded[np.arange(600), Y] == 0
    refused = calibrate(*arguments)
    assert refused.exit_code == 2
    assert f"the probability 0 in {lost.sum()} of 600 rows, the first row {lost.argmax()}, which" in refused.output
    assert "--clip 1e-6" in refused.output
    result = calibrate(*arguments, "--clip", 1e-4)
    assert result.exit_code == 0, result.output
    scaler = calibration.load(saved / "report" / "calibrator.json")
    fitted = split(saved)
    p = rounded.astype(np.float32)
    expected = METHODS[method](from_logits=False, clip=1e-4).fit(p[fitted], Y[fitted])
    np.testing.assert_allclose(scaler.predict_proba(p), expected.predict_proba(p), rtol=1e-5, atol=1e-7)
    after = -np.log(expected.predict_proba(p.astype(np.float64))[~fitted, Y[~fitted]]).mean()
    assert report_of(saved / "report")["measures"]["nll"]["after"]["value"] == pytest.approx(after, rel=1e-5)


def test_masked_labels_are_refused_with_what_takes_them(saved):
    logits = Z.copy()
    logits[[5, 7], Y[[5, 7]]] = -np.inf
    np.savez(saved / "masked.npz", logits=logits, labels=Y)
    refused = calibrate("masked.npz", "--out", "report")
    assert refused.exit_code == 2
    assert "the probability 0 in 2 of 600 rows, the first row 5, which" in refused.output
    assert "--clip" not in refused.output
    assert calibrate("masked.npz", "--method", "isotonic", "--out", "report").exit_code == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("probabilities", [True, False])
def test_a_likelihood_is_finite_where_float32_probabilities_would_be_0(saved, dtype, probabilities):
    flat = 0.1 * HONEST
    apart = np.array([[0.0, 90.0, 3.0, 3.0], [90.0, 0.0, 5.0, 5.0]] * 300)
    labels = np.array([1, 0] * 299 + [0, 1])  # the two last have a probability of exp(-90)
    for name, logits, y in (("fit", flat, Y), ("apart", apart, labels)):
        p = np.exp(logits - logits.max(-1, keepdims=True))
        given = p / p.sum(-1, keepdims=True) if probabilities else logits
        np.savez(saved / f"{name}.npz", logits=given.astype(dtype), labels=y)
    kind = ["--from-probabilities"] if probabilities else []
    result = calibrate("fit.npz", "--eval-logits", "apart.npz", *kind, "--out", "report", resamples=2)
    assert result.exit_code == 0, result.output
    measures, scaler = report_of(saved / "report")["measures"]["nll"], calibration.load("report/calibrator.json")
    assert scaler.temperature_ == pytest.approx(0.1, rel=0.2)  # so that exp(-90 / T) is 0 in float64 too
    assert measures["before"]["value"] == pytest.approx(90 * 2 / 600, rel=1e-5)
    assert measures["after"]["value"] == pytest.approx(90 * 2 / 600 / scaler.temperature_, rel=1e-5)


def test_an_infinite_likelihood_advises_against_the_calibrator(saved):
    # Equal rows, except for a label of the evaluation part that is missing from the fit.
    logits = np.tile(np.float32([[0.0, 0.5, 1.0]]), (400, 1))
    np.savez(saved / "fit.npz", logits=logits, labels=np.arange(400) % 2 + 1)
    np.savez(saved / "eval.npz", logits=logits, labels=np.where(np.arange(400) == 9, 0, np.arange(400) % 2 + 1))
    result = calibrate("fit.npz", "--eval-logits", "eval.npz", "--method", "isotonic", "--out", "report", resamples=40)
    assert result.exit_code == 0, result.output
    assert re.search(r"NLL +0\.\d+ +inf +\+inf .*worse", result.output)
    for text in (result.output, (saved / "report" / "report.html").read_text(encoding="utf-8")):
        assert "the NLL has become infinite: do not use this calibrator" in " ".join(text.split())
    assert report_of(saved / "report")["measures"]["nll"]["after"]["value"] is None


def table_of(folder: Path, header: str, rows: np.ndarray) -> None:
    lines = [",".join(map(repr, row)) for row in rows.tolist()]
    (folder / "table.csv").write_text("\n".join([header, *lines]) + "\n")


def test_columns_that_were_used_are_listed(saved):
    pytest.importorskip("pyarrow")
    table_of(saved, "id,hen,cat,dog,cow,truth", np.column_stack([np.arange(600), Z[:, [3, 0, 1, 2]], Y]))
    refused = calibrate("table.csv", "--labels-key", "truth", "--out", "report")
    assert refused.exit_code == 2
    assert "are not named alike, 'id', 'hen', 'cat', 'dog', 'cow'" in refused.output
    result = calibrate("table.csv", "--labels-key", "truth", "--logits-key", "cat,dog,cow,hen", "--out", "report")
    assert result.exit_code == 0, result.output
    assert "Classes in order: logits are the columns cat, dog, cow, hen, labels the column truth." in result.output
    assert "cat, dog, cow, hen" in (saved / "report" / "report.html").read_text(encoding="utf-8")
    stored = report_of(saved / "report")["files"][0]
    assert stored["logits"]["columns"] == ["cat", "dog", "cow", "hen"]
    assert stored["labels"]["columns"] == ["truth"]
    fitted = split(saved)
    expected = calibration.TemperatureScaling().fit(Z[fitted], Y[fitted]).temperature_
    assert calibration.load("report/calibrator.json").temperature_ == pytest.approx(expected, rel=1e-5)


def test_an_evaluation_table_has_the_columns_of_the_first(saved):
    pytest.importorskip("pyarrow")
    table_of(saved, "p_b,p_a,p_c,p_d,labels", np.column_stack([Z, Y]))
    (saved / "table.csv").rename(saved / "other.csv")
    table_of(saved, "p_a,p_b,p_c,p_d,labels", np.column_stack([Z, Y]))
    result = calibrate("table.csv", "--eval-logits", "other.csv", "--out", "report")
    assert result.exit_code == 2
    assert "must have the columns of table.csv, p_a, p_b, p_c, p_d; got p_b, p_a, p_c, p_d" in result.output


def test_half_precision_is_measured_in_full(saved):
    np.savez(saved / "half.npz", logits=Z.astype(np.float16), labels=Y)
    result = calibrate("half.npz", "--out", "report")
    assert result.exit_code == 0, result.output


def test_warnings_of_the_fit_are_passed_on(saved):
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


def test_an_existing_folder_keeps_its_other_files(saved):
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
        (["both.npz", "--fit-fraction", 1], "--fit-fraction must be between 0 and 1"),
        (["both.npz", "--n-bins", 0], "--n-bins must be at least 1"),
        (["both.npz", "--seed", -1], "--seed must be at least 0"),
        (["both.npz", "--off-diagonal", 1], "is a penalty of --method matrix"),
        (["both.npz", "--method", "matrix", "--intercept", -1], "--intercept must be a finite number"),
        (["both.npz", "--out", "both.npz"], "--output must be a folder"),
        (["both.npz", "--clip", 0.6], "--clip must be between 0 and 0.5"),
        (["both.npz", "--clip", 1e-6], "--clip is for probabilities"),
        (["both.npz", "--from-probabilities", "--method", "isotonic", "--clip", 1e-6], "is for a fit by likelihood"),
    ],
)
def test_errors_take_one_line_and_leave_no_files(saved, arguments, message):
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


def test_the_choices_match_the_library():
    assert tuple(METHODS) == tuple(_choices.Method)
    assert tuple(CONVENTIONS) == tuple(_choices.Convention)
