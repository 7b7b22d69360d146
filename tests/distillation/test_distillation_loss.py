"""Divergences between a teacher's and a student's logits."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import absolute, softmax
from conftest import assert_close, require_backend
from pair_parity import CALLS, LABELS, check_pair, in_dtype, kl, kl_of_logits, logits

import lsmooth
from lsmooth.backends.formulas.divergence import DIVERGENCES
from lsmooth.distillation import distillation_loss, standardized_distillation_loss


def jensen_shannon(beta=0.5):
    def rows(t, s):
        p, q = softmax(t), softmax(s)
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)

    return rows


def alpha_divergence(a=0.5):
    return lambda t, s: (1 - (softmax(t) ** a * softmax(s) ** (1 - a)).sum(-1)) / (a * (1 - a))


def cosine(t, s):
    return 1 - (t * s).sum(-1) / np.sqrt((t * t).sum(-1) * (s * s).sum(-1))


FORMULAS = {
    "forward_kl": kl_of_logits,
    "reverse_kl": lambda t, s: kl_of_logits(s, t),
    "jensen_shannon": jensen_shannon(),
    "total_variation": lambda t, s: absolute(softmax(t) - softmax(s)).sum(-1) / 2,
    "alpha": alpha_divergence(),
    "skewed_forward_kl": lambda t, s: kl(softmax(t), (softmax(t) + softmax(s)) / 2),
    "skewed_reverse_kl": lambda t, s: kl(softmax(s), (softmax(t) + softmax(s)) / 2),
    "cosine": cosine,
    "mse_logits": lambda t, s: ((t - s) ** 2).mean(-1),
}
TEACHER, STUDENT = logits(0), logits(1)


CAPS = {"logit_softcap": 3.0, "teacher_logit_softcap": 2.0, "logit_scale": 0.5, "teacher_logit_scale": 1.5}


def test_caps_and_scales_of_both_logits(backend):
    for options in ({}, {"divergence": "reverse_kl", "temperature": 2.0, "reduction": "none"}):
        formula = FORMULAS[options.get("divergence", "forward_kl")]
        temperature = options.get("temperature", 1.0)

        def capped(t, s, formula=formula, temperature=temperature):
            t, s = 2.0 * np.tanh(1.5 * t / 2.0), 3.0 * np.tanh(0.5 * s / 3.0)
            return formula(t / temperature, s / temperature) * temperature**2

        factor = 1.0 if options else 1.0 / len(TEACHER)
        check_pair(backend, distillation_loss, capped, TEACHER, STUDENT, factor=factor, **CAPS, **options)


@pytest.mark.parametrize("name", CAPS)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "a"])
def test_caps_and_scales_that_are_not_above_zero_are_refused(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        distillation_loss(TEACHER, STUDENT, **{name: value})


@pytest.mark.parametrize(("name", "forward"), [("skewed_forward_kl", True), ("skewed_reverse_kl", False)])
def test_the_skew_is_the_share_of_the_first_argument(backend, name, forward):
    def formula(t, s):
        p, q = (softmax(t), softmax(s)) if forward else (softmax(s), softmax(t))
        return kl(p, 0.1 * p + 0.9 * q)

    check_pair(backend, distillation_loss, formula, TEACHER, STUDENT, divergence=name, alpha=0.1, reduction="none")


def tempered(formula, temperature, squared=True):
    return lambda t, s: formula(t / temperature, s / temperature) * (temperature**2 if squared else 1)


def standardized(formula, temperature=1.0):
    def scaled(z):
        away = z - z.mean(-1, keepdims=True)
        return away / (away**2).mean(-1, keepdims=True) ** 0.5 / temperature

    return lambda t, s: formula(scaled(t), scaled(s)) * temperature**2


@pytest.mark.parametrize("divergence", FORMULAS)
def test_every_divergence_has_its_formula_here(divergence):
    assert set(FORMULAS) == set(DIVERGENCES)
    assert divergence in distillation_loss.__doc__


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("divergence", FORMULAS)
def test_values_and_gradients_equal_the_formula(backend, divergence, options, factor):
    formula = tempered(FORMULAS[divergence], 2.0)
    check_pair(
        backend,
        distillation_loss,
        formula,
        TEACHER,
        STUDENT,
        factor=factor,
        divergence=divergence,
        temperature=2.0,
        **options,
    )


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (tempered(kl_of_logits, 3.0, squared=False), {"temperature": 3.0, "scale_by_temperature_squared": False}),
        (jensen_shannon(0.1), {"divergence": "jensen_shannon", "beta": 0.1}),
        (jensen_shannon(0.9), {"divergence": "jensen_shannon", "beta": 0.9}),
        (alpha_divergence(0.1), {"divergence": "alpha", "alpha": 0.1}),
        (alpha_divergence(0.8), {"divergence": "alpha", "alpha": 0.8}),
    ],
)
def test_options(backend, formula, options):
    check_pair(backend, distillation_loss, formula, TEACHER, STUDENT, reduction="none", **options)


def test_each_row_may_have_its_temperature(backend):
    temperature = np.linspace(0.5, 4.0, 5)
    expected = [tempered(kl_of_logits, x)(t, s) for x, t, s in zip(temperature, TEACHER, STUDENT, strict=True)]
    value = distillation_loss(
        backend.asarray(TEACHER), backend.asarray(STUDENT), temperature=backend.asarray(temperature), reduction="none"
    )
    assert_close(backend, value, expected, "float64", 10)


def test_the_gradient_of_the_forward_kl_is_that_of_hinton(differentiable_backend):
    xp = differentiable_backend
    _, slope = xp.value_and_grad(
        lambda s: distillation_loss(TEACHER, s, temperature=4.0, reduction="sum"), xp.asarray(STUDENT)
    )
    assert_close(xp, slope, 4.0 * (softmax(STUDENT / 4.0) - softmax(TEACHER / 4.0)), "float64", 10)


@pytest.mark.parametrize("divergence", FORMULAS)
def test_the_teacher_gets_no_gradient_unless_asked(differentiable_backend, divergence):
    xp, s = differentiable_backend, differentiable_backend.asarray(STUDENT)

    def loss(t):
        return distillation_loss(t, s, divergence=divergence) + 0.0 * xp.sum(t)

    assert (xp.to_numpy(xp.value_and_grad(loss, xp.asarray(TEACHER))[1]) == 0).all()


@pytest.mark.parametrize("divergence", FORMULAS)
def test_equal_logits_have_zero_loss(backend, divergence):
    z = backend.asarray(np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4], [5.0, -np.inf, 5.0]]))
    rows = backend.to_numpy(distillation_loss(z, z, divergence=divergence, reduction="none"))
    np.testing.assert_allclose(rows, 0.0, atol=1e-14)


@pytest.mark.parametrize("loss", [distillation_loss, standardized_distillation_loss])
@pytest.mark.parametrize("divergence", FORMULAS)
def test_classes_masked_by_both_match_removed_classes(backend, divergence, loss):
    wide = [np.insert(z, 2, -np.inf, axis=1) for z in (TEACHER, STUDENT)]
    expected = backend.to_numpy(loss(backend.asarray(TEACHER), backend.asarray(STUDENT), divergence=divergence))
    t, s = (backend.asarray(z) for z in wide)
    assert_close(backend, loss(t, s, divergence=divergence), expected, "float64")
    if backend.name != "numpy":
        _, slope = backend.value_and_grad(lambda x: loss(t, x, divergence=divergence), s)
        _, narrow = backend.value_and_grad(
            lambda x: loss(backend.asarray(TEACHER), x, divergence=divergence), backend.asarray(STUDENT)
        )
        assert_close(backend, slope, np.insert(backend.to_numpy(narrow), 2, 0.0, axis=1), "float64")


@pytest.mark.parametrize(
    ("divergence", "masked_by_teacher", "masked_by_student"),
    [
        ("forward_kl", np.log(2), np.inf),
        ("reverse_kl", np.inf, np.log(2)),
        ("total_variation", 0.5, 0.5),
        # (1, 0) and (1/2, 1/2), m = (3/4, 1/4)
        ("jensen_shannon", *[0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * np.log(2)] * 2),
        ("alpha", 4 * (1 - 0.5**0.5), 4 * (1 - 0.5**0.5)),
    ],
)
def test_classes_masked_by_one_match_the_formula(backend, divergence, masked_by_teacher, masked_by_student):
    one, two = backend.asarray(np.array([[0.0, -np.inf]])), backend.asarray(np.array([[0.0, 0.0]]))
    for t, s, expected in ((one, two, masked_by_teacher), (two, one, masked_by_student)):
        value = float(backend.to_numpy(distillation_loss(t, s, divergence=divergence)))
        assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("divergence", FORMULAS)
def test_far_logits_give_exact_losses(differentiable_backend, divergence, dtype):
    xp = differentiable_backend
    t = in_dtype(xp, np.array([[9984.0, 9920.0, -1e4], [1e4, 0.0, -1e4]]), dtype)
    s = in_dtype(xp, np.array([[9920.0, 9984.0, -1e4], [-1e4, 1e4, 0.0]]), dtype)
    value, slope = xp.value_and_grad(lambda x: distillation_loss(t, x, divergence=divergence, reduction="sum"), s)
    assert np.isfinite(xp.to_numpy(slope)).all()
    exact = [xp.to_numpy(z).astype(np.float64) for z in (t, s)]
    p, q = (softmax(z) for z in exact)
    if divergence in ("forward_kl", "reverse_kl"):
        # exp underflows here, its logarithm does not
        log_p, log_q = (
            z - z.max(-1, keepdims=True) - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))
            for z in exact
        )
        p, log_p, log_q = (p, log_p, log_q) if divergence == "forward_kl" else (q, log_q, log_p)
        expected = (p * (log_p - log_q)).sum()
    elif divergence == "total_variation":
        expected = np.abs(p - q).sum() / 2
    elif divergence in ("jensen_shannon", "skewed_forward_kl", "skewed_reverse_kl"):
        expected = 2 * np.log(2)
    elif divergence == "cosine":
        expected = cosine(*exact).sum()
    elif divergence == "alpha":
        expected = (4 * (1 - np.sqrt(p * q).sum(-1))).sum()
    else:
        expected = ((exact[0] - exact[1]) ** 2).mean(-1).sum()
    assert float(xp.to_numpy(value)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("divergence", FORMULAS)
def test_half_precision_is_reduced_in_single(backend, divergence, dtype):
    t, s = in_dtype(backend, TEACHER, dtype), in_dtype(backend, STUDENT, dtype)
    exact = distillation_loss(
        backend.to_numpy(t).astype(np.float64), backend.to_numpy(s).astype(np.float64), divergence=divergence
    )
    value = distillation_loss(t, s, divergence=divergence)
    assert backend.dtype(value) == "float32"
    assert_close(backend, value, exact, "float32")
    if backend.name != "numpy":
        _, slope = backend.value_and_grad(lambda x: distillation_loss(t, x, divergence=divergence), s)
        assert backend.dtype(slope) == dtype


@pytest.mark.parametrize("loss", [distillation_loss, standardized_distillation_loss])
def test_masked_rows_may_hold_any_values(backend, loss):
    z, kept = STUDENT.copy(), LABELS != 1
    z[~kept] = [np.nan, np.inf, 0.0, -np.inf]
    expected = backend.to_numpy(loss(backend.asarray(TEACHER[kept]), backend.asarray(z[kept])))
    t, s = backend.asarray(TEACHER), backend.asarray(z)
    for options in (
        {"mask": kept},
        {"labels": LABELS, "ignore_index": 1},
        {"labels": LABELS, "ignore_index": 1, "mask": kept},
    ):
        assert_close(backend, loss(t, s, **options), expected, "float64")
        if backend.name != "numpy":
            slope = backend.to_numpy(backend.value_and_grad(lambda x, o=options: loss(t, x, **o), s)[1])
            assert (slope[~kept] == 0).all()
            assert np.isfinite(slope).all()
    assert float(backend.to_numpy(loss(t, s, mask=np.zeros(5, bool)))) == 0.0


@pytest.mark.parametrize("loss", [distillation_loss, standardized_distillation_loss])
def test_classes_lie_along_any_axis(backend, loss):
    t, s = logits(2, shape=(2, 3, 4)), logits(3, shape=(2, 3, 4))
    expected = backend.to_numpy(loss(backend.asarray(t), backend.asarray(s), temperature=2.0, reduction="none"))
    t, s = (backend.asarray(np.moveaxis(z, -1, 1)) for z in (t, s))
    assert_close(backend, loss(t, s, temperature=2.0, axis=1, reduction="none"), expected, "float64")


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_standardized_logits(backend, divergence):
    formula = standardized(FORMULAS[divergence], 2.0)
    options = {"temperature": 2.0, "divergence": divergence, "reduction": "none"}
    check_pair(backend, standardized_distillation_loss, formula, TEACHER, STUDENT, **options)


def test_standardization_ignores_the_scale_of_the_student(backend):
    value = standardized_distillation_loss(
        backend.asarray(TEACHER), backend.asarray(3.0 * TEACHER - 7.0), temperature=4.0
    )
    assert float(backend.to_numpy(value)) == pytest.approx(0.0, abs=1e-12)


def test_logits_without_spread_standardize_to_zero(differentiable_backend):
    xp = differentiable_backend
    value, slope = xp.value_and_grad(
        lambda s: standardized_distillation_loss(TEACHER[:1], s), xp.asarray(np.full((1, 4), 3.0))
    )
    assert np.isfinite(xp.to_numpy(value))
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_second_derivatives_match_the_softmax(differentiable_backend):
    xp = differentiable_backend
    v = np.random.default_rng(5).normal(size=STUDENT.shape)
    p = softmax(STUDENT / 2.0)
    expected = p * v - p * (p * v).sum(-1, keepdims=True)  # T^2 / T^2 times the Hessian of lse

    def slope_along_v(s):
        if xp.name == "jax":
            import jax

            g = jax.grad(lambda x: distillation_loss(TEACHER, x, temperature=2.0, reduction="sum"))(s)
        elif xp.name == "torch":
            import torch

            total = distillation_loss(TEACHER, s, temperature=2.0, reduction="sum")
            (g,) = torch.autograd.grad(total, s, create_graph=True)
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(s)
                total = distillation_loss(TEACHER, s, temperature=2.0, reduction="sum")
            g = tape.gradient(total, s)
        return xp.sum(g * xp.asarray(v))

    _, second = xp.value_and_grad(slope_along_v, xp.asarray(STUDENT))
    assert_close(xp, second, expected, "float64", 10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature must be a finite number above 0, got 0"),
        ({"divergence": "kl"}, ValueError, "divergence must be one of forward_kl, reverse_kl, .*; got 'kl'"),
        (
            {"divergence": "jensen_shannon", "beta": 0.0},
            ValueError,
            r"beta must be in \(0, 1\), got 0\.0; .*'forward_kl'",
        ),
        ({"divergence": "alpha", "alpha": 1}, ValueError, r"alpha must be in \(0, 1\), got 1; .*'reverse_kl'"),
        ({"reduction": "batchmean"}, ValueError, "reduction must be None or one of"),
        ({"ignore_index": 0}, ValueError, "ignore_index needs labels"),
        ({"labels": [0, 1], "ignore_index": 0}, ValueError, r"labels must have the rows' shape \(5,\), got \(2,\)"),
        ({"labels": np.ones(5), "ignore_index": 0}, TypeError, "labels must be integer class ids, got float64"),
        ({"mask": np.ones(5)}, TypeError, "mask must be bool"),
        ({"mask": np.ones(4, bool)}, ValueError, "mask must have the shape of the rows"),
        ({"sample_weight": np.ones(4)}, ValueError, "sample_weight must be a scalar or have shape"),
        ({"axis": 2}, ValueError, "axis must be an integer"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        distillation_loss(TEACHER, STUDENT, **options)


def test_bad_logits_are_named():
    with pytest.raises(ValueError, match=r"teacher_logits must fit student_logits of shape \(5, 4\); got \(5, 3\)"):
        distillation_loss(TEACHER[:, :3], STUDENT)
    with pytest.raises(TypeError, match="student_logits must be floating point, got int64"):
        distillation_loss(TEACHER, np.ones((5, 4), np.int64))
    with lsmooth.validate(), pytest.raises(ValueError, match="teacher_logits must hold no NaN"):
        distillation_loss(np.full((5, 4), np.nan), STUDENT)


@pytest.mark.parametrize("divergence", FORMULAS)
def test_jax_traces_it(divergence):
    xp = require_backend("jax")
    import jax

    t, s = xp.asarray(TEACHER), xp.asarray(STUDENT)
    expected = np.asarray(distillation_loss(t, s, temperature=2.0, divergence=divergence, reduction="none"))
    traced = jax.jit(lambda a, b, x: distillation_loss(a, b, temperature=x, divergence=divergence, reduction="none"))
    np.testing.assert_allclose(traced(t, s, 2.0), expected, rtol=1e-10)
    mapped = jax.vmap(lambda a, b: distillation_loss(a, b, temperature=2.0, divergence=divergence))
    np.testing.assert_allclose(mapped(t, s), expected, rtol=1e-10)


@pytest.mark.parametrize("divergence", FORMULAS)
def test_tensorflow_traces_it_for_any_batch(divergence):
    require_backend("tensorflow")
    import tensorflow as tf

    spec = tf.TensorSpec([None, None], tf.float64)
    traced = tf.function(lambda a, b: distillation_loss(a, b, divergence=divergence), input_signature=[spec, spec])
    expected = distillation_loss(TEACHER, STUDENT, divergence=divergence)
    np.testing.assert_allclose(traced(tf.constant(TEACHER), tf.constant(STUDENT)), expected, rtol=1e-10)


@pytest.mark.parametrize("divergence", FORMULAS)
def test_torch_compiles_without_graph_breaks(divergence):
    require_backend("torch")
    import torch

    t, s = torch.from_numpy(TEACHER), torch.from_numpy(STUDENT)
    torch.compiler.reset()
    expected = distillation_loss(t, s, temperature=2.0, divergence=divergence)
    compiled = torch.compile(
        lambda a, b: distillation_loss(a, b, temperature=2.0, divergence=divergence), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(compiled(t, s), expected)


def test_torch_kl_div_agrees():
    require_backend("torch")
    import torch
    from torch.nn.functional import kl_div, log_softmax

    t, s = torch.from_numpy(TEACHER), torch.from_numpy(STUDENT)
    peer = kl_div(log_softmax(s / 3, -1), torch.softmax(t / 3, -1), reduction="batchmean") * 9
    torch.testing.assert_close(distillation_loss(t, s, temperature=3.0), peer, rtol=1e-12, atol=0)


def test_optax_agrees():
    xp = require_backend("jax")
    optax = pytest.importorskip("optax", reason="the peer is optax")
    import jax

    t, s = xp.asarray(TEACHER), xp.asarray(STUDENT)
    log_t, log_s = jax.nn.log_softmax(t), jax.nn.log_softmax(s)
    for peer in (
        optax.losses.kl_divergence(log_s, jax.nn.softmax(t)),
        optax.losses.kl_divergence_with_log_targets(log_s, log_t),
        optax.losses.generalized_kl_divergence(log_s, jax.nn.softmax(t)),
    ):
        assert_close(xp, distillation_loss(t, s, reduction="none"), np.asarray(peer), "float64", 10)


def test_a_common_offset_loses_no_precision(backend):
    t, s = np.array([[1e4, 9999.0]]), np.array([[0.0, 0.5]])
    value = distillation_loss(backend.asarray(t, "float32"), backend.asarray(s, "float32"))
    assert_close(backend, value, kl_of_logits(t, s)[0], "float32")
