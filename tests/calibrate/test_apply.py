"""``lsmooth apply``: calibrated probabilities added to the columns of a file."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
pytest.importorskip("scipy", reason="most methods need it")
pytest.importorskip("pyarrow", reason="tables are read by it")
from typer.testing import CliRunner

from lsmooth import calibration
from lsmooth._commands import app
from lsmooth.calibrate import data

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (200, 3))
Z = 2 * HONEST
LABELS = (HONEST + RNG.gumbel(size=HONEST.shape)).argmax(-1)
ANIMALS = np.array(["cat", "dog", "hen"])
NEW = RNG.normal(0, 3, (23, 3))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pictures = dict.fromkeys(("reliability", "confidence", "risk_coverage"), b"")
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: pictures)  # which would take most of the time
    monkeypatch.setattr(data, "BLOCK_ELEMENTS", 40)  # blocks of 13 rows and fewer
    return tmp_path


def run(*arguments, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert code == 0 or len(result.output.splitlines()) == 1
    return " ".join(result.output.split())


def fit(*arguments) -> calibration.Calibrator:
    run("calibrate", *arguments, "--out", "report", "--resamples", 2)
    return calibration.load("report/calibrator.json")


def fit_table(*more, columns=("p_cat", "p_dog", "p_hen"), values=Z) -> calibration.Calibrator:
    rows = [[*row, ANIMALS[k]] for row, k in zip(values.tolist(), LABELS, strict=True)]
    with Path("fit.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*columns, "label"], *rows])
    return fit("fit.csv", *more)


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_a_text_table_keeps_its_columns_and_gets_calibrated_ones(suffix):
    scaler = fit_table()
    mark = "\t" if "tsv" in suffix else ","
    header = ["", "note", "p_hen", "p_cat", "p_dog"]
    rows = [[str(k), f'a{mark} "b"\nc', *map(str, NEW[k, [2, 0, 1]])] for k in range(23)]
    with (gzip.open if "gz" in suffix else open)(f"new{suffix}", "wt", newline="") as file:
        file.write("# a comment\n")
        csv.writer(file, delimiter=mark).writerows([header, *rows])
    output = run("apply", "report/calibrator.json", f"new{suffix}")
    assert f"new_calibrated{suffix}" in output
    with (gzip.open if "gz" in suffix else open)(f"new_calibrated{suffix}", "rt", newline="") as file:
        written = list(csv.reader(file, delimiter=mark))
    assert written[0] == [*header, "calibrated_cat", "calibrated_dog", "calibrated_hen"]
    assert [row[:5] for row in written[1:]] == rows
    got = np.array([row[5:] for row in written[1:]], float)
    np.testing.assert_allclose(got, softmax(NEW / scaler.temperature_), rtol=1e-6)
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith((".", "new"))) == [
        f"new{suffix}",
        f"new_calibrated{suffix}",
    ]


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("group", [3, 10, 1000])
def test_a_parquet_keeps_its_columns_and_gets_calibrated_ones(lists, group):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"id": list(range(23)), "when": [str(k) for k in range(23)]}
    if lists:
        np.savez("fit.npz", logits=Z, labels=LABELS)
        scaler = fit("fit.npz", "--method", "vector")
        pq.write_table(pa.table({**table, "logits": list(NEW)}), "new.parquet", row_group_size=group)
    else:
        scaler = fit_table("--method", "vector")
        columns = {f"p_{name}": NEW[:, k] for k, name in enumerate(ANIMALS)}
        pq.write_table(pa.table({**table, **columns}), "new.parquet", row_group_size=group)
    run("apply", "report/calibrator.json", "new.parquet", "--out", "out.parquet")
    written = pq.read_table("out.parquet")
    assert written.select(["id", "when"]).to_pydict() == table
    if lists:
        got = np.array(written["calibrated_logits"].to_pylist())
    else:
        got = np.stack([written[f"calibrated_{name}"].to_numpy() for name in ANIMALS], -1)
    np.testing.assert_allclose(got, scaler.predict_proba(NEW), rtol=1e-6)


@pytest.mark.parametrize("shape", [(23,), (23, 1)])
@pytest.mark.parametrize("from_logits", [True, False])
def test_one_column_stays_one_column(shape, from_logits):
    z, labels = Z[:, 1], (LABELS == 1).astype(int)
    sigmoid = {True: lambda z: z, False: lambda z: 1 / (1 + np.exp(-z))}[from_logits]
    np.save("z.npy", sigmoid(z))
    np.save("y.npy", labels)
    scaler = fit("z.npy", "y.npy", *([] if from_logits else ["--from-probabilities"]))
    np.save("new.npy", sigmoid(NEW[:, 0]).reshape(shape))
    run("apply", "report/calibrator.json", "new.npy")
    got = np.load("new_calibrated.npy")
    assert got.shape == shape
    np.testing.assert_allclose(got.reshape(-1), 1 / (1 + np.exp(-NEW[:, 0] / scaler.temperature_)), rtol=1e-5)
    Path("new.csv").write_text("score\n" + "".join(f"{value}\n" for value in sigmoid(NEW[:, 0])))
    run("apply", "report/calibrator.json", "new.csv")
    written = np.loadtxt("new_calibrated.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(written[:, 1], got.reshape(-1), rtol=1e-6)
    assert Path("new_calibrated.csv").read_text().startswith("score,calibrated_score\n")


def test_dense_predictions_keep_their_axis():
    z, labels = np.moveaxis(Z.reshape(25, 4, 2, 3), -1, 1), LABELS.reshape(25, 4, 2)
    np.savez("fit.npz", logits=z, labels=labels)
    scaler = fit("fit.npz", "--axis", 1)
    new = np.moveaxis(NEW[:16].reshape(2, 4, 2, 3), -1, 1)
    np.savez("new.npz", logits=new)
    run("apply", "report/calibrator.json", "new.npz")
    expected = np.moveaxis(softmax(np.moveaxis(new, 1, -1) / scaler.temperature_), -1, 1)
    np.testing.assert_allclose(np.load("new_calibrated.npy"), expected, rtol=1e-6)


def test_several_labels_a_row_are_calibrated_one_by_one():
    np.save("z.npy", Z)
    np.save("y.npy", (Z > 0).astype(int) ^ (RNG.uniform(size=Z.shape) < 0.2))
    scaler = fit("z.npy", "y.npy", "--binary")
    np.save("new.npy", NEW)
    run("apply", "report/calibrator.json", "new.npy")
    np.testing.assert_allclose(np.load("new_calibrated.npy"), 1 / (1 + np.exp(-NEW / scaler.temperature_)), rtol=1e-5)


def test_a_calibrator_without_its_report_uses_the_named_columns():
    scaler = fit_table()
    Path("report/calibrator.json").rename("calibrator.json")
    rows = [",".join(map(repr, row)) for row in NEW.tolist()]
    Path("new.csv").write_text("\n".join(["age,x,b", *rows]))
    assert "are not named alike" in run("apply", "calibrator.json", "new.csv", code=2)
    run("apply", "calibrator.json", "new.csv", "--logits-key", "age,x,b")
    written = np.loadtxt("new_calibrated.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(written[:, 3:], softmax(NEW / scaler.temperature_), rtol=1e-6)


def test_results_of_another_kind_are_reported():
    fit_table()
    rows = [",".join(map(repr, row)) for row in softmax(NEW).tolist()]
    Path("new.csv").write_text("\n".join(["p_cat,p_dog,p_hen", *rows]))
    assert "look like probabilities and are taken for logits" in run("apply", "report/calibrator.json", "new.csv")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            "p_cat,p_dog\n1,2\n",
            [],
            "must have the columns that the calibrator was fitted to, p_cat, p_dog, p_hen; name",
        ),
        ("p_cat,p_dog,p_hen\n1,2,3\n\n1,,3\n", [], "have NaN in line 4"),
        ("p_cat,p_dog,p_hen,calibrated_dog\n1,2,3,4\n", [], "has a column 'calibrated_dog' already; drop it"),
        ("a,b\n1,2\n", ["--logits-key", "a,b"], "have shape (1, 2), and the calibrator was fitted to 3 classes"),
        ("p_cat,p_dog,p_hen\n1,2,3\n", ["--out", "new.csv"], "must be another file than the predictions"),
        ("p_cat,p_dog,p_hen\n1,2,3\n", ["--out", "new.npy"], "must be a file that ends in .csv"),
        ("p_cat,p_dog,p_hen\n1,2,3\n", ["--out", "no/new.csv"], "must be in an existing folder"),
        ("p_cat;p_dog;p_hen\n1,5;2;3\n", [], "if commas are decimal separators, add --decimal ,"),
    ],
)
def test_errors_take_one_line_and_leave_no_files(folder, text, arguments, message):
    fit_table()
    Path("new.csv").write_text(text)
    before = {path.name for path in folder.iterdir()}
    output = run("apply", "report/calibrator.json", "new.csv", *arguments, code=2)
    assert output.startswith("Error: ")
    assert message in output
    assert {path.name for path in folder.iterdir()} == before
    assert Path("new.csv").read_text() == text


def test_files_that_are_no_calibrators_are_refused():
    Path("x.json").write_text("{}")
    np.save("new.npy", NEW)
    assert "x.json is not a calibrator saved by lsmooth" in run("apply", "x.json", "new.npy", code=2)
    assert "y.json" in run("apply", "y.json", "new.npy", code=2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_of_several_files_gets_a_file_of_its_own(folder, jobs):
    fit_table()
    for name, logits in {"a": "2,0,0", "b": "0,3,0"}.items():
        (folder / f"{name}.csv").write_text(f"p_cat,p_dog,p_hen\n{logits}\n")
    (folder / "to").mkdir()
    run("apply", "report/calibrator.json", "a.csv", "b.csv", "--out", "to", "--n-jobs", jobs)
    for name in ("a_calibrated.csv", "b_calibrated.csv"):
        run("apply", "report/calibrator.json", f"{name[0]}.csv")
        assert (folder / "to" / name).read_text() == (folder / name).read_text()
    run("apply", "report/calibrator.json", "[ab]*.csv")  # the written columns are not predictions
    refused = run("apply", "report/calibrator.json", "[ab].csv", "--out", "no", code=2)
    assert "--output must be an existing folder" in refused
