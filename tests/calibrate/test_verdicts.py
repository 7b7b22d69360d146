"""Verdicts of the calibration report: better, worse or chance, and advice against a calibrator."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the report's pictures need it")
from typer.testing import CliRunner

from lsmooth._commands import app
from lsmooth.calibrate.measures import NAMES
from lsmooth.calibrate.report import BETTER, SAME, WORSE, verdict
from lsmooth.metrics import Interval

PICTURES = ("reliability", "confidence", "risk_coverage", "classes")


@pytest.mark.parametrize("name", NAMES)
def test_more_accuracy_is_better_and_more_of_any_other_measure_is_worse(name):
    more, less = Interval(0.1, 0.05, 0.15), Interval(-0.1, -0.15, -0.05)
    good, bad = (more, less) if name == "accuracy" else (less, more)
    assert (verdict(name, good), verdict(name, bad)) == (BETTER, WORSE)
    assert verdict(name, Interval(0.1, -0.05, 0.15)) == verdict(name, Interval(-0.1, -0.15, 0.0)) == SAME
    assert verdict(name, Interval(1e-5, 1e-6, 1e-4)) == ""


@pytest.mark.parametrize(("factor", "advised_against"), [(3.0, False), (1 / 3, True)])
def test_a_calibrator_that_lowers_the_likelihood_of_other_rows_is_advised_against(
    tmp_path, monkeypatch, factor, advised_against
):
    monkeypatch.setattr("lsmooth.calibrate.report.figures", lambda _: dict.fromkeys(PICTURES, b""))
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (400, 3))
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(-1)
    for name, array in (("z", 3.0 * honest), ("y", labels), ("other_z", factor * honest)):
        np.save(tmp_path / f"{name}.npy", array)
    paths = [str(tmp_path / f"{name}.npy") for name in ("z", "y", "other_z", "y")]
    options = [
        "--eval-logits",
        paths[2],
        "--eval-labels",
        paths[3],
        "--resamples",
        "20",
        "-o",
        str(tmp_path / "report"),
    ]
    result = CliRunner().invoke(app, ["calibrate", *paths[:2], *options])
    assert result.exit_code == 0, result.output
    assert ("do not use this calibrator" in " ".join(result.output.split())) is advised_against
