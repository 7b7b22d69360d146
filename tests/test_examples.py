"""The scripts in examples/ run, and what they print is right."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from conftest import require_backend

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAINING = {"jax_digits": "jax", "keras_digits": "tensorflow", "torch_digits": "torch"}


def run(example: str):
    return runpy.run_path(str(EXAMPLES / f"{example}.py"))["main"]()


def test_numpy_a_sure_answer_costs_more_than_a_moderate_one_once_labels_are_smoothed():
    losses = run("numpy_labels")
    assert losses["sure, label_smoothing=0.0"] < losses["moderate, label_smoothing=0.0"]
    assert losses["sure, label_smoothing=0.1"] > losses["moderate, label_smoothing=0.1"]
    # The wrong classes hold eps (K - 1) / K of the target, each with a logit 20 below the right one's.
    assert losses["sure, label_smoothing=0.1"] == pytest.approx(0.1 * 2 / 3 * 20, abs=1e-6)


@pytest.mark.parametrize(("example", "backend"), TRAINING.items(), ids=TRAINING)
def test_training_lowers_the_loss(example, backend):
    require_backend(backend)
    pytest.importorskip("sklearn", reason="the examples train on scikit-learn's digits")
    losses = run(example)
    # The entropy of the smoothed labels, 0.5, is the least that any classifier reaches.
    assert 0.5 < losses[-1] < 0.75 < 1.5 < losses[0]


def test_jax_a_student_learns_from_its_teacher():
    require_backend("jax")
    pytest.importorskip("sklearn", reason="the examples train on scikit-learn's digits")
    losses = run("jax_distillation")
    assert losses[-1] < 0.1 * losses[0]


def test_transformers_a_student_learns_from_its_teacher():
    require_backend("torch")
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    losses = run("transformers_distillation")
    # With T = 2, a student of even predictions pays less than 0.9 * 4 * log(16) + 0.1 * log(16), 10.3, at first:
    # were the sums over accumulated batches not divided by their tokens, it would be 28 times as much or more.
    assert losses[0] < 10.3
    assert losses[-1] < 0.25 * losses[0]


def test_every_script_is_run():
    others = {"numpy_labels", "jax_distillation", "transformers_distillation"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*others, *TRAINING}
