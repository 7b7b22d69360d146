"""Losses of preferences: the formulas and their gradients in float64 NumPy, extreme margins, noise, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from compilation import compiled
from conftest import as_dtype, assert_close

import lsmooth
from lsmooth.preference import dpo_loss, reward_loss

LOSSES = [
    ("sigmoid", 0.0),
    ("sigmoid", 0.1),
    ("sigmoid", 1.0),
    ("robust", 0.0),
    ("robust", 0.1),
    ("robust", 0.45),
    ("hinge", 0.0),
    ("ipo", 0.0),
    ("exo_pair", 1e-3),
    ("exo_pair", 0.3),
]
RNG = np.random.default_rng(0)
PAIRS = np.round(RNG.normal(-20.0, 6.0, (4, 3, 5)) * 16) / 16


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def expected(loss_type, eps, m, beta):
    """The loss of each pair, and its derivative by m."""
    x = beta * m
    p, q, log_p, log_q = np.exp(log_sigmoid(x)), np.exp(log_sigmoid(-x)), log_sigmoid(x), log_sigmoid(-x)
    if loss_type == "sigmoid":
        return -(1 - eps) * log_p - eps * log_q, beta * (-(1 - eps) * q + eps * p)
    if loss_type == "robust":
        scale = 1 - 2 * eps
        return (-(1 - eps) * log_p + eps * log_q) / scale, beta * (-(1 - eps) * q - eps * p) / scale
    if loss_type == "hinge":
        return np.maximum(0.0, 1 - x), np.where(x < 1, -beta, 0.0)
    if loss_type == "ipo":
        return (m - 1 / (2 * beta)) ** 2, 2 * (m - 1 / (2 * beta))
    loss = p * (log_p - np.log(1 - eps)) + q * (log_q - np.log(eps))
    return loss, beta * p * q * (x - np.log((1 - eps) / eps))


def gradients(backend, loss, *arrays):
    """The gradients of a loss with respect to each array."""
    found = []
    for place, array in enumerate(arrays):
        call = lambda x, place=place: loss(*arrays[:place], x, *arrays[place + 1 :])  # noqa: E731
        found.append(backend.to_numpy(backend.value_and_grad(call, array)[1]))
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("loss_type", "eps"), LOSSES)
def test_losses_and_gradients_match_the_formula(backend, loss_type, eps, dtype):
    arrays = [as_dtype(backend, x, dtype) for x in PAIRS]
    values = [backend.to_numpy(x).astype(np.float64) for x in arrays]
    m = (values[0] - values[1]) - (values[2] - values[3])
    options = {"beta": 0.25, "label_smoothing": eps, "loss_type": loss_type}
    rows, slopes = expected(loss_type, eps, m, 0.25)
    result = "float64" if dtype == "float64" else "float32"
    loss = dpo_loss(*arrays, reduction="none", **options)
    assert backend.dtype(loss) == result
    assert_close(backend, loss, rows, result, 4.0)
    assert_close(backend, dpo_loss(*arrays, **options), rows.mean(), result, 4.0)
    if backend.name == "numpy":
        return
    found = gradients(backend, lambda *x: dpo_loss(*x, *arrays[2:], reduction="sum", **options), *arrays[:2])
    assert_close(backend, found[0], slopes, dtype, 4.0)
    assert_close(backend, found[1], -slopes, dtype, 4.0)


def test_the_reference_gets_no_gradient(differentiable_backend):
    xp = differentiable_backend
    chosen, rejected, *_ = (xp.asarray(x) for x in PAIRS)
    found = gradients(xp, lambda x, y: dpo_loss(x, y, x, y, reduction="sum"), chosen, rejected)
    assert_close(xp, found[0], np.full((3, 5), -0.05), "float64")
    assert_close(xp, found[1], np.full((3, 5), 0.05), "float64")


@pytest.mark.parametrize(("loss_type", "eps"), LOSSES)
def test_extreme_margins_are_finite_and_exact(backend, loss_type, eps):
    m = np.array([0.0, 1e-3, -1e-3, 1.0, 30.0, -30.0, 100.0, -100.0, 1e4, -1e4])
    for dtype in ("float64", "float32"):
        zero = backend.asarray(np.zeros(len(m)), dtype)
        options = {"beta": 1.0, "label_smoothing": eps, "loss_type": loss_type, "reduction": "none"}
        rows, slopes = expected(loss_type, eps, m, 1.0)
        value = backend.to_numpy(dpo_loss(backend.asarray(m, dtype), zero, zero, zero, **options))
        tolerance = 1e-12 if dtype == "float64" else 3e-6
        np.testing.assert_allclose(value, rows, rtol=tolerance, atol=tolerance)
        if backend.name == "numpy":
            continue
        call = lambda x: backend.sum(dpo_loss(x, zero, zero, zero, **options))  # noqa: B023, E731
        _, gradient = backend.value_and_grad(call, backend.asarray(m, dtype))
        np.testing.assert_allclose(backend.to_numpy(gradient), slopes, rtol=tolerance, atol=tolerance)


def test_an_impossible_label_gives_the_limit_of_the_loss(backend):
    zero, impossible = backend.asarray(np.zeros(2)), backend.asarray(np.array([-np.inf, -np.inf]))
    for loss_type, limit in (("sigmoid", 0.0), ("robust", 0.0), ("hinge", 0.0)):
        loss = dpo_loss(zero, impossible, zero, zero, loss_type=loss_type)
        assert float(loss) == limit
    exo = dpo_loss(zero, impossible, zero, zero, loss_type="exo_pair", label_smoothing=0.25)
    assert float(exo) == pytest.approx(-np.log(0.75), rel=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3, 0.49])
def test_robust_is_unbiased_under_swapped_preferences(eps):
    """A pair is swapped with probability eps: the expectation of ``robust`` is the loss without noise."""
    one, other, reference, reference_2 = PAIRS
    options = {"beta": 0.25, "reduction": "none"}
    kept = dpo_loss(one, other, reference, reference_2, loss_type="robust", label_smoothing=eps, **options)
    swapped = dpo_loss(other, one, reference_2, reference, loss_type="robust", label_smoothing=eps, **options)
    clean = dpo_loss(one, other, reference, reference_2, **options)
    np.testing.assert_allclose((1 - eps) * kept + eps * swapped, clean, rtol=1e-11)
    smoothed = dpo_loss(one, other, reference, reference_2, label_smoothing=0.1, **options)
    assert not np.allclose(smoothed, clean)  # conservative DPO is another loss


def test_conservative_dpo_is_the_expected_loss_under_swapped_preferences():
    one, other, reference, reference_2 = PAIRS
    kept = dpo_loss(one, other, reference, reference_2)
    swapped = dpo_loss(other, one, reference_2, reference)
    smoothed = dpo_loss(one, other, reference, reference_2, label_smoothing=0.2)
    np.testing.assert_allclose(smoothed, 0.8 * kept + 0.2 * swapped, rtol=1e-12)


@pytest.mark.parametrize("eps", [1e-3, 0.3])
def test_exo_is_zero_at_the_smoothed_preference(backend, eps):
    m = np.array([np.log((1 - eps) / eps)])
    zero = backend.asarray(np.zeros(1))
    options = {"beta": 1.0, "loss_type": "exo_pair", "label_smoothing": eps}
    assert abs(float(dpo_loss(backend.asarray(m), zero, zero, zero, **options))) < 1e-6
    assert float(dpo_loss(backend.asarray(m + 1), zero, zero, zero, **options)) > 1e-5


WEIGHT, MASK = np.array([[2.0], [0.5], [0.0]]), np.arange(15).reshape(3, 5) % 4 != 1
COUNT, TOTAL = MASK.sum(), (WEIGHT * MASK).sum()
REDUCTIONS = {
    "none": WEIGHT * MASK,
    "sum": WEIGHT * MASK,
    "mean": WEIGHT * MASK / TOTAL,
    "sum_over_batch_size": WEIGHT * MASK / COUNT,
    "mean_with_sample_weight": WEIGHT * MASK / TOTAL,
    "sum_by_nonzero_weights": WEIGHT * MASK / (MASK * (WEIGHT != 0)).sum(),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_weights_and_masks(backend, reduction):
    """Pairs that do not count may hold NaN, and have a zero gradient."""
    arrays = [backend.asarray(np.where(MASK, x, np.nan)) for x in PAIRS]
    options = {"sample_weight": backend.asarray(WEIGHT), "mask": backend.asarray(MASK), "reduction": reduction}
    rows, slopes = expected("sigmoid", 0.1, (PAIRS[0] - PAIRS[1]) - (PAIRS[2] - PAIRS[3]), 0.1)
    wanted = REDUCTIONS[reduction] * rows
    wanted = wanted if reduction == "none" else wanted.sum()
    assert_close(backend, dpo_loss(*arrays, label_smoothing=0.1, **options), wanted, "float64", 4.0)
    rewards, _ = expected("sigmoid", 0.1, PAIRS[0] - PAIRS[1] - 0.5, 1.0)
    wanted = REDUCTIONS[reduction] * rewards
    wanted = wanted if reduction == "none" else wanted.sum()
    loss = reward_loss(*arrays[:2], margin=0.5, label_smoothing=0.1, **options)
    assert_close(backend, loss, wanted, "float64", 4.0)
    if backend.name != "numpy":
        loss = lambda *x: backend.sum(dpo_loss(*x, *arrays[2:], label_smoothing=0.1, **options))  # noqa: E731
        found = gradients(backend, loss, *arrays[:2])
        assert_close(backend, found[0], REDUCTIONS[reduction] * slopes, "float64", 4.0)


def test_no_pairs_that_count_cost_nothing(backend):
    arrays = [backend.asarray(x) for x in PAIRS]
    assert float(dpo_loss(*arrays, mask=backend.asarray(np.zeros((3, 5), bool)))) == 0.0
    assert float(reward_loss(*(backend.asarray(np.zeros(0)) for _ in range(2)))) == 0.0


@pytest.mark.parametrize("margin", [None, 0.5, np.array([0.5, 0.0, -1.0, 2.0, 1.0]), PAIRS[2] / 16])
@pytest.mark.parametrize("eps", [0.0, 0.1, np.array([[0.0], [0.5], [1.0]])])
def test_reward_loss_is_the_bradley_terry_loss(backend, margin, eps):
    chosen, rejected = (backend.asarray(x) for x in PAIRS[:2])
    as_tensor = lambda x: backend.asarray(x) if isinstance(x, np.ndarray) else x  # noqa: E731
    rows, slopes = expected("sigmoid", eps, PAIRS[0] - PAIRS[1] - (0.0 if margin is None else margin), 1.0)
    options = {"margin": as_tensor(margin), "label_smoothing": as_tensor(eps)}
    assert_close(backend, reward_loss(chosen, rejected, reduction=None, **options), rows, "float64", 4.0)
    if backend.name != "numpy":
        found = gradients(backend, lambda *x: reward_loss(*x, **options), chosen, rejected)
        assert_close(backend, found[0], slopes / slopes.size, "float64", 4.0)
        assert_close(backend, found[1], -slopes / slopes.size, "float64", 4.0)


def test_references_may_come_from_numpy_in_another_dtype(backend):
    policy = [backend.asarray(x, "float32") for x in PAIRS[:2]]
    rows, _ = expected("sigmoid", 0.0, (PAIRS[0] - PAIRS[1]) - (PAIRS[2] - PAIRS[3]), 0.1)
    for reference in (PAIRS[2:], PAIRS[2:].tolist(), [backend.asarray(x, "float64") for x in PAIRS[2:]]):
        loss = dpo_loss(*policy, *reference)
        assert backend.dtype(loss) == "float32"
        assert_close(backend, loss, rows.mean(), "float32", 4.0)


@pytest.mark.parametrize("loss_type", ["sigmoid", "robust", "hinge", "ipo", "exo_pair"])
def test_compiled_calls_give_the_same_loss(differentiable_backend, loss_type):
    xp = differentiable_backend
    eps = {"hinge": 0.0, "ipo": 0.0}.get(loss_type, 0.1)

    def loss(*arrays):
        return dpo_loss(*arrays, loss_type=loss_type, label_smoothing=eps) + reward_loss(*arrays[:2], margin=1.0)

    arrays = [xp.asarray(x) for x in PAIRS]
    assert_close(xp, compiled(xp, loss, *arrays), xp.to_numpy(loss(*arrays)), "float64")


@pytest.mark.parametrize(
    ("loss_type", "eps", "message"),
    [
        ("sigmoid", 1.5, r"label_smoothing must be in \[0, 1\] with loss_type='sigmoid'; got 1.5"),
        ("sigmoid", -0.1, "got -0.1"),
        ("sigmoid", float("nan"), "got nan"),
        ("robust", 0.5, r"label_smoothing must be in \[0, 1/2\) with loss_type='robust'; got 0.5"),
        ("hinge", 0.1, "label_smoothing must be 0, because the loss has no smoothed form, with loss_type='hinge'"),
        ("ipo", 0.1, "label_smoothing must be 0, because the loss has no smoothed form, with loss_type='ipo'"),
        ("ipo", np.zeros((3, 5)), "got a tensor"),
        ("exo_pair", 0.0, "label_smoothing must be above 0 and below 1, e.g. 0.001, with loss_type='exo_pair'; got 0"),
        ("exo_pair", 1.0, "got 1"),
        ("sigmiod", 0.0, "loss_type must be one of sigmoid, robust, hinge, ipo, exo_pair; got 'sigmiod'"),
    ],
)
def test_smoothing_that_a_loss_does_not_have_is_refused(backend, loss_type, eps, message):
    arrays = [backend.asarray(x) for x in PAIRS]
    eps = backend.asarray(eps) if isinstance(eps, np.ndarray) else eps
    with pytest.raises(ValueError, match=message):
        dpo_loss(*arrays, loss_type=loss_type, label_smoothing=eps)


def test_values_of_tensors_are_checked_under_validate(backend):
    arrays = [backend.asarray(x) for x in PAIRS]
    eps = backend.asarray(np.where(MASK, 0.1, 0.6))
    with lsmooth.validate():
        dpo_loss(*arrays, label_smoothing=eps)
        with pytest.raises(ValueError, match=r"\[0, 1/2\) with loss_type='robust'; got 0.6"):
            dpo_loss(*arrays, label_smoothing=eps, loss_type="robust")
        with pytest.raises(ValueError, match=r"policy_rejected must hold no NaN, got nan at index \(0, 1\)"):
            dpo_loss(arrays[0], backend.asarray(np.where(MASK, PAIRS[1], np.nan)), *arrays[2:])
        dpo_loss(arrays[0], backend.asarray(np.where(MASK, PAIRS[1], np.nan)), *arrays[2:], mask=MASK)


def test_arguments_that_do_not_fit_are_named(backend):
    arrays = [backend.asarray(x) for x in PAIRS]
    short = backend.asarray(PAIRS[0][:2])
    with pytest.raises(ValueError, match=r"policy_rejected must have the shape of .*, \(3, 5\); got \(2, 5\)"):
        dpo_loss(arrays[0], short, *arrays[2:])
    with pytest.raises(ValueError, match=r"reference_chosen must have the shape of policy_chosen"):
        dpo_loss(*arrays[:2], short, arrays[3])
    with pytest.raises(ValueError, match=r"rejected must have the shape of chosen"):
        reward_loss(arrays[0], short)
    with pytest.raises(TypeError, match="policy_chosen must be floating point, got int"):
        dpo_loss(backend.asarray(np.ones((3, 5), np.int32)), *arrays[1:])
    for beta in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="beta must be a finite number above 0"):
            dpo_loss(*arrays, beta=beta)
    with pytest.raises(ValueError, match="margin must be a finite number"):
        reward_loss(*arrays[:2], margin=float("nan"))
    with pytest.raises(ValueError, match="margin must broadcast to the rows"):
        reward_loss(*arrays[:2], margin=backend.asarray(np.ones(4)))
    with pytest.raises(ValueError, match="reduction must be None or one of"):
        reward_loss(*arrays[:2], reduction="batchmean")
    with pytest.raises(TypeError, match="mask must be bool"):
        dpo_loss(*arrays, mask=backend.asarray(np.ones((3, 5))))
