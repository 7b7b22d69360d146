"""``lsmooth calibrate`` on many files: the same bits as one file with the same rows."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
pytest.importorskip("scipy", reason="most methods need it")
pytest.importorskip("pyarrow", reason="tables need it")
from typer.testing import CliRunner

from lsmooth._commands import app
from lsmooth.calibrate import Options, calibrate, fitting, measures, open_data
from lsmooth.calibrate import data as blocks
from lsmooth.calibrate import run as module_run

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (500, 3))
Y = (HONEST + RNG.gumbel(size=HONEST.shape)).argmax(-1)
Z = (3 * HONEST).astype(np.float32)
CUTS = [0, 1, 130, 131, 400, 500]
NAMES = np.array(["hen", "cat", "dog"])


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments), "--resamples", "10"])


def results(folder: Path) -> dict:
    """Everything the command has found, the names of the files and the time it took left out."""
    report = json.loads((folder / "report.json").read_text())
    del report["files"], report["seconds"]
    return {**report, "calibrator.json": (folder / "calibrator.json").read_text()}


def write(path: Path, z, y, w) -> None:
    """Logits, labels and weights in a file, by its ending."""
    if path.suffix == ".npz":
        np.savez(path, logits=z, labels=y, w=w)
    elif path.suffix == ".safetensors":
        numpy = pytest.importorskip("safetensors.numpy")
        numpy.save_file({"logits": np.ascontiguousarray(z), "labels": y.copy(), "w": w.copy()}, path)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {f"p_{name}": z[:, k] for k, name in enumerate(NAMES)}
        pq.write_table(pa.table({**columns, "labels": NAMES[y], "w": w}), path)
    else:
        header = [*(f"p_{name}" for name in NAMES), "labels", "w"]
        lines = [
            ",".join([*map(repr, row.tolist()), name, repr(float(weight))])
            for row, name, weight in zip(z, NAMES[y], w, strict=True)
        ]
        path.write_text("\n".join([",".join(header), *lines, ""]))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 rows, so that files end within them."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 64 * Z.shape[1])


@pytest.fixture
def folder(tmp_path, monkeypatch, small_blocks) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    pictures = dict.fromkeys(("reliability", "confidence", "risk_coverage", "classes"), b"")
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: pictures)
    return tmp_path


def split(suffix: str) -> None:
    weight = np.linspace(0.5, 2.0, len(Y))
    write(Path(f"whole{suffix}"), Z, Y, weight)
    for k, (start, stop) in enumerate(itertools.pairwise(CUTS)):
        write(Path(f"parts/{k}{suffix}"), Z[start:stop], Y[start:stop], weight[start:stop])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet", ".csv"])
def test_many_files_give_the_same_bits_as_one(folder, suffix):
    split(suffix)
    assert run(f"whole{suffix}", "--weights-key", "w", "--out", "one").exit_code == 0
    many = run(f"parts/*{suffix}", "--weights-key", "w", "--out", "many")
    assert many.exit_code == 0, many.output
    assert results(folder / "many") == results(folder / "one")


def test_a_folder_a_pattern_and_a_list_are_the_same_files(folder):
    split(".npz")
    for name, arguments in {
        "folder": ["parts"],
        "pattern": ["parts/*.npz"],
        "list": sorted(Path("parts").iterdir()),
    }.items():
        assert run(*arguments, "--out", name).exit_code == 0
    assert results(folder / "folder") == results(folder / "pattern") == results(folder / "list")
    files = json.loads((folder / "list" / "report.json").read_text())["files"][0]["logits"]
    assert files["paths"] == [f"parts/{k}.npz" for k in range(5)]
    assert "Calibration of 5 files" in (folder / "list" / "report.html").read_text(encoding="utf-8")


def test_two_files_of_the_same_arrays_are_two_parts(folder):
    for name, rows in {"a.npz": slice(200), "b.npz": slice(200, None)}.items():
        np.savez(name, logits=Z[rows], labels=Y[rows])
    np.savez("whole.npz", logits=Z, labels=Y)
    assert run("a.npz", "b.npz", "--out", "many").exit_code == 0
    assert run("whole.npz", "--out", "one").exit_code == 0
    assert results(folder / "many") == results(folder / "one")


@pytest.mark.parametrize("arguments", [["z-*.npy", "y-*.npy"], ["z-0.npy", "z-1.npy", "--labels", "y-*.npy"]])
def test_labels_may_be_in_files_of_their_own(folder, arguments):
    for k, rows in enumerate((slice(200), slice(200, None))):
        np.save(f"z-{k}.npy", Z[rows].astype("float32" if k else "float64"))
        np.save(f"y-{k}.npy", Y[rows])
    np.save("z.npy", Z.astype(np.float64))
    np.save("y.npy", Y)
    assert run("z.npy", "y.npy", "--out", "one").exit_code == 0
    result = run(*arguments, "--out", "many")
    assert result.exit_code == 0, result.output
    assert results(folder / "many") == results(folder / "one")


def test_many_files_to_measure_on(folder):
    split(".npz")
    result = run("whole.npz", "--eval-logits", "parts/*.npz", "--out", "many")
    assert result.exit_code == 0, result.output
    assert run("whole.npz", "--eval-logits", "whole.npz", "--out", "one").exit_code == 0
    assert results(folder / "many") == results(folder / "one")


def test_columns_in_another_order_are_put_in_that_of_the_first_file(folder):
    Path("a.csv").write_text("cat,dog,y\n1,2,dog\n2,1,cat\n3,5,dog\n")
    Path("b.csv").write_text("dog,y,cat\n2.5,cat,1\n3,cat,5\n1,dog,0\n")
    Path("c.csv").write_text("cat,dog,y\n1,2,dog\n2,1,cat\n3,5,dog\n1,2.5,cat\n5,3,cat\n0,1,dog\n")
    assert run("a.csv", "b.csv", "--labels-key", "y", "--out", "many").exit_code == 0
    assert run("c.csv", "--labels-key", "y", "--out", "one").exit_code == 0
    assert results(folder / "many") == results(folder / "one")


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_several_processes_give_the_same_bits(folder, method):
    split(".npz")
    for jobs in (1, 2):
        result = run("parts", "--n-jobs", jobs, "--method", method, "--out", f"jobs-{jobs}")
        assert result.exit_code == 0, result.output
    assert results(folder / "jobs-1") == results(folder / "jobs-2")


def test_a_bad_row_is_named_by_several_processes_too(folder):
    Path("a.csv").write_text(ROWS)
    Path("b.csv").write_text(ROWS.replace("5", "nan"))
    result = run("a.csv", "b.csv", "--labels-key", "y", "--n-jobs", 2, "--out", "report")
    assert "have NaN in line 4 of b.csv" in result.stderr
    assert not list(folder.glob(".report*"))


KILLED = """
import os, signal, sys
from lsmooth._commands import app
from lsmooth.calibrate import data, passes, report

