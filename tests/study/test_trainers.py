"""Each framework trains the same network on the same batches."""

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.study.config import BACKENDS, Training
from lsmooth.study.data import load_data
from lsmooth.study.objectives import smoothed_labels
from lsmooth.study.trainers import load_trainer
from lsmooth.study.trainers.base import batches

pytest.importorskip("sklearn", reason="the study's data come with scikit-learn")
SMALL = Training(hidden=(16, 8), steps=60, rounds=3, batch_size=16, learning_rate=1e-2)


@pytest.fixture(params=BACKENDS)
def trainer(request: pytest.FixtureRequest):
    xp = require_backend(request.param)
    for package in {"jax": ("flax", "optax"), "tensorflow": ("keras",)}.get(request.param, ()):
        pytest.importorskip(package, reason=f"{request.param} trains with {package}")
    return xp, load_trainer(request.param)


def train(trainer, alpha=0.0, seed=0, after_round=lambda network: None):
    data = load_data("wine")
    return data, trainer.train(
        data.inputs["train"],
        data.labels["train"],
        smoothed_labels,
        alpha,
        num_classes=3,
        seed=seed,
        training=SMALL,
        after_round=after_round,
    )


def test_trained_networks_return_their_activations(trainer):
    xp, trainer = trainer
    accuracies = []

    def after_round(network):
        accuracies.append((xp.to_numpy(network.logits(data.inputs["test"])).argmax(1) == data.labels["test"]).mean())

    data = load_data("wine")
    _, network = train(trainer, after_round=after_round)
    assert len(accuracies) == SMALL.rounds
    assert accuracies[-1] > 0.85
    features, weight = network.features(data.inputs["test"]), network.output_weight()
    assert xp.shape(features) == (72, 8)
    assert xp.shape(weight) == (3, 8)
    # Features and templates give the logits, up to the bias: the same for every row.
    bias = xp.to_numpy(network.logits(data.inputs["test"])) - xp.to_numpy(features) @ xp.to_numpy(weight).T
    assert bias.std(axis=0).max() < 1e-5
    assert trainer.versions()


def test_equal_seeds_give_equal_results(trainer):
    xp, trainer = trainer
    runs = [xp.to_numpy(train(trainer, seed=seed)[1].output_weight()) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


def test_smoothing_reaches_the_loss(trainer):
    xp, trainer = trainer

    def confidence(alpha):
        data, network = train(trainer, alpha=alpha)
        logits = xp.to_numpy(network.logits(data.inputs["train"])).astype(np.float64)
        return (np.exp(logits.max(1)) / np.exp(logits).sum(1)).mean()

    assert confidence(0.3) < confidence(0.0) - 0.1


def test_batches_use_every_row_once_per_epoch():
    plan = batches(10, Training(steps=6, rounds=2, batch_size=5), seed=3)
    assert plan.shape == (2, 3, 5)
    for epoch in plan.reshape(3, 10):
        assert sorted(epoch) == list(range(10))
    assert batches(3, Training(steps=2, rounds=1, batch_size=5), seed=0).shape == (1, 2, 3)


def test_an_unknown_framework_is_refused():
    with pytest.raises(ValueError, match="backend must be one of torch, jax, tensorflow; got 'numpy'"):
        load_trainer("numpy")


def test_a_missing_framework_is_named(monkeypatch):
    monkeypatch.setattr("lsmooth.study.trainers._missing", lambda name: ["flax"])
    with pytest.raises(ImportError, match=r"backend jax needs flax; install it with pip install 'lsmooth\[jax\]'"):
        load_trainer("jax")
