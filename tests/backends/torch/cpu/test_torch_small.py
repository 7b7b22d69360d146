"""The mean loss of a small batch of PyTorch tensors on the CPU, which has a separate code path."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

import lsmooth  # noqa: E402
from lsmooth.backends import formulas  # noqa: E402
from lsmooth.backends.options import SigmoidOptions, SoftmaxOptions  # noqa: E402
from lsmooth.backends.torch import BACKEND, thresholds  # noqa: E402
from lsmooth.backends.torch.cpu import small_cross_entropy  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

SOFTMAX, SIGMOID = "softmax_cross_entropy", "sigmoid_cross_entropy"


@pytest.fixture(autouse=True)
def backend():
    """PyTorch, which every test here needs."""
    return require_backend("torch")


def check(backend, z, loss, expected, gradient):
    assert_close(backend, loss, expected, "float64" if z.dtype == torch.float64 else "float32")
    (own,) = torch.autograd.grad(loss, z)
    assert own.dtype == z.dtype
    largest = np.abs(gradient).max()
    assert_close(backend, own / largest, gradient / largest, str(z.dtype).removeprefix("torch."))


@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("rows", [1, 32, thresholds.SMALL_CROSS_ENTROPY // 8, thresholds.SMALL_CROSS_ENTROPY // 8 + 1])
def test_softmax_on_both_sides_of_its_limit(backend, rows, dtype, eps):
    rng = np.random.default_rng(rows)
    labels = rng.integers(0, 8, rows)
    z = torch.from_numpy(3.0 * rng.standard_normal((rows, 8))).to(getattr(torch, dtype)).requires_grad_()
    loss = softmax_cross_entropy(torch.from_numpy(labels), z, label_smoothing=eps)
    check(backend, z, loss, *reference.softmax_cross_entropy(labels, z.detach().double().numpy(), label_smoothing=eps))


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 49, thresholds.SMALL_SIGMOID // 8, thresholds.SMALL_SIGMOID // 8 + 1])
def test_sigmoid_on_both_sides_of_its_limit(backend, rows, dtype, eps, labels):
    rng = np.random.default_rng(rows)
    labels = rng.choice([0.0, 1.0] if labels == "hard" else [0.0, 1.0, 0.25], (rows, 8))
    z = torch.from_numpy(4.0 * rng.standard_normal((rows, 8))).to(getattr(torch, dtype)).requires_grad_()
    loss = sigmoid_cross_entropy(torch.from_numpy(labels), z, label_smoothing=eps)
    check(backend, z, loss, *reference.sigmoid_cross_entropy(labels, z.detach().double().numpy(), label_smoothing=eps))


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1])
def test_float16(backend, eps):
    z = torch.randn(8, 4).half().requires_grad_()
    labels = (torch.rand(8, 4) < 0.5).half()
    loss = sigmoid_cross_entropy(labels, z, label_smoothing=eps)
    assert loss.dtype == torch.float32
    logits = z.detach().double().numpy()
    check(backend, z, loss, *reference.sigmoid_cross_entropy(labels.numpy(), logits, label_smoothing=eps))


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("labels", [[1.0, 0.0, 0.0], [1.0, 0.25, 0.0]], ids=["hard", "soft"])
def test_second_derivatives(labels, eps):
    z = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda z: sigmoid_cross_entropy(labels, z, label_smoothing=eps), z)
    assert torch.autograd.gradgradcheck(
        lambda z: softmax_cross_entropy(torch.tensor([2, 0]), torch.stack([z, 2.0 * z]), label_smoothing=eps), z
    )


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_integer_type(backend, dtype, eps):
    z = torch.randn(2, 3, 4, requires_grad=True)
    ids, answers = torch.tensor([[0, 1, 3], [2, 2, 0]], dtype=dtype), torch.randint(0, 2, z.shape).to(dtype)
    logits = z.detach().double().numpy()
    loss = softmax_cross_entropy(ids, z, label_smoothing=eps)
    check(backend, z, loss, *reference.softmax_cross_entropy(ids.numpy(), logits, label_smoothing=eps))
    loss = sigmoid_cross_entropy(answers, z, label_smoothing=eps)
    check(backend, z, loss, *reference.sigmoid_cross_entropy(answers.double().numpy(), logits, label_smoothing=eps))


def test_far_tails_of_hard_binary_labels():
    """Where exp(-z) is out of range on the wrong side, the loss is |z|."""
    z = torch.tensor([200.0, -200.0, 0.0], requires_grad=True)
    loss = sigmoid_cross_entropy(torch.tensor([0.0, 1.0, 1.0]), z)
    loss.backward()
    np.testing.assert_allclose(loss.item(), (400.0 + np.log(2.0)) / 3, rtol=1e-6)
    np.testing.assert_allclose(z.grad, np.array([1.0, -1.0, -0.5]) / 3, rtol=1e-6)


def test_small_smoothing_is_exact():
    loss = sigmoid_cross_entropy(torch.zeros(1), torch.tensor([-40.0]), label_smoothing=1e-4)
    np.testing.assert_allclose(loss.item(), 0.5e-4 * 40.0, rtol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_binary_labels_that_require_a_gradient_get_one(eps):
    answers, z = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([3.0, -1.0], requires_grad=True)
    sigmoid_cross_entropy(answers, z, label_smoothing=eps).backward()
    torch.testing.assert_close(answers.grad, (1.0 - eps) * -z.detach() / 2)


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1])
def test_the_scale_of_a_sum_may_be_any(backend, eps):
    answers, z = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([3.0, -1.0, 0.5], requires_grad=True)
    loss = BACKEND.sigmoid_cross_entropy(z, answers, SigmoidOptions(eps, scale=0.7, total=True))
    logits = z.detach().double().numpy()
    expected, gradient = reference.sigmoid_cross_entropy(answers.numpy(), logits, label_smoothing=eps, reduction="sum")
    check(backend, z, loss, 0.7 * expected, 0.7 * gradient)


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.5])
def test_smoothed_binary_labels_are_exact_in_both_tails(backend, eps):
    z = torch.linspace(-60.0, 60.0, 97, requires_grad=True)
    labels = (z.detach() > 0).float()
    for at in range(len(z)):
        loss = sigmoid_cross_entropy(labels[at], z[at], label_smoothing=eps)
        expected = reference.sigmoid_cross_entropy(labels[at].numpy(), z[at].detach().numpy(), label_smoothing=eps)[0]
        np.testing.assert_allclose(loss.item(), expected, rtol=4e-6)


def test_the_default_device_is_not_used():
    labels, z = torch.tensor([0, 2]), torch.randn(2, 3)
    answers = torch.ones(2, 3)
    expected = softmax_cross_entropy(labels, z, label_smoothing=0.1), sigmoid_cross_entropy(answers, z)
    with torch.device("meta"):
        assert softmax_cross_entropy(labels, z, label_smoothing=0.1) == expected[0]
        assert sigmoid_cross_entropy(answers, z) == expected[1]


def test_values_are_checked_under_validate():
    with lsmooth.validate():
        with pytest.raises(ValueError, match="class ids"):
            softmax_cross_entropy(torch.tensor([0, 3]), torch.randn(2, 3))
        with pytest.raises(ValueError, match="no NaN"):
            softmax_cross_entropy(torch.tensor([0, 2]), torch.full((2, 3), torch.nan))
        with pytest.raises(ValueError, match="no NaN"):
            sigmoid_cross_entropy(torch.ones(2, 3), torch.full((2, 3), torch.nan), label_smoothing=0.1)
    assert softmax_cross_entropy(torch.tensor([0, 3]), torch.randn(2, 3)).isnan()


@pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan")])
def test_smoothing_out_of_range_is_refused(eps):
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        softmax_cross_entropy(torch.tensor([0, 2]), torch.randn(2, 3), label_smoothing=eps)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        sigmoid_cross_entropy(torch.ones(2, 3), torch.randn(2, 3), label_smoothing=eps)


def test_arguments_of_the_wrong_shape_are_refused():
    z = torch.randn(2, 3)
    with pytest.raises(ValueError, match="labels must have shape"):
        softmax_cross_entropy(torch.tensor([0, 2, 1]), z)
    with pytest.raises(TypeError, match="must be integers"):
        softmax_cross_entropy(torch.tensor([0.0, 2.0]), z)
    with pytest.raises(TypeError, match="floating point"):
        softmax_cross_entropy(torch.tensor([0, 2]), z.long())
    with pytest.raises(ValueError, match="shape of the logits"):
        sigmoid_cross_entropy(torch.ones(3), z)
    with pytest.raises(TypeError, match="floating point"):
        sigmoid_cross_entropy(torch.ones(2, 3), z.long())


@pytest.mark.parametrize(
    "option",
    [
        {"smoothing_prior": [0.2, 0.3, 0.5]},
        {"class_weight": [0.5, 2.0, 1.0]},
        {"sample_weight": [0.5, 2.0, 1.0]},
        {"ignore_index": 2},
        {"temperature": 2.0},
        {"z_loss": 0.1},
        {"logit_softcap": 2.0},
        {"reduction": "sum"},
        {"axis": 0},
    ],
    ids=str,
)
def test_check_backend_finds_an_ignored_option(backend, option):
    """Each has its effect on a small batch; a square one, so that either axis fits."""
    labels, z = np.array([0, 2, 1]), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    loss = softmax_cross_entropy(torch.from_numpy(labels), z, label_smoothing=0.1, **option)
    arrays = {name: np.array(value) if isinstance(value, list) else value for name, value in option.items()}
    logits = z.detach().numpy()
    if "axis" in arrays:
        expected, gradient = reference.softmax_cross_entropy(labels, logits.T, label_smoothing=0.1)
        gradient = gradient.T
    else:
        expected, gradient = reference.softmax_cross_entropy(labels, logits, label_smoothing=0.1, **arrays)
    check(backend, z, loss, expected, gradient)


@pytest.mark.parametrize("option", ["pos_weight", "sample_weight", "reduction"])
def test_check_backend_finds_an_ignored_option_of_the_sigmoid_loss(backend, option):
    given = {"pos_weight": 2.0, "sample_weight": 0.5, "reduction": "sum"}
    labels, z = torch.tensor([1.0, 0.0]), torch.randn(2, dtype=torch.float64, requires_grad=True)
    loss = sigmoid_cross_entropy(labels, z, label_smoothing=0.1, **{option: given[option]})
    options = {option: given[option]}
    expected = reference.sigmoid_cross_entropy(labels.numpy(), z.detach().numpy(), label_smoothing=0.1, **options)
    check(backend, z, loss, *expected)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_ignored_rows_do_not_affect_gradients(eps, junk):
    z = torch.randn(4, 3)
    z[1] = junk
    z.requires_grad_()
    labels = torch.tensor([0, -100, 2, 1])
    (gradient,) = torch.autograd.grad(softmax_cross_entropy(labels, z, label_smoothing=eps, ignore_index=-100), z)
    kept = z.detach()[[0, 2, 3]].requires_grad_()
    (expected,) = torch.autograd.grad(softmax_cross_entropy(labels[[0, 2, 3]], kept, label_smoothing=eps), kept)
    torch.testing.assert_close(gradient[[0, 2, 3]], expected)
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("eps", ["one", "of each row"])
@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_smoothing_leaves_masked_classes_out(backend, eps, with_prior, with_weight, z_loss):
    z = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    z[0, 0] = z[2, [1, 4]] = z[:, 8] = -torch.inf
    labels, per_class = torch.tensor([1, 2, 3, 4, 5, 6]), torch.linspace(0.5, 2.0, 9, dtype=torch.float64)
    options = SoftmaxOptions(
        label_smoothing=0.2 if eps == "one" else torch.linspace(0.1, 0.9, 6, dtype=torch.float64),
        prior=per_class.flip(0) if with_prior else None,
        class_weight=per_class if with_weight else None,
        z_loss=z_loss,
    )
    found = small_cross_entropy.sweep(z, labels, options, with_gradient=True)
    assert found is not None
    x = z.clone().requires_grad_()
    losses = formulas.softmax_cross_entropy(BACKEND, x, labels, options)
    losses.sum().backward()
    np.testing.assert_allclose(found[0], losses.detach(), rtol=1e-12)
    np.testing.assert_allclose(found[1], x.grad, atol=1e-13)


def test_an_ignored_class_may_be_numpys_integer_and_nothing_else():
    labels, z = torch.tensor([0, 1, 1]), torch.randn(3, 4)
    expected = torch.nn.functional.cross_entropy(z, labels, ignore_index=1)
    for ignore_index in (1, np.int64(1)):
        torch.testing.assert_close(softmax_cross_entropy(labels, z, ignore_index=ignore_index), expected)
    with pytest.raises(TypeError, match="ignore_index must be None or an integer"):
        softmax_cross_entropy(labels, z, ignore_index=1.5)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("limit", [0, thresholds.SMALL_CROSS_ENTROPY])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_distributions_in_any_memory_order(backend, order, axis, eps, limit, reduction, monkeypatch):
    """Of the labels and of the logits, for one block and for PyTorch's own functions."""
    monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", limit)
    monkeypatch.setattr(thresholds, "FEW_CLASSES", 0)
    rng = np.random.default_rng(axis)
    inverse = np.argsort(order)

    def in_order(x):
        return torch.from_numpy(np.ascontiguousarray(x.transpose(order)).transpose(inverse))

    labels, z = rng.dirichlet(np.ones(5), (3, 4)), rng.standard_normal((3, 4, 5))
    labels, z = np.moveaxis(labels, -1, axis), np.moveaxis(z, -1, axis)
    for ours in (in_order(z), torch.from_numpy(z.copy())):
        for theirs in (in_order(labels), torch.from_numpy(labels.copy())):
            given = ours.requires_grad_()
            loss = softmax_cross_entropy(theirs, given, axis=axis, label_smoothing=eps, reduction=reduction)
            (gradient,) = torch.autograd.grad(loss.mean(), given)
            expected = torch.nn.functional.cross_entropy(
                given.movedim(axis, -1).reshape(-1, 5), theirs.movedim(axis, -1).reshape(-1, 5), label_smoothing=eps
            )
            torch.testing.assert_close(loss.mean(), expected)
            torch.testing.assert_close(gradient, torch.autograd.grad(expected, given)[0])
