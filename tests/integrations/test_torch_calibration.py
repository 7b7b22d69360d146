"""lsmooth.integrations.torch: a model that carries its temperature."""

from __future__ import annotations

import pytest

from lsmooth.calibration import TemperatureScaling

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn
TemperatureScaled = pytest.importorskip("lsmooth.integrations.torch").TemperatureScaled


@pytest.fixture
def batches():
    """Inputs that are logits three times too large, and labels."""
    torch.manual_seed(0)
    honest = 2.0 * torch.randn(300, 5)
    labels = torch.distributions.Categorical(logits=honest).sample()
    return [(3.0 * honest[i : i + 100], labels[i : i + 100]) for i in (0, 100, 200)]


def test_calibrate_gives_it_the_temperature_of_all_batches(batches):
    model = TemperatureScaled(nn.Identity())
    scaler = model.calibrate(iter(batches))
    logits, labels = (torch.cat(x) for x in zip(*batches, strict=True))
    expected = TemperatureScaling().fit(logits, labels).temperature_
    assert scaler.status_ == "converged"
    assert model.temperature.item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(model(logits), logits / expected)


def test_the_temperature_is_in_the_state(batches):
    model = TemperatureScaled(nn.Linear(5, 5))
    model.calibrate(batches)
    assert [name for name, _ in model.named_parameters()] == ["model.weight", "model.bias"]
    other = TemperatureScaled(nn.Linear(5, 5))
    other.load_state_dict(model.state_dict())
    assert other.temperature.item() == model.temperature.item() != 1.0
    torch.testing.assert_close(other(batches[0][0]), model(batches[0][0]))


def test_the_model_runs_once_per_batch_in_evaluation_mode(batches):
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            assert not self.training
            assert not torch.is_grad_enabled()
            return x

    model = TemperatureScaled(nn.Sequential(Counting(), nn.Dropout(0.5))).train()
    model.model[1].eval()
    model.calibrate(batches)
    assert model.model[0].calls == 3
    assert [module.training for module in (model, model.model, *model.model)] == [True, True, True, False]


def test_inputs_may_be_arguments_and_labels_weighted_or_ignored(batches):
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    (logits, labels), *_ = batches
    weight = torch.rand(100)
    expected = TemperatureScaling().fit(logits[:90], labels[:90], weight[:90]).temperature_
    labels = torch.where(torch.arange(100) < 90, labels, -100)
    for inputs in ((logits - 1, 1), {"a": logits - 1, "b": 1}):
        model = TemperatureScaled(Sum())
        model.calibrate([(inputs, labels, weight)])
        assert model.temperature.item() == pytest.approx(expected, rel=1e-6)


def test_maps_have_their_classes_on_axis_1(batches):
    (logits, labels), *_ = batches
    model = TemperatureScaled(nn.Identity())
    model.calibrate([(logits.reshape(4, 25, 5).movedim(-1, 1), labels.reshape(4, 25))])
    expected = TemperatureScaling().fit(logits, labels).temperature_
    assert model.temperature.item() == pytest.approx(expected, rel=1e-6)


def test_a_parameter_is_learned_and_calibrated(batches):
    model = TemperatureScaled(nn.Identity(), nn.Parameter(torch.tensor(1.0)))
    nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    assert model.temperature.grad < 0
    assert dict(model.named_parameters()).keys() == {"temperature"}
    model.calibrate(batches)
    assert model.temperature.item() > 2


def test_compiles_without_a_graph_break(batches):
    model = TemperatureScaled(nn.Linear(5, 5), 2.0)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batches[0][0]), model(batches[0][0]))
    model.temperature.fill_(4.0)
    torch.testing.assert_close(compiled(batches[0][0]), model.model(batches[0][0]) / 4.0)


def test_the_temperature_follows_the_module():
    model = TemperatureScaled(nn.Linear(5, 5), 2.0)
    assert model.to("meta").temperature.device.type == "meta"
    half = TemperatureScaled(nn.Linear(5, 5), 2.0).to(torch.bfloat16)
    assert half(torch.randn(2, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_no_temperature_is_0_or_less(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        TemperatureScaled(nn.Identity(), temperature)


def test_a_model_that_ends_in_a_softmax_is_calibrated_as_probabilities(batches):
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Softmax(dim=1))
    with pytest.raises(ValueError, match=r"model ends in a softmax.*from_logits=False"):
        TemperatureScaled(model)
    with pytest.raises(ValueError, match=r"The model returns probabilities.*from_logits=False"):
        TemperatureScaled(torch.nn.Sequential(model, torch.nn.Identity())).calibrate(batches)
    scaled, expected = TemperatureScaled(model, from_logits=False), TemperatureScaled(torch.nn.Identity())
    columns = [(logits, labels[:, None], *rest) for logits, labels, *rest in batches]
    scaled.calibrate(columns)
    expected.calibrate(batches)
    torch.testing.assert_close(scaled.temperature, expected.temperature, rtol=1e-4, atol=0.0)
    logits = batches[0][0]
    torch.testing.assert_close(scaled(logits), expected(logits).softmax(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_model_with_one_output_is_calibrated_as_a_question(from_logits):
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(400, 1, generator=generator)
    labels = (torch.rand(400, generator=generator) < torch.sigmoid(logits[:, 0] / 2.0)).long()
    model = torch.nn.Identity() if from_logits else torch.nn.Sigmoid()
    scaled = TemperatureScaled(model, from_logits=from_logits, binary=True)
    expected = TemperatureScaling(binary=True).fit(logits, labels[:, None]).temperature_
    assert scaled.calibrate([(logits, labels)]).temperature_ == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="binary=True"):
        TemperatureScaled(torch.nn.Identity()).calibrate([(logits, labels)])
