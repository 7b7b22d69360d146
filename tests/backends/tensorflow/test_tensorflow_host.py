"""Small eager batches on TensorFlow: NumPy's losses and slopes are the formulas' and their derivatives."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth import losses  # noqa: E402
from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.options import SigmoidOptions, SoftmaxOptions  # noqa: E402
from lsmooth.backends.tensorflow import host  # noqa: E402

XP = load_backend("tensorflow")
RNG = np.random.default_rng(0)
Z = tf.constant(RNG.normal(size=(2, 3, 5)) * 3)
IDS = tf.constant(RNG.integers(0, 5, (2, 3)))
SOFT = tf.constant(RNG.dirichlet(np.ones(5), (2, 3)) * 1.5)
BINARY = tf.constant(RNG.random((2, 3, 5)))
COUNTED = tf.constant([[True, False, True], [True, True, False]])
ROWS = tf.constant(RNG.random((2, 3)))
CLASSES = tf.constant(RNG.random(5))
SOFTMAX = {
    "plain": {},
    "eps": {"label_smoothing": 0.1},
    "eps of rows": {"label_smoothing": ROWS, "total": True},
    "prior, weights": {"label_smoothing": 0.2, "prior": CLASSES, "class_weight": CLASSES},
    "temperature": {"temperature": 2.0, "label_smoothing": 0.1, "total": True},
    "temperature of rows": {"temperature": 1.0 + ROWS, "z_loss": 0.1},
    "z_loss": {"z_loss": 0.1, "counted": COUNTED},
    "counted": {"counted": COUNTED, "scale": ROWS, "total": True},
    "scale": {"scale": 0.25, "total": True, "label_smoothing": 0.1},
    "focal": {"gamma": 2.0},
    "focal below 1": {"gamma": 0.5, "class_weight": CLASSES, "label_smoothing": 0.1, "scale": ROWS},
}
SIGMOID = {
    "plain": {},
    "eps": {"label_smoothing": 0.1, "total": True},
    "pos_weight": {"pos_weight": CLASSES, "scale": 0.5},
    "counted": {"counted": BINARY > 0.5, "scale": BINARY, "total": True},
    "focal": {"gamma": 2.0, "alpha": 0.25},
    "focal below 1": {"gamma": 0.5, "label_smoothing": 0.1},
}


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def value_and_gradient(function, z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = function(z)
        weighted = tf.reduce_sum(value * tf.cast(tf.reshape(tf.range(1, tf.size(value) + 1), value.shape), value.dtype))
    return value.numpy(), tape.gradient(weighted, z).numpy()


def assert_is_the_formula(function, formula, z, labels, options):
    def of_formula(z):
        return formula(XP, z, labels, options)

    got = value_and_gradient(lambda z: host.loss_of(function, z, labels, options, of_formula), z)
    for ours, expected in zip(got, value_and_gradient(of_formula, z), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["ids", "distributions"])
@pytest.mark.parametrize("options", SOFTMAX.values(), ids=SOFTMAX)
def test_softmax_losses_and_gradients_match_the_formula(labels, options):
    assert_is_the_formula(host.softmax, formulas.softmax_cross_entropy, Z, labels, SoftmaxOptions(**options))


@pytest.mark.parametrize("options", SIGMOID.values(), ids=SIGMOID)
def test_sigmoid_losses_and_gradients_match_the_formula(options):
    assert_is_the_formula(host.sigmoid, formulas.sigmoid_cross_entropy, Z, BINARY, SigmoidOptions(**options))


@pytest.mark.parametrize("gap", [20.0, 300.0])
def test_the_focal_gradient_of_a_likely_class_is_exact(gap):
    z = tf.constant([[0.0, gap, 0.0]], tf.float64)
    _, slope = host.softmax(z.numpy(), np.array([1]), SoftmaxOptions(gamma=1.0))
    rest = 2 * np.exp(-gap)  # to first order: the loss is rest^2, and rest falls by as much as the logit rises
    np.testing.assert_allclose(slope[0, 1], -2 * rest**2, rtol=1e-7)


@pytest.mark.parametrize(
    ("z", "labels", "options"),
    [
        (Z, IDS + 4, {}),
        (Z, SOFT - 0.5, {}),
        (tf.where(Z > 2, tf.constant(-np.inf, Z.dtype), Z), IDS, {"label_smoothing": 0.1}),
        (Z, IDS, {"logit_softcap": 30.0}),
        (tf.zeros((2**10, 2**5)), tf.zeros(2**10, tf.int64), {}),
    ],
    ids=["no class", "no distribution", "masked class", "softcap", "large"],
)
def test_other_arguments_are_passed_to_the_kernels(z, labels, options):
    assert host.loss_of(host.softmax, z, labels, SoftmaxOptions(**options), lambda z: z) is None


def test_second_derivatives_match_the_formula():
    def gradient_of(loss):
        with tf.GradientTape() as outer:
            outer.watch(Z)
            with tf.GradientTape() as tape:
                tape.watch(Z)
                value = loss(Z)
            gradient = tape.gradient(value, Z)
            norm = tf.reduce_sum(gradient**2)
        return outer.gradient(norm, Z)

    options = SoftmaxOptions(label_smoothing=0.1, total=True)
    got = gradient_of(lambda z: XP.softmax_cross_entropy(z, IDS, options))
    expected = gradient_of(lambda z: formulas.softmax_cross_entropy(XP, z, IDS, options))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (0, 5), (2, 3, 5)])
def test_entries_and_their_gradients_are_picked_in_every_rank(shape):
    x, index = tf.random.normal(shape), tf.ones(shape[:-1], tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        picked = XP.pick(x, index)
    np.testing.assert_array_equal(picked, x.numpy()[..., 1])
    np.testing.assert_array_equal(tf.convert_to_tensor(tape.gradient(picked, x)), np.broadcast_to(np.eye(5)[1], shape))


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_calls_with_a_mask_are_computed_on_the_host(loss, monkeypatch):
    """The factors of rows are no functions of the logits that a tape watches."""

    def formula(*_):
        raise AssertionError("the formula")

    monkeypatch.setattr(type(XP), f"_{loss}", formula)
    labels, mask = (BINARY, BINARY > 0.5) if loss.startswith("sigmoid") else (SOFT, COUNTED)
    with tf.GradientTape() as tape:
        tape.watch(Z)
        value = getattr(losses, loss)(labels, Z, mask=mask)
    assert np.isfinite(tape.gradient(value, Z)).all()
