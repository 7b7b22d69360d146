"""lsmooth.integrations.keras: losses that compile, train, save and load with a Keras model."""

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
    """What keras_training.py printed on one Keras backend."""
    require_backend(request.param)
    for package in ("keras", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    model = tmp_path_factory.mktemp("model") / "digits.keras"
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("keras_training.py")), str(model)],
        env={**os.environ, "KERAS_BACKEND": request.param},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_a_model_compiled_with_the_loss_learns_the_digits(seen):
    losses = seen["train"]["losses"]
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_keras_own_smoothed_cross_entropy(seen):
    assert seen["train"]["of_the_model"] == pytest.approx(seen["train"]["of_keras"], rel=1e-5)


def test_the_loss_is_saved_and_loaded_inside_the_model(seen):
    assert seen["train"]["loaded_loss"] == "SparseCategoricalCrossentropy"
    assert seen["train"]["label_smoothing"] == 0.1
    assert seen["train"]["of_the_loaded_model"] == pytest.approx(seen["train"]["of_the_model"], rel=1e-6)


def test_a_mask_left_by_a_layer_reaches_the_reduction(seen):
    ours, keras = seen["masked"]
    assert ours == pytest.approx(keras, rel=1e-5)


def test_every_loss_survives_keras_serialisation(seen):
    assert len(seen["round_trips"]) == 6


def test_a_layers_variable_is_the_weight_of_a_linear_head(seen):
    (value, gradient), (expected, expected_gradient) = seen["tied"]
    assert value == pytest.approx(expected, rel=1e-6)
    for row, expected_row in zip(gradient, expected_gradient, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5, abs=1e-6)


def test_a_linear_head_adds_its_loss_to_a_functional_model(seen):
    fused, of_logits = seen["added"]
    assert fused == pytest.approx(of_logits, rel=1e-5)
    assert fused[-1] < fused[0]


def test_each_replica_of_a_tensorflow_strategy_gives_its_share(monkeypatch):
    require_backend("tensorflow")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend in this process")
    import tensorflow as tf

    from lsmooth.integrations.keras import CategoricalCrossentropy

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 4)
    y_true, y_pred = tf.eye(3), tf.constant([[2.0, 1.0, 0.0]] * 3)
    for reduction in ("sum_over_batch_size", "sum"):
        ours = CategoricalCrossentropy(from_logits=True, reduction=reduction)
        keras_own = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)
        with strategy.scope():
            assert float(ours(y_true, y_pred)) == pytest.approx(float(keras_own(y_true, y_pred)), rel=1e-6)
