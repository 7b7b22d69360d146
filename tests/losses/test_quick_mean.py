"""The quick mean of a small batch is used only if all other options are at their defaults."""

import contextlib
import inspect

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.losses import sigmoid_cross_entropy, sigmoid_focal_loss, softmax_cross_entropy
from lsmooth.losses._quick import SOFTMAX

LABELS, LOGITS = np.array([0, 2]), np.array([[2.0, 0.0, 1.0], [0.0, 0.5, 3.0]])
LOSSES = [(softmax_cross_entropy, SOFTMAX, LABELS)]
# A value other than the default for each option.
VALUES = {
    "label_smoothing": 0.1,
    "ignore_index": 2,
    "axis": 1,
    "class_weight": np.array([1.0, 2.0, 3.0]),
    "mask": np.array([True, False]),
    "smoothing_prior": np.array([0.5, 0.25, 0.25]),
    "sample_weight": np.array([1.0, 2.0]),
    "temperature": 2.0,
    "z_loss": 0.5,
    "logit_softcap": 2.0,
    "num_classes": 3,
    "reduction": "sum",
    "class_shards": "a group",
    "row_shards": "a group",
    "overwrite_logits": True,
}
QUICK = "the quick mean"


@pytest.fixture
def asked(monkeypatch):
    """The options of each call of the quick mean of NumPy's backend."""
    found = []

    def quick_mean(self, loss, labels, logits, **options):
        found.append(options)
        return QUICK

    monkeypatch.setattr(type(require_backend("numpy")), "quick_mean", quick_mean)
    return found


def defaults_of(loss):
    """The options of a loss, with their defaults."""
    return {name: p.default for name, p in inspect.signature(loss).parameters.items() if p.default is not p.empty}


@pytest.mark.parametrize(("loss", "known", "labels"), LOSSES)
def test_every_option_is_known_or_rules_out_the_quick_mean(loss, known, labels, asked):
    for name in defaults_of(loss):
        options = {name: VALUES[name]}
        if name in known:
            assert loss(labels, LOGITS, **options) == QUICK
            assert asked.pop() == {known[name]: VALUES[name]}
            continue
        with contextlib.suppress(ValueError):  # NumPy's backend refuses the option
            assert not isinstance(loss(labels, LOGITS, **options), str)
        assert not asked


@pytest.mark.parametrize(("loss", "known", "labels"), LOSSES)
def test_options_that_are_given_at_their_defaults_do_not_rule_out_the_quick_mean(loss, known, labels, asked):
    assert loss(labels, LOGITS, **defaults_of(loss)) == QUICK
    assert loss(labels=labels, logits=LOGITS) == QUICK


def test_an_unknown_option_is_a_type_error(asked):
    with pytest.raises(TypeError, match="temprature"):
        softmax_cross_entropy(LABELS, LOGITS, temprature=2.0)
    assert not asked


def test_binary_losses_pass_every_option_to_the_kernel(monkeypatch):
    def quick_binary(self, labels, logits, given, *others):
        return given, others

    monkeypatch.setattr(type(require_backend("numpy")), "quick_binary", quick_binary)
    common = {"label_smoothing": 0.1, "sample_weight": 2.0, "mask": np.ones((2, 3), bool), "reduction": "sum"}
    for loss, own, defaults in (
        (sigmoid_cross_entropy, {"pos_weight": 3.0}, (3.0, 0.0, None)),
        (sigmoid_focal_loss, {"gamma": 1.5, "alpha": 0.3}, (None, 1.5, 0.3)),
    ):
        given, others = loss(np.eye(3)[LABELS], LOGITS, **common, **own)
        assert {name: getattr(given, name) for name in common} == common
        assert others == defaults
        assert {*common, *own, "row_shards"} == {*defaults_of(loss)}
