"""lsmooth.integrations.keras: a layer and a model that carry a temperature, saved and loaded on every backend."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend


@pytest.fixture(scope="module", params=["jax", "tensorflow", "torch"])
def seen(request, tmp_path_factory):
    """The output of keras_calibration.py on one Keras backend."""
    require_backend(request.param)
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("keras_calibration.py")), str(tmp_path_factory.mktemp("models"))],
        env={**os.environ, "KERAS_BACKEND": request.param},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_calibrate_gives_the_model_the_temperature_of_its_logits(seen):
    carried = seen["carried"]
    assert carried["status"] == "converged"
    assert carried["temperature"] == pytest.approx(carried["expected"], rel=1e-6)
    assert carried["trainable"] == ["kernel", "bias"]


def test_the_model_is_saved_and_loaded_with_its_temperature(seen):
    carried = seen["carried"]
    assert carried["loaded_type"] == "TemperatureScaled"
    assert carried["loaded_temperature"] == carried["temperature"] != 1.0
    assert carried["error"] < 1e-4


def test_training_changes_the_layer_only_if_asked(seen):
    assert seen["layer"]["kept"] == 2.0
    assert seen["layer"]["learned"] > 1.01


def test_the_layer_is_saved_and_loaded(seen):
    assert seen["layer"]["loaded"] == 3.0
    assert seen["layer"]["error"] < 1e-6
    assert seen["layer"]["config"] == 4.0


def test_probabilities_are_refused_as_logits(seen):
    for case in ("refused", "refused_when_calibrated"):
        assert "from_logits=False" in seen["probabilities"][case]


def test_a_model_that_ends_in_a_softmax_gets_the_temperature_of_its_logits(seen):
    probabilities = seen["probabilities"]
    assert probabilities["temperatures"] == pytest.approx([probabilities["expected"]] * 2, rel=1e-4)
    assert probabilities["error"] < 1e-5
    assert probabilities["loaded_error"] < 1e-6


def test_a_model_with_one_output_is_calibrated_as_a_question(seen):
    question = seen["one_output"]
    assert question["temperatures"] == pytest.approx([question["expected"]] * 2, rel=1e-3)
    assert "binary=True" in question["refused"]
    assert "binary=True" in question["contradiction"]


def test_masked_time_steps_do_not_contribute(seen):
    masked = seen["masked"]
    assert masked["temperature"] == pytest.approx(masked["expected"], rel=1e-4)
    assert abs(masked["unmasked"] / masked["expected"] - 1.0) > 1e-3
    assert masked["built"]
