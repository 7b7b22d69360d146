"""Common prediction files give a report, whose numbers are recomputed here, or an error with a fix."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
pytest.importorskip("pyarrow", reason="tables are read by it")
pytest.importorskip("scipy", reason="most methods need it")
from scipy import optimize
from typer.testing import CliRunner

from lsmooth._commands import app
from lsmooth.calibrate.data import Block, fit_rows

RNG = np.random.default_rng(0)
ANIMALS = np.array(["cat", "dog", "hen"])
LOGITS = RNG.normal(0, 2, (400, 3))
LABELS = (LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(-1)
SURE = 2.5 * LOGITS
"""Logits of a model that is too sure."""


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def write(path: str, header: list[str], rows, delimiter: str = ",") -> None:
    with Path(path).open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def run(line: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, shlex.split(f"calibrate --out report --resamples 5 {line}"))
    assert result.exit_code == code, result.output
    assert code == 0 or len(result.output.splitlines()) == 1
    return " ".join(result.output.split())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = dict.fromkeys(("reliability", "confidence", "risk_coverage"), b"")
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: pictures)  # which would take most of the time


# Recompute each measure by its definition, from the written numbers.


def binned(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """The calibration error of bins (lo, hi], in loops."""
    total = 0.0
    for k in range(bins):
        low = -1.0 if k == 0 else k / bins
        inside = (confidence > low) & (confidence <= (k + 1) / bins)
        total += abs(correct[inside].sum() - confidence[inside].sum())
    return total / len(confidence)


def smooth(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The bandwidth s with s = integral of |residuals smoothed by a reflected Gaussian of deviation s|."""
    grid = (np.arange(2000) + 0.5) / 2000
    mirrored = np.concatenate([2 * k + sign * confidence for k in (-1, 0, 1) for sign in (1, -1)])
    residuals = np.tile(correct - confidence, 6)

    def excess(s: float) -> float:
        kernel = np.exp(-0.5 * ((grid[:, None] - mirrored) / s) ** 2) / (s * np.sqrt(2 * np.pi))
        return np.abs(kernel @ residuals).mean() / len(confidence) - s

    bandwidth = np.ceil(1024 * optimize.brentq(excess, 1e-3, 1.0)) / 1024  # which is found to 1 / 1024
    return bandwidth + excess(bandwidth)


def measures(labels: np.ndarray, p: np.ndarray, binary: bool = False) -> dict[str, float]:
    confidence, correct = p.max(-1), (p.argmax(-1) == labels).astype(float)
    hot = np.eye(p.shape[1])[labels]
    order = np.argsort(-confidence, kind="stable")
    assert len(np.unique(confidence)) > 0.99 * len(confidence)  # or the order of rows would matter
    risks = np.cumsum(1 - correct[order]) / np.arange(1, len(labels) + 1)
    with np.errstate(divide="ignore"):
        losses = -np.log(p[np.arange(len(labels)), labels])
    return {
        "accuracy": correct.mean(),
        "ece": binned(confidence, correct),
        "classwise_ece": float(np.mean([binned(p[:, k], hot[:, k]) for k in range(p.shape[1])])),
        "smooth_ece": smooth(p[:, 1], labels.astype(float)) if binary else smooth(confidence, correct),
        "nll": losses.mean(),
        "brier": ((p - hot) ** 2).sum(-1).mean(),
        "aurc": risks.mean(),
    }


def temperature(labels: np.ndarray, z: np.ndarray) -> tuple[float, float, float, float]:
    """The likeliest temperature, its standard error, and the likelihood before and after."""

    def nll(log_t: float) -> float:
        return -np.log(softmax(z / np.exp(log_t))[np.arange(len(labels)), labels]).mean()

    best = optimize.minimize_scalar(nll, bounds=(-6, 9), method="bounded", options={"xatol": 1e-9}).x
    step = 1e-3
    curvature = (nll(best + step) - 2 * nll(best) + nll(best - step)) / step**2
    t = np.exp(best)
    return t, t / np.sqrt(curvature * len(labels)), nll(0.0), nll(best)


