"""The mean of a batch of PyTorch's tensors on the CPU with the fewest checks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

import lsmooth  # noqa: E402
from lsmooth.backends.torch import BACKEND, thresholds  # noqa: E402
from lsmooth.integrations.torch import CrossEntropyLoss  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402

NUM_CLASSES = 5
IGNORED = -100


@pytest.fixture(autouse=True, params=["native", "kernel"])
def backend(request, monkeypatch):
    """PyTorch; small batches by its own functions, or by the kernel of large ones."""
    if request.param == "kernel":
        monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", 0)
        monkeypatch.setattr(thresholds, "FEW_CLASSES", 0)
    return require_backend("torch")


@pytest.fixture(params=[(6, NUM_CLASSES), (2, NUM_CLASSES, 3, 2)], ids=["rows", "images"])
def batch(request):
    """Class ids, distributions, logits with a masked class, and a mask."""
    rng = np.random.default_rng(0)
    shape = request.param
    rows = (shape[0], *shape[2:])
    logits = torch.from_numpy(3.0 * rng.standard_normal(shape))
    ids = torch.from_numpy(rng.integers(0, NUM_CLASSES - 1, rows))
    soft = torch.softmax(torch.from_numpy(rng.standard_normal(shape)), 1)
    mask = torch.from_numpy(rng.random(rows) < 0.6)
    return ids, soft, logits, mask


def quick(labels, logits, label_smoothing=0.0, ignore_index=None, class_weight=None, mask=None):
    """The mean and its gradient, both of which must have been found the quick way."""
    z = logits.clone().requires_grad_()
    loss = BACKEND.quick_mean("softmax_cross_entropy", labels, z, label_smoothing, ignore_index, 1, class_weight, mask)
    assert loss is not None
    loss.backward()
    return loss.detach(), z.grad


def formula(labels, logits, label_smoothing=0.0, ignore_index=None, class_weight=None, mask=None):
    """The same by NumPy's backend, and the gradient by central differences of it."""
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index, "axis": 1}
    options |= {k: None if x is None else x.numpy() for k, x in (("class_weight", class_weight), ("mask", mask))}
    labels, z = labels.numpy(), logits.numpy().copy()
    gradient = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        if np.isfinite(z[i]):
            ends = []
            for step in (1e-6, -1e-6):
                moved = z.copy()
                moved[i] += step
                ends.append(softmax_cross_entropy(labels, moved, **options))
            gradient[i] = (ends[0] - ends[1]) / 2e-6
    return softmax_cross_entropy(labels, z, **options), gradient


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "weights": {"class_weight": torch.linspace(0.5, 2.0, NUM_CLASSES, dtype=torch.float64)},
    "ignored": {"ignore_index": IGNORED},
    "mask": {"mask": True},
    "all": {
        "label_smoothing": 0.1,
        "class_weight": torch.linspace(0.5, 2.0, NUM_CLASSES, dtype=torch.float64),
        "ignore_index": IGNORED,
        "mask": True,
    },
}


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked class"])
@pytest.mark.parametrize("options", list(OPTIONS.values()), ids=list(OPTIONS))
def test_class_ids(backend, batch, options, masked):
    ids, _, logits, mask = batch
    options = options | ({"mask": mask} if "mask" in options else {})
    if masked:
        logits[:, -1] = -torch.inf
    if "ignore_index" in options:
        ids[0] = IGNORED
    loss, gradient = quick(ids, logits, **options)
    expected, slope = formula(ids, logits, **options)
    assert_close(backend, loss, expected, "float64", 10)
    np.testing.assert_allclose(gradient, slope, atol=1e-8)


@pytest.mark.parametrize("name", ["plain", "smoothed", "weights", "mask"])
def test_distributions(backend, batch, name):
    _, soft, logits, mask = batch
    options = {"mask": mask} if name == "mask" else OPTIONS[name]
    loss, gradient = quick(soft, logits, **options)
    expected, slope = formula(soft, logits, **options)
    assert_close(backend, loss, expected, "float64", 10)
    np.testing.assert_allclose(gradient, slope, atol=1e-8)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("turn", range(3), ids=["first", "second", "third"])
def test_values_of_ignored_rows_do_not_contribute(batch, poison, turn):
    """Also in the calls after one with ignored rows, which expect them."""
    ids, _, logits, _ = batch
    ids[0], logits[0] = IGNORED, poison
    z = logits.requires_grad_()
    loss = softmax_cross_entropy(ids, z, axis=1, ignore_index=IGNORED)
    loss.backward()
    kept = softmax_cross_entropy(ids[1:], logits.detach()[1:], axis=1)
    torch.testing.assert_close(loss, kept)
    assert not z.grad[0].any()


def test_a_module_leaves_out_padding(batch):
    ids, _, logits, _ = batch
    loss = CrossEntropyLoss(num_classes=NUM_CLASSES - 1)(logits, ids)
    torch.testing.assert_close(loss, softmax_cross_entropy(ids, logits[:, :-1], axis=1))


def test_weights_of_a_module_may_require_a_gradient(batch):
    ids, _, logits, _ = batch
    weight = torch.nn.Parameter(torch.linspace(0.5, 2.0, NUM_CLASSES, dtype=torch.float64))
    loss = CrossEntropyLoss(weight)(logits, ids)
    loss.backward()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, ids, weight.detach()))
    assert weight.grad is not None


def test_arguments_of_other_kinds_are_passed_to_the_checks(batch):
    ids, soft, logits, mask = batch
    for labels, options in (
        (ids, {"class_weight": np.ones(NUM_CLASSES)}),
        (ids, {"class_weight": torch.ones(NUM_CLASSES + 1)}),
        (ids, {"mask": mask.long()}),
        (ids, {"ignore_index": 1.0}),
        (ids, {"label_smoothing": torch.tensor(0.1)}),
        (soft, {"ignore_index": IGNORED}),
        (ids[:1], {}),
        (torch.full_like(ids, IGNORED), {"ignore_index": IGNORED}),
    ):
        arguments = {"label_smoothing": 0.0} | options
        assert BACKEND.quick_mean("softmax_cross_entropy", labels, logits, axis=1, **arguments) is None


def test_values_are_checked_only_if_asked(batch):
    _, soft, logits, _ = batch
    with lsmooth.validate(), pytest.raises(ValueError, match="labels"):
        softmax_cross_entropy(-soft, logits, axis=1)
