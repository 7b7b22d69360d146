"""The example on Dask gives the numbers of all rows in one process."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dask", reason="Dask's cluster is not installed")

from lsmooth.calibration import TemperatureScaling
from lsmooth.metrics import expected_calibration_error

EXAMPLE = Path(__file__).parents[2] / "examples" / "dask_calibration.py"


def test_a_cluster_finds_the_temperature_and_the_errors_of_all_rows():
    example = runpy.run_path(str(EXAMPLE))
    temperature, before, after = example["main"]()
    logits, labels = map(np.concatenate, zip(*map(example["load"], range(8)), strict=True))
    assert temperature == pytest.approx(TemperatureScaling().fit(logits, labels).temperature_, rel=1e-6)
    assert temperature == pytest.approx(2.0, abs=0.05), "the logits are twice as large as they should be"
    errors = [expected_calibration_error(labels, logits / t, from_logits=True) for t in (1.0, temperature)]
    np.testing.assert_allclose([before, after], errors, rtol=1e-12)
