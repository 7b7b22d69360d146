"""Losses with rows spread over members: each gets the loss of all rows and the gradient of its own."""

import inspect

import numpy as np
import pytest
from conftest import require_backend
from members_in_threads import Exchange

from lsmooth import distillation, losses
from lsmooth.distillation import DistillationLoss

RNG = np.random.default_rng(0)
ROWS, CLASSES = 6, 5
PARTS = [slice(0, 4), slice(4, 4), slice(4, 6)]  # one member has no row
LOGITS, TEACHER = RNG.normal(size=(2, ROWS, CLASSES))
IDS = np.array([0, 4, -100, 1, -100, 2])
BINARY = RNG.random((ROWS, CLASSES))
KEPT = np.argsort(TEACHER, axis=1)[:, 3:]
KEPT_LOG_PROBS = np.log(np.full((ROWS, 2), 0.3))
WEIGHT = RNG.normal(size=(4, CLASSES))
OF_CLASSES, OF_ROWS = RNG.random(CLASSES), RNG.random(ROWS)

# Of each public function: its arrays, those along the rows first; how many these are; and which gets the gradient.
CALLS = {
    "sigmoid_cross_entropy": ((BINARY, LOGITS), 2, 1, {}),
    "sigmoid_focal_loss": ((BINARY, LOGITS), 2, 1, {}),
    "linear_softmax_cross_entropy": ((IDS, LOGITS, WEIGHT), 2, 1, {"ignore_index": -100}),
    "linear_softmax_cross_entropy_with_statistics": ((IDS, LOGITS, WEIGHT), 2, 1, {"ignore_index": -100}),
    "distillation_loss": ((TEACHER, LOGITS), 2, 1, {"temperature": 2.0}),
    "decoupled_distillation_loss": ((TEACHER, LOGITS, np.abs(IDS) % CLASSES), 3, 1, {}),
    "standardized_distillation_loss": ((TEACHER, LOGITS), 2, 1, {}),
    "ensemble_distillation_loss": ((TEACHER, LOGITS), 2, 1, {}),
    "mutual_distillation_losses": ((TEACHER, LOGITS), 2, 1, {}),
    "gkd_loss": ((TEACHER, LOGITS), 2, 1, {}),
    "sparse_distillation_loss": ((KEPT, KEPT_LOG_PROBS, LOGITS), 3, 2, {}),
    "linear_sparse_distillation_loss": ((KEPT, KEPT_LOG_PROBS, LOGITS, WEIGHT.T @ WEIGHT), 3, 2, {}),
    "linear_distillation_loss": ((TEACHER, WEIGHT, LOGITS, WEIGHT), 1, 2, {}),
}


def spread_functions():
    """The public functions that have the option."""
    for module in (losses, distillation):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and "row_shards" in inspect.signature(function).parameters:
                yield name, function


FUNCTIONS = dict(spread_functions())


@pytest.fixture(params=["numpy", "torch"])
def xp(request, monkeypatch):
    backend = require_backend(request.param)
    monkeypatch.setattr(type(backend), "members", lambda self, group, option: group)
    return backend


def call(xp, name, arrays, wanted, **options):
    """The loss, and the gradient of the array that is wanted."""
    made = [xp.asarray(np.array(x)) for x in arrays]
    if xp.name == "torch":
        made[wanted].requires_grad_()
    given = made
    if name == "ensemble_distillation_loss":
        given = ([made[0]], made[1])
    if name == "mutual_distillation_losses":
        given = (made,)
    loss = FUNCTIONS[name](*given, **options)
    loss = loss[-1] if isinstance(loss, list) else loss[0] if isinstance(loss, tuple) else loss
    if xp.name != "torch":
        return loss, None
    loss.sum().backward()
    return loss.detach().numpy(), made[wanted].grad.numpy()


def check(xp, name, arrays, along, wanted, options):
    whole, expected = call(xp, name, arrays, wanted, **options)
    per_row = ("sample_weight", "mask", "label_smoothing")

    def member(members):
        part = PARTS[members.index]
        cut = [x[part] if i in along else x for i, x in enumerate(arrays)]
        given = {key: x[part] if key in per_row and np.ndim(x) else x for key, x in options.items()}
        return call(xp, name, cut, wanted, row_shards=members, **given)

    exchange = Exchange(len(PARTS))
    found = exchange.together(member)
    if options.get("reduction") == "none":
        assert not exchange.calls
        np.testing.assert_allclose(np.concatenate([x for x, _ in found]), whole, rtol=1e-12, atol=1e-12)
    else:
        assert len(exchange.calls) == (2 if name == "mutual_distillation_losses" else 1), "one for each loss"
        assert all(shape in ((), (2,)) for _, shape in exchange.calls), "of the sum and the divisor"
        for loss, _ in found:
            np.testing.assert_allclose(loss, whole, rtol=1e-12, atol=1e-12)
    if expected is not None:
        np.testing.assert_allclose(np.concatenate([g for _, g in found]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_with_the_option_gives_the_mean_of_all_rows(xp, name):
    arrays, count, wanted, options = CALLS.get(name, ((IDS, LOGITS), 2, 1, {"ignore_index": -100}))
    along = (0, 2) if name == "linear_distillation_loss" else range(count)
    if "mask" in inspect.signature(FUNCTIONS[name]).parameters:
        mask = np.array([True, True, False, True, False, True])
        options = {
            **options,
            "mask": mask[:, None] & np.ones_like(BINARY, bool) if name.startswith("sigmoid") else mask,
        }
    check(xp, name, arrays, along, wanted, options)


OPTIONS = {
    "class weights": {"class_weight": OF_CLASSES, "label_smoothing": 0.1},
    "sum": {"reduction": "sum"},
    "by batch size": {"reduction": "sum_over_batch_size"},
    "by weights": {"reduction": "mean_with_sample_weight", "sample_weight": OF_ROWS},
    "by weights that are not 0": {"reduction": "sum_by_nonzero_weights", "sample_weight": np.round(OF_ROWS)},
    "none": {"reduction": "none", "sample_weight": OF_ROWS},
    "eps of rows": {"label_smoothing": np.linspace(0.0, 1.0, ROWS)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_reduction_is_over_all_rows(xp, name):
    check(xp, "softmax_cross_entropy", (IDS, LOGITS), (0, 1), 1, {**OPTIONS[name], "ignore_index": -100})


def test_both_parts_of_a_distillation_loss_are_means_of_all_rows(xp, monkeypatch):
    def loss(labels, teacher, student, row_shards=None):
        options = {"alpha": 0.3, "temperature": 2.0, "ignore_index": -100}
        return DistillationLoss(row_shards=row_shards, **options)(labels, teacher, student)

    monkeypatch.setitem(FUNCTIONS, "both", loss)
    check(xp, "both", (IDS, TEACHER, LOGITS), range(3), 2, {})


def test_a_batch_ignored_on_every_member_has_zero_loss(xp):
    ignored = np.full_like(IDS, -100)
    check(xp, "softmax_cross_entropy", (ignored, LOGITS), (0, 1), 1, {"ignore_index": -100})