def assert_report(labels: np.ndarray, z: np.ndarray, binary: bool = False, rel: float = 2e-5) -> dict:
    """Every number of the report of a temperature that was fitted to these rows, split as by the command."""
    report = json.loads(Path("report/report.json").read_text())
    fitted = fit_rows(0, 0.5, Block(0, z, labels))
    y, x = labels.reshape(len(labels), -1), z.reshape(len(z), -1, z.shape[-1])
    counted = y != 255
    part = {on: (y[rows][counted[rows]], x[rows][counted[rows]]) for on, rows in ((True, fitted), (False, ~fitted))}
    t, error, first, second = temperature(*part[True])
    found = report["calibrator"]
    assert [found[name] for name in ("temperature", "temperature_stderr", "nll_before", "nll_after")] == pytest.approx(
        [t, error, first, second], rel=1e-4
    )
    assert report["rows"]["fit"] == len(part[True][0])
    assert report["rows"]["evaluation"] == report["rows"]["sample"] == len(part[False][0])
    assert report["rows"]["ignored"] == (~counted).sum()
    y, x = part[False]
    expected = {
        "before": measures(y, softmax(x), binary),
        "after": measures(y, softmax(x / found["temperature"]), binary),
    }
    for state, values in expected.items():
        got = {name: measure[state]["value"] for name, measure in report["measures"].items()}
        smoothed = got.pop("smooth_ece"), values.pop("smooth_ece")
        assert got == pytest.approx(values, rel=rel), state
        assert smoothed[0] == pytest.approx(smoothed[1], rel=1e-3)
        assert report["conventions"][state]["errors"]["guo"] == pytest.approx(values["ece"], rel=rel)
        hot, predicted = np.eye(x.shape[1])[y], softmax(x / (1.0 if state == "before" else found["temperature"]))
        for k, one in enumerate(report["per_class"]):
            assert one["rows"] == (y == k).sum()
            assert one[state] == pytest.approx(binned(predicted[:, k], hot[:, k]), rel=rel)
    for name, measure in report["measures"].items():
        change = measure["after"]["value"] - measure["before"]["value"]
        assert measure["change"]["value"] == pytest.approx(change, abs=1e-12), name
        for one in measure.values():
            assert one["low"] is None or one["low"] <= one["value"] <= one["high"]
    return report


def assert_width(interval: dict, rows: np.ndarray) -> None:
    """A 95% interval of a mean is about as wide as its standard error says."""
    expected = 2 * 1.96 * rows.std() / np.sqrt(len(rows))
    assert interval["high"] - interval["low"] == pytest.approx(expected, rel=0.35)


def test_a_forest_with_labels_that_are_names():
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = LOGITS + RNG.normal(size=LOGITS.shape)
    forest = ensemble.RandomForestClassifier(30, min_samples_leaf=5, random_state=0).fit(x[:200], ANIMALS[LABELS[:200]])
    p = forest.predict_proba(x) + 1e-4 * RNG.uniform(size=(400, 3))  # no ties
    p /= p.sum(-1, keepdims=True)
    rows = [[k, *row, name] for k, (row, name) in enumerate(zip(p.tolist(), ANIMALS[LABELS], strict=True))]
    write("forest.csv", ["", *forest.classes_, "label"], rows)  # as df.to_csv() writes it
    output = run("forest.csv")
    assert "look like probabilities and are taken for logits; if they are probabilities, add --from-prob" in output
    output = run("forest.csv --from-probabilities")
    assert "Note" not in output
    report = assert_report(LABELS, np.log(p))
    assert report["classes"] == [one["name"] for one in report["per_class"]] == ["cat", "dog", "hen"]
    assert report["files"][0]["probabilities"]["columns"] == ["cat", "dog", "hen"]
    assert "classes (cat, dog, hen)" in Path("report/report.html").read_text(encoding="utf-8")
    assert "labels the column label" in output


def test_a_forest_without_votes_for_the_label():
    p = softmax(SURE).round(1)
    p = (p / p.sum(-1, keepdims=True)).round(8)
    write("forest.csv", [*ANIMALS, "label"], [[*row, ANIMALS[k]] for row, k in zip(p.tolist(), LABELS, strict=True)])
    output = run("forest.csv --from-probabilities", 2)
    lost = p[np.arange(400), LABELS] == 0
    assert f"the probability 0 in {lost.sum()} of 400 rows, the first line {lost.argmax() + 2}, which" in output
    for cure in ("--method isotonic", "--clip 1e-6"):
        assert cure in output
        run(f"forest.csv --from-probabilities {cure}")


