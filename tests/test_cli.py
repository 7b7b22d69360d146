"""The command line: its output, its files and its errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the study's pictures need it")
pytest.importorskip("sklearn", reason="the study's data come with scikit-learn")
from conftest import require_backend
from typer.testing import CliRunner

import lsmooth
from lsmooth._commands import _choices, app, study
from lsmooth._report import staged
from lsmooth.calibration import TemperatureScaling
from lsmooth.study.config import BACKENDS, Plan, Training
from lsmooth.study.data import DATASETS
from lsmooth.study.figures import PICTURES
from lsmooth.study.trainers import installed_trainers
from lsmooth.study.translation import COLUMNS

TINY = Plan(
    alphas=(0.0, 0.1),
    seeds=(0, 1),
    training=Training(hidden=(16,), steps=40, rounds=2),
    student=Training(hidden=(8,), steps=40, rounds=2),
    student_alphas=(0.0,),
    temperatures=(2.0,),
    draws=3,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


TRANSLATED = {smoothing: [{name: 61.25 for name, *_ in COLUMNS}] for smoothing in ("0", "0.1")}


@pytest.fixture(autouse=True)
def tiny_plans(monkeypatch):
    monkeypatch.setattr("lsmooth._commands.study.QUICK", TINY)
    monkeypatch.setattr("lsmooth._commands.study.FULL", TINY)


@pytest.fixture(params=BACKENDS)
def trainer(request: pytest.FixtureRequest) -> str:
    require_backend(request.param)
    if request.param not in installed_trainers():
        pytest.skip(f"what {request.param} trains with is not installed")
    return request.param


@pytest.fixture
def any_trainer() -> None:
    if not installed_trainers():
        pytest.skip("no framework to train with")


def test_the_study_leaves_its_report(tmp_path, trainer):
    folder = tmp_path / "new" / "report"
    result = run("study", "--backend", trainer, "--quick", "--output", folder)
    assert result.exit_code == 0, result.output
    assert f"digits on {trainer}" in result.output
    assert "Against the paper" in result.output
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "report.json",
        "temperature_scaling.json",
        "generalisation.png",
        "reliability.png",
        "calibration.png",
        "projection.png",
        "distillation.png",
        "information.png",
    }
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")

    report = json.loads((folder / "report.json").read_text())
    assert report["backend"] == trainer
    assert report["lsmooth"] == lsmooth.__version__
    assert report["dataset"]["rows"] == {"train": 179, "validation": 539, "test": 1079}
    assert [network["alpha"] for network in report["networks"]] == [0.0, 0.1]
    for network in report["networks"]:
        for name in ("error", "nll", "ece", "confidence", "temperature", "ece_scaled", "nll_scaled"):
            values = network[name]["values"]
            assert network[name]["mean"] == pytest.approx(np.mean(values))
            assert network[name]["stderr"] == pytest.approx(np.std(values, ddof=1) / 2**0.5)
        assert network["error"]["mean"] < 0.5
    assert {finding["verdict"] for finding in report["findings"]} <= {"agrees", "disagrees", "inside the noise"}
    assert [(s["teacher_alpha"], s.get("temperature")) for s in report["students"]] == [(None, None), (0, 2), (0.1, 1)]
    assert report["students"][0]["gamma"]["mean"] == 0
    assert [len(history["nats"]) for history in report["information"]["rounds"]] == [2, 2]
    scaler = TemperatureScaling.load(folder / "temperature_scaling.json")
    assert scaler.temperature_ == report["networks"][0]["temperature"]["values"][0]


def test_the_html_report_is_one_file(tmp_path, any_trainer):
    (tmp_path / "translated.json").write_text(json.dumps({"framework": "jax", "smoothing": TRANSLATED}))
    translation = ("--translation", tmp_path / "translated.json")
    result = run("study", "--dataset", "wine", "--seeds", 1, *translation, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 6
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "<link" not in html
    assert "@import" not in html
    assert "The paper's claim" in html
    assert "inside the noise" in html
    assert "72.7" in html
    assert "61.25" in html, "the BLEU of the translator"
    assert "Smoothing of 0.1 makes its BLEU better." in html
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["translation"]["runs"][1]["BLEU beam"] == [61.25]


def test_user_data_can_be_studied(tmp_path, any_trainer):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(80, 3)) + 2 * y[:, None], y=y)
    result = run("study", "--data", tmp_path / "own.npz", "--seeds", 1, "--output", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "own.npz on" in result.output
    assert not (tmp_path / "report" / "projection.png").exists()
    assert "Two classes span no plane" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, got 0."),
        (["--data", "absent.npz"], "absent.npz, which is not there"),
        (["--translation", "absent.json"], "absent.json"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    result = run("study", "--output", tmp_path / "report", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        (["study"], "--backend", BACKENDS),
        (["study"], "--dataset", DATASETS),
        (["calibrate", "z.npy"], "--method", ("temperature", "isotonic")),
        (["calibrate", "z.npy"], "--convention", ("guo", "sklearn")),
        (["calibrate", "z.npy"], "--decimal", (".", ",")),
        (["apply", "calibrator.json", "z.csv"], "--decimal", (".", ",")),
    ],
)
def test_choices_are_in_the_help_and_in_the_error(monkeypatch, command, option, choices):
    monkeypatch.setenv("COLUMNS", "400")
    line = next(line for line in run(command[0], "--help").output.splitlines() if option in line)
    refused = run(*command, option, "caffe")
    assert refused.exit_code == 2
    for choice in choices:
        assert choice in line
        assert repr(str(choice)) in refused.output.partition("'caffe' is not one of")[2]


def test_the_choices_of_the_study_match_the_library():
    assert tuple(_choices.Framework) == BACKENDS
    assert tuple(_choices.Dataset) == DATASETS


@pytest.mark.parametrize("width", [40, 60, 80])
def test_tables_are_not_truncated(tmp_path, monkeypatch, any_trainer, width):
    monkeypatch.setattr(study.console, "_width", width)
    monkeypatch.setattr("lsmooth.study.report.figures", lambda results: dict.fromkeys(PICTURES, b""))
    for arguments in (["study", "--dataset", "wine", "--seeds", 2, "--output", tmp_path], ["info"]):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert "…" not in result.output
        tables = result.output.partition("Report:")[0].splitlines()[:-1]
        assert max(map(len, tables)) <= width


def test_a_report_needs_a_folder(tmp_path):
    (tmp_path / "file").touch()
    result = run("study", "--output", tmp_path / "file")
    assert result.exit_code == 2
    assert "--output must be a folder" in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write into is needed")
@pytest.mark.parametrize("command", [["study"], ["calibrate", "z.npy"], ["bench", "overhead"]], ids=lambda c: c[0])
@pytest.mark.parametrize("option", ["--output", "--out", "-o"])
def test_the_output_folder_is_checked_first(monkeypatch, command, option):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("lsmooth.study.run_study", work)
    monkeypatch.setattr("lsmooth.bench.run.run_suites", work)
    result = run(*command, option, "/proc/report")
    assert result.exit_code == 2, result.output
    assert "--output must be a folder that can be written, and /proc cannot" in result.output


@pytest.mark.parametrize(
    ("command", "work", "left"),
    [
        (["study", "--seeds", 1], "lsmooth.study.run_study", "Nothing was written"),
        (["bench", "overhead", "--backend", "numpy"], "lsmooth.bench.run.run_suites", "suites that had ended are kept"),
        (["calibrate", "logits.npy", "labels.npy"], "lsmooth.calibrate.open_data", "Nothing was written"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_interrupted_command_lists_its_files(tmp_path, monkeypatch, any_trainer, command, work, left):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, interrupted)
    result = run(*command, "--output", tmp_path / "report")
    assert result.exit_code == 130, result.output
    assert f"Interrupted. {left}" in result.output.replace("Results of the ", "")
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_earlier_runs_are_removed(tmp_path):
    for name in ("projection.png", "reliability.png", "own.png"):
        (tmp_path / name).write_text("earlier")
    with staged(tmp_path, ["projection.png", "reliability.png", "distillation.png"]) as content:
        (content / "reliability.png").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "reliability.png": "new",
        "own.png": "earlier",
    }


def test_the_version_is_that_of_the_package():
    assert (run("--version").exit_code, run("--version").output) == (0, f"lsmooth {lsmooth.__version__}\n")


@pytest.mark.parametrize("command", ["", "study", "calibrate", "bench", "info"])
def test_h_is_short_for_help(command):
    short, long = run(*command.split(), "-h"), run(*command.split(), "--help")
    assert short.exit_code == 0
    assert short.output == long.output
    assert "--help" in short.output


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch, any_trainer):
    def broken(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("lsmooth.study.report.figures", broken)
    result = run("study", "--dataset", "wine", "--seeds", 1, "--output", tmp_path / "report")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lsmooth.study.trainers._missing", lambda name: [name])
    result = run("study", "--output", tmp_path / "report")
    assert result.exit_code == 2
    assert "install one: pip install 'lsmooth[torch]'" in result.output


def test_info_lists_every_backend():
    result = run("info")
    assert result.exit_code == 0
    assert f"lsmooth {lsmooth.__version__}" in result.output
    for name in ("numpy", *BACKENDS):
        assert name in result.output
    assert np.__version__ in result.output


def test_info_names_what_installs_a_missing_package(monkeypatch):
    monkeypatch.setattr("lsmooth._commands.info.installed_backends", lambda: ("numpy", "torch"))
    monkeypatch.setattr(
        "lsmooth._commands.info._version", lambda package: None if package in ("torch", "scipy", "sklearn") else "1.0"
    )
    monkeypatch.setattr("lsmooth._commands.info._devices", lambda name: "cpu")
    monkeypatch.setattr("lsmooth._commands.info.console._width", 200)
    output = run("info").output
    assert "no: pip install 'lsmooth[jax]'" in output
    assert "needs torch: pip install 'lsmooth[torch]'" in output
    assert "needs scipy: pip install 'lsmooth[calibrate]'" in output
    assert "needs sklearn: pip install 'lsmooth[study]'" in output
    assert "pip install 'lsmooth[plots]'" not in output


def test_help_names_the_commands():
    result = run("--help")
    assert result.exit_code == 0
    assert "study" in result.output
    assert "info" in result.output


def test_importing_the_command_line_imports_no_framework():
    names = ("torch", "jax", "tensorflow", "keras", "matplotlib", "sklearn")
    code = f"import sys, lsmooth._commands, lsmooth.study; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_command_without_typer_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from lsmooth.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.strip() == "The lsmooth command needs typer; install it with: pip install 'lsmooth[cli]'"
