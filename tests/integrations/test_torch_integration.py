"""lsmooth.integrations.torch: modules in torch's argument order that train, compile and export."""

from __future__ import annotations

import pytest

from lsmooth.losses import softmax_cross_entropy

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn
integration = pytest.importorskip("lsmooth.integrations.torch")
BCEWithLogitsLoss, CrossEntropyLoss = integration.BCEWithLogitsLoss, integration.CrossEntropyLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.tensor([0, 4, 2, -100, 1, 3])


def both(loss, other, input, target):
    """The values and gradients of two losses."""
    found = []
    for each in (loss, other):
        value = each(input, target)
        found.append((value, *torch.autograd.grad(value.sum(), input)))
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64)])
def test_integer_targets_give_torchs_numbers(batch, reduction, weight):
    ours = CrossEntropyLoss(weight, label_smoothing=0.1, reduction=reduction)
    torchs = nn.CrossEntropyLoss(weight, label_smoothing=0.1, reduction=reduction)
    (value, gradient), (of_torch, its_gradient) = both(ours, torchs, *batch)
    torch.testing.assert_close(value, of_torch)
    torch.testing.assert_close(gradient, its_gradient)


@pytest.mark.parametrize("shape", [(5,), (2, 5, 3), (2, 5, 3, 4)])
def test_the_class_axis_matches_torch(shape):
    logits = torch.randn(shape)
    target = torch.randint(5, (*shape[:-1][:1], *shape[2:]) if len(shape) > 1 else ())
    torch.testing.assert_close(CrossEntropyLoss()(logits, target), nn.CrossEntropyLoss()(logits, target))
    soft = torch.softmax(torch.randn(shape), min(1, len(shape) - 1))
    torch.testing.assert_close(CrossEntropyLoss()(logits, soft), nn.CrossEntropyLoss()(logits, soft))


def test_every_option_of_the_function_is_one_of_the_module(batch):
    logits, target = batch
    options = {"smoothing_prior": torch.tensor([1.0, 2, 3, 4, 5]), "temperature": 2.0, "z_loss": 0.1}
    options |= {"logit_softcap": 5.0, "label_smoothing": 0.2}
    weight = torch.arange(1.0, 6.0)
    expected = softmax_cross_entropy(target, logits, ignore_index=-100, class_weight=weight, **options)
    torch.testing.assert_close(CrossEntropyLoss(weight, **options)(logits, target), expected)


def test_the_caller_chooses_the_ignored_class_and_the_class_axis(batch):
    logits, target = batch[0].detach(), batch[1].clamp(min=0)
    torch.testing.assert_close(
        CrossEntropyLoss(ignore_index=4)(logits, target), nn.CrossEntropyLoss(ignore_index=4)(logits, target)
    )
    expected = nn.CrossEntropyLoss()(logits, target)
    torch.testing.assert_close(CrossEntropyLoss(axis=0)(logits.T, target), expected)
    torch.testing.assert_close(CrossEntropyLoss(axis=-1)(logits[:, None], target[:, None]), expected)


def test_a_batch_without_targets_has_zero_loss():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = CrossEntropyLoss()(logits, torch.tensor([-100, -100]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_targets_give_torchs_numbers(reduction):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 3, dtype=torch.float64)
    weights = {"weight": torch.rand(3), "pos_weight": torch.tensor([1.0, 2.0, 3.0])}
    ours, torchs = (
        BCEWithLogitsLoss(reduction=reduction, **weights),
        nn.BCEWithLogitsLoss(reduction=reduction, **weights),
    )
    (value, gradient), (of_torch, its_gradient) = both(ours, torchs, logits, target)
    torch.testing.assert_close(value, of_torch)
    torch.testing.assert_close(gradient, its_gradient)
    smooth = BCEWithLogitsLoss(reduction=reduction, label_smoothing=0.1, **weights)
    torch.testing.assert_close(smooth(logits, target), torchs(logits, target * 0.9 + 0.05))


def test_weights_follow_the_module_and_stay_out_of_its_state():
    weight = torch.ones(5)
    for loss in (CrossEntropyLoss(weight, smoothing_prior=weight), BCEWithLogitsLoss(weight, pos_weight=weight)):
        assert not loss.state_dict()
        assert {buffer.dtype for buffer in loss.to(torch.float64).buffers()} == {torch.float64}
        assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


def test_a_parameter_as_temperature_is_learned(batch):
    loss = CrossEntropyLoss(temperature=nn.Parameter(torch.tensor(2.0)))
    loss(*batch).backward()
    assert list(loss.state_dict()) == ["temperature"]
    assert loss.temperature.grad != 0


def test_compiles_without_a_graph_break(batch):
    logits, target = batch[0].detach().float().requires_grad_(), batch[1]
    for loss, labels in (
        (CrossEntropyLoss(torch.ones(5), label_smoothing=0.1), target),
        (BCEWithLogitsLoss(torch.ones(5), label_smoothing=0.1), torch.rand(6, 5)),
    ):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        (value, gradient), (eager, its_gradient) = both(compiled, loss, logits, labels)
        torch.testing.assert_close(value, eager)
        torch.testing.assert_close(gradient, its_gradient)


def test_exports_with_a_batch_of_any_size(batch):
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.loss = nn.Linear(3, 5), CrossEntropyLoss(torch.ones(5), label_smoothing=0.1)

        def forward(self, x, target):
            return self.loss(self.head(x), target)

    model, rows = Scored(), torch.export.Dim("rows")
    exported = torch.export.export(
        model, (torch.randn(4, 3), torch.tensor([0, 1, 2, 3])), dynamic_shapes={"x": {0: rows}, "target": {0: rows}}
    )
    x, target = torch.randn(7, 3), torch.tensor([0, 1, 2, 3, 4, -100, 0])
    torch.testing.assert_close(exported.module()(x, target), model(x, target))


def test_under_autocast_the_loss_is_float32_and_gradients_flow():
    head, x, target = nn.Linear(3, 5), torch.randn(4, 3), torch.tensor([0, 1, 2, 3])
    loss = CrossEntropyLoss(label_smoothing=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x)
        value = loss(logits, target)
    assert logits.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target))
    value.backward()
    assert head.weight.grad.abs().sum() > 0


def train_on_digits(model, loss, steps=40):
    """The losses of a few steps of full-batch training."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)
    optimizer, values = torch.optim.Adam(model.parameters(), 0.05), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def test_a_network_learns_the_digits():
    torch.manual_seed(0)
    values = train_on_digits(nn.Linear(64, 10), CrossEntropyLoss(label_smoothing=0.1))
    assert values[-1] < 0.5 * values[0]