@pytest.mark.parametrize("positive", [None, "churned"])
def test_binary_predictions_out_of_fold(positive):
    z = SURE[:, 1] - SURE[:, 0]
    labels = (z / 2.5 + RNG.logistic(size=400) > 0).astype(int)
    written = np.where(labels, "churned", "stayed") if positive else labels
    p = 1 / (1 + np.exp(-z))
    rows = [[1000 + k, k % 5, name, one] for k, (name, one) in enumerate(zip(written, p.tolist(), strict=True))]
    write("oof.csv", ["id", "fold", "label", "score"], rows)
    assert "add --logits-key score" in run("oof.csv", 2)
    line = "oof.csv --logits-key score"
    if positive:
        assert "whose probability or logit the column score is, e.g. --positive-label stayed." in run(line, 2)
        line += " --positive-label churned"
    assert "look like probabilities" in run(line)
    output = run(f"{line} --from-probabilities --resamples 60")
    assert "the column score is that of the positive class" in output
    two = np.stack([0 * z, z], -1)
    report = assert_report(labels, two, binary=True)
    assert report["classes"] == (["stayed", "churned"] if positive else [])
    held = ~fit_rows(0, 0.5, Block(0, two, labels))
    losses = -np.log(np.where(labels, p, 1 - p))[held]
    assert_width(report["measures"]["nll"]["before"], losses)
    assert_width(report["measures"]["accuracy"]["before"], ((p > 0.5) == labels)[held])


@pytest.mark.parametrize("convention", ["torchmetrics", "netcal", "sklearn"])
def test_some_conventions_bin_the_probability_of_the_positive_class(convention):
    p = RNG.uniform(size=300)
    labels = (RNG.uniform(size=300) < p**2).astype(int)
    np.save("p.npy", p)
    np.save("y.npy", labels)
    run(f"p.npy y.npy --from-probabilities --convention {convention}")
    held = ~fit_rows(0, 0.5, Block(0, p, labels))
    got = json.loads(Path("report/report.json").read_text())["measures"]["ece"]["before"]["value"]
    assert got == pytest.approx(binned(p[held], labels[held]), rel=1e-4)
    errors = json.loads(Path("report/report.json").read_text())["conventions"]["before"]["errors"]
    assert errors[convention] == pytest.approx(got, rel=1e-6)


@pytest.mark.parametrize("names", [False, True])
def test_logits_of_a_model_beside_a_table_of_labels(names):
    np.save("logits.npy", SURE.astype(np.float32))
    labels = ANIMALS[LABELS] if names else LABELS
    write("labels.csv", ["id", "label"], list(zip(range(400), labels, strict=True)))
    line = "logits.npy labels.csv"
    if names:
        assert "add --classes cat,dog,hen with the names in the order of the 3 classes" in run(line, 2)
        line += " --classes cat,dog,hen"
    run(line)
    report = assert_report(LABELS, SURE.astype(np.float32).astype(float))
    assert report["classes"] == (ANIMALS.tolist() if names else [])
    assert "predictions come first: lsmooth calibrate logits.npy labels.csv" in run("labels.csv logits.npy", 2)


def test_a_segmentation():
    z = SURE[:384].reshape(24, 4, 4, 3)
    labels = LABELS[:384].reshape(24, 4, 4).copy()
    labels[:, 0, 1] = 255
    np.savez_compressed("masks.npz", logits=np.moveaxis(z, -1, 1), labels=labels.astype(np.uint8))
    output = run("masks.npz", 2)
    assert "got 255 in row 0, position (0, 1). Rows to leave out: --ignore-index 255." in output
    run("masks.npz --ignore-index 255")  # the class axis is the only one that fits the labels
    assert_report(labels, z)