data.BLOCK_ELEMENTS = 64 * 3
report.figures = lambda _: {}
save = passes.Sums.save

def save_and_die(sums, path, done):
    save(sums, path, done)
    if path.name == sys.argv[1] and done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

passes.Sums.save = save_and_die
app(sys.argv[3:])
"""


def killed(stage: str, blocks: int, *arguments) -> None:
    """A run of the command that is killed when it has saved so many blocks of a stage."""
    command = [sys.executable, "-c", KILLED, stage, str(blocks), "calibrate", *arguments, "--resamples", "10"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """Where the blocks that are read start."""
    starts: list[int] = []
    rows = blocks.Data.rows

    def counted(self, start, stop):
        starts.append(start)
        return rows(self, start, stop)

    monkeypatch.setattr(blocks.Data, "rows", counted)
    return starts


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(
    ("method", "stage", "done"),
    [
        ("temperature", "checking.npz", 3),
        ("temperature", "fitting,-pass-2.npz", 1),
        ("temperature", "measuring.npz", 2),
        ("vector", "fitted.npz", 1),
    ],
)
def test_a_killed_run_resumes(folder, read, method, stage, done):
    split(".npz")
    arguments = ["parts", "--method", method]
    assert run(*arguments, "--out", "whole").exit_code == 0
    all_blocks = len(read)
    killed(stage, done, *arguments, "--out", "report")
    assert not Path("report").exists()
    unpacked = {path: path.stat().st_mtime_ns for path in Path(".report-unfinished/scratch").glob("*.bin")}
    assert len(unpacked) >= 10, "five files of logits and labels"

    read.clear()
    assert run(*arguments, "--out", "report").exit_code == 0
    assert results(folder / "report") == results(folder / "whole")
    assert 0 < len(read) <= all_blocks - done
    assert not list(folder.glob(".report*"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_changed_files_are_read_again(folder, read):
    split(".npz")
    killed("measuring.npz", 2, "parts", "--out", "report")
    write(Path("parts/1.npz"), 2 * Z[1:130], Y[1:130], np.ones(129))
    read.clear()
    assert run("parts", "--out", "report").exit_code == 0
    resumed = len(read)
    read.clear()
    assert run("parts", "--out", "whole").exit_code == 0
    assert resumed == len(read)
    assert results(folder / "report") == results(folder / "whole")


def test_memory_does_not_grow_with_the_number_of_files(folder, monkeypatch):
    for module, name in ((measures, "SAMPLE_ROWS"), (module_run, "SAMPLE_ROWS"), (fitting, "_CURVE_ELEMENTS")):
        monkeypatch.setattr(module, name, 100)
    monkeypatch.setattr(module_run, "CLASSWISE_ELEMENTS", 1000)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1024 * Z.shape[1])
    peaks = []
    for files in (2, 8):
        for k in range(files):
            np.save(f"z-{k:02}.npy", np.tile(Z, (8, 1)))
            np.save(f"y-{k:02}.npy", np.tile(Y, 8))
        tracemalloc.start()
        opened = open_data(sorted(Path().glob("z-*.npy")), sorted(Path().glob("y-*.npy")), folder, lambda *_: None)
        calibrate(opened, None, Options(resamples=2), folder, lambda *_: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Of the rows that are 24,000 more, the logits alone are 288 kB.
    assert peaks[1] < 1.2 * peaks[0]


ROWS = "cat,dog,y\n1,2,dog\n2,1,cat\n3,5,dog\n"


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({"b.csv": "# a comment\n\ncat,hen,y\n1,2,cat\n"}, ["?.csv"], r"b\.csv, line 3, .*'hen'.*a\.csv 'cat', 'dog'"),
        ({"b.csv": "cat,dog,hen,y\n1,2,3,cat\n"}, ["?.csv"], r"b\.csv, line 1, .*'hen'.*the same columns"),
        ({"b.csv": "cat,dog,y\n1,2,dog\n3,oops,cat\n"}, ["?.csv"], r"b\.csv .*line 3"),
        ({"b.csv": "cat,dog,y\n1,2,dog\n3,inf,cat\n"}, ["?.csv"], r"an infinity in line 3 of b\.csv"),
        ({"b.csv": "cat,dog,y\n1,2,dog\n3,4,cow\n"}, ["?.csv", "--classes", "cat,dog"], r"cow|line 3 of b\.csv"),
        ({}, ["no-*.csv"], r"No file matches no-\*\.csv"),
        ({}, ["empty"], "empty is a folder without a file that ends in"),
        ({}, ["a.csv", "a.csv", "?.csv"], r"a\.csv is given twice"),
    ],
)  # fmt: skip
def test_differing_files_and_lines_are_named(folder, files, arguments, message):
    Path("a.csv").write_text(ROWS)
    Path("empty").mkdir()
    for name, text in files.items():
        Path(name).write_text(text)
    result = run(*arguments, "--labels-key", "y", "--out", "report")
    assert result.exit_code == 2
    assert not Path("report").exists()
    assert len(result.stderr.splitlines()) == 1
    assert re.search(message, result.stderr), result.stderr


def test_numbers_of_classes_and_rows_that_differ_are_refused(folder):
    np.save("z-0.npy", Z[:100])
    np.save("z-1.npy", Z[:100, :2])
    np.save("y-0.npy", Y[:100])
    np.save("y-1.npy", Y[:90])
    result = run("z-?.npy", "y-?.npy", "--out", "report")
    assert "z-1.npy have rows of shape (2,), those in z-0.npy of (3,)" in result.stderr
    np.save("z-1.npy", Z[:100])
    result = run("z-?.npy", "y-?.npy", "--out", "report")
    assert "labels in y-1.npy are 90 rows and logits in z-1.npy" in result.stderr
    assert not Path("report").exists()
