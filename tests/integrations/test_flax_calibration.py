"""lsmooth.integrations.flax: a model that carries its temperature."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.calibration import TemperatureScaling

jax = pytest.importorskip("jax", reason="jax is not installed")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
flax = pytest.importorskip("lsmooth.integrations.flax")
jnp = jax.numpy


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    honest = 2.0 * rng.standard_normal((300, 5))
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
    return [(jnp.asarray(3.0 * honest[i : i + 100], jnp.float32), labels[i : i + 100]) for i in (0, 100, 200)]


def linear() -> nnx.Linear:
    layer = nnx.Linear(5, 5, rngs=nnx.Rngs(0))
    layer.kernel = nnx.Param(jnp.eye(5))
    return layer


def test_calibrate_gives_it_the_temperature_of_all_batches(batches):
    model = flax.TemperatureScaled(linear())
    scaler = model.calibrate(iter(batches))
    logits, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    expected = TemperatureScaling().fit(logits, labels).temperature_
    assert scaler.status_ == "converged"
    np.testing.assert_allclose(model.temperature[...], expected, rtol=1e-6)
    np.testing.assert_allclose(model(logits), logits / expected, rtol=1e-5)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, logits), logits / expected, rtol=1e-5)


def test_the_temperature_is_in_the_state_and_no_parameter(batches):
    model = flax.TemperatureScaled(linear())
    model.calibrate(batches)
    graph, state = nnx.split(model)
    again = nnx.merge(graph, jax.tree.map(lambda x: x, state))
    np.testing.assert_array_equal(again.temperature[...], model.temperature[...])
    assert "temperature" in nnx.to_pure_dict(state)
    assert "temperature" not in nnx.to_pure_dict(nnx.state(model, nnx.Param))


def test_training_does_not_modify_the_temperature(batches):
    model = flax.TemperatureScaled(linear(), 2.0)
    step = flax.make_train_step()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    before = np.asarray(model.model.kernel[...])
    step(model, optimizer, *batches[0])
    assert float(model.temperature[...]) == 2.0
    assert not np.allclose(model.model.kernel[...], before)


def test_ignored_labels_do_not_contribute(batches):
    logits, labels = batches[0]
    model = flax.TemperatureScaled(linear())
    model.calibrate([(logits, np.where(np.arange(100) < 90, labels, -1))], ignore_index=-1)
    expected = TemperatureScaling().fit(logits[:90], labels[:90]).temperature_
    np.testing.assert_allclose(model.temperature[...], expected, rtol=1e-6)


def test_no_temperature_is_0_or_less():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        flax.TemperatureScaled(linear(), 0.0)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_that_ends_in_a_softmax_is_calibrated_as_probabilities(batches, hidden):
    model = nnx.Sequential(linear(), jax.nn.softmax, *([lambda p: p] if hidden else []))
    with pytest.raises(ValueError, match="from_logits=False"):
        flax.TemperatureScaled(model).calibrate(batches)
    scaled, expected = flax.TemperatureScaled(model, from_logits=False), flax.TemperatureScaled(linear())
    scaled.calibrate([(logits, labels[:, None], *rest) for logits, labels, *rest in batches])
    expected.calibrate(batches)
    np.testing.assert_allclose(scaled.temperature[...], expected.temperature[...], rtol=1e-4)
    logits = batches[0][0]
    np.testing.assert_allclose(scaled(logits), jax.nn.softmax(expected(logits)), rtol=1e-4, atol=1e-6)


def test_a_model_with_one_output_is_calibrated_as_a_question():
    rng = np.random.default_rng(0)
    logits = (3.0 * rng.standard_normal((400, 1))).astype(np.float32)
    labels = (logits[:, 0] / 2.0 + rng.logistic(size=400) > 0).astype(int)
    expected = TemperatureScaling(binary=True).fit(logits, labels[:, None]).temperature_
    identity = nnx.Sequential(lambda x: x)
    scaled = flax.TemperatureScaled(identity, binary=True)
    assert scaled.calibrate([(logits, labels)]).temperature_ == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="binary=True"):
        flax.TemperatureScaled(identity).calibrate([(logits, labels)])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": None}, "temperature must be a number, got None"),
        ({"temperature": "2"}, "temperature must be a number, got '2'"),
        ({"temperature": True}, "temperature must be a number, got True"),
        ({"temperature": jnp.ones(5, jnp.complex64)}, "temperature must hold real numbers, got complex64"),
        ({"axis": 1.0}, "axis must be an integer, got 1.0"),
        ({"axis": None}, "axis must be an integer, got None"),
        ({"from_logits": 1}, "from_logits must be True or False, got 1"),
        ({"binary": "no"}, "binary must be True or False, got 'no'"),
    ],
)
def test_an_option_of_another_type_is_named_when_the_model_is_built(options, match):
    with pytest.raises(TypeError, match=match):
        flax.TemperatureScaled(linear(), **options)


@pytest.mark.parametrize(
    ("make", "arguments", "options", "match"),
    [
        (flax.make_train_step, (0.1,), {}, "loss must be a function of arrays, got 0.1"),
        (flax.make_train_step, (), {"smoothing": 0.1}, "loss must take 2 arrays .*'smoothing'"),
        (flax.make_distillation_step, ("kl",), {}, "loss must be a function of arrays, got 'kl'"),
        (flax.make_distillation_step, (lambda labels: 0.0,), {}, "loss must take 3 arrays"),
    ],
)
def test_invalid_losses_are_named_when_the_step_is_made(make, arguments, options, match):
    with pytest.raises(TypeError, match=match):
        make(*arguments, **options)
