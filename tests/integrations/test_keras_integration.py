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
    """The output of keras_training.py on one Keras backend."""
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


def test_the_loss_matches_the_smoothed_cross_entropy_of_keras(seen):
    assert seen["train"]["of_the_model"] == pytest.approx(seen["train"]["of_keras"], rel=1e-5)


def test_the_loss_is_saved_and_loaded_inside_the_model(seen):
    assert seen["train"]["loaded_loss"] == "SparseCategoricalCrossentropy"
    assert seen["train"]["label_smoothing"] == 0.1
    assert seen["train"]["of_the_loaded_model"] == pytest.approx(seen["train"]["of_the_model"], rel=1e-6)


def test_the_keras_mask_of_a_layer_is_used_in_the_reduction(seen):
    ours, keras = seen["masked"]
    assert ours == pytest.approx(keras, rel=1e-5)


def test_every_loss_survives_keras_serialisation(seen):
    assert len(seen["round_trips"]) == 6


def test_metrics_of_a_model_are_those_of_all_its_rows(seen):
    found = seen["streamed"]
    assert found["trained"]
    assert found["model"] == pytest.approx(found["expected"], rel=2e-5)
    assert found["loaded"] == pytest.approx(found["model"], rel=1e-5)


def test_metrics_merge_and_keep_the_state_of_those_without_keras(seen):
    merged = seen["streamed"]["merged"]
    assert merged == pytest.approx([merged[1]] * 3, rel=1e-5)
    assert seen["streamed"]["reset"] == 0.0


@pytest.mark.parametrize("case", ["binary", "masked"])
def test_metrics_take_one_output_and_leave_out_masked_steps(seen, case):
    got, expected = seen["streamed"][case]
    assert got == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["in a graph", "eagerly"])
def test_a_loss_in_a_branch_trains_a_model(run_eagerly):
    """``keras.ops.cond`` around ``add_loss`` trains the same weights as a compiled loss."""
    require_backend("tensorflow")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend in this process")
    import numpy as np

    from lsmooth.losses import softmax_cross_entropy

    class Head(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            x, labels = inputs
            logits = self.dense(x)

            def smoothed():
                return softmax_cross_entropy(labels, logits, label_smoothing=0.1)

            self.add_loss(keras.ops.cond(keras.ops.sum(x) > -1e9, smoothed, lambda: keras.ops.sum(logits) * 0.0))
            return logits

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)
    kernels = []
    for branch in (True, False):
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((4,)), keras.Input((), dtype="int64")
        if branch:
            model = keras.Model([features, ids], Head()([features, ids]))
            model.compile(keras.optimizers.SGD(0.5), run_eagerly=run_eagerly)
            model.fit([x, labels], epochs=2, batch_size=8, shuffle=False, verbose=0)
        else:
            model = keras.Sequential([features, keras.layers.Dense(3)])
            loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
            model.compile(keras.optimizers.SGD(0.5), loss)
            model.fit(x, np.eye(3, dtype="float32")[labels], epochs=2, batch_size=8, shuffle=False, verbose=0)
        kernels.append(model.get_weights()[0])
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-6)
