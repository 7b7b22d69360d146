"""The options of the torch modules: checked when a module is built, kept as buffers, shown by repr."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn
integration = pytest.importorskip("lsmooth.integrations.torch")
BCEWithLogitsLoss, CrossEntropyLoss = integration.BCEWithLogitsLoss, integration.CrossEntropyLoss
DistillationLoss, TemperatureScaled = integration.DistillationLoss, integration.TemperatureScaled

CALLS = {
    CrossEntropyLoss: lambda loss, x: loss(x, torch.tensor([0, 2])),
    DistillationLoss: lambda loss, x: loss(x, x.flip(0), torch.tensor([0, 2])),
    BCEWithLogitsLoss: lambda loss, x: loss(x, torch.eye(3, dtype=x.dtype, device=x.device)[:2]),
}


@pytest.mark.parametrize(
    ("module", "arguments", "options", "error", "match"),
    [
        # torch's CrossEntropyLoss(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        (CrossEntropyLoss, (None, False), {}, TypeError, "ignore_index must be an integer, got False"),
        (CrossEntropyLoss, (None, None, -100), {}, TypeError, "ignore_index must be an integer, got None"),
        (CrossEntropyLoss, (None, 1.0), {}, TypeError, "ignore_index must be an integer, got 1.0"),
        (CrossEntropyLoss, (None, "mean"), {}, TypeError, "ignore_index must be an integer, got 'mean'"),
        (CrossEntropyLoss, (0.1,), {}, ValueError, r"weight must have shape \(classes,\)"),
        (CrossEntropyLoss, ("mean",), {}, TypeError, "weight must be a tensor of real numbers, got 'mean'"),
        (CrossEntropyLoss, (torch.ones(3, dtype=torch.complex64),), {}, TypeError, "weight must hold real numbers"),
        (CrossEntropyLoss, (torch.ones(3, dtype=torch.bool),), {}, TypeError, "weight must hold real numbers"),
        (CrossEntropyLoss, (None, -100, "avg"), {}, ValueError, "reduction must be"),
        (CrossEntropyLoss, (), {"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1.5"),
        (CrossEntropyLoss, (), {"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number"),
        (CrossEntropyLoss, (), {"label_smoothing": None}, TypeError, "label_smoothing must be a number"),
        (CrossEntropyLoss, (), {"label_smoothing": True}, TypeError, "label_smoothing must be a number"),
        (CrossEntropyLoss, (), {"label_smoothing": torch.tensor([0.1, 2.0])}, ValueError, "label_smoothing must be in"),
        (CrossEntropyLoss, (), {"temperature": 0.0}, ValueError, "temperature must be a finite number above 0"),
        (CrossEntropyLoss, (), {"temperature": torch.tensor(-1.0)}, ValueError, "temperature must be a finite number"),
        (CrossEntropyLoss, (), {"temperature": float("nan")}, ValueError, "temperature must be a finite number"),
        (CrossEntropyLoss, (), {"z_loss": -1.0}, ValueError, "z_loss must be"),
        (CrossEntropyLoss, (), {"z_loss": None}, TypeError, "z_loss must be a number"),
        (CrossEntropyLoss, (), {"logit_softcap": 0.0}, ValueError, "logit_softcap must be"),
        (CrossEntropyLoss, (), {"num_classes": 0}, ValueError, "num_classes must be"),
        (CrossEntropyLoss, (), {"axis": 1.0}, TypeError, "axis must be an integer"),
        (CrossEntropyLoss, (), {"smoothing_prior": torch.ones(2, 3)}, ValueError, "smoothing_prior must have shape"),
        (DistillationLoss, (0.5, 4.0, None), {}, TypeError, "ignore_index must be an integer, got None"),
        (DistillationLoss, (0.5, 4.0, True), {}, TypeError, "ignore_index must be an integer, got True"),
        (DistillationLoss, (0.5, 4.0, -100, "avg"), {}, ValueError, "reduction must be"),
        (DistillationLoss, (2.0,), {}, ValueError, "alpha must be in"),
        (DistillationLoss, (None,), {}, TypeError, "alpha must be a number"),
        (DistillationLoss, (0.5, "4"), {}, TypeError, "temperature must be a number or a tensor"),
        (DistillationLoss, (0.5, torch.tensor([1.0, 0.0])), {}, ValueError, "temperature must be a finite number"),
        (DistillationLoss, (), {"divergence": "jensen_shannon", "beta": 1.0}, ValueError, "beta must be"),
        # torch's BCEWithLogitsLoss(weight, size_average, reduce, reduction, pos_weight)
        (BCEWithLogitsLoss, (None, None), {}, ValueError, "reduction must be a name"),
        (BCEWithLogitsLoss, (None, False), {}, ValueError, "reduction must be"),
        (BCEWithLogitsLoss, ("mean",), {}, TypeError, "weight must be a tensor of real numbers"),
        (BCEWithLogitsLoss, (), {"pos_weight": True}, TypeError, "pos_weight must be a tensor of real numbers"),
        (BCEWithLogitsLoss, (), {"label_smoothing": -0.1}, ValueError, "label_smoothing must be in"),
        (TemperatureScaled, (nn.Identity(), None), {}, ValueError, "temperature must be above 0"),
        (TemperatureScaled, (nn.Identity(), "2"), {}, TypeError, "temperature must be a tensor of real numbers"),
        (TemperatureScaled, (nn.Identity(), torch.tensor([1.0, -2.0])), {}, ValueError, "temperature must be above 0"),
        (TemperatureScaled, (nn.Identity(),), {"axis": "1"}, TypeError, "axis must be an integer"),
    ],
)
def test_a_wrong_option_is_named_when_the_module_is_built(module, arguments, options, error, match):
    with pytest.raises(error, match=match):
        module(*arguments, **options)


def test_numbers_of_numpy_are_numbers():
    options = {"ignore_index": np.int64(1), "label_smoothing": np.float32(0.25), "axis": np.int32(1)}
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = CrossEntropyLoss(ignore_index=1, label_smoothing=0.25, axis=1)(logits, target)
    torch.testing.assert_close(CrossEntropyLoss(**options)(logits, target), expected)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (CrossEntropyLoss(), "CrossEntropyLoss()"),
        (
            CrossEntropyLoss(torch.ones(3), 0, "sum", 0.1, axis=-1, z_loss=1e-4, logit_softcap=30),
            "CrossEntropyLoss(weight=<tensor of shape (3,)>, ignore_index=0, reduction='sum', label_smoothing=0.1, "
            "axis=-1, z_loss=0.0001, logit_softcap=30.0)",
        ),
        (
            CrossEntropyLoss(smoothing_prior=torch.ones(3), temperature=torch.tensor(2.0)),
            "CrossEntropyLoss(smoothing_prior=<tensor of shape (3,)>, temperature=tensor(2.))",
        ),
        (CrossEntropyLoss(temperature=nn.Parameter(torch.tensor(2.0))), "CrossEntropyLoss(temperature=tensor(2.))"),
        (DistillationLoss(), "DistillationLoss()"),
        (
            DistillationLoss(divergence="alpha", divergence_alpha=0.2, scale_by_temperature_squared=False),
            "DistillationLoss(divergence='alpha', divergence_alpha=0.2, scale_by_temperature_squared=False)",
        ),
        (BCEWithLogitsLoss(), "BCEWithLogitsLoss()"),
        (
            BCEWithLogitsLoss(reduction="none", pos_weight=torch.ones(2, 1)),
            "BCEWithLogitsLoss(reduction='none', pos_weight=<tensor of shape (2, 1)>)",
        ),
    ],
)
def test_repr_shows_the_options_that_are_off_their_defaults(module, text):
    assert repr(module) == text


def test_repr_of_a_scaled_model_shows_its_temperature_and_axis():
    text = repr(TemperatureScaled(nn.Identity(), 2.0, axis=-1))
    assert "temperature=tensor(2.), axis=-1" in text
    assert "(model): Identity()" in text


TENSORS = {
    CrossEntropyLoss: {
        "weight": torch.tensor([1.0, 2.0, 3.0]),
        "smoothing_prior": torch.tensor([0.5, 0.25, 0.25]),
        "temperature": torch.tensor([2.0, 0.5]),
        "label_smoothing": torch.tensor([0.1, 0.2]),
    },
    DistillationLoss: {"temperature": torch.tensor([2.0, 0.5]), "label_smoothing": torch.tensor(0.1)},
    BCEWithLogitsLoss: {
        "weight": torch.tensor([1.0, 2.0, 3.0]),
        "pos_weight": torch.tensor([1.0, 2.0, 3.0]),
        "label_smoothing": torch.tensor([0.1, 0.2, 0.3]),
    },
}


@pytest.mark.parametrize("module", TENSORS)
def test_tensor_options_follow_the_module(module):
    loss = module(**TENSORS[module])
    assert {name: value.shape for name, value in loss.named_buffers()} == {
        name: value.shape for name, value in TENSORS[module].items()
    }
    assert not loss.state_dict()
    assert {buffer.dtype for buffer in loss.to(torch.float64).buffers()} == {torch.float64}
    assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


@pytest.mark.parametrize("module", TENSORS)
def test_tensor_options_give_the_numbers_of_the_rows_alone(module):
    x = torch.randn(2, 3, dtype=torch.float64)
    loss = module(**TENSORS[module], reduction="none")
    if module is BCEWithLogitsLoss:
        expected = nn.BCEWithLogitsLoss(
            TENSORS[module]["weight"], reduction="none", pos_weight=TENSORS[module]["pos_weight"]
        )(x, torch.eye(3, dtype=x.dtype)[:2] * (1 - (eps := TENSORS[module]["label_smoothing"])) + eps / 2)
        torch.testing.assert_close(CALLS[module](loss, x), expected)
        return
    for row in range(2):
        options = {
            name: value[row].item() if name in ("temperature", "label_smoothing") and value.dim() else value
            for name, value in TENSORS[module].items()
        }
        torch.testing.assert_close(
            CALLS[module](loss, x)[row], CALLS[module](module(**options, reduction="none"), x)[row]
        )


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"label_smoothing": torch.tensor(0.1)}])
def test_modules_are_built_on_the_meta_device(options):
    with torch.device("meta"):
        for module in (CrossEntropyLoss(torch.ones(3), **options), DistillationLoss(**options)):
            assert all(buffer.is_meta for buffer in module.buffers())
        assert TemperatureScaled(nn.Linear(2, 3)).temperature.is_meta


class Classifier(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.head, self.loss = nn.Linear(2, 3), loss


@pytest.mark.parametrize(
    ("torchs", "ours"),
    [
        (lambda w: nn.CrossEntropyLoss(weight=w), lambda w: CrossEntropyLoss(weight=w)),
        (lambda w: nn.BCEWithLogitsLoss(w, pos_weight=w), lambda w: BCEWithLogitsLoss(w, pos_weight=w)),
    ],
)
def test_the_state_of_torchs_loss_loads_strictly(torchs, ours):
    saved = Classifier(torchs(torch.tensor([1.0, 2.0, 3.0])))
    model = Classifier(ours(torch.ones(3)))
    model.load_state_dict(saved.state_dict())
    torch.testing.assert_close(model.head.weight, saved.head.weight)
    for name, value in saved.loss.named_buffers():
        torch.testing.assert_close(getattr(model.loss, name), value)
    assert not model.loss.state_dict()
    model.load_state_dict(model.state_dict())  # and so does its own, which is without the weights
    with pytest.raises(RuntimeError, match=r"size mismatch for loss\.weight"):
        Classifier(ours(torch.ones(4))).load_state_dict(saved.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        Classifier(ours(None)).load_state_dict(saved.state_dict())


def test_calibration_does_not_modify_the_given_temperature():
    temperature = torch.tensor(2.0)
    model = TemperatureScaled(nn.Identity(), temperature)
    logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    model.calibrate([(logits, torch.tensor([0, 0, 1, 1]))])
    assert model.temperature != 2.0
    assert temperature == 2.0


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (3,)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_the_error_for_integer_one_hot_targets_asks_for_floating_point(shape, dtype):
    logits, target = torch.randn(shape), torch.zeros(shape, dtype=dtype)
    ids = shape[:1] + shape[2:] if len(shape) > 1 else ()
    message = f"target has the shape of input, {shape}, so it must hold distributions in floating point; got {dtype}."
    for call in (lambda: CrossEntropyLoss()(logits, target), lambda: DistillationLoss()(logits, logits, target)):
        with pytest.raises(TypeError, match=re.escape(message) + ".*" + re.escape(f"class ids of shape {ids}")):
            call()


@pytest.mark.parametrize("module", CALLS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64])
def test_logits_of_another_dtype_are_named(module, dtype):
    with pytest.raises(TypeError, match=rf"floating point, got {str(dtype).removeprefix('torch.')}"):
        CALLS[module](module(), torch.zeros(2, 3).to(dtype))


@pytest.mark.parametrize("module", [CrossEntropyLoss, DistillationLoss])
def test_class_ids_of_bool_are_named(module):
    x, ids = torch.randn(2, 3), torch.tensor([True, False])
    with pytest.raises(TypeError, match=r"must be integer.*, got bool"):
        module()(*((x, ids) if module is CrossEntropyLoss else (x, x, ids)))


@pytest.mark.parametrize("soft", [False, True], ids=["class ids", "distributions"])
def test_a_mask_leaves_rows_out(soft):
    torch.manual_seed(0)
    z, counted = torch.randn(6, 4), torch.tensor([True, False, True, True, False, True])
    target = torch.softmax(torch.randn(6, 4), 1) if soft else torch.tensor([0, 1, 2, 3, 0, 1])
    dirty = z.masked_fill(~counted[:, None], torch.nan).requires_grad_()
    for module in (integration.CrossEntropyLoss(label_smoothing=0.1), integration.DistillationLoss(temperature=2.0)):
        others = () if isinstance(module, integration.CrossEntropyLoss) else (torch.zeros(6, 4),)
        loss = module(dirty, *others, target, mask=counted)
        expected = module(z[counted], *(x[counted] for x in others), target[counted])
        torch.testing.assert_close(loss, expected)
        assert torch.isfinite(torch.autograd.grad(loss, dirty)[0]).all()
    target, elements = torch.rand(6, 4), torch.rand(6, 4) > 0.5
    loss = integration.BCEWithLogitsLoss()(z.masked_fill(~elements, torch.nan), target, mask=elements)
    torch.testing.assert_close(loss, integration.BCEWithLogitsLoss()(z[elements], target[elements]))


@pytest.mark.parametrize(
    "option",
    [
        {"weight": torch.tensor([1.0, 2.0, 4.0])},
        {"ignore_index": 0},
        {"ignore_index": -1},
        {"reduction": "sum"},
        {"label_smoothing": 0.1},
        {"smoothing_prior": torch.tensor([1.0, 2.0, 4.0]), "label_smoothing": 0.1},
        {"temperature": 2.0},
        {"z_loss": 0.1},
        {"logit_softcap": 3.0},
        {"num_classes": 2},
        {"axis": 0},
    ],
    ids=lambda option: next(iter(option)),
)
@pytest.mark.parametrize("times", [1, 2])
def test_an_option_that_changes_between_calls_takes_effect(option, times):
    logits, labels = torch.randn(3, 3), torch.tensor([0, 1, option.get("ignore_index", 1)])
    loss = CrossEntropyLoss()
    loss(logits, labels.clamp(0))
    for _ in range(times):
        for name, value in option.items():
            setattr(loss, name, value)
    expected = CrossEntropyLoss(**option)(logits, labels)
    assert expected != CrossEntropyLoss()(logits, labels.clamp(0))
    torch.testing.assert_close(loss(logits, labels), expected)
