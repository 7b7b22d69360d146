"""lsmooth.integrations.torchmetrics: the functions of all rows, in batches, collections and across processes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import metrics

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
torch = pytest.importorskip("torch")
integration = pytest.importorskip("lsmooth.integrations.torchmetrics")
pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method")


@pytest.fixture(autouse=True)
def _torch():
    require_backend("torch")


CASES = {
    "ece": ("CalibrationError", {"n_bins": 5}, metrics.expected_calibration_error),
    "l2": ("CalibrationError", {"norm": "l2", "debias": True}, metrics.expected_calibration_error),
    "classwise": ("CalibrationError", {"classwise": True}, metrics.classwise_calibration_error),
    "nll": ("NegativeLogLikelihood", {}, metrics.negative_log_likelihood),
    "brier": ("BrierScore", {}, metrics.brier_score),
    "top2": ("TopKAccuracy", {"k": 2}, metrics.top_k_accuracy),
}
RNG = np.random.default_rng(0)
P, Y, WEIGHT = RNG.dirichlet(np.ones(4), 60), RNG.integers(0, 4, 60), RNG.random(60)
PREDS, TARGET, WEIGHTS = (torch.from_numpy(x) for x in (P, Y, WEIGHT))


def made(name):
    cls, options, function = CASES[name]
    rest = {key: value for key, value in options.items() if key != "classwise"}
    return getattr(integration, cls)(num_classes=4, **options), lambda *a, **o: float(function(*a, **rest, **o))


@pytest.mark.parametrize("name", CASES)
def test_batches_add_up_to_the_function(name):
    metric, function = made(name)
    assert metric.compute().item() == 0.0
    of_batches = [metric(PREDS[rows], TARGET[rows]).item() for rows in (slice(0, 20), slice(20, 60))]
    assert of_batches == pytest.approx([function(Y[:20], P[:20]), function(Y[20:], P[20:])], rel=1e-6)
    again = pickle.loads(pickle.dumps(copy.deepcopy(metric)))
    assert again.compute().item() == pytest.approx(function(Y, P), rel=1e-6)
    assert again.compute().dtype == torch.float32
    metric.reset()
    metric.update(PREDS, TARGET, WEIGHTS)
    assert metric.compute().item() == pytest.approx(function(Y, P, sample_weight=WEIGHT), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_processes_and_shards_add_up(name):
    shards, function = [made(name)[0] for _ in range(2)], made(name)[1]
    for shard, rows in zip(shards, (slice(0, 20), slice(20, 60)), strict=True):
        shard.update(PREDS[rows], TARGET[rows])
    sums = [getattr(shards[1], each) for each in shards[1]._defaults]
    first = copy.deepcopy(shards[0])
    first.dist_sync_fn, first.distributed_available_fn = lambda x, group: [x, sums.pop(0)], lambda: True
    assert first.compute().item() == pytest.approx(function(Y, P), rel=1e-6)
    shards[0].merge_state(shards[1])
    assert shards[0].compute().item() == pytest.approx(function(Y, P), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_state_is_that_of_lsmooths_own_metric(name):
    metric, function = made(name)
    metric.update(PREDS[:20], TARGET[:20])
    own = getattr(metrics, CASES[name][0])(axis=1, **CASES[name][1])
    own.set_state(metric.get_state())
    own.update_state(Y[20:], P[20:])
    other = made(name)[0]
    other.set_state(own.get_state())
    assert other.compute().item() == pytest.approx(function(Y, P), rel=1e-6)


def test_metrics_form_collections_and_classes_are_on_axis_1():
    collection = torchmetrics.MetricCollection([made(name)[0] for name in ("ece", "nll", "brier")])
    collection.update(PREDS.reshape(6, 10, 4).movedim(-1, 1), TARGET.reshape(6, 10))
    expected = {CASES[name][0]: made(name)[1](Y, P) for name in ("ece", "nll", "brier")}
    assert {name: value.item() for name, value in collection.compute().items()} == pytest.approx(expected, rel=1e-6)


def test_predictions_that_need_a_gradient_leave_no_graph():
    metric = integration.NegativeLogLikelihood(from_logits=True)
    metric.update(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]))
    assert not metric.compute().requires_grad


def test_an_unknown_option_and_another_number_of_classes_are_errors():
    with pytest.raises(ValueError, match="n_bin"):
        integration.CalibrationError(n_bin=3)
    with pytest.raises(ValueError, match="give num_classes=4"):
        integration.CalibrationError(classwise=True).update(PREDS, TARGET)
