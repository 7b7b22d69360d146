"""lsmooth.integrations.keras: a loss for Keras' Distiller, on each of its backends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend
from keras_own import run_keras_tests

BACKENDS = ("jax", "tensorflow", "torch")
FILES = ["distillation/distillation_loss_test.py", "distillation/distiller_test.py"]
TEST_CLASSES = ("TestLogitsDistillation", "TestEndToEndDistillation", "TestDistiller")


def has_distillation():
    keras = importlib.util.find_spec("keras")
    return keras is not None and (Path(keras.origin).parent / "src" / "distillation").exists()


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request, tmp_path_factory):
    """The output of keras_distillation.py on one Keras backend."""
    require_backend(request.param)
    if not has_distillation():
        pytest.skip("there is no Keras with keras.distillation, which 3.12 brought")
    model = tmp_path_factory.mktemp("model") / "distiller.keras"
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("keras_distillation.py")), str(model)],
        env={**os.environ, "KERAS_BACKEND": request.param},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", BACKENDS)
def test_the_distillation_tests_of_keras_pass(name, tmp_path, record_property):
    plugin = Path(__file__).with_name("keras_distillation_swap.py")
    counts = run_keras_tests(name, FILES, TEST_CLASSES, plugin, tmp_path)
    record_property("summary", f"Keras' tests of its Distiller, with lsmooth's LogitsDistillation: {counts}")


def test_the_distiller_reports_the_divergence_of_its_models(seen):
    before = seen["distill"]["before"]
    assert before["distillation_loss"] == pytest.approx(seen["distill"]["expected"], rel=1e-5)
    total = 0.25 * before["student_loss"] + 0.75 * before["distillation_loss"]
    assert before["total_loss"] == pytest.approx(total, rel=1e-5)


def test_only_the_student_is_trained(seen):
    losses = seen["distill"]["losses"]
    assert losses[-1] < 0.5 * losses[0]
    assert seen["distill"]["moved_teacher"] == 0


def test_the_distiller_is_saved_with_its_loss(seen):
    assert seen["distill"]["loaded_config"] == seen["distill"]["config"]
    assert seen["distill"]["same_predictions"]


@pytest.mark.parametrize("case", ["several_outputs", "options"])
def test_the_class_matches_the_function(seen, case):
    assert seen[case]["found"] == pytest.approx(seen[case]["expected"], rel=1e-5)


def test_the_keras_mask_of_a_layer_removes_rows_from_the_mean(seen):
    assert seen["masked"]["found"] == pytest.approx(seen["masked"]["expected"], abs=1e-6)


def test_a_feature_loss_serves_keras_feature_distillation(seen):
    losses = seen["of_features"]["losses"]
    assert losses[-1] < 0.9 * losses[0]
    assert seen["of_features"]["survives"]


def test_keras_agrees_where_its_divergence_is_an_object_and_not_by_default(seen):
    ours, with_an_object, by_default = seen["beside_keras"]
    assert ours == pytest.approx(with_an_object, rel=1e-5)
    assert by_default > 2 * ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number above 0, got 0."),
        ({"loss": "mse"}, "divergence must be one of"),
        ({"loss": [None, None]}, "loss must name a divergence for at least one output"),
        ({"loss": "jensen_shannon", "beta": 1.0}, "beta must be in"),
        ({"loss": ["alpha"], "alpha": 0.0}, "alpha must be in"),
    ],
)
def test_bad_options_are_named_at_construction(options, message):
    pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
    from lsmooth.integrations.keras import LogitsDistillation

    with pytest.raises(ValueError, match=message):
        LogitsDistillation(**options)


def test_each_replica_of_a_tensorflow_strategy_gives_its_share(monkeypatch):
    require_backend("tensorflow")
    keras = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend in this process")
    import tensorflow as tf

    from lsmooth.integrations.keras import LogitsDistillation

    teacher, student = tf.constant([[2.0, 1.0, 0.0]]), tf.constant([[0.0, 1.0, 2.0]])
    alone = float(LogitsDistillation().compute_loss(teacher, student))
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 4)
    with strategy.scope():
        assert float(LogitsDistillation().compute_loss(teacher, student)) == pytest.approx(alone / 4, rel=1e-6)


def test_losses_work_without_the_distillation_module_of_keras():
    keras = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
    code = (
        "import keras\n"
        "if hasattr(keras, 'distillation'): del keras.distillation\n"
        "from lsmooth.integrations.keras import LogitsDistillation\n"
        "x = keras.ops.array([[1.0, 0.0]])\n"
        "print(float(LogitsDistillation().compute_loss(x, x)))\n"
    )
    env = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    assert float(subprocess.check_output([sys.executable, "-c", code], env=env, text=True)) == 0.0