@pytest.mark.parametrize("lists", [False, True])
def test_a_parquet_of_log_probabilities(lists):
    import pyarrow as pa
    import pyarrow.parquet as pq

    log_p = np.log(softmax(SURE))
    columns = {"logits": list(log_p)} if lists else {f"logp_{name}": log_p[:, k] for k, name in enumerate(ANIMALS)}
    labels = {"label": LABELS if lists else pa.array(ANIMALS[LABELS])}
    pq.write_table(pa.table({"row_id": np.arange(400), **columns, **labels}), "p.parquet")
    assert "if they are log-probabilities, add --from-logits: those are logits" in run(
        "p.parquet --from-probabilities", 2
    )
    assert "Note" not in run("p.parquet")
    report = assert_report(LABELS, log_p)
    assert report["classes"] == ([] if lists else ANIMALS.tolist())


# Numbers of another kind than stated are reported and used unchanged.


def kind(p: np.ndarray, labels: np.ndarray, more: str = "", code: int = 0) -> str:
    np.save("p.npy", p)
    np.save("y.npy", labels)
    return run(f"p.npy y.npy {more}", code)


@pytest.mark.parametrize("binary", [False, True])
def test_results_of_another_kind_are_reported_and_change_nothing(binary):
    p, labels = softmax(LOGITS), LABELS
    if binary:
        p, labels = p[:, 1], (labels == 1).astype(int)
    z = np.log(p / (1 - p)) if binary else np.log(p) + 1
    assert "look like probabilities and are taken for logits; if they are probabilities, add --from-p" in kind(
        p, labels
    )
    assert_report(labels, np.stack([0 * p, p], -1) if binary else p, binary)
    output = kind(100 * p, labels)
    assert (
        "look like percentages and are taken for logits; if they are percentages, divide them by 100 and add" in output
    )
    given = np.stack([0 * p, 100 * p], -1) if binary else 100 * p
    held = ~fit_rows(0, 0.5, Block(0, given, labels))
    losses = np.log(np.exp(given).sum(-1)) - given[np.arange(400), labels]
    measured = json.loads(Path("report/report.json").read_text())["measures"]["nll"]["before"]["value"]
    assert measured == pytest.approx(losses[held].mean(), rel=1e-6)
    assert "Note" not in kind(z, labels)
    assert "Note" not in kind(p, labels, "--from-probabilities")
    for given, cure in (
        (100 * p, "if they are percentages, divide them by 100; add --from-logits if they are logits"),
        (z, "add --from-logits if they are logits"),
        (np.log(p), "if they are log-probabilities, add --from-logits: those are logits"),
    ):
        output = kind(given, labels, "--from-probabilities", 2)
        assert "are not probabilities: row " in output
        assert cure in output


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LABELS, SURE),
        (LABELS.astype(float), SURE[:, 0]),
        (LABELS % 2, softmax(SURE)[:, 0]),
        (LABELS.astype(np.uint8), SURE.astype(np.float32)),
    ],
)
def test_the_error_says_labels_come_before_predictions(first, second):
    assert "come first: lsmooth calibrate y.npy p.npy" in kind(first, second, code=2)


def test_classes_without_rows_are_named():
    data = [[*row, ANIMALS[k]] for row, k in zip(SURE.tolist(), LABELS, strict=True) if k != 1]
    write("t.csv", ["p_cat", "p_dog", "p_hen", "label"], data)
    assert "1 of 3 classes have no row: dog." in run("t.csv")


def test_several_labels_a_row():
    z, labels = SURE, (LOGITS + RNG.logistic(size=LOGITS.shape) > 0).astype(int)
    columns = [f"z_{name}" for name in ANIMALS] + [f"y_{name}" for name in ANIMALS]
    write("t.tsv", columns, np.concatenate([z, labels], 1).tolist(), "\t")
    run("t.tsv --binary --logits-key 'z_*' --labels-key 'y_*'")
    report = json.loads(Path("report/report.json").read_text())
    held = ~fit_rows(0, 0.5, Block(0, z, labels))
    expected = -np.log(1 / (1 + np.exp(np.where(labels, -z, z))))[held]
    assert report["measures"]["nll"]["before"]["value"] == pytest.approx(expected.mean(), rel=1e-5)
    assert report["classes"] == ANIMALS.tolist()
