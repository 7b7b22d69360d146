"""The losses of lsmooth.losses, classes and functions, in Keras models: Keras' own numbers on each of its backends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import losses

BACKENDS = ("jax", "tensorflow", "torch")
CLASSES = (
    "SparseCategoricalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "KLDivergence",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
)
FUNCTIONS = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
)


def run(name, *arguments):
    """The output of keras_in_models.py on one Keras backend."""
    require_backend(name)
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    script = str(Path(__file__).with_name("keras_in_models.py"))
    return json.loads(_output([sys.executable, script, *arguments], name).splitlines()[-1])


def _output(command, keras_backend):
    """The output of a process."""
    environment = {**os.environ, "KERAS_BACKEND": keras_backend}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request):
    return run(request.param)


@pytest.mark.parametrize("name", CLASSES + FUNCTIONS)
def test_sample_weights_count_as_in_keras(seen, name):
    ours, keras = seen["weights_count_as_in_keras"][name]
    np.testing.assert_allclose(ours, keras, rtol=1e-5, atol=1e-6)


def test_class_weights_count_as_in_keras(seen):
    ours, keras = seen["class_weights_in_a_compiled_model"]
    assert ours == pytest.approx(keras, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in CLASSES + FUNCTIONS if name != "CategoricalFocalCrossentropy"])
def test_gradients_behind_saturated_activations_match_keras(seen, name):
    ours, keras = seen["gradients_behind_saturated_activations"][name]
    np.testing.assert_allclose(ours, keras, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", ["SparseCategoricalCrossentropy", "BinaryCrossentropy"])
def test_models_that_saturate_train_as_with_keras(seen, name):
    ours, keras = seen["histories"][name]
    np.testing.assert_allclose(ours, keras, rtol=1e-6)


def test_logits_that_are_the_output_of_a_softmax_get_keras_number_and_warning(seen):
    (value, warned), (expected, keras_warned) = seen["warns_of_logits_behind_a_softmax"]
    assert value == pytest.approx(expected, rel=1e-6)
    assert warned == keras_warned


@pytest.mark.parametrize("case", ["class", "alphas", "function"])
@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_saved_models_load_with_the_same_loss(seen, case, extension):
    loaded = seen["saved"][f"{case}.{extension}"]
    assert loaded["is_ours"]
    assert loaded["after"] == pytest.approx(loaded["before"], rel=1e-6)


def test_a_variable_as_label_smoothing_is_followed_or_refused(seen):
    smoothing = seen["smoothing_that_a_callback_changes"]
    assert smoothing["attached"] == pytest.approx(smoothing["expected"], rel=1e-5)
    if isinstance(smoothing["detached"], str):
        assert "label_smoothing is a keras.Variable that the model does not track" in smoothing["detached"]
        assert "model.label_smoothing = variable" in smoothing["detached"]
    else:
        assert smoothing["detached"] == pytest.approx(smoothing["expected"], rel=1e-5)


def test_replicas_of_a_strategy_add_up_to_keras_loss(seen):
    if "replicas" not in seen:
        pytest.skip("a strategy is TensorFlow's")
    ours, keras = seen["replicas"]
    np.testing.assert_allclose(ours, keras, rtol=1e-5)


def test_a_loss_made_before_keras_is_imported_gets_sample_weights():
    seen = run("jax", "early")
    assert seen["joined"]
    assert seen["values"][0] == pytest.approx(seen["values"][1], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "imports"),
    [("jax", "import keras, lsmooth"), ("tensorflow", "import lsmooth, keras"), ("torch", "import lsmooth, keras")],
)
def test_saved_models_load_and_train_where_lsmooth_has_only_been_imported(name, imports, tmp_path):
    require_backend(name)
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    model.save(path := str(tmp_path / "model.keras"))
    program = (
        f"{imports}, numpy as np; model = keras.saving.load_model({path!r});"
        "model.fit(np.ones((1, 2)), np.array([1]), verbose=0);"
        "print(type(model.loss).__module__, model.loss.label_smoothing)"
    )
    assert _output([sys.executable, "-c", program], name).split() == ["lsmooth.losses._keras_classes", "0.1"]


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "poly_cross_entropy", "softmax_focal_loss"])
def test_functions_that_return_a_mean_are_refused_by_name(seen, name):
    said = seen["functions_that_return_a_mean"]
    assert said[name].startswith(f"{name} returns one number for the batch")
    assert "SparseCategoricalCrossentropy(from_logits=True)" in said[name]
    assert np.isfinite(said["rows"])
